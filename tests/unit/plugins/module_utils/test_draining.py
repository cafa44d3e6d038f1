# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said to a hub is replaced: a cluster with engines that have work, and finish it."""

from __future__ import annotations

import concurrent.futures
import json

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import draining, turns

ENGINES = [
    {"id": number, "uuid": f"u{number}", "host": "node1", "pool": "default", "core": number, "pid": 1}
    for number in range(2)
]


def answered(content):
    future = concurrent.futures.Future()
    if content is not None:
        future.set_result({"content": content})
    return future


class World:
    """Engines with tasks and direct calls, of which each look finishes one."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.tasks = {"u0": [], "u1": []}
        self.calls = {0: [], 1: []}
        self.waiting = []
        self.asked = []
        self.silent = ""
        self.finishes = True
        for name in ("ask_to_drain", "ask_queue", "ask_calls"):
            monkeypatch.setattr(draining.hub, name, getattr(self, name))
        monkeypatch.setattr(draining.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(draining.time, "sleep", self.sleep)
        monkeypatch.setattr(draining, "ANSWER_SECONDS", 0.01)

    def sleep(self, seconds):
        self.now += seconds
        if self.finishes:
            for work in (*self.tasks.values(), *self.calls.values(), self.waiting):
                del work[:1]

    def ask_to_drain(self, _client, idents, seconds):
        self.asked.append((list(idents), seconds))
        running = {ident: [{"task": task, "seconds": 1.0} for task in self.tasks[ident]] for ident in idents}
        return answered(None if self.silent == "scheduler" else {"running": running, "waiting": list(self.waiting)})

    def ask_queue(self, _client):
        content = {str(number): {"queue": len(calls)} for number, calls in self.calls.items()}
        return answered(None if self.silent == "hub" else {**content, "unassigned": 3})

    def ask_calls(self, _client, numbers):
        return answered({str(number): {"queue": list(self.calls[number])} for number in numbers})


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_idle_engines_are_drained_at_once(world):
    assert not draining.drain(None, ENGINES, 60)
    assert world.asked == [(["u0", "u1"], draining.HOLD_SECONDS)]


def test_it_waits_for_tasks_calls_and_what_waits_for_these_engines_alone(world):
    world.tasks["u1"] = ["a", "b"]
    world.calls[0] = ["c"]
    world.waiting = ["d", "e", "f"]
    assert not draining.drain(None, ENGINES, 60)
    assert len(world.asked) == 4, "asked again, so that a scheduler which was restarted knows"


def test_the_watchdogs_no_ops_are_nothing_to_wait_for(world):
    world.finishes = False
    world.tasks["u0"] = ["watchdog-1_2_3"]
    world.calls[1] = ["watchdog-1_2_4"]
    world.waiting = ["watchdog-1_2_5"]
    assert not draining.drain(None, ENGINES, 60)


def test_after_the_time_limit_it_says_which_engine_still_does_what(world):
    world.finishes = False
    world.tasks["u1"] = ["a"]
    world.calls[0] = ["b", "c"]
    world.waiting = ["d"]
    left = draining.drain(None, ENGINES, 5)
    assert 105 <= world.now < 106
    said = draining.in_words_of(left, 5)
    for part in (
        "after 5 s",
        "engine 0 (node1 default/0) has 2 direct calls",
        "engine 1",
        "task a since 1 s",
        "alone: d",
    ):
        assert part in said
    draining.release(None, ENGINES)
    assert world.asked[-1] == (["u0", "u1"], 0)


def test_the_time_that_earlier_turns_took_counts(world):
    world.finishes = False
    world.tasks["u1"] = ["a"]
    assert draining.drain(None, ENGINES, 5, started=97.0)
    assert 102 <= world.now < 103


def test_a_turn_that_ends_while_engines_have_work_holds_them(world):
    world.finishes = False
    world.tasks = {"u0": ["a"], "u1": ["b"]}
    world.waiting = ["c", "d"]
    turn = turns.Turn({"turn": 8.0, "resume": None})
    kept = []
    between = draining.paused_by(turn, lambda: kept.append(1), "leaving", 2)
    with pytest.raises(turns.Pause) as pause:
        draining.drain_or_release(None, ENGINES, 60, False, between)
    assert str(pause.value) == (
        "leaving; 0 of 2 have finished their work; still at work: engine 0 (node1 default/0), "
        "engine 1 (node1 default/1); tasks that wait for these engines alone: 2"
    )
    assert 108 <= world.now < 109
    assert kept
    assert world.asked[-1][1] == draining.HOLD_SECONDS, "they are not released"


@pytest.mark.parametrize(("silent", "who"), [("scheduler", "the task scheduler did not"), ("hub", "the hub did not")])
def test_who_does_not_answer_is_named(world, silent, who):
    world.silent = silent
    with pytest.raises(draining.DrainError, match=who):
        draining.drain(None, ENGINES, 5)


# ---- restarts


@pytest.fixture
def restarting(world, monkeypatch):
    ended, there = [], [dict(engine) for engine in ENGINES]

    def registered(_client):
        if ended and world.now >= 101:
            return [
                {**engine, "id": engine["id"] + 10, "uuid": engine["uuid"] + "n"} if engine["uuid"] in ended else engine
                for engine in there
            ]
        return [engine for engine in there if engine["uuid"] not in ended]

    monkeypatch.setattr(draining.hub, "registered", registered)
    monkeypatch.setattr(draining.hub, "tell_to_end", lambda _client, ident, signal: ended.append(ident))
    monkeypatch.setattr(draining.hub, "ask_engine", lambda _client, _ident: answered({}))
    return there, ended


def test_a_restart_waits_for_the_one_in_the_same_place(world, restarting):
    (one,) = draining.restart(None, ENGINES[1:], 10)
    assert restarting[1] == ["u1"]
    assert (one.engine["id"], one.after) == (1, 11)
    assert 1.0 <= one.seconds < 1.1


def test_a_restart_goes_on_where_it_was_interrupted(world, restarting):
    under_way = {}

    def stop(away):
        if world.now > 100.5:
            raise turns.Pause(draining.places(away))

    with pytest.raises(turns.Pause, match=r"engine 1 \(node1 default/1\)"):
        draining.restart(None, ENGINES[1:], 10, stop, under_way)
    world.now = 101.5
    (one,) = draining.restart(None, ENGINES[1:], 10, lambda _away: None, json.loads(json.dumps(under_way)))
    assert restarting[1] == ["u1"], "it is told to end once"
    assert (one.after, one.seconds) == (11, 1.5)


def test_who_does_not_come_back_is_left_out(world, restarting, monkeypatch):
    monkeypatch.setattr(draining.hub, "ask_engine", lambda _client, ident: answered({} if ident == "u0n" else None))
    assert [one.engine["id"] for one in draining.restart(None, ENGINES, 3)] == [0]
    assert world.now >= 103
