# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be done is refused with its name and the remedy, before anything is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from remote import Operator
from waiting import wait_until

STATE = "/var/lib/ipyparallel/ipyparallel/cluster.json"


@pytest.mark.parametrize(
    ("playbook", "variables", "names"),
    [
        ("remove_engines", {"ipyparallel_remove_hosts": "node9"}, ["no engine host node9", "node1, node2, node3"]),
        ("remove_engines", {"ipyparallel_remove_hosts": "node1"}, ["node1 is the controller's host"]),
        ("remove_engines", {"ipyparallel_remove_pools": "nope"}, ["no pool nope", "it has default"]),
        ("remove_engines", {"ipyparallel_remove_ids": [9999]}, ["no engine 9999"]),
        ("remove_engines", {}, ["name hosts, pools or ids"]),
        ("scale", {"ipyparallel_scale_pool": "nope", "ipyparallel_scale_count": 1}, ["no pool nope"]),
        ("scale", {"ipyparallel_scale_count": -1}, ["-1 is not a number of engines"]),
        ("restart_engines", {"ipyparallel_restart_pools": "nope"}, ["no pool nope"]),
        ("add_engines", {"ipyparallel_add_hosts": "node4"}, ["node4 is no engine host of the inventory"]),
        ("stop_workers", {"ipyparallel_workers_ids": [9999]}, ["no launched worker 9999"]),
        ("launch_workers", {"ipyparallel_workers": 0}, ["0 is not a number of workers"]),
        (
            "launch_workers",
            {"ipyparallel_workers": 1, "ipyparallel_workers_size": {"memory": "64M"}},
            ["64M", "less than one engine needs"],
        ),
        (
            "launch_workers",
            {"ipyparallel_workers": 1, "ipyparallel_workers_script": "/nowhere/start.py"},
            ["cannot read /nowhere/start.py"],
        ),
        ("execute", {"ipyparallel_execute_code": "a = = 1"}, ["line 1 does not compile", "nothing was sent"]),
    ],
)
def test_bad_input(operator: Operator, playbook: str, variables: dict[str, Any], names: list[str]) -> None:
    before = operator.shell("node1", f"cat {STATE}")
    said = operator.refused(playbook, "-e", json.dumps(variables))
    assert [part for part in names if part not in said] == []
    assert operator.shell("node1", f"cat {STATE}") == before


@pytest.mark.parametrize(
    ("limit", "playbooks", "names"),
    [
        ("node2", ["status", "list_workers", "verify", "scale"], ["controller host node1", "add it to --limit"]),
        ("node1", ["scale", "stop_workers"], ["node2, node3: left out of this run", "Nothing was changed"]),
    ],
)
def test_a_run_without_a_host_that_it_needs_is_refused(
    operator: Operator, limit: str, playbooks: list[str], names: list[str]
) -> None:
    for playbook in playbooks:
        said = operator.refused(playbook, "--limit", limit, "-e", "ipyparallel_scale_count=1")
        assert [part for part in names if part not in said] == []


def test_more_engines_than_the_memory_is_for_are_warned_of_with_figures(operator: Operator) -> None:
    run = operator.ok("scale", "--check", "-e", "ipyparallel_scale_count=5000", "-e", "ipyparallel_scale_hosts=node2")
    said = " ".join((run.stdout + run.stderr).split())
    assert "5000 engines on node2 need at least 366.2 GiB of memory, and it has" in said


def test_a_start_up_that_fails_is_shown_with_its_traceback_and_is_not_ready(operator: Operator) -> None:
    variables = {
        "ipyparallel_workers": 1,
        "ipyparallel_workers_code": "def f():\n    return 1 / 0\nf()",
        "ipyparallel_engines_wait": 10,
    }
    run = operator.play("launch_workers", "-e", json.dumps(variables))
    assert run.status != 0
    for part in ("missing: node1 workers/0", "line 2, in f", "ZeroDivisionError: division by zero"):
        assert part in run.said
    assert "engines are missing" in operator.status()["problem"]
    operator.ok("stop_workers")
    assert not operator.status()["problem"]


def test_after_the_time_limit_it_says_which_engine_does_what_and_ends_nothing(operator: Operator) -> None:
    hold = """
v = c.load_balanced_view()
r = [v.apply_async(__import__("time").sleep, 25) for _ in c.ids]
while sum(one["tasks"] for key, one in c.queue_status().items() if isinstance(key, int)) < len(c.ids):
    __import__("time").sleep(0.05)
print(json.dumps("held"), flush=True)
"""
    before = operator.pids("ipyparallel", ["node2"])
    assert operator.client(hold) == "held"
    said = operator.refused(
        "scale",
        "-e",
        "ipyparallel_scale_count=0",
        "-e",
        "ipyparallel_scale_hosts=node2",
        "-e",
        "ipyparallel_drain_limit=1",
    )
    for part in (
        "after 1 s engine",
        "(node2 default/0) has task",
        "None of these engines was ended",
        "ipyparallel_force=true",
    ):
        assert part in said
    assert operator.pids("ipyparallel", ["node2"]) == before
    idle = "print(json.dumps(sum(one['tasks'] for key, one in c.queue_status().items() if isinstance(key, int))))"
    wait_until(lambda: operator.client(idle) == 0, 60, "the engines are free")


def test_a_second_operator_is_told_who_is_at_work_and_may_take_over(operator: Operator) -> None:
    state = json.loads(operator.shell("node1", f"cat {STATE}"))
    now = int(operator.shell("node1", "date +%s"))
    state["lease"] = {"holder": "bob@desk", "run": 7, "since": now - 60, "renewed": now - 5, "phase": "scale"}
    operator.shell("node1", f"cat > {STATE}", account="ipyparallel", data=json.dumps(state))
    for playbook, variables in (
        ("deploy", []),
        ("scale", ["-e", "ipyparallel_scale_count=1"]),
        ("restart_engines", []),
        ("add_engines", []),
    ):
        said = operator.refused(playbook, *variables)
        assert "bob@desk is at work on this cluster since" in said
        assert "ipyparallel_takeover=true" in said
    operator.ok("deploy", "--check")
    operator.ok("deploy", "-e", "ipyparallel_takeover=true")
    assert json.loads(operator.shell("node1", f"cat {STATE}"))["lease"] == {}
    operator.ok("deploy")
