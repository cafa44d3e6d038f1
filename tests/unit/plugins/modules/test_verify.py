# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module itself, run as Ansible runs it, but without the respawn and without a cluster."""

from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub, verification
from ansible_collections.ipyparallel.cluster.plugins.modules import verify

CHECK = verification.Check(30, "MultiEngineClient.get_ids", lambda _: None)


@pytest.fixture
def run(monkeypatch, run_module):
    """Run the module with a verification that ends in *ending*, a report or an error."""

    def _run(ending=None, check=False, **arguments):
        calls = []

        def fake(connector, timeout, asked, checks, temporary):
            calls.append((connector, timeout, asked, checks))
            if isinstance(ending, Exception):
                raise ending
            return ending

        monkeypatch.setattr(hub, "respawn", lambda module, python: calls.append(python))
        monkeypatch.setattr(verification, "verify", fake)
        arguments = {"connector": "/nowhere/client.json", "python": "/nowhere/python", **arguments}
        result = run_module(verify, check=check, **arguments)
        return result, result.status, calls

    return _run


def test_check_mode_executes_nothing(run):
    result, status, calls = run(check=True)
    assert (status, calls, result["changed"], result["checks"]) == (0, [], False, [])
    assert f"none of the {len(verification.CHECKS)} checks was executed" in result["msg"]


def test_all_is_well(run):
    report = verification.Report([verification.Outcome(CHECK, 0.5)], 2, 1.0)
    result, status, calls = run(report, expected_engines=2, packer="json", encryption="curve", timeout=5)
    assert (status, result["changed"], result["passed"], result["failed_checks"]) == (0, False, 1, [])
    assert result["checks"] == [{"name": CHECK.name, "feature": 30, "seconds": 0.5, "ok": True}]
    asked = verification.Asked(2, "json", "curve")
    assert calls == ["/nowhere/python", ("/nowhere/client.json", 5.0, asked, verification.CHECKS)]


def test_a_failed_check_fails_the_module(run):
    report = verification.Report([verification.Outcome(CHECK, 0.5, "expected [0], came []")], 2, 1.0)
    result, status, _calls = run(report)
    assert (status, result["failed"], result["failed_checks"]) == (1, True, [CHECK.name])
    assert result["msg"] == "1 of 1 checks failed:\nMultiEngineClient.get_ids: expected [0], came []"
    assert result["checks"][0]["message"] == "expected [0], came []"


@pytest.mark.parametrize("error", [verification.VerificationError("no engine"), hub.HubError("no hub")])
def test_nothing_can_be_verified(run, error):
    result, status, _calls = run(error)
    assert (status, result["msg"], result["checks"], result["engines"]) == (1, str(error), [], 0)


def test_a_time_limit_is_needed(run):
    result, status, calls = run(timeout=0)
    assert (status, calls) == (1, [])
    assert "timeout is 0: give a number of seconds above 0" in result["msg"]
