# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import signal
import time

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ipyparallel.cluster.plugins.action.cluster_info import ActionModule
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils import patience

ANSWER = {"changed": False, "cluster": {"running": True}, "host": {"cores": 2}}


@pytest.fixture
def look(run_action, monkeypatch):
    """Run the action; the host takes *seconds*."""
    monkeypatch.setattr(patience, "OURS", 0)

    def run(seconds=0.0, **arguments):
        def execute_module(**_given):
            # what a signal interrupts, as a wait for ssh is
            signal.sigtimedwait([], seconds)
            return ANSWER

        return run_action(ActionModule, execute_module, cluster="alpha", scope="user", **arguments)

    return run


@pytest.mark.parametrize("limits", [{}, {"limit": 0}, {"limit": 5}])
def test_an_answer(look, limits):
    assert look(**limits) == ANSWER


def test_a_host_that_hangs_is_unreachable(look):
    started = time.monotonic()
    result = look(60, limit=0.05, timeout=0.1)
    assert time.monotonic() - started < 5
    assert (result["unreachable"], result["msg"]) == (True, "no answer in 0.15 s")


def test_the_time_of_the_hub_is_given_on_top(look):
    assert look(0.3, limit=0.05, timeout=5) == ANSWER


def test_a_limit_that_is_no_number(look):
    with pytest.raises(AnsibleActionFail, match="argument 'limit'"):
        look(limit="abc")
