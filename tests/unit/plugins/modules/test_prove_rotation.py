# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module itself; what it tries is replaced."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, new_keys
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.rotation import RotationError
from ansible_collections.ipyparallel.cluster.plugins.modules import prove_rotation


def half():
    return Identity("alpha", "10.0.0.5", 10100, "json", "curve", "leastload", **new_keys()).text("client")


class Client:
    def close(self, linger):
        pass


@pytest.fixture
def tried():
    return []


@pytest.fixture
def run(run_module, monkeypatch, tmp_path, tried):
    connector = tmp_path / "client.json"
    connector.write_text(half())

    def prove(new, old, seconds):
        tried.append((new, old, seconds))
        return {"refused": "no answer in 1 s", "channels": 7}

    monkeypatch.setattr(prove_rotation, "respawn", lambda module, python: True)
    monkeypatch.setattr(prove_rotation, "act_as", lambda account: None)
    monkeypatch.setattr(prove_rotation, "connect", lambda connector, timeout: Client())
    monkeypatch.setattr(prove_rotation, "prove", prove)

    def _run(**arguments):
        return run_module(prove_rotation, connector=str(connector), python="/nowhere", **arguments)

    return _run


def test_the_old_and_the_new_connector_are_tried(run, tried, tmp_path):
    old = half()
    result = run(replaced=old)
    assert (result["changed"], result["refused"], result["channels"]) == (False, "no answer in 1 s", 7)
    assert tried == [(json.loads((tmp_path / "client.json").read_text()), json.loads(old), 1.0)]
    assert json.loads(old)["key"] not in result.text


def test_without_an_old_one_only_the_new_one_is(run, tried):
    assert run()["answered"] >= 0
    assert tried == []


def test_check_mode_tries_nothing(run, tried):
    # there is none on a host that is to be deployed
    assert not run(check=True, replaced="{}")["changed"]
    assert tried == []


def test_what_is_found_is_a_failure(run, monkeypatch):
    def prove(new, old, seconds):
        raise RotationError("the hub answers a client with the old connector")

    monkeypatch.setattr(prove_rotation, "prove", prove)
    result = run(replaced=half())
    assert result["failed"]
    assert "answers a client" in result["msg"]


def test_a_hub_that_does_not_answer(run, monkeypatch, tried):
    def connect(connector, timeout):
        raise HubError("the hub did not answer within 10 s")

    monkeypatch.setattr(prove_rotation, "connect", connect)
    assert "did not answer" in run(replaced=half())["msg"]
    assert "the old connector is not JSON" in run(replaced="{")["msg"]
    assert tried == []
