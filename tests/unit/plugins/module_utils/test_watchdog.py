# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watchdog concludes: who is forgotten, told to end, or left alone."""

from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import watchdog
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog import (
    GHOST_STEPS,
    Controller,
    Departed,
    Limits,
    Trial,
    Watched,
)

NOW = 1000.0
LIMITS = Limits()


def ident(core=0, pid=4711, host="node1"):
    return f"{host}__default__{core}__{pid}__0a1b2c3d"


def engine(number=0, name=None, **facts):
    return Watched(number, name or ident(number), facts.pop("since", NOW - 500), **facts)


def judged(*engines, deaf=False):
    return [(a.kind, a.number) for a in watchdog.judge_engines(list(engines), NOW, LIMITS, deaf)]


def test_limits():
    assert watchdog.make_limits({}) == Limits()
    assert watchdog.make_limits({"silent": "20", "pauses": [0, 1]}) == Limits(silent=20.0, pauses=(0.0, 1.0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"silence": 5}, "there is no 'silence': there are ended, replaced"),
        ({"silent": "soon"}, "'soon' is not a time in seconds: give 'silent' a number"),
        ({"silent": -1}, "-1 is not a time"),
        ({"pauses": 5}, "5 is not a time"),
        ({"pauses": []}, "is not a time"),
        ({"pauses": [0, -1]}, "is not a time"),
    ],
)
def test_limits_that_are_none(given, says):
    with pytest.raises(ValueError, match=says):
        watchdog.make_limits(given)


# ---- engines


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"answered": NOW - 400},
        # asked, and not overdue: busy ones answer through their nannies, and networks hiccup
        {"answered": NOW - 20, "owes": NOW - 14.9},
        {"owes": NOW - 7.9},
        # it came back, and TCP may wait as long again as it was away
        {"since": NOW - 30, "away": 36.0, "owes": NOW - 29},
        {"since": NOW - 110, "away": 5000.0, "owes": NOW - 109},
        # it ended right now: its nanny tells the hub
        {"answered": NOW - 3, "ended": NOW - 0.9},
    ],
)
def test_left_alone(facts):
    assert judged(engine(**facts)) == []


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"answered": NOW - 20, "owes": NOW - 15}, "it has not answered for 15.0 s"),
        ({"owes": NOW - 8}, "nor at any time before"),
        ({"since": NOW - 36, "away": 36.0, "owes": NOW - 35}, "nor at any time before"),
        ({"since": NOW - 120, "away": 5000.0, "owes": NOW - 119}, "nor at any time before"),
        # what has answered since it came back is silent again
        ({"since": NOW - 30, "away": 36.0, "answered": NOW - 20, "owes": NOW - 15}, "it has not answered for 15.0 s"),
        ({"answered": NOW - 3, "ended": NOW - 1}, "its process ended 1.0 s ago"),
    ],
)
def test_zombies_are_forgotten(facts, why):
    (action,) = watchdog.judge_engines([engine(7, **facts)], NOW, LIMITS, deaf=False)
    assert (action.kind, action.number, action.ident) == ("forget", 7, ident(7))
    assert why in action.why


@pytest.mark.parametrize(
    ("facts", "heard"), [({"answered": 7.0}, 7.0), ({"since": 5.0}, 5.0), ({"since": 50.0, "away": 36.0}, 14.0)]
)
def test_when_it_was_heard_last(facts, heard):
    assert engine(**facts).heard == heard


def test_silence_means_nothing_when_the_control_channel_is_dead():
    silent = [engine(number, answered=NOW - 60, owes=NOW - 50) for number in range(3)]
    assert judged(*silent, deaf=True) == []
    assert judged(*silent) == [("forget", 0), ("forget", 1), ("forget", 2)]
    # what is seen on this host is seen all the same
    assert judged(engine(answered=NOW - 60, owes=NOW - 50, ended=NOW - 50), deaf=True) == [("forget", 0)]


@pytest.mark.parametrize(
    ("old", "since", "expected"),
    [
        ({"answered": NOW - 9, "owes": NOW - 2}, NOW - 3, [("forget", 3)]),
        ({"answered": NOW - 9, "owes": NOW - 1.9}, NOW - 3, []),
        # it answers: at first it may be a late notice
        ({"answered": NOW - 1}, NOW - 9.9, []),
        ({"answered": NOW - 1}, NOW - 10, [("end", 3)]),
        # whether it answers is not known
        ({"answered": NOW - 9, "owes": NOW - 1}, NOW - 20, []),
    ],
)
def test_an_engine_that_was_replaced(old, since, expected):
    newer = engine(9, ident(0, pid=5000), since=since, answered=NOW - 1)
    assert judged(newer, engine(3, ident(0), **old)) == expected


def test_the_newest_stays_and_engines_of_others_are_no_doubles():
    three = [engine(number, ident(0, pid=number)) for number in (4, 2, 8)]
    assert {old: new.number for old, new in watchdog.older_doubles(three).items()} == {4: 8, 2: 8}
    others = [engine(number, "6fb7a9d4-0d1d5f5b5e3a") for number in (1, 2)]
    assert watchdog.older_doubles(others) == {}
    assert judged(*others) == []


# ---- ghosts


def told(**facts):
    return [a.step for a in watchdog.judge_ghosts([Departed(ident(), NOW - 100, NOW - 120, **facts)], NOW)]


ANSWERED = {"asked": NOW - 3, "answered": NOW - 1, "first_answered": NOW - 12}


@pytest.mark.parametrize(
    ("facts", "steps"),
    [
        ({}, []),
        ({"asked": NOW - 3}, []),
        (ANSWERED, [0]),
        # its heart may beat
        ({**ANSWERED, "first_answered": NOW - 11.9}, []),
        # asked again since, and silent
        ({"asked": NOW - 1, "answered": NOW - 3}, []),
        ({**ANSWERED, "told": 1, "first_told": NOW - 4.9}, []),
        ({**ANSWERED, "told": 1, "first_told": NOW - 5}, [1]),
        ({**ANSWERED, "told": 3, "first_told": NOW - 20}, []),
        ({**ANSWERED, "told": len(GHOST_STEPS), "first_told": NOW - 900}, []),
    ],
)
def test_a_ghost_that_answers_is_told_to_end_some_times(facts, steps):
    assert told(**facts) == steps


def test_those_who_left_are_asked_often_at_first_and_then_seldom():
    assert Departed(ident(), NOW, NOW).next_question() == NOW
    assert Departed(ident(), NOW, NOW, asked=NOW + 10).next_question() == NOW + 13
    assert Departed(ident(), NOW, NOW, asked=NOW + 700).next_question() == NOW + 730


def kept(departed, registered=(), ended=()):
    return [d.ident for d in watchdog.still_departed(departed, registered, ended, NOW)]


def test_who_may_still_be_a_ghost():
    some = [Departed(ident(core), NOW - 60, NOW - 70) for core in range(5)]
    gone = [ident(0), ident(1, pid=5000)]
    assert kept(some) == [ident(core) for core in range(5)]
    # registered again; another in its place; ended on this host
    assert kept(some, gone, [ident(2)]) == [ident(3), ident(4)]
    assert kept([Departed(ident(), NOW - watchdog.DEPARTED_SECONDS, 0.0)]) == []


def test_no_more_of_them_than_can_be_asked():
    many = [Departed(ident(core), NOW - core, 0.0) for core in range(1000)]
    assert kept(many) == [ident(core) for core in reversed(range(watchdog.DEPARTED_MOST))]


def test_one_foreign_engine_does_not_hide_another():
    assert kept([Departed("foreign-1", NOW - 60, NOW - 70)], ["foreign-2"]) == ["foreign-1"]


# ---- load-balanced work

YOUNG, OLD = 10.0, 3600.0


def trial(**facts):
    return Trial(ident(), 0, NOW - 70, tasks=1, done=5, **facts)


@pytest.mark.parametrize(
    ("facts", "tasks", "done", "age", "verdict"),
    [
        # it does direct work, and none of its load-balanced work
        ({"direct": 30, "first_direct": NOW - 60, "last_direct": NOW - 1}, 1, 5, OLD, "wedged"),
        ({"direct": 30, "first_direct": NOW - 8, "last_direct": NOW - 1}, 1, 5, YOUNG, "wedged"),
        # a large result may be under way
        ({"direct": 30, "first_direct": NOW - 59, "last_direct": NOW - 1}, 1, 5, OLD, "wait"),
        ({"direct": 30, "first_direct": NOW - 7, "last_direct": NOW - 1}, 1, 5, YOUNG, "wait"),
        # a long task, whether it began before or in between
        ({}, 1, 5, YOUNG, "busy"),
        ({"direct": 1, "first_direct": NOW - 60, "last_direct": NOW - 60}, 1, 5, YOUNG, "busy"),
        # two no-ops may slip in between two messages
        ({"direct": 2, "first_direct": NOW - 60, "last_direct": NOW - 1}, 1, 5, YOUNG, "wait"),
        # many tasks, the no-op behind them
        ({"direct": 30, "first_direct": NOW - 60, "last_direct": NOW - 1}, 1, 6, OLD, "busy"),
        ({"direct": 30, "first_direct": NOW - 60, "last_direct": NOW - 1}, 2, 5, OLD, "busy"),
        ({"direct": 30, "first_direct": NOW - 60, "last_direct": NOW - 1}, 0, 5, OLD, "busy"),
    ],
)
def test_only_an_engine_that_is_idle_and_gets_no_work_is_wedged(facts, tasks, done, age, verdict):
    found = watchdog.judge_trial(trial(**facts), tasks, done, now=NOW, limits=LIMITS, controller_age=age)
    assert found == verdict


# ---- the controller


def controller(**facts):
    return Controller(7, facts.pop("age", 3600.0), **facts)


HALF_DEAD = [
    ({"stopped": {"task scheduler": NOW - 3}}, "its task scheduler has been stopped for 3.0 s"),
    ({"hub_silent": NOW - 10}, "its hub has not answered for 10.0 s"),
    ({"hub_silent": NOW - 120, "hub_works": 1.0}, "its hub has not answered for 120.0 s"),
    ({"dead_paths": {"direct": NOW - 12}}, "direct work has come to no engine for 12.0 s"),
]


@pytest.mark.parametrize(("facts", "why"), HALF_DEAD)
def test_a_half_dead_controller_is_ended(facts, why):
    action = watchdog.judge_controller(controller(**facts), [], NOW, LIMITS)
    assert action
    assert (action.kind, action.number, action.why) == ("end_controller", 7, why)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        # a debugger stops for moments
        {"stopped": {"task scheduler": NOW - 2.9}},
        {"hub_silent": NOW - 9.9},
        # it works through a flood
        {"hub_silent": NOW - 119, "hub_works": 0.9},
    ],
)
def test_a_controller_that_may_be_well_is_left_alone(facts):
    assert watchdog.judge_controller(controller(**facts), [], NOW, LIMITS) is None


@pytest.mark.parametrize(("facts", "_why"), HALF_DEAD)
def test_a_young_controller_is_left_alone(facts, _why):
    assert watchdog.judge_controller(controller(age=19.9, **facts), [], NOW, LIMITS) is None


@pytest.mark.parametrize(
    ("ends", "ended"),
    [
        ([NOW - 29], False),
        ([NOW - 30], True),
        ([NOW - 300, NOW - 119], False),
        ([NOW - 300, NOW - 120], True),
        ([NOW - 3000, NOW - 2000, NOW - 599], False),
        ([NOW - 3000, NOW - 2500, NOW - 2000, NOW - 1900, NOW - 600], True),
        # long ago
        ([NOW - 9000, NOW - 8000, NOW - 30], True),
    ],
)
def test_it_is_ended_less_and_less_often(ends, ended):
    found = watchdog.judge_controller(controller(dead_paths={"direct": NOW - 60}), ends, NOW, LIMITS)
    assert bool(found) == ended


# ---- the whole


def test_missing_engines():
    expected = {Engine("node1", "default", core) for core in range(3)}
    registered = [ident(0), ident(1, host="node2"), "foreign"]
    assert watchdog.missing_engines(expected, registered) == [
        Engine("node1", "default", 1),
        Engine("node1", "default", 2),
    ]


@pytest.mark.parametrize(
    ("connected", "problems", "state"),
    [(True, {}, "whole"), (True, {"disk": "it is full"}, "degraded"), (False, {}, "down"), (False, {"a": "b"}, "down")],
)
def test_the_state_in_a_word(connected, problems, state):
    assert watchdog.state_of(connected, problems) == state


def test_long_lists_are_short():
    assert watchdog.shorten(range(3)) == "0, 1, 2"
    assert watchdog.shorten(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_names():
    assert watchdog.name_of(ident(3)) == "node1 default/3"
    assert watchdog.name_of("foreign") == "foreign"
