# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import overview, summed, why_not


def engine(number, host, core, state="idle", pool="default", pid=0):
    return {"id": number, "host": host, "pool": pool, "core": core, "pid": pid or 100 + number, "state": state}


CLUSTER = {
    "deployed": True,
    "running": True,
    "problem": "",
    "controller": {"host": "node1", "address": "10.0.0.5", "ports": {}},
    "engines": [engine(0, "node1", 0), engine(1, "node2", 0, "busy"), engine(2, "node2", 1, "busy", "gpu")],
    "expected": 4,
    "expected_by_host": {"node1": {"default": 1}, "node2": {"default": 2, "gpu": 1}},
}
FACTS = {
    "cores": 2,
    "load_average": [0.5, 0.4, 0.3],
    "memory_total_bytes": 100,
    "memory_available_bytes": 60,
    "memory_used_bytes": 40,
    "uptime_seconds": 7200,
    "certificate_days": 824.1,
}


def process(name, pid, seconds):
    return {"name": name, "pid": pid, "uptime_seconds": seconds, "memory_bytes": 5}


NODE1 = {**FACTS, "processes": [process("controller", 9, 3600), process("engines-default-0", 100, 60)]}
NODE2 = {**FACTS, "certificate_days": None, "processes": [process("engines-default-0", 77, 60)]}
HOSTS = {
    "node1": {"roles": ["controller", "engines", "notebook"], "found": {"host": NODE1}},
    "node2": {"roles": ["engines"], "found": {"host": NODE2, "problem": ""}},
}


def test_a_whole_cluster():
    found = overview("alpha", "node1", {"cluster": CLUSTER, "host": NODE1}, HOSTS)
    assert found["name"] == "alpha"
    assert found["controller"]["uptime_seconds"] == 3600
    assert found["hosts"]["node1"] == {
        "roles": ["controller", "engines", "notebook"],
        "reachable": True,
        "problem": "",
        "engines": {"default": {"expected": 1, "registered": 1, "busy": 0}},
        **NODE1,
    }
    assert found["hosts"]["node2"]["engines"] == {
        "default": {"expected": 2, "registered": 1, "busy": 1},
        "gpu": {"expected": 1, "registered": 1, "busy": 1},
    }
    assert found["pools"] == {
        "default": {"expected": 3, "registered": 2, "busy": 1},
        "gpu": {"expected": 1, "registered": 1, "busy": 1},
    }
    # that of process 77 is another engine than the one that is registered
    assert [one["uptime_seconds"] for one in found["engines"]] == [60, None, None]
    assert [one["memory_bytes"] for one in found["engines"]] == [5, None, None]


def test_a_host_without_an_answer_is_no_reason_not_to_tell_of_the_others():
    away = {"host": None, "problem": "unreachable: no answer in 2 s"}
    hosts = {**HOSTS, "node2": {"roles": ["engines"], "found": away}, "node3": {"roles": ["engines"], "found": {}}}
    found = overview("alpha", "node1", {"cluster": CLUSTER, "host": NODE1}, hosts)["hosts"]
    assert (found["node2"]["reachable"], found["node2"]["problem"]) == (False, "unreachable: no answer in 2 s")
    assert (found["node2"]["memory_used_bytes"], found["node2"]["processes"]) == (None, [])
    assert found["node2"]["engines"]["default"]["registered"] == 1
    # a run with --limit does not ask all
    assert (found["node3"]["reachable"], found["node3"]["problem"], found["node3"]["engines"]) == (None, "", {})


def test_when_the_hub_is_down_nothing_is_known_of_engines():
    down = {**CLUSTER, "running": False, "engines": [], "problem": "the hub is down"}
    found = overview("alpha", "node1", {"cluster": down, "host": NODE1}, HOSTS)
    assert found["hosts"]["node1"]["engines"] == {"default": {"expected": 1, "registered": None, "busy": None}}
    assert found["pools"]["default"] == {"expected": 3, "registered": None, "busy": None}
    assert found["hosts"]["node1"]["uptime_seconds"] == 7200


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            {"unreachable": True, "msg": "Task failed: Failed to connect to the host via ssh: no route"},
            "unreachable: no route",
        ),
        ({"failed": True, "msg": "cannot read the state"}, "cannot read the state"),
        ({"skipped": True}, "it was not asked"),
        ({}, "it was not asked"),
    ],
)
def test_without_the_controller_host(result, words):
    found = overview("alpha", "node1", result, {**HOSTS, "node1": {"roles": ["controller"], "found": result}})
    assert found["problem"] == f"controller host node1: {words}"
    assert (found["running"], found["deployed"], found["engines"]) == (False, None, [])
    assert found["hosts"]["node2"]["reachable"] is True
    assert not found["hosts"]["node1"]["reachable"]
    assert (found["hosts"]["node2"]["engines"], found["pools"]) == (None, {})


def test_a_host_that_is_not_in_the_inventory_any_more_is_shown():
    hosts = {"node1": HOSTS["node1"]}
    found = overview("alpha", "node1", {"cluster": CLUSTER, "host": NODE1}, hosts)["hosts"]
    assert list(found) == ["node1", "node2"]
    assert (found["node2"]["roles"], found["node2"]["reachable"]) == ([], None)


def test_engines_that_others_started_are_of_no_host():
    foreign = {**engine(7, None, None, pool=None), "pid": None}
    cluster = {**CLUSTER, "engines": [foreign]}
    found = overview("alpha", "node1", {"cluster": cluster, "host": NODE1}, HOSTS)
    assert list(found["hosts"]) == ["node1", "node2"]
    assert found["engines"] == [{**foreign, "uptime_seconds": None, "memory_bytes": None}]


def test_reasons_are_one_line():
    said = "Failed to connect to the host via ssh: debug1: trying\nssh: connect to x: No route to host"
    assert why_not({"unreachable": True, "msg": said}) == "unreachable: ssh: connect to x: No route to host"
    assert why_not({"unreachable": True, "msg": ""}) == "unreachable: no reason is known"
    assert why_not({"host": {}}) == ""


def test_a_sum_with_an_unknown_part_is_unknown():
    assert summed([{"expected": 1, "registered": None, "busy": 0}, {"expected": 2, "registered": 2, "busy": 1}]) == {
        "expected": 3,
        "registered": None,
        "busy": 1,
    }
