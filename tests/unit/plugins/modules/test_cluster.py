# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules cluster_info and wait_for_engines, with a hub that is made up; a real one answers in scenario local."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import socket
import sys
import threading
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, identity_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import RECORD
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubAwayError, Waiting
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import NOTHING_KNOWN
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state, write_state
from ansible_collections.ipyparallel.cluster.plugins.modules import cluster_info, host_info, wait_for_engines

IDENTITY = Identity("alpha", "10.0.0.5", 10100, "msgpack", "curve", "lru", "0" * 64, "p" * 40, "s" * 40)
ENGINES = {"node1": {"default": 2}}
NOTEBOOKS = {"node1": {"url": "https://127.0.0.1:8888/lab"}}


class Client:
    closed = False

    def close(self):
        self.closed = True


def no_hub(connector, timeout, waited=0.0):
    raise HubAwayError(f"the hub of {connector} did not answer within {timeout + waited:.0f} s")


@pytest.fixture
def client(monkeypatch):
    found = Client()
    for module in (cluster_info, wait_for_engines):
        monkeypatch.setattr(module, "connect", lambda connector, timeout, waited=0.0: found)
    monkeypatch.setattr(cluster_info, "why_no_hub", lambda identity: "")
    return found


@pytest.fixture
def state(tmp_path):
    (tmp_path / "identity.json").write_text(identity_text(IDENTITY))
    (tmp_path / RECORD).write_text(json.dumps({"versions": {"python": "3.11.2"}}))
    write_state(str(tmp_path), {"engines": ENGINES, "notebooks": NOTEBOOKS})
    return tmp_path


@pytest.fixture
def run(run_module, tmp_path):
    def _run(module, **arguments):
        places = {"state_directory": str(tmp_path), "connector": "/nowhere/client.json", "python": sys.executable}
        return run_module(module, **{**places, **arguments})

    return _run


# ---- cluster_info


@pytest.fixture
def info(run_module, monkeypatch, tmp_path):
    def _info(environment=tmp_path, **arguments):
        places = {name: str(tmp_path) for name in ("prefix", "config", "state", "log", "run")}
        further = {"environment": str(environment), "python": sys.executable, "client": "/nowhere/client.json"}
        monkeypatch.setattr(cluster_info, "own_paths", lambda scope, cluster: {**places, **further})
        return run_module(cluster_info, **{"cluster": "alpha", "scope": "user", **arguments})

    return _info


@pytest.mark.parametrize("check", [False, True])
def test_a_running_cluster(info, state, client, monkeypatch, check):
    engine = {"id": 0, "uuid": "x", "host": "node1", "pool": "default", "core": 1, "pid": 4711, "completed": 2}
    engines = [engine]
    monkeypatch.setattr(cluster_info, "described", lambda client: (engines, {"queued": 3, "completed": 2}))
    result = info(check=check)
    assert not result["changed"]
    cluster = result["cluster"]
    assert cluster.pop("fingerprint") == IDENTITY.fingerprint
    assert cluster == {
        "deployed": True,
        "running": True,
        "problem": "1 of 2 engines are missing: node1 default/0",
        "name": "alpha",
        "controller": {
            "host": os.uname().nodename,
            "address": "10.0.0.5",
            "ports": {"engine": "10100-10108", "client": "10109-10114", "internal": "10115-10117"},
        },
        "packer": "msgpack",
        "encryption": "curve",
        "scheduler": "lru",
        "versions": {"python": "3.11.2"},
        "engines": engines,
        "expected": 2,
        "expected_by_host": ENGINES,
        "missing": ["node1 default/0"],
        "notebooks": NOTEBOOKS,
        "queue": {"queued": 3, "completed": 2},
        "workers": [],
        "health": {"state": "absent", "since": "", "problems": [], "repairs": []},
    }
    assert client.closed
    for secret in (IDENTITY.key, IDENTITY.curve_publickey, IDENTITY.curve_secretkey):
        assert secret not in result.text


def test_a_whole_cluster_has_no_problem(info, state, client, monkeypatch):
    engines = [
        {"id": core, "host": "node1", "pool": "default", "core": core, "pid": 4711, "completed": 0} for core in (0, 1)
    ]
    monkeypatch.setattr(cluster_info, "described", lambda client: (engines, {"completed": 0}))
    cluster = info()["cluster"]
    assert (cluster["running"], cluster["problem"], cluster["missing"]) == (True, "", [])


def test_a_hub_that_does_not_answer(info, state, monkeypatch):
    monkeypatch.setattr(cluster_info, "connect", no_hub)
    monkeypatch.setattr(cluster_info, "why_no_hub", lambda identity: "")
    cluster = info(timeout=2)["cluster"]
    assert (cluster["deployed"], cluster["running"], cluster["engines"], cluster["expected"]) == (True, False, [], 2)
    assert "did not answer within 2 s" in cluster["problem"]
    assert cluster["packer"] == "msgpack"


def test_a_hub_that_dies_while_it_answers(info, state, client, monkeypatch):
    def die(client):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(cluster_info, "described", die)
    cluster = info()["cluster"]
    assert not cluster["running"]
    assert cluster["problem"] == "the hub did not answer a question: ConnectionResetError: gone"
    assert client.closed


def test_a_hub_that_is_down_is_not_waited_for(info, state, monkeypatch, free_port):
    here = dataclasses.replace(IDENTITY, address="127.0.0.1", port_base=free_port)
    (state / "identity.json").write_text(identity_text(here))
    monkeypatch.setattr(cluster_info, "connect", None)
    monkeypatch.setattr(cluster_info, "respawn", None)
    result = info()
    cluster = result["cluster"]
    assert (cluster["deployed"], cluster["running"], cluster["expected"]) == (True, False, 2)
    assert f"nobody listens at 127.0.0.1:{free_port}" in cluster["problem"]
    assert "ipyparallel.cluster.start" in cluster["problem"]
    assert cluster["versions"] == {"python": "3.11.2"}
    assert result["host"]["memory_total_bytes"] > 0


def test_where_somebody_listens_the_hub_is_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = dataclasses.replace(IDENTITY, address="127.0.0.1", port_base=server.getsockname()[1])
        assert cluster_info.why_no_hub(here) == ""
    assert cluster_info.why_no_hub(dataclasses.replace(IDENTITY, address="no.such.name.invalid")) == ""


@pytest.fixture
def watchdog():
    """A watchdog that says what it is told to; the identity whose it is."""
    said = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said["status"]).encode())

        def log_message(self, *_arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    port_base = server.server_port - (IDENTITY.ports.metrics - IDENTITY.port_base)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield said, dataclasses.replace(IDENTITY, port_base=port_base)
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_the_watchdog_has_had_done_is_taken_off(info, state, client, monkeypatch, watchdog):
    said, identity = watchdog
    said["status"] = {"state": "whole", "since": "now", "problems": [], "events": [], "own_completed": {"0": 3, "1": 9}}
    (state / "identity.json").write_text(identity_text(identity))
    engines = [
        {"id": core, "host": "node1", "pool": "default", "core": core, "pid": 4711, "completed": 4} for core in (0, 1)
    ]
    monkeypatch.setattr(cluster_info, "described", lambda client: (engines, {"completed": 8}))
    cluster = info()["cluster"]
    assert [engine["completed"] for engine in cluster["engines"]] == [1, 0]
    assert cluster["queue"] == {"completed": 1}
    assert cluster["health"] == {"state": "whole", "since": "now", "problems": [], "repairs": []}


def test_a_hub_that_the_watchdog_gave_up_is_not_waited_for_long(info, state, monkeypatch, watchdog):
    said, identity = watchdog
    said["status"] = {"state": "down", "since": "now", "problems": ["no hub"], "events": []}
    (state / "identity.json").write_text(identity_text(identity))
    monkeypatch.setattr(cluster_info, "connect", no_hub)
    monkeypatch.setattr(cluster_info, "why_no_hub", lambda identity: "")
    assert "did not answer within 1 s" in info(timeout=5)["cluster"]["problem"]


# ---- host_info


@pytest.mark.parametrize("check", [False, True])
def test_this_host(run_module, check):
    result = run_module(host_info, check=check, cluster="alpha", scope="user", limit=2.0)
    assert not result["changed"]
    assert result["host"]["memory_total_bytes"] > 0


def test_a_host_that_cannot_be_read(run_module, monkeypatch):
    def fail(cluster, scope):
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setattr(host_info, "usage", fail)
    result = run_module(host_info, cluster="alpha", scope="user")
    assert "/proc/meminfo" in result["msg"]


# ---- cluster_info, where there is nothing


def test_no_cluster(info, tmp_path, state):
    assert info(environment=tmp_path / "none")["cluster"]["deployed"] is False
    (state / "identity.json").unlink()
    result = info()
    # the host has answered
    assert result["host"]["memory_total_bytes"] > 0
    cluster = result["cluster"]
    assert (cluster["deployed"], cluster["expected"]) == (False, 0)
    assert cluster.keys() == NOTHING_KNOWN.keys()
    for part in (str(tmp_path), "deploy"):
        assert part in cluster["problem"]


@pytest.mark.parametrize("name", ["identity.json", "cluster.json"])
def test_what_is_broken_is_named(info, state, name):
    (state / name).write_text("{")
    result = info()
    assert result["failed"]
    assert f"{state}/{name}" in result["msg"]


# ---- wait_for_engines


@pytest.fixture
def found(client, monkeypatch):
    """What the wait ends with, and what was waited for."""
    ending = {"found": Waiting([], [], [], 2), "expected": [], "released": []}

    def wait_for(client, expected, seconds):
        ending["expected"].append((expected, seconds))
        return ending["found"]

    monkeypatch.setattr(wait_for_engines, "wait_for", wait_for)
    monkeypatch.setattr(wait_for_engines, "registered", lambda client: ["all"])
    monkeypatch.setattr(wait_for_engines.draining, "release", lambda client, all_: ending["released"].extend(all_))
    return ending


def test_engines_that_were_held_and_not_ended_have_work_again(run, found):
    run(wait_for_engines, engines=ENGINES)
    assert found["released"] == ["all"]


def test_fours(run, tmp_path, found):
    arguments = {"engines": ENGINES, "notebooks": NOTEBOOKS, "limit": 5}
    assert run(wait_for_engines, check=True, diff=True, **arguments)["changed"]
    assert os.listdir(tmp_path) == []
    assert found["expected"] == []

    result = run(wait_for_engines, diff=True, **arguments)
    assert result["changed"]
    remembered = {**read_state("/nowhere"), "engines": ENGINES, "notebooks": NOTEBOOKS}
    assert result["diff"]["after"] == remembered
    assert read_state(str(tmp_path)) == remembered
    assert (result["registered"], result["missing"], result["problem"]) == (2, [], "")
    two = {Engine("node1", "default", 0), Engine("node1", "default", 1)}
    assert found["expected"] == [(two, pytest.approx(5, abs=0.5))]

    for check in (True, False):
        assert not run(wait_for_engines, check=check, **arguments)["changed"]


def test_only_chosen_hosts_are_waited_for(run, tmp_path, found):
    write_state(str(tmp_path), {"engines": {"node1": {"default": 1}, "node2": {"default": 1}}})
    run(wait_for_engines, hosts=["node2"])
    assert {str(engine) for engine in found["expected"][0][0]} == {"node2 default/0"}
    run(wait_for_engines, hosts=[])
    assert found["expected"][1][0] == set()


@pytest.mark.parametrize("end", [True, False])
def test_the_lease_is_held_while_engines_are_waited_for(run, tmp_path, found, monkeypatch, end):
    seen = []

    def release(client, engines):
        seen.append(read_state(str(tmp_path))["lease"].get("phase"))

    monkeypatch.setattr(wait_for_engines.draining, "release", release)
    lease = {"holder": "ada@laptop", "run": "1-1", "runs": ["1-1"], "sees": True, "takeover": False}
    found["found"] = Waiting([Engine("node1", "default", 0)], [], [], 1)
    assert run(wait_for_engines, engines=ENGINES, lease=lease, end=end, fail=False)["problem"]
    assert seen == ["wait"], "it is held until the engines are released"
    assert bool(read_state(str(tmp_path))["lease"]) is not end
    other = {**lease, "holder": "bob@desk"}
    write_state(str(tmp_path), {"lease": {"holder": "eve@pc", "run": "3-3", "since": 1, "renewed": time.time()}})
    assert "eve@pc is at work" in run(wait_for_engines, lease=other)["msg"]
    run(wait_for_engines)
    assert read_state(str(tmp_path))["lease"]["holder"] == "eve@pc", "a wait without a lease ends nobody's"


def test_without_engines_those_that_are_remembered_are_waited_for(run, state, found):
    assert not run(wait_for_engines)["changed"]
    assert {str(engine) for engine in found["expected"][0][0]} == {"node1 default/0", "node1 default/1"}


def test_under_a_limit_other_hosts_are_kept_and_not_waited_for(run, state, found):
    assert run(wait_for_engines, engines={"node2": {"default": 1}})["changed"]
    assert {str(engine) for engine in found["expected"][0][0]} == {"node2 default/0"}
    assert read_state(str(state))["engines"] == {**ENGINES, "node2": {"default": 1}}


@pytest.mark.parametrize(
    ("waiting", "names"),
    [
        (Waiting([Engine("node1", "default", 1)], [], [], 1), ["1 of 2 engines", "missing: node1 default/1"]),
        (Waiting([], [Engine("node1", "default", 1)], [], 3), ["more than once: node1 default/1"]),
        (Waiting([], [], [7], 2), ["without an answer: id 7"]),
    ],
)
def test_what_is_missing_is_named_and_remembered(run, tmp_path, found, client, waiting, names):
    found["found"] = waiting
    result = run(wait_for_engines, engines=ENGINES)
    assert result["failed"]
    assert [part for part in names if part not in result["msg"]] == []
    assert client.closed
    assert read_state(str(tmp_path))["engines"] == ENGINES
    result = run(wait_for_engines, engines=ENGINES, fail=False)
    assert not result.get("failed")
    assert [part for part in names if part not in result["problem"]] == []


def test_without_a_hub_every_engine_is_missing(run, monkeypatch):
    monkeypatch.setattr(wait_for_engines, "connect", no_hub)
    result = run(wait_for_engines, engines=ENGINES, timeout=2)
    assert result["failed"]
    assert "did not answer within 2 s" in result["msg"]
    assert result["missing"] == [{"host": "node1", "pool": "default", "core": core} for core in (0, 1)]


def test_a_turn_that_ends_before_the_wait_says_how_far_it_is_and_keeps_the_lease(run, tmp_path, found, client):
    missing = [Engine("node2", "default", 0), *(Engine("node3", "default", core) for core in range(4))]
    found["found"] = Waiting(missing, [], [], 1)
    lease = {"holder": "ada@laptop", "run": "1-1", "runs": ["1-1"], "sees": True, "takeover": False}
    engines = {"node1": {"default": 1}, "node2": {"default": 2}, "node3": {"default": 4}}
    first = run(wait_for_engines, engines=engines, lease=lease, turn=8, limit=60)
    assert first["progress"] == "2 of 7 engines are registered; missing: node2 1 of 2, node3 4 of 4"
    assert (first["changed"], "problem" in first, client.closed, found["released"]) == (True, False, True, [])
    assert found["expected"][-1][1] == pytest.approx(8, abs=0.5)
    assert read_state(str(tmp_path))["lease"]["holder"] == "ada@laptop"

    # 57 of 60 seconds later
    resume = {name: seconds - 57 for name, seconds in first["resume"].items()}
    last = run(wait_for_engines, engines=engines, lease=lease, turn=8, limit=60, resume=resume, fail=False)
    assert found["expected"][-1][1] == pytest.approx(3, abs=0.5)
    assert "2 of 7" in last["problem"]
    assert (last["changed"], last["seconds"]) == (False, pytest.approx(57, abs=0.5))
    assert read_state(str(tmp_path))["lease"] == {}


@pytest.mark.parametrize(
    ("waiting", "says"),
    [
        (
            Waiting([], [Engine("node1", "default", 1)], [], 3),
            "2 of 2 engines are registered; registered more than once: 1",
        ),
        (Waiting([], [], [7], 2), "2 of 2 engines are registered; without an answer: 1"),
    ],
)
def test_what_else_is_not_as_expected_is_said(run, found, waiting, says):
    found["found"] = waiting
    assert run(wait_for_engines, engines=ENGINES, turn=8)["progress"] == says


def test_a_hub_that_does_not_answer_yet_is_waited_for(run, monkeypatch):
    monkeypatch.setattr(wait_for_engines, "connect", no_hub)
    first = run(wait_for_engines, engines=ENGINES, turn=8, timeout=30)
    assert first["progress"] == "the hub does not answer yet"
    resume = {name: seconds - 25 for name, seconds in first["resume"].items()}
    last = run(wait_for_engines, engines=ENGINES, turn=8, timeout=30, resume=resume)
    assert "did not answer within 30 s" in last["msg"]


def test_a_host_without_the_environment_in_check_mode(run, monkeypatch):
    monkeypatch.setattr(wait_for_engines, "respawn", lambda module, python: False)
    assert run(wait_for_engines, check=True, engines=ENGINES)["changed"]


def test_a_broken_state_and_a_full_disk_are_named(run, tmp_path, found, full_disk):
    with full_disk():
        result = run(wait_for_engines, engines=ENGINES)
    assert result["failed"]
    assert "cannot remember the engines" in result["msg"]
    (tmp_path / "cluster.json").write_text("{")
    result = run(wait_for_engines, engines=ENGINES)
    assert result["failed"]
    assert f"{tmp_path}/cluster.json" in result["msg"]
    assert found["expected"] == []
