# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import signal
import time

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.ipyparallel.cluster.plugins.action.host_info import ActionModule


def hang():
    # what a signal interrupts, as a wait for ssh is
    signal.sigtimedwait([], 60)


@pytest.fixture
def look(run_action, monkeypatch):
    """Run the action; the module takes what its connection takes."""

    def run(answer, limit=0.05, packs=0.0):
        def execute_module(**_given):
            end = time.monotonic() + packs
            while time.monotonic() < end:
                pass
            return run_action.plugin._connection.exec_command("python")

        connections = []

        def attach(self, *arguments, **options):
            made(self, *arguments, **options)
            run_action.plugin = self
            self._connection.exec_command = lambda _command: answer()
            self._connection.put_file = lambda *_paths: None
            connections.append(self._connection)

        made = ActionModule.__init__
        monkeypatch.setattr(ActionModule, "__init__", attach)
        return run_action(ActionModule, execute_module, cluster="alpha", scope="user", limit=limit)

    return run


def raising(error):
    def call():
        raise error

    return call


def test_an_answer(look):
    result = look(lambda: {"changed": False, "host": {"cores": 2}})
    assert (result["host"], result["problem"]) == ({"cores": 2}, "")


def test_a_host_that_hangs(look):
    started = time.monotonic()
    result = look(hang)
    assert time.monotonic() - started < 5
    assert (result["host"], result["problem"]) == (None, "unreachable: no answer in 0.05 s")
    assert not result.get("failed")
    assert not result.get("unreachable")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_time_that_this_machine_takes_does_not_count(look):
    assert look(lambda: {"changed": False, "host": {}}, packs=0.2)["problem"] == ""


@pytest.mark.parametrize("limit", [0, 5])
def test_a_host_that_is_away(look, limit):
    error = AnsibleConnectionFailure("Failed to connect to the host via ssh: no route to host")
    assert look(raising(error), limit=limit)["problem"] == "unreachable: no route to host"


def test_a_limit_that_is_no_number(look):
    with pytest.raises(AnsibleActionFail, match="argument 'limit'"):
        look(lambda: pytest.fail("it was asked"), limit="abc")


def test_a_module_that_fails(look):
    result = look(lambda: {"failed": True, "msg": "there is no Python", "rc": 127})
    assert (result["host"], result["problem"]) == (None, "there is no Python")
    assert not result.get("failed")
