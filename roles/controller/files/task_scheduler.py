# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""The task scheduler of ipcontroller, whose load-balanced tasks survive its end.

It notes in a file what is not done. Killed, its successor goes on with that: what an engine had goes to the same engine
again, which does nothing twice (see ``ipengine_config.py``). Told to end, it removes the file: who stops a cluster does
not want its tasks to go on with the next start.
"""

import contextlib
import json
import os
import pathlib
import signal
import time
import typing

import zmq
from ipyparallel.controller.task_scheduler import TaskScheduler

MOST_BYTES = 16 * 1024 * 1024  # of a task; a larger one is lost with the scheduler
SPARE_BYTES = 16 * 1024 * 1024  # of tasks that are done, before the file is written anew
CONNECT_SECONDS = 0.1  # the interval at which libzmq reconnects


class Task(typing.NamedTuple):
    """A task that is not done: its message, and the ident of the engine that has it."""

    frames: list
    engine: str = ""


def header(*record):
    """Return a record, or the beginning of one, as a line."""
    return json.dumps(record).encode() + b"\n"


class Journal:
    """The file, and which tasks in it are not done.

    A task is a line ``["+", id, sizes]`` and its frames; ``[">", id, engine]`` says who has it, ``["-", id]`` that it
    is done.
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
            self.log.error("task::cannot note tasks in %s: %s", path, error.strerror)
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
                    tasks[ident] = Task(frames)
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

    def add(self, ident, frames):
        """Note a task, unless it is noted or too large."""
        sizes = [len(frame) for frame in frames]
        begin = self.size
        if ident not in self.places and sum(sizes) <= MOST_BYTES and self._write(header("+", ident, sizes), *frames):
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

    def remove(self):
        """Remove the file."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

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
                self.log.error("task::cannot note tasks in %s: %s", self.path, error.strerror)
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


def sign_again(session, frames):
    """Return a message as frames of another one: who has seen a signature refuses it the second time."""
    idents, message = session.feed_identities(frames)
    metadata = {**session.unpack(message[3]), "sent_again": time.time()}
    message[3] = session.pack(metadata)
    return [*idents, b"<IDS|MSG>", session.sign(message[1:5]), *message[1:]]


class KeepingTaskScheduler(TaskScheduler):
    """A task scheduler that goes on where the one before it ended."""

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
        # what they depend on, and is not among them, was done, or they would have failed
        for task in self.left.values():
            _idents, message = self.session.feed_identities(task.frames)
            done = set(self.session.unpack(message[3]).get("after") or ()) - self.left.keys()
            for ids in (self.all_ids, self.all_done, self.all_completed):
                ids.update(done)
        self.all_ids.update(self.left)
        signal.signal(signal.SIGTERM, self.end_clean)
        super().start()

    def end_clean(self, number, _frame):
        """Keep no task, and end by the signal."""
        self.journal.remove()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def dispatch_query_reply(self, msg):
        """Learn from the hub which engines there are, and go on with what is left."""
        super().dispatch_query_reply(msg)
        left, self.left = self.left, {}
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
        self.dispatch_submission([zmq.Frame(frame) for frame in sign_again(self.session, task.frames)])

    def lose(self, engine, tasks):
        """Deal with tasks whose engine has ended, as `TaskScheduler` does: once more, or an error."""
        for ident, task in tasks.items():
            idents, message = self.session.feed_identities(task.frames)
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
            if not self.left:
                self.reach(uid)

    def reach(self, uid):
        """Register the engine if it is connected: that is, if something can be sent to it, whatever it answers."""
        if uid not in self.waited_for:
            return
        socket = self.engine_stream.socket
        message = self.session.serialize(self.session.msg("connect_request", {}), ident=uid)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.ZMQError:
            long = time.monotonic() - self.waited_for[uid] > 10
            self.loop.call_later(CONNECT_SECONDS * (10 if long else 1), self.reach, uid)
            return
        finally:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        self.loop.add_callback(self.engine_stream.flush)  # it does not see what came while the socket was used
        del self.waited_for[uid]
        before, self.going_to = self.going_to, uid
        super()._register_engine(uid)
        self.going_to = before
        self.update_graph(None)

    def _unregister_engine(self, uid):
        """Forget the engine."""
        self.waited_for.pop(uid, None)
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
        return super().maybe_run(job)

    def save_unmet(self, job):
        """Note a task that waits."""
        self.journal.add(job.msg_id, [frame.bytes for frame in job.raw_msg])
        if self.journal.engines.get(job.msg_id):
            self.journal.give(job.msg_id, "")
        super().save_unmet(job)

    def submit_task(self, job, indices=None):
        """Note a task, and who has it."""
        if self.going_to in self.targets:
            indices = [self.targets.index(self.going_to)]
        super().submit_task(job, indices)
        self.journal.add(job.msg_id, [frame.bytes for frame in job.raw_msg])
        self.journal.give(job.msg_id, self.targets[-1].decode())  # where `add_job` moves it

    def dispatch_result(self, raw_msg):
        """Relay a result, unless nobody waits for it: that of `reach`, or of a task that was done already."""
        with contextlib.suppress(ValueError, IndexError):
            idents, message = self.session.feed_identities(raw_msg, copy=False)
            ident = self.session.unpack(message[2].bytes).get("msg_id")
            if ident not in self.pending.get(idents[0], ()):
                return
        super().dispatch_result(raw_msg)

    def handle_result(self, idents, parent, raw_msg, success=True):
        """Note a task as done."""
        super().handle_result(idents, parent, raw_msg, success)
        self.journal.done(parent["msg_id"])

    def fail_unreachable(self, msg_id, why=None):
        """Note a task as done."""
        super().fail_unreachable(msg_id, *(() if why is None else (why,)))
        self.journal.done(msg_id)


class Lost(typing.NamedTuple):
    """What `TaskScheduler.handle_stranded_tasks` reads of a job."""

    raw_msg: list
