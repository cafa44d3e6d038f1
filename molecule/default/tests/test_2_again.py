# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is not to change does not, and that is found out fast."""

from __future__ import annotations

from conftest import NODES
from figures import Figures
from remote import Operator


def test_again_changes_and_restarts_nothing(operator: Operator, figures: Figures) -> None:
    before = operator.pids("ipyparallel", NODES)
    assert all(before.values())
    assert operator.ok("site").changed == dict.fromkeys(NODES, 0)
    run = operator.ok("deploy")
    assert run.changed == dict.fromkeys(NODES, 0)
    assert operator.pids("ipyparallel", NODES) == before
    counts = [len(run.tasks[node]) for node in NODES[1:]]
    assert min(counts) > 2, run.tasks
    figures.add("deploy again: tasks on an engine host", max(counts), "", 20)
    figures.keep("deploy again: tasks on the controller host", len(run.tasks["node1"]), "", 30)
    figures.watch("deploy again, nothing to do", run.seconds, 15)


def test_a_check_of_a_finished_cluster_finds_nothing_to_change(operator: Operator) -> None:
    run = operator.ok("site", "--check", "--diff")
    assert run.changed == dict.fromkeys(NODES, 0)
