# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""The task scheduler of ipcontroller, whose load-balanced tasks survive its end.

It notes in a file what is not done. When the controller was killed, or this process was, its successor goes on with
that: what an engine had goes to the same engine again, which does nothing twice (see ``ipengine_config.py``). A client
gets the results when it has connected again: it is known by the key with which it encrypts, and without encryption by
the next task that it sends. A restart is the same; but a controller that was stopped for longer begins with nothing,
since nobody waits for such tasks any more.

It drains engines that are to leave: a client sends it a ``drain_request`` with ``engines``, their idents, and
``seconds``, for how long they get nothing more but what no other engine may do; 0 is no more. The ``drain_reply`` has
``running``, by engine the tasks that it has, and ``waiting``, the ids of those that only draining engines may do.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import stat
import struct
import threading
import time
import traceback
import typing

import zmq
from ipyparallel import error
from ipyparallel.controller.task_scheduler import Job, TaskScheduler
from zmq.utils import z85

MOST_BYTES = 16 * 1024 * 1024  # of a task; a larger one is lost with the scheduler
SPARE_BYTES = 16 * 1024 * 1024  # of tasks that are done, before the file is written anew
CONNECT_SECONDS = 0.1  # the interval at which libzmq reconnects
MONITOR_SECONDS = 0.5
DRAIN_SECONDS = 1.0
GREETING_MS = 100  # from the answer to a handshake until libzmq has done with it, which takes it microseconds
REACH_SECONDS = 0.05
REACH_TRIES = 100
SESSION = b"session:"
"""Begins the name of a client of the scheduler before this one; what its socket called it may be another's name now."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Task(typing.NamedTuple):
    """A task that is not done: its message, the ident of the engine that has it, and the key of its client."""

    frames: list
    engine: str = ""
    key: str = ""


def header(*record):
    """Return a record, or the beginning of one, as a line."""
    return json.dumps(record).encode() + b"\n"


class Journal:
    """The file, and which tasks in it are not done.

    A task is a line ``["+", id, sizes, key]`` and its frames; ``[">", id, engine]`` says who has it, ``["-", id]``
    that it is done.
    """

    def __init__(self, path, log):
        self.log = log
        self.path = path
        self.places = {}
        """Where the record of a task begins, and its size."""
        self.engines = {}
        self.failing = False
        self.size = self.used = 0
        try:
            self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.log.warning("task::cannot note tasks in %s: %s", path, error.strerror)
            self.file = os.memfd_create("tasks")

    def read(self):
        """Return the tasks that are not done, in their order."""
        tasks = {}
        os.lseek(self.file, 0, os.SEEK_SET)
        stream = os.fdopen(os.dup(self.file), "rb")
        with stream, contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            while line := stream.readline():
                kind, ident, *more = json.loads(line)
                if kind == "+":
                    frames = [stream.read(size) for size in more[0]]
                    if [len(frame) for frame in frames] != more[0]:
                        break
                    tasks[ident] = Task(frames, key=more[1] if len(more) > 1 else "")
                    self.places[ident] = self.size, stream.tell() - self.size
                elif kind == ">":
                    tasks[ident] = tasks[ident]._replace(engine=more[0])
                else:
                    del tasks[ident], self.places[ident]
                self.size = stream.tell()
        self._cut(self.size)  # what follows is half-written
        self.used = sum(size for _begin, size in self.places.values())
        self.engines = {ident: task.engine for ident, task in tasks.items()}
        return tasks

    def add(self, ident, frames, key=""):
        """Note a task of the client with this *key*, unless it is noted or too large."""
        sizes = [len(frame) for frame in frames]
        begin = self.size
        if ident in self.places or sum(sizes) > MOST_BYTES:
            return
        if self._write(header("+", ident, sizes, key), *frames):
            self.places[ident] = begin, self.size - begin
            self.used += self.size - begin

    def give(self, ident, engine):
        """Note which engine has a task; an empty text is none."""
        if ident in self.places and self._write(header(">", ident, engine)):
            self.engines[ident] = engine

    def done(self, ident):
        """Note that a task is done."""
        if ident not in self.places:
            return
        self.used -= self.places.pop(ident)[1]
        self.engines.pop(ident, None)
        noted = self._write(header("-", ident))
        if not noted or self.size > 2 * self.used + SPARE_BYTES:
            self._write_anew()

    def _cut(self, size):
        os.ftruncate(self.file, size)
        self.size = size

    def _write(self, *parts):
        try:
            if os.write(self.file, b"".join(parts)) != sum(map(len, parts)):
                raise OSError(0, "the disk is full")
        except OSError as error:
            # work goes on; what is not noted is lost with this process
            self._cut(self.size)
            if not self.failing:
                self.log.warning("task::cannot note tasks in %s: %s", self.path, error.strerror)
            self.failing = True
            return False
        self.size += sum(map(len, parts))
        self.failing = False
        return True

    def _write_anew(self):
        """Write the file without what is done."""
        kept = {ident: os.pread(self.file, size, begin) for ident, (begin, size) in self.places.items()}
        engines = self.engines
        self._cut(0)
        self.places, self.engines, self.used = {}, {}, 0
        for ident, record in kept.items():
            begin = self.size
            if self._write(record):
                self.places[ident] = begin, len(record)
                self.used += len(record)
                self.give(ident, engines.get(ident, ""))


class Callers(threading.Thread):
    """Who connects to a socket: the name that it gives to a peer, and the key with which that encrypts.

    A key is the same when a client connects again, and a name is not. A ROUTER counts the peers that do not name
    themselves, as clients do not, so the names can be told before they have said anything, if their order is known; for
    that, one at a time is let in: libzmq asks about each of them (ZAP, https://rfc.zeromq.org/spec/27), and tells when
    it is in. Everyone is let in, as without this.
    """

    DOMAIN = b"clients"

    def __init__(self, stream):
        """Look at the socket of *stream*, to which nobody can connect yet."""
        super().__init__(daemon=True)
        router = stream.socket
        self.loop = stream.io_loop
        self.tell = None
        """What is called in the loop with the name and the key of each."""
        address = f"inproc://{id(self)}"
        router.bind(address)
        with router.context.socket(zmq.DEALER) as first:
            first.linger = 0
            first.connect(address)
            first.send(b"")
            self.last = struct.unpack(">xI", router.recv_multipart()[0])[0]
        router.unbind(address)
        self.monitor = router.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        router.zap_domain = self.DOMAIN
        self.questions = router.context.socket(zmq.REP)
        self.questions.bind("inproc://zeromq.zap.01")

    def run(self):
        """Answer questions for ever."""
        try:
            while True:
                self.answer(*self.questions.recv_multipart())
        except zmq.ContextTerminated:
            self.questions.close(0)
            self.monitor.close(0)
        except Exception:  # noqa: BLE001 - nobody could connect any more, so the controller has to start again
            traceback.print_exc()
            os._exit(1)

    def answer(self, version, request, domain, _address, _socket, _mechanism, *credentials):
        """Let a peer in, and tell who it is."""
        while self.monitor.poll(0):
            self.monitor.recv_multipart()
        key = z85.encode(credentials[0]) if credentials else b""
        self.questions.send_multipart([version, request, b"200", b"OK", key, b""])
        if domain == self.DOMAIN and self.monitor.poll(GREETING_MS):
            self.last = (self.last + 1) % 2**32
            self.loop.add_callback(self.tell, struct.pack(">xI", self.last), key.decode())


def sign_again(session, frames):
    """Return a message as frames of another one: who has seen a signature refuses it the second time."""
    idents, message = session.feed_identities(frames)
    metadata = {**session.unpack(message[3]), "sent_again": time.time()}
    message[3] = session.pack(metadata)
    return [*idents, b"<IDS|MSG>", session.sign(message[1:5]), *message[1:]]


def is_sent(stream, message):
    """Send a message if its receiver is connected; return whether it is."""
    # a task in the stream's queue is two entries, and nothing may come between them
    stream.flush(zmq.POLLOUT)
    stream.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    try:
        stream.socket.send_multipart(message, zmq.NOBLOCK, copy=False)
    except zmq.ZMQError:
        return False
    finally:
        stream.socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
    stream.io_loop.add_callback(stream.flush)  # it does not see what came in between
    return True


def hang_up(port):
    """Let nobody connect at *port* any more, and tell those who are connected that nothing more comes to them.

    Return how many those are. What they send is read until their ends come. ``unbind`` would lose it, as libzmq closes
    with a listener what has come by it. libzmq aborts if it has to close the listener after this.
    """
    count = 0
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as tcp:
                if tcp.family not in (socket.AF_INET, socket.AF_INET6) or tcp.getsockname()[1] != port:
                    continue
                if tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    with open(os.devnull) as nothing:
                        os.dup2(nothing.fileno(), number)
                else:
                    count += 1
                    tcp.shutdown(socket.SHUT_WR)
    return count


def is_orphan():
    """Return whether the main process has ended."""
    return os.getppid() != multiprocessing.parent_process().pid


class KeepingTaskScheduler(TaskScheduler):
    """A task scheduler that goes on where the one before it ended."""

    callers = None
    """Who connects as a client, where that is encrypted."""

    def start(self):
        """Read what the one before has left."""
        path = pathlib.Path(os.environ["IPYPARALLEL_STATE"], "controller", "log", "tasks")
        self.journal = Journal(path, self.log)
        self.left = self.journal.read()
        self.waited_for = {}
        """Engines that are not connected, each with the time since when."""
        self.again = {}
        """What engines that are not connected had."""
        self.going_to = None
        self.ending = False
        self.heard, self.clients_now = set(), {}
        """What the socket calls the clients that have sent something: by session, too."""
        self.keys = {}
        """The keys of clients that have sent something, by what the socket calls them."""
        self.sessions = {}
        """Sessions of the scheduler before this one that have tasks, by the key of the client."""
        self.kept = {}
        """Results for clients that are not known yet: by session, each with the task's id."""
        self.relaying = ""
        self.draining = {}
        """Engines that are to leave, each with the time until when that holds."""
        self.begun = {}
        """When each task was given to its engine."""
        self.doing_bound = False
        self.send_at_once = self.client_stream.send_multipart
        self.client_stream.send_multipart = self.send_to_client
        # what they depend on, and is not among them, was done, or they would have failed
        for task in self.left.values():
            _idents, message = self.session.feed_identities(task.frames)
            session = self.session.unpack(message[1])["session"].encode()
            task.frames[0] = SESSION + session
            if task.key:
                self.sessions.setdefault(task.key, set()).add(session)
            done = set(self.session.unpack(message[3]).get("after") or ()) - self.left.keys()
            for ids in (self.all_ids, self.all_done, self.all_completed):
                ids.update(done)
        self.all_ids.update(self.left)
        # SIGHUP comes from the main process before it ends, or when it has; SIGTERM from it or systemd, to all at once
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, self.end)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
        if is_orphan():
            os._exit(1)
        if self.callers:
            self.callers.tell = self.meet
            self.callers.start()
        super().start()
        self.stop_receiving()  # tasks wait in their clients' sockets

    def end(self, _number, _frame):
        """Drain, and end."""
        if not self.ending:
            self.ending = True
            signal.setitimer(signal.ITIMER_REAL, 2 * DRAIN_SECONDS)  # SIGALRM ends the process
            self.loop.add_callback_from_signal(self.drain)

    def drain(self):
        """Note what clients have sent already, and end; results are asked for again by the next one."""
        self.engine_stream.on_recv(None)
        self.client_stream.flush(zmq.POLLOUT)
        time.sleep(0.02)  # libzmq's thread writes what it has
        clients = self.client_stream.socket
        port = int(clients.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode().rpartition(":")[2])
        # they connect to the next one; what they have sent comes before their end does
        deadline = time.monotonic() + DRAIN_SECONDS
        while (hang_up(port) and time.monotonic() < deadline) or clients.poll(50):
            clients.poll(10)
            self.client_stream.flush(zmq.POLLIN)
        os._exit(1)

    def dispatch_query_reply(self, msg):
        """Learn from the hub which engines there are."""
        super().dispatch_query_reply(msg)
        # the hub does not hear yet what is told to its monitor
        self.loop.call_later(MONITOR_SECONDS, self.go_on)

    def go_on(self):
        """Go on with what is left, and begin with what comes."""
        self.resume_receiving()
        left, self.left = self.left, None
        for ident, task in left.items():
            engine = task.engine.encode()
            if engine in self.waited_for:
                self.again.setdefault(engine, {})[ident] = task
            elif engine:
                self.lose(engine, {ident: task})
            else:
                self.submit_again(task)
        for engine in list(self.waited_for):
            self.reach(engine)

    def submit_again(self, task):
        """Dispatch what is left."""
        super().dispatch_submission([zmq.Frame(frame) for frame in sign_again(self.session, task.frames)])

    def meet(self, client, key, tries=REACH_TRIES):
        """Learn that the client with this *key* has connected, and that the socket calls it *client* now."""
        for session in self.sessions.get(key, ()):
            results = self.kept.get(session, [])
            while results and is_sent(self.client_stream, [client, *results[0][1][1:]]):
                self.journal.done(results.pop(0)[0])
            if not results:
                self.clients_now[session] = client
            elif tries:
                self.loop.call_later(REACH_SECONDS, self.meet, client, key, tries - 1)

    def know(self, session, client):
        """Learn what the socket calls the client with this *session* now; it may get results."""
        self.clients_now[session] = client
        for ident, result in self.kept.pop(session, ()):
            self.send_at_once([client, *result[1:]], copy=False)
            self.journal.done(ident)

    def dispatch_submission(self, raw_msg):
        """Take a task; who sends it may get results now."""
        if self.is_drain_request(raw_msg):
            return
        client = raw_msg[0].bytes
        if client not in self.heard:
            with contextlib.suppress(ValueError, KeyError, IndexError):
                _idents, message = self.session.feed_identities(raw_msg, copy=False)
                self.know(self.session.unpack(message[1].bytes)["session"].encode(), client)
                self.heard.add(client)
            with contextlib.suppress(zmq.ZMQError):
                self.keys[client] = raw_msg[1].get("User-Id")
        super().dispatch_submission(raw_msg)

    def send_to_client(self, message, *args, **kwargs):
        """Send a result; keep it as long as its client is not known."""
        client = bytes(message[0])
        session = client.removeprefix(SESSION)
        if session != client and session not in self.clients_now:
            self.kept.setdefault(session, []).append((self.relaying, message))
            self.relaying = ""
            return
        self.send_at_once([self.clients_now.get(session, client), *message[1:]], *args, **kwargs)

    def lose(self, engine, tasks):
        """Deal with tasks whose engine has ended, as `TaskScheduler` does: once more, or an error."""
        for ident, task in tasks.items():
            _idents, message = self.session.feed_identities(task.frames)
            if self.session.unpack(message[3]).get("retries", 0) > 0:
                self.submit_again(task)
                continue
            self.retries[ident] = 0
            self.pending[engine] = {ident: Lost([zmq.Frame(frame) for frame in task.frames])}
            self.completed[engine], self.failed[engine] = set(), set()
            self.handle_stranded_tasks(engine)

    # ---- engines: work that is sent before they are connected is dropped without a word, and waited for for ever

    def _register_engine(self, uid):
        """Wait until the engine is connected."""
        if uid not in self.targets and uid not in self.waited_for:
            self.waited_for[uid] = time.monotonic()
            if self.left is None:
                self.reach(uid)

    def reach(self, uid):
        """Register the engine if it is connected: that is, if something can be sent to it, whatever it answers."""
        if uid not in self.waited_for:
            return
        message = self.session.serialize(self.session.msg("connect_request", {}), ident=uid)
        if not is_sent(self.engine_stream, message):
            long = time.monotonic() - self.waited_for[uid] > 10
            self.loop.call_later(CONNECT_SECONDS * (10 if long else 1), self.reach, uid)
            return
        del self.waited_for[uid]
        before, self.going_to = self.going_to, uid
        super()._register_engine(uid)
        self.going_to = before
        self.update_graph(None)

    def _unregister_engine(self, uid):
        """Forget the engine."""
        self.waited_for.pop(uid, None)
        self.draining.pop(uid, None)
        self.lose(uid, self.again.pop(uid, {}))
        if uid in self.targets:
            super()._unregister_engine(uid)

    def update_graph(self, dep_id=None, success=True):
        """Before anything else, an engine that has come back gets what it had."""
        if self.going_to is None:
            super().update_graph(dep_id, success)
            return
        for task in self.again.pop(self.going_to, {}).values():
            self.submit_again(task)

    # ---- tasks

    def maybe_run(self, job):
        """Run a task if that is possible; let one wait that is for an engine which is not connected yet."""
        if not job.targets.isdisjoint(self.waited_for) and job.targets.isdisjoint(self.targets):
            return False
        if not self.is_bound(job):
            return super().maybe_run(job)
        self.doing_bound = True
        try:
            return super().maybe_run(job)
        finally:
            self.doing_bound = False

    def note(self, job):
        """Note a task."""
        frames = [frame.bytes for frame in job.raw_msg]
        self.journal.add(job.msg_id, frames, self.keys.get(frames[0], ""))

    def save_unmet(self, job):
        """Note a task that waits."""
        self.note(job)
        if self.journal.engines.get(job.msg_id):
            self.journal.give(job.msg_id, "")
        super().save_unmet(job)

    def submit_task(self, job, indices=None):
        """Note a task, and who has it."""
        if self.going_to in self.targets:
            indices = [self.targets.index(self.going_to)]
        elif indices is None and self.draining:
            indices = self.available_engines()
        super().submit_task(job, indices)
        self.begun[job.msg_id] = time.monotonic()
        self.note(job)
        self.journal.give(job.msg_id, self.targets[-1].decode())  # where `add_job` moves it

    def dispatch_result(self, raw_msg):
        """Relay a result, unless nobody waits for it: that of `reach`, or of a task that was done already."""
        engine = raw_msg[0].bytes
        with contextlib.suppress(ValueError, IndexError):
            _idents, message = self.session.feed_identities(raw_msg, copy=False)
            ident = self.session.unpack(message[2].bytes).get("msg_id")
            if ident not in self.pending.get(engine, ()):
                return
        super().dispatch_result(raw_msg)
        if engine in self.draining:
            self.do_bound()

    def handle_result(self, idents, parent, raw_msg, success=True):
        """Note a task as done, when its client has the result."""
        self.relaying = parent["msg_id"]
        # the engine may have got it from the scheduler before this one
        job = self.pending[idents[0]][self.relaying]
        if isinstance(job, Job):
            idents = [idents[0], job.idents[0]]
        super().handle_result(idents, parent, raw_msg, success)
        self.begun.pop(parent["msg_id"], None)
        self.journal.done(self.relaying)

    def fail_unreachable(self, msg_id, why=error.ImpossibleDependency):
        """Note a task as done, when its client has the error."""
        self.relaying = msg_id
        super().fail_unreachable(msg_id, why)
        self.begun.pop(msg_id, None)
        self.journal.done(self.relaying)

    # ---- engines that are to leave

    def is_drain_request(self, raw_msg):
        """Do what a ``drain_request`` asks for, if *raw_msg* is one; return whether it is."""
        try:
            idents, frames = self.session.feed_identities(raw_msg, copy=False)
            header = frames[1].bytes
            # every packer leaves texts as they are, so that a task need not be unpacked for this
            if b"drain_request" not in header or self.session.unpack(header)["msg_type"] != "drain_request":
                return False
            message = self.session.deserialize(frames, copy=False)
        except (ValueError, KeyError, IndexError):
            return False
        seconds = message["content"]["seconds"]
        engines = [ident.encode() for ident in message["content"]["engines"]]
        self.draining.update(dict.fromkeys(engines, time.monotonic() + seconds))
        self.end_draining()
        self.do_bound()
        self.session.send(self.client_stream, "drain_reply", self.drained(engines), parent=message, ident=idents)
        self.loop.call_later(seconds + 0.1, self.end_draining)
        return True

    def end_draining(self):
        """Give work again to engines that were to leave, and have not."""
        over = {engine for engine, until in self.draining.items() if until <= time.monotonic()}
        for engine in over:
            del self.draining[engine]
        if over:
            self.update_graph(None)

    def drained(self, engines):
        """Return what engines that are to leave have to do still."""
        running = {}
        for engine in engines:
            given = [*self.pending.get(engine, {}), *self.again.get(engine, {})]
            running[engine.decode()] = [
                {"task": ident, "seconds": round(time.monotonic() - self.begun.get(ident, time.monotonic()), 1)}
                for ident in given
            ]
        return {"running": running, "waiting": [job.msg_id for job in self.queue_map.values() if self.is_bound(job)]}

    def is_bound(self, job):
        """Return whether only engines that are to leave may do a task."""
        if not self.draining or not (job.targets or job.follow):
            return False
        fit = {
            target
            for target in self.targets
            if (not job.targets or target in job.targets)
            and target not in job.blacklist
            and job.follow.check(self.completed[target], self.failed[target])
        }
        return bool(fit) and fit <= self.draining.keys()

    def do_bound(self):
        """Let engines that are to leave do what no other may."""
        for job in list(self.queue_map.values()):
            if self.is_bound(job) and job.after.check(self.all_completed, self.all_failed) and self.maybe_run(job):
                # as `update_graph` does
                self.queue_map.pop(job.msg_id)
                self.queue.remove(job)
                for ident in job.dependents:
                    self.graph.get(ident, set()).discard(job.msg_id)

    def available_engines(self):
        """Leave out the engines that are to leave, unless it is for what only they may do."""
        found = super().available_engines()
        if self.doing_bound or not self.draining:
            return found
        return [index for index in found if self.targets[index] not in self.draining]


class Lost(typing.NamedTuple):
    """What `TaskScheduler.handle_stranded_tasks` reads of a job."""

    raw_msg: list
