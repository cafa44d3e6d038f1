# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration files of controller and engines, which are no modules: heartbeat and database."""

from __future__ import annotations

import contextlib
import logging
import math
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel import util
from ipyparallel.controller import heartmonitor
from ipyparallel.controller.dictdb import DictDB
from ipyparallel.controller.heartmonitor import HeartMonitor
from ipyparallel.engine.app import IPEngine
from traitlets.config import Config
from zmq.devices import ProcessMonitoredQueue

ROLES = Path(__file__).parents[2] / "roles"


def functions(path):
    """Return the functions of a configuration file, without what it does when it is read."""
    found = {}
    exec((ROLES / path).read_text(encoding="utf-8").partition("\ntry:\n")[0], found)
    return SimpleNamespace(**found)


CONTROLLER = functions("controller/files/ipcontroller_config.py")
ENGINES = functions("engines/files/ipengine_config.py")


@pytest.fixture
def monitor(monkeypatch):
    """A heart monitor whose beat reaches nobody."""
    monkeypatch.setattr(HeartMonitor, "beat", lambda self: self.log.debug("beat"))

    def made(c):
        CONTROLLER.let_heartbeat_fit(c)
        one = HeartMonitor(parent=None, config=c)
        one.caller = SimpleNamespace(callback_time=one.period)
        return one

    return made


# ---- the heartbeat


@given(st.integers(0, 10**6))
def test_the_interval_is_between_the_shortest_and_the_longest(engines):
    assert 500 <= CONTROLLER.beat_for(engines) <= 3000
    assert CONTROLLER.beat_for(engines) <= CONTROLLER.beat_for(engines + 1)


@pytest.mark.parametrize(("engines", "period"), [(0, 500), (250, 500), (400, 800), (1500, 3000), (5000, 3000)])
def test_the_interval_by_engines(engines, period):
    assert CONTROLLER.beat_for(engines) == period


def test_the_interval_follows_the_engines_while_the_controller_runs(monitor):
    one = monitor(Config())
    for engines, period in ((23, 500), (1000, 2000), (23, 500)):
        one.hearts = {str(number) for number in range(engines)}
        one.beat()
        assert one.period == one.caller.callback_time == period
        assert one.max_heartmonitor_misses * period == pytest.approx(30_000, abs=period)


def test_a_given_interval_stays(monitor):
    one = monitor(Config({"HeartMonitor": {"period": 150}}))
    one.hearts = {str(number) for number in range(1000)}
    one.beat()
    assert one.period == one.caller.callback_time == 150
    assert one.max_heartmonitor_misses == 200


def test_given_misses_stay(monitor):
    one = monitor(Config({"HeartMonitor": {"max_heartmonitor_misses": 7}}))
    one.hearts = {str(number) for number in range(1000)}
    one.beat()
    assert (one.period, one.max_heartmonitor_misses) == (2000, 7)


@pytest.mark.parametrize("hb_period", [50, 500, 3000, 20_000])
def test_an_engine_gives_up_after_the_controller_has(monkeypatch, hb_period):
    looked = []
    monkeypatch.setattr(
        IPEngine, "start_heartbeat", lambda _self, _ping, _pong, period, _ident: looked.append(period + 500)
    )
    ENGINES.let_heartbeat_fit(Config())
    engine = SimpleNamespace(max_heartbeat_misses=50)
    IPEngine.start_heartbeat(engine, "", "", hb_period, b"")
    (check,) = looked
    assert check > CONTROLLER.beat_for(10**6), "it would look between two beats"
    beats = math.ceil(CONTROLLER.GONE_AFTER / hb_period)
    assert engine.max_heartbeat_misses * check > beats * hb_period
    assert engine.max_heartbeat_misses * check < 50_000 + check


def test_given_misses_of_an_engine_stay(monkeypatch):
    monkeypatch.setattr(IPEngine, "start_heartbeat", lambda *_: None)
    ENGINES.let_heartbeat_fit(Config({"IPEngine": {"max_heartbeat_misses": 7}}))
    engine = SimpleNamespace(max_heartbeat_misses=7)
    IPEngine.start_heartbeat(engine, "", "", 500, b"")
    assert engine.max_heartbeat_misses == 7


# ---- the database


@pytest.fixture
def database(monkeypatch):
    for name in ("_cull_oldest", "update_record"):
        monkeypatch.setattr(DictDB, name, getattr(DictDB, name))
    CONTROLLER.forget_quickly_and_quietly()
    monkeypatch.setattr(DictDB, "_culled_ids", set())
    return DictDB(record_limit=10, size_limit=1000)


def record(number, size=0):
    return {"msg_id": str(number), "submitted": datetime.now(timezone.utc), "buffers": [b"x" * size]}


def test_the_oldest_records_go(database):
    for number in range(11):
        database.add_record(str(number), record(number))
    assert database.get_history() == [str(number) for number in range(1, 11)]


def test_the_oldest_data_goes(database):
    for number in range(4):
        database.add_record(str(number), record(number, 300))
    assert database.get_history() == ["1", "2", "3"]
    assert database._buffer_bytes == 900


def test_a_result_for_a_forgotten_task_is_no_error(database):
    for number in range(11):
        database.add_record(str(number), record(number))
    database.update_record("0", {"result_buffers": [b"x"]})
    assert "0" not in database.get_history()
    database.update_record("5", {"result_buffers": [b"x" * 7]})
    assert database.get_record("5")["result_buffers"] == [b"x" * 7]
    with pytest.raises(KeyError):
        database.update_record("unknown", {})


# ---- engines that come back


class Stub:
    """What the hub has of engines; time is its own."""

    def __init__(self):
        self.engines, self.by_ident, self.incoming_registrations, self.queues = {}, {}, {}, {}
        self.stranded, self.later, self.log = [], [], logging.getLogger("hub")
        self.loop = SimpleNamespace(call_later=lambda *later: self.later.append(later))

    def new_engine_id(self, _requested):
        return 100

    def handle_new_heart(self, heart):
        self.finish_registration(heart)

    def finish_registration(self, heart):
        engine = self.incoming_registrations.pop(heart)
        self.engines[engine.id] = engine
        self.by_ident[heart] = engine.id
        self.queues[engine.id] = []

    def unregister_engine(self, _ident, message):
        for heart, one in list(self.incoming_registrations.items()):
            if one.id == message["content"]["id"]:
                del self.incoming_registrations[heart]
        if engine := self.engines.pop(message["content"]["id"], None):
            del self.by_ident[engine.ident]

    def _handle_stranded_msgs(self, number, _uuid):
        self.stranded += self.queues[number]

    def register(self, number, uuid):
        self.incoming_registrations[uuid.encode()] = CONTROLLER.EngineConnector(
            id=number, uuid=uuid, ident=uuid.encode()
        )
        self.handle_new_heart(uuid.encode())

    def pass_time(self):
        waiting, self.later = self.later, []
        for _seconds, function, *arguments in waiting:
            function(*arguments)
        return [round(seconds) for seconds, *_rest in waiting]


@pytest.fixture(params=[True])
def hub(request, monkeypatch):
    """A hub, and which engines have gone; with a parameter, whether it takes others too."""
    monkeypatch.setattr(HeartMonitor, "beat", lambda self: setattr(self, "on_probation", {}))
    found = functions("controller/files/ipcontroller_config.py")
    gone = {7: "node1__default__1__5__ff"}
    found.let_engines_come_back.__globals__["Hub"] = type("Patched", (Stub,), {})
    found.let_engines_come_back(gone, request.param)
    made = found.let_engines_come_back.__globals__["Hub"]()
    made.gone = gone
    return made


A, B = "node1__default__0__4__ff", "node2__default__0__4__ff"


def ids(hub):
    return {engine.uuid: number for number, engine in hub.engines.items()}


def test_a_heart_that_beats_again_gets_its_engines_id_back_when_its_tasks_are_elsewhere(hub):
    hub.register(3, A)
    hub.queues[3] = ["task"]
    hub.unregister_engine(None, {"content": {"id": 3}})
    assert hub.gone[3] == A
    hub.handle_new_heart(A.encode())
    assert ids(hub) == {}
    assert hub.pass_time() == [6]
    assert ids(hub) == {A: 3}
    assert 3 not in hub.gone
    assert hub.stranded == ["task"]
    hub.queues[3] = ["new"]
    # the hub calls this two minutes after the engine has left
    hub._handle_stranded_msgs(3, A)
    assert hub.stranded == ["task"]


def test_an_engine_that_had_gone_before_the_start_gets_its_id_back(hub):
    hub.handle_new_heart(b"node1__default__1__5__ff")
    assert hub.pass_time() == [0]
    assert ids(hub) == {"node1__default__1__5__ff": 7}


def test_an_engine_that_nobody_knows_gets_another_id_and_leaves_by_it(hub):
    hub.register(3, A)
    hub.handle_new_heart(B.encode())
    hub.pass_time()
    assert ids(hub) == {A: 3, B: 100}
    # it says so with the number that the controller before this one gave it
    hub.unregister_engine(None, {"header": {"session": B}, "content": {"id": 3}})
    assert ids(hub) == {A: 3}
    hub.unregister_engine(None, {"header": {"session": B}, "content": {"id": 3}})
    assert ids(hub) == {A: 3}
    # health says it of others
    hub.unregister_engine(None, {"header": {"session": "6fb7a9d4-0d1d5f5b5e3a"}, "content": {"id": 3}})
    assert ids(hub) == {}


@pytest.mark.parametrize("hub", [False], indirect=True)
def test_without_encryption_only_those_who_were_there_are_taken_back(hub):
    hub.handle_new_heart(B.encode())
    hub.handle_new_heart(b"node1__default__1__5__ff")
    hub.pass_time()
    assert ids(hub) == {"node1__default__1__5__ff": 7}


def test_one_whose_place_is_taken_waits_until_it_is_free(hub):
    """A restored engine that has ended is there until health forgets it."""
    hub.register(3, A)
    returns = A.replace("4__ff", "9__aa")
    hub.handle_new_heart(returns.encode())
    hub.pass_time()
    assert ids(hub) == {A: 3}
    hub.unregister_engine(None, {"content": {"id": 3}})
    assert hub.pass_time() == [6]
    assert ids(hub) == {returns: 100}


def test_one_whose_place_stays_taken_is_left_alone_at_last(hub):
    hub.register(3, A)
    hub.handle_new_heart(A.replace("4__ff", "9__aa").encode())
    for _turn in range(20):
        hub.pass_time()
    assert hub.later == []
    assert ids(hub) == {A: 3}


def test_an_engine_that_leaves_is_not_taken_back_by_its_last_beats(hub):
    hub.register(3, A)
    hub.unregister_engine(None, {"header": {"session": A}, "content": {"id": 3}})
    hub.handle_new_heart(A.encode())
    hub.pass_time()
    assert ids(hub) == {}


def test_an_engine_that_leaves_before_its_first_beat_is_not_waited_for(hub):
    hub.incoming_registrations[A.encode()] = CONTROLLER.EngineConnector(id=3, uuid=A, ident=A.encode())
    hub.unregister_engine(None, {"header": {"session": A}, "content": {"id": 3}})
    assert hub.incoming_registrations == {}


@pytest.mark.parametrize("heart", [b"6fb7a9d4-0d1d5f5b5e3a", A.encode()])
def test_a_heart_that_is_no_lost_engines_changes_nothing(hub, heart):
    hub.register(3, A)
    hub.handle_new_heart(heart)
    hub.pass_time()
    assert ids(hub) == {A: 3}


def test_those_who_went_are_forgotten_at_last(hub):
    for number in range(8, 1200):
        hub.register(number, f"node1__default__0__{number}__ff")
        hub.unregister_engine(None, {"content": {"id": number}})
    assert len(hub.gone) == 1000


@pytest.mark.usefixtures("hub")
def test_a_heart_that_missed_beats_is_told_of_when_it_beats_again(monkeypatch):
    told = []
    one = HeartMonitor(parent=None)
    monkeypatch.setattr(HeartMonitor, "handle_new_hearts", lambda _self, hearts: told.append(hearts))
    one.hearts, one.responses, one.on_probation = {b"a", b"b"}, {b"a", b"b"}, {b"a": 2}
    one.beat()
    assert told == [{b"a"}]


@pytest.fixture
def peers(monkeypatch):
    """The controller's sockets as its configuration makes them."""
    for module in (util, heartmonitor):
        monkeypatch.setattr(module, "bind", lambda socket, *_arguments, **_options: socket)
    for name in ("bind_in", "bind_out"):
        monkeypatch.setattr(ProcessMonitoredQueue, name, getattr(ProcessMonitoredQueue, name))
    CONTROLLER.let_peers_come_again()


@pytest.mark.usefixtures("peers")
def test_every_socket_of_the_controller_takes_an_engine_that_connects_again():
    """The heartbeat has its own name of the function that binds."""
    with zmq.Context() as context:
        for module in (util, heartmonitor):
            with context.socket(zmq.ROUTER) as socket:
                module.bind(socket, "tcp://127.0.0.1:1")
                assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1


@pytest.mark.usefixtures("peers")
def test_so_do_those_of_devices():
    """An engine with another connection gets its work by it, though the one before seems to be there."""
    with zmq.Context() as context, contextlib.ExitStack() as opened:

        def engine():
            socket = opened.enter_context(context.socket(zmq.DEALER))
            socket.setsockopt(zmq.IDENTITY, b"engine")
            socket.connect(f"tcp://127.0.0.1:{port}")
            return socket

        queue = ProcessMonitoredQueue(zmq.SUB, zmq.ROUTER, zmq.PUB, b"in", b"out")
        queue.bind_in("tcp://127.0.0.1:1")
        queue.bind_out("tcp://127.0.0.1:1")
        options = dict(queue._in_sockopts)
        assert options[zmq.TCP_KEEPALIVE] == 1
        assert zmq.ROUTER_HANDOVER not in options
        controller = opened.enter_context(context.socket(zmq.ROUTER))
        for option, value in queue._out_sockopts:
            controller.setsockopt(option, value)
        port = controller.bind_to_random_port("tcp://127.0.0.1")
        for number in range(2):
            one = engine()
            one.send(b"here")
            assert controller.poll(5000)
            assert controller.recv_multipart() == [b"engine", b"here"]
            controller.send_multipart([b"engine", b"%d" % number])
            assert one.poll(5000), "what is for the engine went to its connection before"
            assert one.recv() == b"%d" % number
