# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import copy

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import changes
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, as_count, expected_engines
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import remember
from hypothesis import given
from hypothesis import strategies as st

WORKERS = {"hosts": {"node2": 1, "node3": [1]}, "environment": {}, "cpus": 1.0, "memory": 2**30, "code": "x = 1"}


def state_of(engines=None, **parts):
    engines = {f"node{n}": {"default": 2} for n in (1, 2, 3)} if engines is None else engines
    empty = {"notebooks": {}, "pools": {}, "scaled": {}, "packages": [], "lease": {}}
    return {"engines": engines, "defined": copy.deepcopy(engines), **empty, **parts}


def with_workers():
    state = state_of(pools={"workers": copy.deepcopy(WORKERS)})
    state["engines"]["node2"]["workers"] = 1
    state["engines"]["node3"]["workers"] = [1]
    return state


def registered(state):
    return [
        {"id": number, "uuid": f"u{number}", "pid": 1, **one.__dict__}
        for number, one in enumerate(sorted(expected_engines(state["engines"])))
    ]


def pools(count):
    return [{"name": "default", "count": count, "environment": {}, "cpus": None, "memory": None, "code": ""}]


def scale(state, *arguments, **options):
    return changes.scale(state, registered(state), *arguments, **options)


def launch(state, *arguments, **options):
    return changes.launch(state, registered(state), *arguments, **options)


def laid_down(change, count):
    """Return what is remembered when a change of the default pool is laid down, by an inventory with this count."""
    there = {host: {"default": count} for host in change.state["engines"]}
    engines = {
        host: {"default": as_count(changes.effective(host, pools(count), change.state)[0]["instances"])}
        for host in there
    }
    return remember(changes.outdated(change.state, there), engines=engines, defined=copy.deepcopy(there))


def instances(host, count, state):
    return {pool["name"]: (pool["instances"], pool["defined"]) for pool in changes.effective(host, pools(count), state)}


# ---- what a deployment makes of it


def test_without_a_change_pools_are_as_defined():
    assert instances("node1", 2, {}) == {"default": ([0, 1], 2)}
    assert instances("node1", 2, state_of()) == {"default": ([0, 1], 2)}


def test_a_scaled_count_holds_until_the_inventory_says_another():
    after = laid_down(scale(state_of(), "default", 1), 2)
    assert instances("node1", 2, after) == {"default": ([0], 2)}
    assert instances("node1", 4, after) == {"default": ([0, 1, 2, 3], 4)}
    assert changes.outdated(after, {"node1": {"default": 2}, "node2": {"default": 4}})["scaled"] == {
        "node1": {"default": [0]},
        "node3": {"default": [0]},
    }


def test_launched_pools_are_there_unless_the_inventory_defines_them():
    state = with_workers()
    assert instances("node3", 2, state) == {"default": ([0, 1], 2), "workers": ([1], None)}
    assert instances("node1", 2, state) == {"default": ([0, 1], 2)}
    taken = [{**pools(1)[0], "name": "workers"}]
    assert [pool["instances"] for pool in changes.effective("node3", taken, state)] == [[0]]
    (launched,) = (pool for pool in changes.effective("node2", [], state) if pool["name"] == "workers")
    assert (launched["cpus"], launched["memory"], launched["code"]) == (1.0, 2**30, "x = 1")


# ---- scale


@given(st.integers(0, 6), st.integers(0, 6))
def test_scaling_changes_no_more_engines_than_it_has_to(before, after):
    state = state_of({"node1": {"default": before}})
    change = scale(state, "default", after)
    assert len(change.added) == max(0, after - before)
    assert len(change.leaving) == max(0, before - after)
    assert change.leaving <= expected_engines(state["engines"])
    numbers = changes.effective("node1", pools(before), change.state)[0]["instances"]
    assert len(numbers) == after
    again = scale(laid_down(change, before), "default", after)
    assert (again.hosts, again.state) == ([], laid_down(change, before))
    assert change.hosts == ([] if before == after else ["node1"])


def test_a_gap_is_filled_first():
    state = state_of({"node1": {"default": [0, 3]}})
    assert scale(state, "default", 3).added == {Engine("node1", "default", 1)}


def test_scaling_back_to_what_is_defined_is_forgotten():
    state = state_of(scaled={"node1": {"default": [0]}})
    state["engines"]["node1"]["default"] = 1
    assert laid_down(scale(state, "default", 2, hosts=["node1"]), 2)["scaled"] == {}


def test_a_count_that_is_scaled_after_the_inventory_was_edited_holds():
    # from 2 to 4, which no run has laid down
    change = scale(state_of(), "default", 1)
    assert instances("node1", 4, change.state) == {"default": ([0], 4)}
    assert instances("node1", 4, laid_down(change, 4)) == {"default": ([0], 4)}


def test_what_an_interrupted_run_has_left_behind_leaves():
    before = state_of({"node1": {"default": 2}})
    after = scale(before, "default", 1).state
    assert after["engines"] == {"node1": {"default": 1}}
    again = changes.scale(after, registered(before), "default", 1)
    assert again.leaving == {Engine("node1", "default", 1)}
    assert again.state == after


def test_hosts_that_the_inventory_has_no_more_are_not_scaled():
    change = scale(state_of(), "default", 1, inventory=["node1", "node2"])
    assert change.hosts == ["node1", "node2"]
    with pytest.raises(changes.ChangeError, match="no engine host node3; it has node1, node2"):
        scale(state_of(), "default", 1, hosts=["node3"], inventory=["node1", "node2"])


def test_a_launched_pool_is_scaled_where_it_is():
    change = scale(with_workers(), "workers", 2)
    assert change.state["pools"]["workers"]["hosts"] == {"node2": 2, "node3": 2}
    assert change.added == {Engine("node2", "workers", 1), Engine("node3", "workers", 0)}
    assert change.state["scaled"] == {}
    gone = scale(with_workers(), "workers", 0)
    assert gone.state["pools"] == {}
    assert gone.gone == {"node2": ["workers"], "node3": ["workers"]}
    assert gone.state["engines"] == state_of()["engines"]


def test_a_pool_is_scaled_where_it_is():
    state = state_of({"node1": {"default": 2, "big": 0}, "node2": {"default": 2, "big": 1}})
    state["engines"]["node2"]["big"] = 0  # scaled to nothing before
    assert {one.host for one in scale(state, "big", 1).added} == {"node2"}
    assert {one.host for one in scale(state, "big", 1, hosts=["node1"]).added} == {"node1"}


# ---- remove


def test_a_host_leaves_as_a_whole():
    state = with_workers()
    state["scaled"] = {"node3": {"default": [0, 1]}}
    change = changes.remove(state, registered(state), "node1", hosts=["node3"], inventory=["node1", "node2", "node3"])
    assert change.hosts_gone == ["node3"]
    assert change.hosts == []
    assert {one.host for one in change.leaving} == {"node3"}
    assert len(change.leaving) == 3
    for part in ("engines", "defined", "scaled"):
        assert "node3" not in change.state[part]
    assert change.state["pools"]["workers"]["hosts"] == {"node2": 1}


def test_a_host_that_has_left_is_nothing_to_do():
    state = state_of()
    change = changes.remove(state, registered(state), "node1", hosts=["node4"], inventory=["node1", "node4"])
    assert change.state == state
    assert (change.leaving, change.hosts) == (set(), [])


def test_an_engine_leaves_and_its_number_stays_free():
    state = state_of()
    change = changes.remove(state, registered(state), "node1", ids=[2])
    assert change.leaving == {Engine("node2", "default", 0)}
    assert change.state["engines"]["node2"] == {"default": [1]}
    assert change.state["scaled"] == {"node2": {"default": [1]}}
    assert instances("node2", 2, change.state) == {"default": ([1], 2)}


def test_a_pool_leaves():
    change = changes.remove(with_workers(), [], "node1", pools=["workers"])
    assert change.state["pools"] == {}
    assert change.gone == {"node2": ["workers"], "node3": ["workers"]}
    assert change.hosts == ["node2", "node3"]
    defined = changes.remove(state_of(), [], "node1", pools=["default"])
    assert defined.state["scaled"] == {f"node{n}": {"default": []} for n in (1, 2, 3)}
    assert defined.gone == {}


def test_a_pool_on_one_host_leaves_there():
    change = changes.remove(with_workers(), [], "node1", pools=["workers"], hosts=["node2"])
    assert change.hosts == ["node2"]
    assert change.hosts_gone == []
    assert change.state["pools"]["workers"]["hosts"] == {"node3": [1]}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ["nothing is to be removed", "hosts, pools or ids"]),
        ({"ids": [99]}, ["no engine 99", "0, 1, 2, 3, 4, 5"]),
        ({"hosts": ["node9"]}, ["no engine host node9", "node1, node2, node3"]),
        ({"pools": ["nope"]}, ["no pool nope", "default"]),
        ({"hosts": ["node1"]}, ["node1 is the controller's host", "ipyparallel.cluster.destroy"]),
        ({"hosts": ["node3"], "inventory": ["node1", "node2"]}, ["node3 is not in the inventory", "force"]),
    ],
)
def test_what_cannot_be_removed_is_named_with_what_there_is(given, names):
    state = state_of()
    with pytest.raises(changes.ChangeError) as caught:
        changes.remove(state, registered(state), "node1", **given)
    assert [part for part in names if part not in str(caught.value)] == []


def test_engines_that_are_in_not_all_lists_are_not_meant():
    state = state_of()
    with pytest.raises(changes.ChangeError, match=r"no engine is in all of ids \(2\), hosts \(node1\)"):
        changes.remove(state, registered(state), "node1", ids=[2], hosts=["node1"])


def test_an_engine_of_somebody_else_is_not_removed():
    foreign = [{"id": 5, "uuid": "x", "host": None, "pool": None, "core": None, "pid": None}]
    with pytest.raises(changes.ChangeError, match="engine 5 was not started by this collection"):
        changes.remove(state_of(), foreign, "node1", ids=[5])


def test_what_is_remembered_is_not_changed_by_working_it_out():
    state = with_workers()
    before = copy.deepcopy(state)
    changes.remove(state, registered(state), "node1", hosts=["node3"])
    scale(state, "default", 0)
    changes.stop(state, registered(state), "node1")
    assert state == before


# ---- workers


@given(st.integers(1, 30))
def test_workers_go_where_the_fewest_engines_are(count):
    state = state_of({"node1": {"default": 3}, "node2": {"default": 1}, "node3": {}})
    change = launch(state, count, {"code": ""})
    assert len(change.added) == count
    loads = [
        sum(one.host == host for one in change.added) + n for host, n in (("node1", 3), ("node2", 1), ("node3", 0))
    ]
    if count >= 5:
        assert max(loads) - min(loads) <= 1
    assert sum(change.state["pools"]["workers"]["hosts"].values()) == count
    assert change.state["engines"] == state["engines"], "what is added is expected when it is laid down"


def test_each_launch_is_a_pool_of_its_own():
    state = with_workers()
    assert "workers_2" in launch(state, 1, {}).state["pools"]
    assert "mine" in launch(state, 1, {}, name="mine", hosts=["node3"]).state["pools"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"name": "default"}, ["a pool 'default' already", "ipyparallel.cluster.scale"]),
        ({"name": "Big"}, ["'Big' is not a name"]),
        ({"hosts": ["node9"]}, ["no engine host node9", "node1"]),
        ({"count": 0}, ["0 is not a number of workers"]),
    ],
)
def test_what_cannot_be_launched_is_named(given, names):
    with pytest.raises(changes.ChangeError) as caught:
        launch(state_of(), given.pop("count", 1), {}, **given)
    assert [part for part in names if part not in str(caught.value)] == []


def test_launched_workers_stop_all_or_some():
    state = with_workers()
    there = registered(state)
    (some,) = (one["id"] for one in there if (one["host"], one["pool"]) == ("node2", "workers"))
    change = changes.stop(state, there, "node1", [some])
    assert change.state["pools"]["workers"]["hosts"] == {"node3": [1]}
    assert changes.stop(state, there, "node1").state["pools"] == {}
    assert changes.stop(state_of(), [], "node1").hosts == []
    with pytest.raises(changes.ChangeError, match="no launched worker 0; it has"):
        changes.stop(state, there, "node1", [0])


def test_workers_of_an_interrupted_stop_are_stopped_by_the_next():
    running = with_workers()
    after = changes.stop(running, registered(running), "node1").state
    assert after["pools"] == {}
    again = changes.stop(after, registered(running), "node1")
    assert again.gone == {"node2": ["workers"], "node3": ["workers"]}
    assert len(again.leaving) == 2
    assert again.state == after
    (one,) = (one["id"] for one in registered(running) if (one["host"], one["pool"]) == ("node2", "workers"))
    assert changes.stop(after, registered(running), "node1", [one]).gone == {"node2": ["workers"]}


def test_of_what_nobody_remembers_all_leave():
    running = with_workers()
    running["engines"]["node2"]["workers"] = 3
    ids = [one["id"] for one in registered(running) if (one["host"], one["pool"]) == ("node2", "workers")]
    change = changes.remove(state_of(), registered(running), "node1", ids=ids[:1])
    assert change.leaving == {Engine("node2", "workers", number) for number in range(3)}
    assert change.state == state_of()


def test_workers_go_to_hosts_whose_engines_are_there():
    state = state_of()
    there = [one for one in registered(state) if one["host"] != "node2"]
    assert {one.host for one in changes.launch(state, there, 4, {}).added} == {"node1", "node3"}
    assert {one.host for one in changes.launch(state, there, 1, {}, hosts=["node2"]).added} == {"node2"}
    assert {one.host for one in launch(state, 3, {}, inventory=["node1", "node2"]).added} == {"node1", "node2"}


def test_a_launched_pool_that_the_inventory_comes_to_define_is_the_inventorys():
    after = changes.outdated(with_workers(), {"node1": {"default": 2, "workers": 1}})
    assert after["pools"] == {}


def test_workers_are_listed_as_sense_did():
    state = with_workers()
    engines = [{**one, "state": "busy"} for one in registered(state) if one["host"] == "node2"]
    first, second = changes.workers(state, engines)
    assert (first["status"], first["host"], first["cpus"], first["memory"]) == ("busy", "node2", 1.0, 2**30)
    assert (second["status"], second["id"], second["engine"], second["core"]) == ("missing", None, None, 1)
    state["pools"]["workers"]["origin"] = "launched by ada@laptop"
    assert {one["origin"] for one in changes.workers(state, engines)} == {"launched by ada@laptop"}


def test_holding_a_host_changes_nothing():
    state = state_of()
    change = changes.hold(state, registered(state), ["node2"])
    assert change.state == state
    assert {one.host for one in change.leaving} == {"node2"}
    assert changes.hold(state, registered(state), ["node9"]).leaving == set(), "a host that is new"
