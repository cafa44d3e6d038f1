# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster at rest says nothing, and its watchdog costs next to nothing."""

from __future__ import annotations

from conftest import NODES
from figures import Figures
from remote import Operator
from waiting import wait_until

SECONDS = 20
# processor time in seconds, and resident memory in MB
COST = """
import json, os, sys
pid = sys.argv[1]
fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
resident = next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS:"))
print(json.dumps([(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), resident / 1000]))
"""


def test_no_log_lines_and_a_cheap_watchdog(operator: Operator, figures: Figures) -> None:
    # tests before have ended engines, whose hearts count as stopped 30 s later
    recent = "journalctl --since=-35s --quiet --output=cat --unit='ipyparallel*'"
    wait_until(lambda: not any(operator.shells(NODES, recent).values()), 90, "a cluster at rest")
    pid = str(operator.pids("ipyparallel", ["node1"])["node1"]["health"])
    before, _memory = operator.python("node1", COST, pid)
    # what others logged before is not followed; timeout ends each with status 124
    follow = f"timeout {SECONDS} journalctl --follow --lines=0 --output=cat --unit='ipyparallel*'"
    said = operator.shells(NODES, follow)
    after, memory = operator.python("node1", COST, pid)
    lines = [f"{node}: {line}" for node, text in said.items() for line in text.splitlines()]
    figures.keep(f"log lines of an idle cluster in {SECONDS} s", len(lines), "", 2)
    assert len(lines) <= 2, lines
    # to the cluster's disadvantage: the two looks are a little further apart than that
    figures.keep("watchdog, of a core", 100 * (after - before) / SECONDS, "%", 1)
    figures.add("watchdog's memory", memory, "MB", 80)
    assert 100 * (after - before) / SECONDS <= 1
