# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module itself; what it says to a hub is replaced."""

from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.modules import execute

ENGINES = [{"id": number, "host": f"node{number}", "pool": "default", "core": 0, "pid": 1} for number in (1, 2)]


class Client:
    closed = False

    def close(self, linger):
        self.closed = True


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def run(run_module, monkeypatch, client, sent):
    def carry_out(_client, engines, **given):
        sent.append(([engine["id"] for engine in engines], given))
        status = "error" if given["code"] == "1/0" else "ok"
        return [{"id": engine["id"], "host": engine["host"], "status": status, "error": "no"} for engine in engines]

    monkeypatch.setattr(execute, "respawn", lambda module, python: True)
    monkeypatch.setattr(execute, "act_as", lambda account: None)
    monkeypatch.setattr(execute, "connect", lambda connector, timeout: client)
    monkeypatch.setattr(execute, "registered", lambda client: ENGINES)
    monkeypatch.setattr(execute, "execute", carry_out)

    def _run(check=False, **arguments):
        return run_module(execute, check=check, connector="/c.json", python="/nowhere", **arguments)

    return _run


def test_code_goes_to_the_engines_that_are_meant(run, sent, client):
    result = run(code="a = 5", hosts=["node2"])
    assert (result["engines"], result["problem"]) == ([2], "")
    assert sent == [([2], {"code": "a = 5", "shell": None, "balanced": 0, "limit": 300.0})]
    assert client.closed


def test_check_mode_sends_nothing(run, sent, client):
    assert run(check=True, code="a = 5")["engines"] == [1, 2]
    assert sent == []
    assert client.closed


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"code": "a = ="}, ["does not compile", "nothing was sent"]),
        ({"code": "a = =", "name": "job.py"}, ["job.py, line 1"]),
        ({"code": " "}, ["nothing to run"]),
        ({"shell": ""}, ["nothing to run"]),
        ({"code": "a", "limit": 0}, ["0 s is no time", "set limit"]),
        ({"code": "a", "balanced": -1}, ["-1 is not a number of times"]),
        ({"code": "a", "ids": [9]}, ["no engine 9", "1, 2"]),
        ({"code": "a", "shell": "ls"}, ["mutually exclusive"]),
        ({}, ["one of the following is required: code, shell"]),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_is_refused_is_not_sent(run, sent, arguments, names, check):
    result = run(check=check, **arguments)
    assert result["failed"]
    assert [name for name in names if name not in result["msg"]] == []
    assert sent == []


def test_an_error_of_an_engine_is_a_failure_unless_it_is_only_to_be_returned(run):
    result = run(code="1/0")
    assert result["failed"]
    assert "2 of 2 did not end well: engine 1 (node1): no; engine 2 (node2): no" in result["msg"]
    assert len(result["results"]) == 2
    result = run(code="1/0", fail=False)
    assert not result.get("failed")
    assert "2 of 2" in result["problem"]


def test_a_hub_that_does_not_answer(run, monkeypatch):
    def connect(connector, timeout):
        raise HubError("the hub did not answer within 5 s")

    monkeypatch.setattr(execute, "connect", connect)
    result = run(code="a")
    assert result["failed"]
    assert "did not answer" in result["msg"]
