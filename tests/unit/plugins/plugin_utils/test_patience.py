# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of time; whole questions are in the tests of the actions."""

from __future__ import annotations

import signal
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.patience import NoAnswer, at_most, limited


def hang():
    # what a signal interrupts, as a wait for ssh is
    signal.sigtimedwait([], 60)


def test_the_limit_is_for_all_calls_together():
    spent = []
    first, second = limited(lambda: "done", 5, spent), limited(hang, 5, spent)
    assert first() == "done"
    spent.append(4.99)
    started = time.monotonic()
    with pytest.raises(NoAnswer):
        second()
    assert time.monotonic() - started < 4


def test_no_alarm_comes_after_its_handler_is_gone(monkeypatch):
    left, set_handler = [], signal.signal

    def watched(number, handler):
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return set_handler(number, handler)

    monkeypatch.setattr(signal, "signal", watched)
    with at_most(5):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert left == [0, 0]


def test_limits_within_limits():
    def outer():
        with at_most(0.05):
            with at_most(5):
                pass
            hang()

    with pytest.raises(NoAnswer):
        outer()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
