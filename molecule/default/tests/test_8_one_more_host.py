# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stranger becomes an engine host: only it is touched, and the two things that have to know of it."""

from __future__ import annotations

from typing import Any

from conftest import BASE, EVERY, NODES, scan
from figures import Figures
from remote import DOCUMENTED, Operator

# These only look.
READ_ONLY = {"setup", "cluster_info", "connector_info", "process_info", "preflight", "reach", "compare_hosts"}


def could_change(tasks: list[dict[str, Any]]) -> list[str]:
    return [row["task"] for row in tasks if row["module"] not in READ_ONLY]


def test_one_more_host(operator: Operator, figures: Figures, address: str, more: list[str]) -> None:
    before = operator.pids("ipyparallel", NODES)
    operator.client("c[:].execute('kept = 42', block=True)\nprint(0)")
    run = operator.ok("site", *more, "--limit", "node4")
    assert [node for node in NODES[1:] if node in run.tasks] == []
    assert len(could_change(run.tasks["node4"])) > 2
    figures.keep("one more host: time", run.seconds, "s", 60)
    figures.add("one more host: tasks on old engine hosts", sum(len(run.tasks.get(n, [])) for n in NODES[1:]), "", 0)
    tasks = could_change(run.tasks["node1"])
    figures.add("one more host: tasks that could change the controller host", len(tasks), "", 3)
    assert operator.pids("ipyparallel", NODES) == before

    found = operator.client("print(json.dumps(sorted(c[:].apply_sync(lambda: globals().get('kept', 'new')), key=str)))")
    assert found == [42] * 5 + ["new"] * 2
    assert len(operator.status()["engines"]) == 7
    assert not operator.status(*more)["problem"]
    ports = [*range(BASE, BASE + 20)]
    assert scan(operator, "node4", address, ports) == {BASE + number for number in DOCUMENTED["engine"]}


def test_a_run_over_all_finds_nothing_left_to_do(operator: Operator, more: list[str]) -> None:
    before = operator.pids("ipyparallel", EVERY)
    run = operator.ok("site", *more)
    assert run.changed == dict.fromkeys(EVERY, 0)
    assert operator.pids("ipyparallel", EVERY) == before


def test_stopped_and_started(operator: Operator, more: list[str]) -> None:
    before = operator.pids("ipyparallel", EVERY)
    operator.ok("stop", *more)
    assert {node: {*units} - {"firewall"} for node, units in operator.pids("ipyparallel", EVERY).items()} == {
        node: set() for node in EVERY
    }
    look = "ss --no-header --tcp --udp --listening --numeric | grep -v ':22 '; pgrep -u ipyparallel"
    said = operator.shells(EVERY, look)
    assert said == dict.fromkeys(EVERY, "")
    operator.ok("start", *more)
    after = operator.pids("ipyparallel", EVERY)
    assert {node: {*units} for node, units in after.items()} == {node: {*units} for node, units in before.items()}
    assert operator.client("print(json.dumps(c[:].apply_sync(lambda: 6 * 7)))") == [42] * 7
