# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

import pytest
from ansible_collections.ipyparallel.cluster.plugins.modules import reach

PORTS = list(range(10100, 10109))


@pytest.fixture
def ask(run_module, monkeypatch):
    def run(failed, check=False, **arguments):
        asked = []
        monkeypatch.setattr(reach, "unreachable_ports", lambda *given: asked.append(given) or failed)
        given = {"controller": "node1", "address": "192.0.2.7", "ports": PORTS, **arguments}
        result = run_module(reach, check=check, **given)
        assert asked in ([], [("192.0.2.7", PORTS, given.get("seconds", 3.0))])
        return result

    return run


@pytest.mark.parametrize("check", [False, True])
def test_a_controller_that_is_reached(ask, check):
    result = ask({}, check)
    assert (result["changed"], result["unreachable"], result.status) == (False, {}, 0)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("failed", "more"),
    [({10103: "no route to it"}, None), (dict.fromkeys(PORTS, "no answer in 3 s"), "8 more of 10100 to 10108")],
)
def test_one_that_is_not_names_port_both_ends_reason_and_remedy(ask, failed, more, check):
    result = ask(failed, check)
    assert result["failed"]
    port, reason = next(iter(failed.items()))
    where = f"port {port} at 192.0.2.7, the controller on node1, is not reached from {os.uname().nodename}: {reason}"
    for part in (where, "let TCP to these ports through", "ipyparallel_address of node1", more or ""):
        assert part in result["msg"]
    assert ("more of" in result["msg"]) == bool(more)
    assert result["unreachable"] == {str(port): reason for port, reason in failed.items()}


def test_a_host_does_not_look_for_the_controller_on_itself(ask):
    result = ask({}, address="127.0.0.1")
    assert result["failed"]
    for part in ("127.0.0.1", "controller on node1", f"one of {os.uname().nodename}'s own", "ipyparallel_address"):
        assert part in result["msg"]
