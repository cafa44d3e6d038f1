# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of the roles controller and engines that let load-balanced tasks survive."""

from __future__ import annotations

import collections
import importlib.util
import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.controller.dependency import Dependency
from jupyter_client.session import Session
from tornado.ioloop import IOLoop

ROLES = Path(__file__).parents[2] / "roles"
LOG = logging.getLogger("test")


def load_scheduler() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("task_scheduler", ROLES / "controller/files/task_scheduler.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scheduler = load_scheduler()


def functions(path: str) -> dict:
    """Return the functions of a configuration file, which is no module."""
    found: dict = {}
    exec((ROLES / path).read_text(encoding="utf-8").partition("\ntry:\n")[0], found)
    return found


def read_again(path) -> dict:
    return scheduler.Journal(path, LOG).read()


def test_what_is_not_done_is_read_again_in_its_order_with_who_has_it(tmp_path):
    journal = scheduler.Journal(tmp_path / "tasks", LOG)
    for number in range(4):
        journal.add(f"t{number}", [b"client", b"\n", bytes([number])])
    journal.give("t1", "e1")
    journal.give("t3", "e1")
    journal.give("t3", "e2")
    journal.done("t0")
    journal.done("unknown")
    assert read_again(tmp_path / "tasks") == {
        "t1": ([b"client", b"\n", b"\1"], "e1", ""),
        "t2": ([b"client", b"\n", b"\2"], "", ""),
        "t3": ([b"client", b"\n", b"\3"], "e2", ""),
    }
    assert (tmp_path / "tasks").stat().st_mode & 0o777 == 0o600


def test_the_next_one_goes_on_in_the_same_file(tmp_path):
    first = scheduler.Journal(tmp_path / "tasks", LOG)
    first.add("a", [b"x"])
    first.add("b", [b"y"])
    second = scheduler.Journal(tmp_path / "tasks", LOG)
    second.read()
    second.done("a")
    second.add("c", [b"z"])
    assert list(read_again(tmp_path / "tasks")) == ["b", "c"]


@given(st.data())
def test_a_half_written_end_is_dropped_and_written_over(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "tasks"
    journal = scheduler.Journal(path, LOG)
    sizes = []
    for number in range(3):
        journal.add(f"t{number}", [b"f" * 40])
        sizes.append(journal.size)
    cut = data.draw(st.integers(0, journal.size))
    os.truncate(path, cut)
    whole = [f"t{number}" for number, size in enumerate(sizes) if size <= cut]
    after = scheduler.Journal(path, LOG)
    assert list(after.read()) == whole
    after.add("new", [b"n"])
    assert list(read_again(path)) == [*whole, "new"]


def test_the_file_does_not_grow_with_what_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "SPARE_BYTES", 1000)
    journal = scheduler.Journal(tmp_path / "tasks", LOG)
    journal.add("stays", [b"s" * 10])
    journal.give("stays", "e1")
    for number in range(300):
        journal.add(f"t{number}", [b"f" * 50])
        journal.done(f"t{number}")
    assert (tmp_path / "tasks").stat().st_size < 1500
    assert read_again(tmp_path / "tasks") == {"stays": ([b"s" * 10], "e1", "")}


def test_a_full_disk_is_told_once_and_loses_nothing_that_was_noted(tmp_path, monkeypatch, caplog):
    journal = scheduler.Journal(tmp_path / "tasks", LOG)
    journal.add("noted", [b"x"])
    write = os.write

    def half(file, data):
        write(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scheduler.os, "write", half)
    for number in range(3):
        journal.add(f"t{number}", [b"y"])
    monkeypatch.undo()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    journal.add("later", [b"z"])
    assert list(read_again(tmp_path / "tasks")) == ["noted", "later"]


def test_a_task_that_is_too_large_is_not_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "MOST_BYTES", 10)
    journal = scheduler.Journal(tmp_path / "tasks", LOG)
    journal.add("large", [b"x" * 11])
    journal.give("large", "e1")
    journal.done("large")
    assert read_again(tmp_path / "tasks") == {}


# ---- engines that are to leave


def make_scheduler(**jobs):
    """Return a scheduler of engines a, b and c, without sockets, and with these tasks waiting."""
    it = scheduler.KeepingTaskScheduler.__new__(scheduler.KeepingTaskScheduler)
    it.targets, it.loads, it.hwm = [b"a", b"b", b"c"], [0, 0, 0], 1
    it.completed = {engine: set() for engine in it.targets}
    it.failed = {engine: set() for engine in it.targets}
    it.pending = {engine: {} for engine in it.targets}
    it.all_completed, it.all_failed, it.graph = set(), set(), {}
    it.queue_map = {ident: job_for(ident, **what) for ident, what in jobs.items()}
    it.queue = collections.deque(it.queue_map.values())
    it.draining, it.again, it.begun, it.waited_for, it.doing_bound, it.going_to = {}, {}, {}, {}, False, None
    it.given = []
    it.submit_task = lambda job, indices=None: it.given.append((job.msg_id, [it.targets[index] for index in indices]))
    return it


def job_for(ident, targets=(), follow=(), blacklist=()):
    parts = dict.fromkeys(("raw_msg", "idents", "msg", "header", "metadata", "timeout"))
    job = scheduler.Job(
        msg_id=ident, targets=set(targets), after=Dependency([]), follow=Dependency(list(follow)), **parts
    )
    job.blacklist = set(blacklist)
    return job


def leave(it, *engines, seconds=60.0):
    it.draining.update(dict.fromkeys(engines, scheduler.time.monotonic() + seconds))


def test_engines_that_are_to_leave_get_nothing_new():
    it = make_scheduler()
    leave(it, b"a", b"c")
    assert it.maybe_run(job_for("one"))
    assert it.given == [("one", [b"b"])]
    it.loads = [0, 1, 0]
    assert not it.maybe_run(job_for("two")), "it waits for an engine that stays"


def test_a_task_that_only_such_an_engine_may_do_is_done_there():
    it = make_scheduler(bound={"targets": [b"a"]}, free={}, both={"targets": [b"a", b"b"]})
    leave(it, b"a")
    assert it.drained([b"a"])["waiting"] == ["bound"]
    it.do_bound()
    assert it.given == [("bound", [b"a"])]
    assert list(it.queue_map) == [job.msg_id for job in it.queue] == ["free", "both"]


def test_a_task_that_follows_another_goes_where_that_was_done():
    it = make_scheduler()
    it.completed[b"a"] = it.all_completed = {"before"}
    leave(it, b"a")
    assert it.is_bound(job_for("x", follow=["before"]))
    assert not it.is_bound(job_for("x", follow=["before"], blacklist=[b"a"]))
    assert not it.is_bound(job_for("x", targets=[b"b"]))
    assert not it.is_bound(job_for("x")), "when all are to leave, it waits for those that come"


def test_it_tells_what_such_engines_have(monkeypatch):
    it = make_scheduler()
    it.pending[b"a"] = {"one": job_for("one")}
    it.again[b"a"] = {"two": scheduler.Task([])}
    it.begun = {"one": scheduler.time.monotonic() - 5}
    leave(it, b"a")
    running = it.drained([b"a", b"gone"])["running"]
    assert [(one["task"], round(one["seconds"])) for one in running["a"]] == [("one", 5), ("two", 0)]
    assert running["gone"] == []


def test_they_get_work_again_when_nobody_asks_any_more(monkeypatch):
    it = make_scheduler()
    looked = []
    monkeypatch.setattr(it, "update_graph", looked.append, raising=False)
    leave(it, b"a", seconds=60)
    leave(it, b"b", seconds=0)
    it.end_draining()
    assert (list(it.draining), looked) == ([b"a"], [None])


@pytest.mark.parametrize("frames", [[b"a"], [b"a", b"no message"], [b"a", b"<IDS|MSG>"]])
def test_what_is_no_result_is_told_and_dropped(caplog, frames):
    it = make_scheduler()
    it.session, it.log = Session(key=b"key"), LOG
    leave(it, b"a")
    it.dispatch_result([zmq.Frame(frame) for frame in frames])
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["task"]


# ---- clients that have sent everything, and wait

CALL = """
import random, sys, time, zmq
port, server, dice, sockets = int(sys.argv[1]), sys.argv[2].encode(), random.Random(int(sys.argv[3])), []
context = zmq.Context()
for _number in range(40):
    key, secret = zmq.curve_keypair()
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.curve_publickey, client.curve_secretkey, client.curve_serverkey = key, secret, server
    client.connect(f"tcp://127.0.0.1:{port}")
    if dice.random() < 0.3:
        time.sleep(0.003 * dice.random())
        client.close()  # in its handshake, perhaps
    else:
        client.send(key)
        sockets.append(client)
print(len(sockets), flush=True)
sys.stdin.readline()
"""


def test_who_connects_is_known_by_name_and_key_whatever_it_says(eventually):
    context = zmq.Context()
    told = {}
    public, secret = zmq.curve_keypair()
    router = context.socket(zmq.ROUTER)
    router.identity = b"task_in"
    stream = types.SimpleNamespace(
        socket=router, io_loop=types.SimpleNamespace(add_callback=lambda call, *given: call(*given))
    )
    callers = scheduler.Callers(stream)
    callers.tell = told.__setitem__
    router.curve_server, router.curve_secretkey = True, secret
    port = router.bind_to_random_port("tcp://127.0.0.1")
    callers.start()
    argv = [sys.executable, "-c", CALL, str(port), public.decode()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    clients = [subprocess.Popen([*argv, str(seed)], **pipes) for seed in range(3)]
    left = sum(int(client.stdout.readline()) for client in clients)
    assert left > 60
    heard = {}
    while len(heard) < left:
        assert router.poll(10_000), f"{left - len(heard)} clients are not heard"
        name, key = router.recv_multipart(copy=False)
        heard[name.bytes] = key.bytes.decode()
        assert key.get("User-Id") == heard[name.bytes]
    eventually(lambda: heard.items() <= told.items(), "all of them were told")
    for client in clients:
        client.communicate("\n")
    router.close(0)
    context.term()
    callers.join(10)
    assert not callers.is_alive()


def waiting_scheduler(monkeypatch, reached):
    """Return a scheduler that has a result for a client of the one before it, and what it sends."""
    it = make_scheduler()
    it.sessions, it.clients_now, it.heard, it.keys = {"KEY": {b"session"}}, {}, set(), {}
    it.relaying, it.client_stream, it.sent, it.done, later = "task", None, [], [], []
    it.kept = {b"session": [("task", [b"session:session", b"result"]), ("other", [b"session:session", b"second"])]}
    it.journal = types.SimpleNamespace(done=it.done.append)
    it.send_at_once = lambda message, **options: it.sent.append(message)
    it.loop = IOLoop(make_current=False)
    monkeypatch.setattr(it.loop, "call_later", lambda seconds, call, *given: later.append((call, given)))
    monkeypatch.setattr(scheduler, "is_sent", lambda stream, message: reached() and not it.sent.append(message))
    return it, later


def test_a_client_that_waits_gets_its_results_when_it_has_connected_again(monkeypatch):
    turns = iter([False, True, True])
    it, later = waiting_scheduler(monkeypatch, lambda: next(turns))
    it.meet(b"somebody", "ANOTHER")
    it.meet(b"new", "KEY")
    assert (it.sent, it.clients_now) == ([], {}), "libzmq has not taken it in yet"
    ((call, given),) = later
    call(*given)
    assert it.sent == [[b"new", b"result"], [b"new", b"second"]]
    assert it.done == ["task", "other"]
    it.send_to_client([b"session:session", b"third"])
    assert it.sent[2:] == [[b"new", b"third"]]


def test_a_client_that_speaks_gets_its_results_without_a_key(monkeypatch):
    it, _later = waiting_scheduler(monkeypatch, lambda: False)
    it.know(b"session", b"new")
    assert [message[0] for message in it.sent] == [b"new", b"new"]
    assert (it.done, it.kept) == (["task", "other"], {})


def test_the_key_of_a_client_is_noted_with_its_tasks(tmp_path):
    journal = scheduler.Journal(tmp_path / "tasks", LOG)
    journal.add("a", [b"x"], "KEY")
    journal.add("b", [b"y"])
    # as noted by a collection that had no keys
    with open(tmp_path / "tasks", "ab") as stream:
        stream.write(b'["+", "c", [1]]\nz')
    assert [(task.frames, task.key) for task in read_again(tmp_path / "tasks").values()] == [
        ([b"x"], "KEY"),
        ([b"y"], ""),
        ([b"z"], ""),
    ]


# ---- the state of the hub


@pytest.mark.parametrize("texts", [["{}", '{"engines": {"1": "a"}}', "{}"], ["1"]])
def test_what_is_written_in_place_can_be_read(tmp_path, texts):
    write_in_place = functions("controller/files/ipcontroller_config.py")["write_in_place"]
    for text in texts:
        write_in_place(tmp_path / "file", text)
        assert json.loads((tmp_path / "file").read_text()) == json.loads(text)


def test_without_space_the_old_text_stays(tmp_path, monkeypatch):
    write_in_place = functions("controller/files/ipcontroller_config.py")["write_in_place"]
    write_in_place(tmp_path / "file", "[1]")

    def no_space(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(OSError, match="space"):
        write_in_place(tmp_path / "file", "[1, 2]")
    assert (tmp_path / "file").read_text() == "[1]"


# ---- engines


def test_a_task_that_comes_again_is_answered_and_not_done_again(monkeypatch):
    found = functions("engines/files/ipengine_config.py")
    kernel = found["IPythonParallelKernel"]
    done = []

    def do_apply(_self, _content, _bufs, msg_id, _metadata):
        done.append(msg_id)
        return {"status": "ok"}, [b"small" if msg_id != "large" else bytes(found["MOST_BYTES"] + 1)]

    monkeypatch.setattr(kernel, "do_apply", do_apply)
    found["let_tasks_be_done_once"]()
    for msg_id in ("a", "a", "large", "large"):
        kernel.do_apply(None, {}, [], msg_id, {})
    assert done == ["a", "large", "large"]
    for number in range(found["MOST_ANSWERS"]):
        kernel.do_apply(None, {}, [], str(number), {})
    kernel.do_apply(None, {}, [], "a", {})
    assert done.count("a") == 2, "no more than so many answers are kept"


# In a process of its own, which ends as a scheduler does: at once.
TAKE_TURNS = """
import importlib.util, json, os, sys, threading, time, zmq
spec = importlib.util.spec_from_file_location("task_scheduler", sys.argv[1])
scheduler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scheduler)
port, sent, received, kept, going = 0, 0, [], [], True

def send():
    global sent
    client = zmq.Context().socket(zmq.DEALER)
    client.reconnect_ivl = 10
    client.connect(f"tcp://127.0.0.1:{port}")
    while going:
        client.send(b"%d" % sent)
        sent += 1
        time.sleep(0.0002)

for number in range(6):
    clients = zmq.Context().socket(zmq.ROUTER)
    kept.append(clients)
    if number:
        clients.bind(f"tcp://127.0.0.1:{port}")
    else:
        port = clients.bind_to_random_port("tcp://127.0.0.1")
        thread = threading.Thread(target=send)
        thread.start()
    end = len(received) + 200
    while len(received) < end:
        received.append(int(clients.recv_multipart()[1]))
    if number == 5:
        going = False
        thread.join()
    while (number < 5 and scheduler.hang_up(port)) or clients.poll(100):
        if clients.poll(1):
            received.append(int(clients.recv_multipart()[1]))
print(json.dumps([sent, received]), flush=True)
os._exit(0)
"""


def test_nothing_is_lost_of_what_a_client_sends_to_one_scheduler_and_the_next():
    argv = [sys.executable, "-c", TAKE_TURNS, str(ROLES / "controller/files/task_scheduler.py")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    sent, received = json.loads(done.stdout)
    assert received == list(range(sent))
    assert sent > 1000
