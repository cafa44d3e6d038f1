# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules that change and restart engines; what they say to a hub is replaced."""

from __future__ import annotations

import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import draining, lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state, write_state
from ansible_collections.ipyparallel.cluster.plugins.modules import change_engines, restart_engines

COUNTS = {"node1": {"default": 1}, "node2": {"default": 2}}
ENGINES = [
    {"id": number, "uuid": f"u{number}", "host": host, "pool": "default", "core": core, "pid": 1, "state": "idle"}
    for number, (host, core) in enumerate([("node2", 0), ("node1", 0), ("node2", 1)])
]
LEASE = {"holder": "ada@laptop", "run": "1-1", "runs": [], "takeover": False}
OVER = 1e-9
"""Seconds of a turn that is over at once."""
BUSY = draining.Left([draining.Unfinished(ENGINES[0], [{"task": "a", "seconds": 3.0}], 0)], [])
DONE = draining.Left([], [])


class Client:
    closed = False

    def close(self, linger):
        self.closed = True


@pytest.fixture
def world(monkeypatch, tmp_path):
    class World:
        left = DONE
        said = []  # noqa: RUF012
        client = Client()
        away = ()
        slow = ()
        engines = ENGINES
        between = staticmethod(lambda: None)

    World.said = []
    write_state(str(tmp_path), {"engines": COUNTS, "defined": COUNTS})

    def drain(_client, engines, limit, between, _started):
        World.between()
        World.said.append(("drain", [one["id"] for one in engines], limit))
        between(World.left)
        return World.left

    def hold(_client, engines, _seconds):
        World.said.append(("hold", [one["id"] for one in engines]))

    def release(_client, engines):
        World.said.append(("release", [one["id"] for one in engines]))

    def restart(_client, engines, _wait, between, under_way):
        World.said.append(("restart", [one["id"] for one in engines]))
        under_way["started"] = 1.0
        if World.slow:
            between(World.slow)
        return [draining.Restarted(one, one["id"] + 10, 1.5) for one in engines if one["id"] not in World.away]

    for module in (change_engines, restart_engines):
        monkeypatch.setattr(module, "respawn", lambda module, python: True)
        monkeypatch.setattr(module, "act_as", lambda account: None)
        monkeypatch.setattr(module, "connect", lambda connector, timeout: World.client)
    monkeypatch.setattr(change_engines, "described", lambda client: (World.engines, {}))
    monkeypatch.setattr(restart_engines, "registered", lambda client: ENGINES)
    for name, function in (("drain", drain), ("hold", hold), ("release", release), ("restart", restart)):
        monkeypatch.setattr(draining, name, function)
    return World


@pytest.fixture
def change(run_module, tmp_path, world):
    def run(check=False, **arguments):
        places = {"connector": "/c.json", "python": "/nowhere", "state_directory": str(tmp_path)}
        given = {"controller": "node1", "lease": LEASE, **places, **arguments}
        return run_module(change_engines, check=check, diff=True, **given)

    return run


def test_a_scaled_pool_is_remembered_when_its_engines_have_drained(change, world, tmp_path):
    result = change(change="scale", pool="default", count=1, limit=7)
    assert world.said == [("drain", [2], 7.0), ("hold", [2])]
    assert (result["changed"], result["hosts"]) == (True, ["node2"])
    assert result["leaving"] == [{"id": 2, "host": "node2", "pool": "default", "core": 1}]
    state = read_state(str(tmp_path))
    assert state["scaled"] == {"node2": {"default": [0]}}
    assert (state["lease"]["holder"], state["lease"]["phase"]) == ("ada@laptop", "scale")
    assert world.client.closed


@pytest.mark.parametrize("check", [True, False])
def test_the_second_time_nothing_changes(change, world, check):
    change(change="scale", pool="default", count=1)
    # laid down
    world.engines = ENGINES[:2]
    world.said.clear()
    result = change(check=check, change="scale", pool="default", count=1)
    assert (result["changed"], result["hosts"], world.said) == (False, [], [])


def test_a_change_that_was_not_laid_down_is_made_by_the_next_run(change, world):
    change(change="scale", pool="default", count=1)
    result = change(change="scale", pool="default", count=1)
    assert (result["changed"], result["hosts"], result["leaving"][0]["id"]) == (True, ["node2"], 2)


def test_a_run_that_was_taken_over_from_while_engines_drain_changes_nothing(change, world, tmp_path):
    other = {**LEASE, "holder": "bob@desk", "takeover": True, "phase": "launch"}

    def take_over():
        state = read_state(str(tmp_path))
        write_state(str(tmp_path), {**lease.take(str(tmp_path), state, other, time.time()), "packages": ["numpy"]})

    world.between = take_over
    result = change(change="scale", pool="default", count=1)
    assert "bob@desk took over from this run" in result["msg"]
    assert ("release", [2]) in world.said
    state = read_state(str(tmp_path))
    assert (state["packages"], state["lease"]["holder"], state["scaled"]) == (["numpy"], "bob@desk", {})


def test_what_is_changed_meanwhile_without_a_lease_is_not_lost(change, world, tmp_path):
    world.between = lambda: write_state(str(tmp_path), {**read_state(str(tmp_path)), "packages": ["numpy"]})
    result = change(change="scale", pool="default", count=1, lease={})
    assert "changed by another run meanwhile" in result["msg"]
    assert read_state(str(tmp_path))["packages"] == ["numpy"]


def test_check_mode_says_what_would_change_and_asks_nobody(change, world, tmp_path):
    before = read_state(str(tmp_path))
    result = change(check=True, change="remove", hosts=["node2"])
    assert (result["changed"], result["hosts_gone"], len(result["leaving"])) == (True, ["node2"], 2)
    assert "node2" not in result["diff"]["after"]["engines"]
    assert result["remembered"]["defined"] == {"node1": {"default": 1}}
    assert (read_state(str(tmp_path)), world.said) == (before, [])


def test_after_the_limit_nothing_is_changed_and_the_lease_is_over(change, world, tmp_path):
    before = read_state(str(tmp_path))
    world.left = BUSY
    result = change(change="remove", ids=[0])
    assert result["failed"]
    for part in (
        "engine 0 (node2 default/0) has task a since 3 s",
        "None of these engines was ended",
        "ipyparallel_force=true",
    ):
        assert part in result["msg"]
    assert world.said == [("drain", [0], 60.0), ("release", [0])]
    assert read_state(str(tmp_path)) == before


def test_with_force_it_goes_on(change, world):
    world.left = BUSY
    assert change(change="remove", ids=[0], force=True)["changed"]
    assert world.said[-1] == ("hold", [0])


def test_a_turn_that_ends_before_the_work_does_keeps_engines_and_lease(change, world, tmp_path):
    world.left = BUSY
    before = read_state(str(tmp_path))
    first = change(change="remove", ids=[0], turn=OVER)
    assert first["progress"] == (
        "waiting for engines that are to leave; 0 of 1 have finished their work; still at work: engine 0 "
        "(node2 default/0)"
    )
    assert (first["changed"], world.said) == (False, [("drain", [0], 60.0)])
    after = read_state(str(tmp_path))
    assert after.pop("lease")["holder"] == "ada@laptop"
    assert after == {name: value for name, value in before.items() if name != "lease"}

    world.left = DONE
    last = change(change="remove", ids=[0], turn=OVER, resume={"started": first["resume"]["started"] - 30})
    assert (last["changed"], last["hosts"], last["seconds"]) == (True, ["node2"], pytest.approx(30, abs=1))
    assert world.said[1:] == [("drain", [0], 60.0), ("hold", [0])]


def test_launched_workers_are_remembered_with_their_size_and_code(change, tmp_path):
    result = change(change="launch", count=3, size="small", environment={"A": 1}, code="VALUE = 7")
    assert len(result["added"]) == 3
    pool = read_state(str(tmp_path))["pools"]["workers"]
    assert pool == {
        "hosts": {"node1": 2, "node2": 1},
        "cpus": 1,
        "memory": 2**30,
        "environment": {"A": "1"},
        "code": "VALUE = 7",
        "origin": "launched by ada@laptop",
    }
    assert change(change="stop")["changed"]
    assert read_state(str(tmp_path))["pools"] == {}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"change": "scale", "pool": "nope", "count": 1}, ["no pool nope", "default"]),
        ({"change": "scale", "pool": "default", "count": 1, "hosts": ["x"]}, ["no engine host x", "node1, node2"]),
        ({"change": "scale", "pool": "default"}, ["count"]),
        ({"change": "remove", "hosts": ["node1"]}, ["controller's host"]),
        ({"change": "launch", "count": 1, "size": {"memory": "1M"}}, ["less than one engine needs"]),
        ({"change": "launch", "count": 1, "code": "x ="}, ["does not compile"]),
        ({"change": "launch", "count": 1, "environment": {"a b": 1}}, ["the environment", "'a b'"]),
        ({"change": "stop", "ids": [0]}, ["no launched worker 0"]),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_is_not_possible_changes_nothing(change, world, tmp_path, arguments, names, check):
    before = read_state(str(tmp_path))
    result = change(check=check, **arguments)
    assert result["failed"]
    assert [part for part in names if part not in result["msg"]] == []
    assert (read_state(str(tmp_path)), world.said) == (before, [])


def test_a_second_operator_is_told_and_may_take_over(change):
    change(change="scale", pool="default", count=1)
    other = {**LEASE, "holder": "bob@desk"}
    assert "ada@laptop is at work" in change(change="scale", pool="default", count=2, lease=other)["msg"]
    assert change(change="scale", pool="default", count=2, lease={**other, "takeover": True})["changed"]


def test_without_a_hub_nothing_changes(change, monkeypatch):
    def fail(*_arguments):
        raise HubError("no hub")

    monkeypatch.setattr(change_engines, "connect", fail)
    assert change(change="scale", pool="default", count=1)["msg"] == "no hub"


# ---- restart_engines


@pytest.fixture
def restart(run_module, tmp_path, world):
    def run(check=False, **arguments):
        places = {"connector": "/c.json", "python": "/nowhere", "state_directory": str(tmp_path)}
        return run_module(restart_engines, check=check, **{**places, **arguments})

    return run


def test_engines_are_restarted_one_after_the_other(restart, world, tmp_path):
    result = restart(lease=LEASE)
    order = [one["id"] for one in sorted(ENGINES, key=lambda one: (one["host"], one["core"]))]
    assert [said[1] for said in world.said if said[0] == "restart"] == [[number] for number in order]
    assert result["engines"][0] == {
        "host": "node1",
        "pool": "default",
        "core": 0,
        "before": 1,
        "after": 11,
        "seconds": 1.5,
    }
    assert (result["changed"], result["least"]) == (True, 3)
    assert read_state(str(tmp_path))["lease"] == {}


@pytest.mark.parametrize(("serial", "steps"), [(0, [[1, 0, 2]]), (2, [[1, 0], [2]])])
def test_several_at_a_time(restart, world, serial, steps):
    restart(serial=serial)
    assert [said[1] for said in world.said if said[0] == "restart"] == steps


def test_a_restart_in_turns_ends_each_engine_once(restart, world, tmp_path):
    def turn(resume=None):
        return restart(lease=LEASE, turn=OVER, **({"resume": resume} if resume else {}))

    first = turn()
    assert (first["progress"], first["changed"]) == ("1 of 3 engines were restarted", False)
    assert read_state(str(tmp_path))["lease"]["phase"] == "restart"
    world.left = BUSY
    second = turn(first["resume"])
    assert second["progress"].startswith("1 of 3 engines were restarted; 0 of 1 have finished")
    world.left, world.slow = DONE, ENGINES[:1]
    third = turn(second["resume"])
    assert third["progress"] == "1 of 3 engines were restarted; to come back: engine 0 (node2 default/0)"
    world.said.clear()
    world.slow = ()
    fourth = turn(third["resume"])
    assert world.said == [("restart", [0])], "it does not drain again"
    last = turn(fourth["resume"])
    assert [one["before"] for one in last["engines"]] == [1, 0, 2]
    assert (last["changed"], last["problem"], last["least"]) == (True, "", 3)
    assert ("release", [0]) not in world.said
    assert read_state(str(tmp_path))["lease"] == {}


def test_a_restart_in_check_mode_names_the_engines(restart, world):
    assert [one["before"] for one in restart(check=True, hosts=["node2"])["engines"]] == [0, 2]
    assert world.said == []


def test_a_busy_engine_stops_the_restart_and_works_on(restart, world):
    world.left = BUSY
    result = restart(ids=[0], limit=2)
    assert result["failed"]
    assert "0 of 1 engines were restarted" in result["msg"]
    assert ("release", [0]) in world.said


def test_an_engine_that_does_not_come_back_stops_the_restart(restart, world):
    world.away = (0,)
    result = restart()
    assert "engine 0 (node2 default/0) did not come back" in result["msg"]
    assert [one["before"] for one in result["engines"]] == [1]
    assert ("restart", [2]) not in world.said


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"ids": [9]}, ["no engine 9", "0, 1, 2"]),
        ({"serial": -1}, ["-1 is not a number of engines"]),
        ({"lease": LEASE, "state_directory": None}, ["state_directory"]),
    ],
)
def test_what_cannot_be_restarted_is_named(restart, world, arguments, names):
    result = restart(**arguments)
    assert [part for part in names if part not in result["msg"]] == []
    assert world.said == []
