# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.action import preflight


@pytest.fixture
def at(monkeypatch):
    """The operator's clock, which says one time after the other."""

    def set_clock(*times):
        said = iter(times)
        monkeypatch.setattr(preflight, "time", type("Clock", (), {"time": staticmethod(lambda: next(said))}))

    return set_clock


@pytest.mark.parametrize(
    ("theirs", "clock"), [(1001.5, [-0.5, 1.5]), (1000.0, [-2.0, 0.0]), (4601.0, [3599.0, 3601.0]), (1, [-1001, -999])]
)
def test_the_clock_is_known_as_well_as_the_question_was_short(run_action, at, theirs, clock):
    at(1000.0, 1002.0)
    result = run_action(preflight.ActionModule, lambda **_given: {"changed": False, "time": theirs, "cores": 4})
    assert result["clock"] == clock
    assert result["cores"] == 4


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "no room"}, {"unreachable": True}, {"time": "noon"}])
def test_a_host_without_an_answer_has_no_clock(run_action, answer):
    result = run_action(preflight.ActionModule, lambda **_given: answer)
    assert "clock" not in result
    assert {name: result[name] for name in answer} == answer


def test_really(run_action):
    (behind, ahead) = run_action(preflight.ActionModule, lambda **_given: {"time": time.time()})["clock"]
    assert -1 < behind <= 0 <= ahead < 1
