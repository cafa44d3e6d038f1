# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turns, with a clock that is set by hand."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import turns


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(turns.time, "monotonic", lambda: Clock.now)
    return Clock


def test_without_an_operator_a_turn_does_not_end(clock):
    turn = turns.Turn({"turn": None, "resume": None})
    clock.now = 1e9
    assert not turn.is_over()
    assert turn.at_most(60.0) == 60.0
    turn.announce("it begins")


def test_a_turn_ends_and_the_next_one_goes_on(clock):
    turn = turns.Turn({"turn": 8.0, "resume": None})
    assert (turn.since("asked"), turn.at_most(60.0), turn.at_most(3.0)) == (100.0, 8.0, 3.0)
    clock.now = 109.0
    assert turn.is_over()
    assert turn.at_most(60.0) == 0
    answer = json.loads(json.dumps(turn.answer(turns.Pause("5 of 8"))))
    assert answer["progress"] == "5 of 8"
    clock.now = 110.0
    turn = turns.Turn({"turn": 5.0, "resume": answer["resume"]})
    assert not turn.is_over()
    assert turn.seconds() == 10.0
    assert turn.left_of(60.0, "asked") == 50.0
    assert turn.left_of(5.0, "asked") == 0
    assert turn.left_of(5.0, "answered") == 5.0


def test_what_takes_long_is_announced_once():
    turn = turns.Turn({"turn": 8.0, "resume": None})
    with pytest.raises(turns.Pause, match="it begins") as pause:
        turn.announce("it begins")
    turns.Turn({"turn": 5.0, "resume": turn.answer(pause.value)["resume"]}).announce("it begins")


def test_a_pause_puts_nothing_back():
    assert not issubclass(turns.Pause, Exception)
