# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sockets and clients are real; the hub is a thread that answers one request."""

from __future__ import annotations

import threading
import time

import pytest
import zmq
from ansible_collections.ipyparallel.cluster.plugins.module_utils import rotation
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, new_keys
from ansible_collections.ipyparallel.cluster.plugins.module_utils.rotation import CHANNELS, PUBLISHED, RotationError
from jupyter_client.session import Session


class Controller:
    """All that a client connects to; the hub answers whoever has the key."""

    errs = False
    """Whether it tells others that something is wrong."""

    def __init__(self, encryption):
        self.context = zmq.Context()
        self.keys = new_keys()
        self.sockets, ports = {}, {}
        for channel in CHANNELS:
            socket = self.sockets[channel] = self.context.socket(zmq.PUB if channel in PUBLISHED else zmq.ROUTER)
            if encryption == "curve":
                socket.curve_server = True
                socket.curve_secretkey = self.keys["curve_secretkey"].encode()
            ports[channel] = socket.bind_to_random_port("tcp://127.0.0.1")
        self.half = {**self.identity(encryption).half("client"), **ports}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def identity(self, encryption="curve"):
        return Identity("alpha", "127.0.0.1", 10100, "json", encryption, "leastload", **self.keys)

    def answer(self):
        session = Session(key=self.keys["key"].encode(), packer="json", unpacker="json")
        hub = self.sockets["registration"]
        while not self.ended.is_set():
            if hub.poll(20):
                ident, parts = session.feed_identities(hub.recv_multipart())
                try:
                    status = "ok" if session.deserialize(parts) else ""
                except ValueError:  # another key
                    status = "error" if self.errs else ""
                if status:
                    session.send(hub, "connection_reply", {"status": status, "engines": {}}, ident=ident)

    def close(self):
        self.ended.set()
        self.thread.join()
        self.context.destroy(linger=0)


@pytest.fixture(params=["curve", "none"])
def controller(request):
    made = Controller(request.param)
    yield made
    made.close()


@pytest.fixture
def old():
    return Identity("alpha", "127.0.0.1", 10100, "json", "curve", "leastload", **new_keys()).half("client")


def test_another_connector_is_refused(controller, old):
    started = time.monotonic()
    curve = bool(controller.half["curve_serverkey"])
    assert rotation.prove(controller.half, old, 0.3) == {
        "refused": "no answer in 0.3 s",
        "channels": len(CHANNELS) if curve else 0,
    }
    # who is refused says so at once; only the answers that do not come are waited for
    assert time.monotonic() - started < 3


def test_a_key_that_was_not_renewed_is_found(controller, old):
    with pytest.raises(RotationError, match="nothing was renewed"):
        rotation.prove(controller.half, controller.half, 0.3)
    if controller.half["curve_serverkey"]:
        old = {**old, "curve_serverkey": controller.half["curve_serverkey"]}
        with pytest.raises(RotationError, match=r"lets the old connector in on broadcast, control, .*deploy"):
            rotation.prove(controller.half, old, 0.3)


def test_a_hub_that_still_answers_the_old_key_is_found(controller, old, monkeypatch):
    assert rotation.answer(controller.half, controller.half["key"], 2.0) == ""
    monkeypatch.setattr(rotation, "answer", lambda half, key, seconds: "")
    with pytest.raises(RotationError, match="the hub answers a client with the old connector"):
        rotation.prove(controller.half, old, 0.3)


def test_engines_that_run_what_the_old_key_has_signed_are_found(old, monkeypatch):
    monkeypatch.setattr(rotation, "answer", lambda half, key, seconds: "no answer")
    monkeypatch.setattr(rotation, "runs_code", lambda half, key, seconds: 3 if key == old["key"] else None)
    new = {**old, "key": "new", "curve_serverkey": None}
    with pytest.raises(RotationError, match="engine 3 runs what is signed with the old key"):
        rotation.prove(new, old, 0.1)


def test_a_controller_that_does_not_let_the_new_connector_in(old):
    new = {**old, **new_keys(), "interface": "tcp://127.0.0.1", "control": 1}
    new["curve_serverkey"] = new["curve_publickey"]
    with pytest.raises(RotationError, match="does not let the new connector in on broadcast, control"):
        rotation.prove(new, old, 0.05)


def test_the_old_keys_are_tried_where_the_cluster_is_now(old):
    new = {**old, "key": "new", "curve_serverkey": "n" * 40, "control": 20000, "interface": "tcp://10.0.0.9"}
    tried = rotation.with_old_keys(new, old)
    assert tried == {**new, "key": old["key"], "curve_serverkey": old["curve_serverkey"]}
    # a client without encryption is let in by a controller without: its key decides
    assert rotation.with_old_keys({**new, "curve_serverkey": None}, old)["curve_serverkey"] is None


@pytest.mark.parametrize("controller", ["none"], indirect=True)
def test_an_error_is_no_answer_and_is_read_with_the_new_key(controller, old):
    controller.errs = True
    half = {**controller.half, "key": old["key"]}
    assert rotation.answer(half, controller.half["key"], 2.0) == "an error in place of an answer"


class Result:
    def __init__(self, ready):
        self.ready = lambda: ready
        self.wait = lambda seconds: None


@pytest.mark.parametrize(("engines", "ready", "number"), [([7], True, 7), ([7], False, None), ([], True, None)])
def test_code_goes_to_an_engine_with_the_other_key_and_its_answer_is_read(old, monkeypatch, engines, ready, number):
    import ipyparallel

    class Client:
        closed = False

        def __init__(self, half, timeout):
            self.session = Session(key=b"new")
            self._io_loop = self

        def add_callback(self, callback, *arguments):
            callback(*arguments)

        def close(self, linger):
            Client.closed = True

    def no_op(client, way, number, limit):
        assert (way, number) == ("direct", 7)
        assert (client.session.send.__self__.key, client.session.key) == (b"old", b"new")
        return Result(ready)

    monkeypatch.setattr(ipyparallel, "Client", Client)
    monkeypatch.setattr(rotation.hub, "registered", lambda client: [{"id": number} for number in engines])
    monkeypatch.setattr(rotation.hub, "no_op", no_op)
    assert rotation.runs_code(old, "old", 0.1) == number
    assert Client.closed
