# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Configuration of ipcontroller: the cluster's identity, and a controller that lives and dies as one.

The identity is read from ``$IPYPARALLEL_STATE/identity.json`` (0600), never from the environment or an argument, under
every service manager. Settings that are no secret are in ``ipcontroller.json`` beside this file.
"""

import contextlib
import ctypes
import importlib.util
import itertools
import json
import logging
import math
import multiprocessing
import os
import pathlib
import signal
import time
import traceback
import types
from urllib.parse import unquote

import zmq
from ipyparallel import util
from ipyparallel.controller import app, heartmonitor, task_scheduler
from ipyparallel.controller.dictdb import DictDB
from ipyparallel.controller.heartmonitor import HeartMonitor
from ipyparallel.controller.hub import EngineConnector, Hub
from tornado import ioloop
from traitlets.config import Config
from zmq.devices import ProcessMonitoredQueue

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POOLS = (9, 6, 3)  # ports for engines, for clients, internal ones; at broadcast_scheduler_depth 1
EX_CONFIG = 78  # sysexits.h
HANDSHAKE_MS = 5000
KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 60, zmq.TCP_KEEPALIVE_INTVL: 10, zmq.TCP_KEEPALIVE_CNT: 6}
RESTART_SECONDS = 60  # so soon after it was told to stop, the clients and their tasks are the same
DRAIN_SECONDS = 2.5  # task_scheduler.py needs up to 2
# Milliseconds between two beats, where none are given: an engine is usable after one at most, so a short beat is a
# short start, and each beat costs for each engine. docs/tuning.md has the figures (make bench BENCH=heartbeat).
SHORTEST_BEAT = 500  # a shorter one gains tenths of a second, and wakes every engine as often
BEAT_OF_AN_ENGINE = 2  # so the heartbeat takes about 2.5 % of a core at most, up to 1500 engines
LONGEST_BEAT = 3000  # ipyparallel's own; ipengine_config.py relies on it
IDENT_PARTS = 5  # ipengine_config.py
STRANDED_SECONDS = 6  # ipyparallel's task scheduler takes 5 until it gives an engine's tasks to others
TAKEN_TRIES = 10
MOST_GONE = 1000
SAID_AFTER = (2, 10)  # seconds; clients try to connect each 0.1 s
GONE_AFTER = 30_000  # ipyparallel's own: how long an engine may miss all beats until it counts as gone


def configure(c, state):
    """Apply the identity and the settings to configuration *c*."""
    identity = json.loads((state / "identity.json").read_text())
    c.merge(Config(json.loads(pathlib.Path(__file__).with_name("ipcontroller.json").read_text())))

    starts = [identity["port_base"] + sum(POOLS[:number]) for number in range(len(POOLS))]
    # lists, because a text such as '10100-10108' works on the command line only
    pools = [list(range(start, start + count)) for start, count in zip(starts, POOLS, strict=True)]
    controller = c.IPController
    controller.broadcast_scheduler_depth = 1
    controller.engine_ports, controller.client_ports, controller.ports = pools
    # not `ip`, which sets all three, whatever monitor_ip says
    controller.engine_ip = controller.client_ip = identity["address"]
    controller.monitor_ip = "127.0.0.1"
    controller.location = identity["address"]
    controller.enable_curve = identity["encryption"] == "curve"
    if controller.enable_curve:  # the heartbeat would encrypt with keys that are there, whatever enable_curve says
        controller.curve_publickey = identity["curve_publickey"].encode()
        controller.curve_secretkey = identity["curve_secretkey"].encode()
    c.TaskScheduler.scheme_name = identity["scheduler"]
    c.Session.key = identity["key"].encode()
    c.Session.packer = c.Session.unpacker = identity["packer"]

    let_heartbeat_fit(c)

    # Engines, their ids and their variables survive a restart of the controller: with fixed keys, separate pools of
    # ports, and restore_engines without reuse_files.
    controller.restore_engines = True
    controller.reuse_files = False


def beat_for(engines):
    """Return the milliseconds between two beats for so many *engines*."""
    return min(max(SHORTEST_BEAT, BEAT_OF_AN_ENGINE * engines), LONGEST_BEAT)


def let_heartbeat_fit(c):
    """Let the interval of the heartbeat follow the number of engines, unless one is given in *c*.

    It follows while the controller runs, so a start is quick whatever it leads to, and no host that comes later is a
    reason to restart anything. The time after which an engine counts as gone stays the same.
    """
    given = c.HeartMonitor.get("period")
    misses_are_given = "max_heartmonitor_misses" in c.HeartMonitor
    # this is also what the hub tells engines
    c.HeartMonitor.period = given or SHORTEST_BEAT
    c.HeartMonitor.setdefault("max_heartmonitor_misses", math.ceil(GONE_AFTER / c.HeartMonitor.period))
    if given:
        return
    beat = HeartMonitor.beat

    def fitting_beat(self):
        beat(self)
        period = beat_for(len(self.hearts))
        if period != self.period:
            self.period = self.caller.callback_time = period
            if not misses_are_given:
                self.max_heartmonitor_misses = math.ceil(GONE_AFTER / period)

    HeartMonitor.beat = fitting_beat


def is_ident(text):
    """Return whether *text* is the ident of an engine of the collection (see ``ipengine_config.py``)."""
    return text.count("__") == IDENT_PARTS - 1


def place_of(ident):
    """Return host, pool and core in an ident."""
    return ident.rsplit("__", IDENT_PARTS - 3)[0]


def is_gone(ident):
    """Return whether the engine with this *ident* ran on this host, and does no more."""
    parts = ident.split("__")
    if not is_ident(ident) or unquote(parts[0].replace("_", "%")) != os.environ["IPYPARALLEL_HOST"]:
        return False  # nothing is known of other hosts here
    try:
        environ = pathlib.Path("/proc", parts[3], "environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return f"IPYPARALLEL_CLUSTER={os.environ['IPYPARALLEL_CLUSTER']}".encode() not in environ  # another has its number


def write_in_place(path, text):
    """Write a small file so that a full disk does not matter, nor the end of this process: nothing is ever cut off."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as stream:
        data = text.encode().ljust(os.fstat(stream.fileno()).st_size)
        os.posix_fallocate(stream.fileno(), 0, len(data))
        stream.write(data)


def let_hub_save_engines_in_place():
    """Let the hub write which engines there are as above, and go on where it cannot."""

    def save(hub):
        engines = {number: engine.uuid for number, engine in hub.engines.items()}
        if hub.engine_state_file:
            try:
                write_in_place(hub.engine_state_file, json.dumps({"engines": engines, "next_id": hub._idcounter}))
            except OSError as error:
                hub.log.warning("cannot write %s: %s", hub.engine_state_file, error.strerror)

    Hub._save_engine_state = save


def drop_stale_engines(state):
    """Forget those of the saved engines that cannot come back; they would stay as ids on which every task hangs.

    That is all of them when they belong to another identity, or when the file is half-written; and those of this host
    that have ended while there was no controller. Return these last ones: their idents, by id.
    """
    log = state / "controller" / "log"
    saved, mark = log / "engines.json", log / "fingerprint"
    fingerprint = os.environ["IPYPARALLEL_FINGERPRINT"]
    log.mkdir(parents=True, exist_ok=True)
    try:
        known = json.loads(saved.read_text())
        if mark.read_text().strip() != fingerprint:
            raise ValueError("another identity")
        alive = {number: ident for number, ident in known["engines"].items() if not is_gone(ident)}
        # the hub writes 0 while it restores; after another restart new engines would get ids of those that are there
        following = max([known["next_id"], *(int(number) + 1 for number in known["engines"])])
        write_in_place(saved, json.dumps({"engines": alive, "next_id": following}))
        return {int(number): ident for number, ident in known["engines"].items() if number not in alive}
    except (OSError, ValueError, KeyError, AttributeError):
        saved.unlink(missing_ok=True)
        (log / "tasks").unlink(missing_ok=True)
        write_in_place(mark, fingerprint)
        return {}


def let_old_clients_learn(gone):
    """Say again which engines there are, and which are *gone*, before the start of the controller or since.

    The clients of the controller before this one come back some time after the start. Without this they would never
    know what was said before: they would wait for engines that are gone, and not use new ones. Those that are gone are
    named once only, since `Client.wait_for_engines` fails when it hears of any.
    """
    load = Hub._load_engine_state

    def say_again(hub, also_gone):
        there = {number: engine.uuid for number, engine in hub.engines.items()}
        not_there = gone if also_gone else {}
        for kind, engines in (("registration_notification", there), ("unregistration_notification", not_there)):
            for number, ident in engines.items():
                hub.session.send(hub.notifier, kind, content={"id": number, "uuid": ident})

    def load_and_say(hub):
        load(hub)
        for seconds in SAID_AFTER:
            hub.loop.call_later(seconds, say_again, hub, seconds == SAID_AFTER[0])

    Hub._load_engine_state = load_and_say


def let_engines_come_back(gone, unknown_too):
    """Register an engine whose heart beats though the hub does not know it: with its id, if it is one of the *gone*.

    Its host was away, or it was registering when the controller before this one ended. It is the same process and has
    its variables. What it had to do was given to others, or was told to be lost, so that has to be over first.

    A heart proves nothing but that it could connect. So without encryption *unknown_too* has to be false.
    """
    handle, unregister, strand = Hub.handle_new_heart, Hub.unregister_engine, Hub._handle_stranded_msgs
    times, ended = {}, {}

    def adopt(hub, heart, tries=TAKEN_TRIES):
        uuid = heart.decode()
        if uuid in ended or heart in hub.by_ident or heart in hub.incoming_registrations:
            return
        taken = {place_of(engine.uuid) for engine in [*hub.engines.values(), *hub.incoming_registrations.values()]}
        if place_of(uuid) in taken:  # by one that is there, or that health is about to forget
            if tries:
                hub.loop.call_later(STRANDED_SECONDS, adopt, hub, heart, tries - 1)
            return
        number = next((number for number, ident in gone.items() if ident == uuid), None)
        if number is None and not unknown_too:
            return
        if number is None:
            number = hub.new_engine_id(None)
        gone.pop(number, None)
        handle_stranded(hub, number, uuid)
        hub.log.warning("registration::engine %i has come back: %s", number, uuid)
        hub.incoming_registrations[heart] = EngineConnector(id=number, uuid=uuid, ident=heart)
        hub.finish_registration(heart)

    def handle_new_heart(hub, heart):
        if heart in hub.incoming_registrations:
            handle(hub, heart)
        elif heart not in hub.by_ident and is_ident(heart.decode()):
            over = times.get(heart.decode(), -math.inf) + STRANDED_SECONDS
            hub.loop.call_later(max(0, over - time.monotonic()), adopt, hub, heart)

    def unregister_and_note(hub, ident, message):
        # What engines and nannies ask has the engine's ident as its session, and is final. They know the first id only,
        # which may be another's now.
        sender = message.get("header", {}).get("session", "")
        if is_ident(sender):
            ended[sender] = True
            registering = hub.incoming_registrations.get(sender.encode())
            message["content"]["id"] = hub.by_ident.get(sender.encode(), registering.id if registering else -1)
        engine = hub.engines.get(message["content"].get("id"))
        unregister(hub, ident, message)
        if engine:
            gone[engine.id] = engine.uuid
            times[engine.uuid] = time.monotonic()
        for dictionary in (gone, times, ended):
            for key in list(dictionary)[:-MOST_GONE]:
                del dictionary[key]

    def handle_stranded(hub, number, uuid):
        # two minutes after it has left, or when it comes back
        if number not in hub.engines and number in hub.queues:
            with contextlib.suppress(KeyError):  # one that was completed meanwhile
                strand(hub, number, uuid)
            hub.queues[number] = []

    Hub.handle_new_heart, Hub.unregister_engine = handle_new_heart, unregister_and_note
    Hub._handle_stranded_msgs = handle_stranded

    # the hub may forget an engine before its heart counts as stopped, and would not hear that it beats again
    beat = HeartMonitor.beat

    def beat_and_tell(self):
        returned = self.responses.intersection(self.on_probation)
        beat(self)
        if returned:
            self.handle_new_hearts(returned)

    HeartMonitor.beat = beat_and_tell


def let_engines_be_used_at_once():
    """Tell the hub of a new heart when it has beaten, and not only with the next beat."""
    handle = HeartMonitor.handle_pong

    def handle_and_tell(self, message):
        handle(self, message)
        if message[0] in self.responses and message[0] not in self.hearts:
            self.handle_new_hearts({message[0]})

    HeartMonitor.handle_pong = handle_and_tell


def live_and_die_as_one(tasks):
    """Let the children end with the main process, and the main process with any of them.

    The children of a killed controller would live on and hold its ports, and a controller without one of its children
    looks alive and is not. The service manager starts it again. It goes on with the *tasks* in that file
    (``task_scheduler.py``), unless it was told to stop and was away for long.
    """
    main = os.getpid()
    stopped = tasks.with_name("stopped")
    with contextlib.suppress(OSError):
        if time.time() - stopped.stat().st_mtime > RESTART_SECONDS:
            tasks.unlink(missing_ok=True)
        stopped.unlink()
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_main():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != main:  # it ended in between
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def end_with_child(_signal, _frame):
        if os.getpid() != main:
            return
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            # ipcontroller has been told to stop, and tells its children
            drain({child.pid for child in multiprocessing.active_children()} - {pid})
            stop(None, None)
        if pid:
            os.write(2, f"[ipcontroller] child {pid} ended with status {status}: the controller ends\n".encode())
            drain({child.pid for child in multiprocessing.active_children()} - {pid})
            os._exit(1)

    def stop(_signal, _frame):
        with contextlib.suppress(OSError):
            stopped.touch()
        os._exit(0)

    def drain(children):
        # of these the task scheduler takes its time; not every service manager leaves it that when this one has ended
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, stop)
        for pid in children:
            os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + DRAIN_SECONDS
        while children and time.monotonic() < deadline:
            children = {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == 0}
            time.sleep(0.01)

    os.register_at_fork(after_in_child=die_with_main)
    signal.signal(signal.SIGCHLD, end_with_child)


def let_clock_be_set():
    """Go by a clock that nobody sets: when the other is set back, tornado waits for that long.

    The heartbeat would stop, and all engines would end. Only a task's time limit is given to the loop as a time of the
    other clock.
    """
    ioloop.IOLoop.time = lambda _self: time.monotonic()
    task_scheduler.time = types.SimpleNamespace(time=time.monotonic)


def keep_tasks():
    """Let load-balanced tasks survive, give them to engines that are connected only, and results to who waits."""
    name = "task_scheduler"
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app.TaskScheduler = module.KeepingTaskScheduler
    launch = app.launch_scheduler

    def launch_knowing(**options):
        # in a process of its own
        bind = util.bind

        def bind_first(stream, *arguments, **more):
            util.bind = bind
            if more.get("curve_secretkey"):
                module.KeepingTaskScheduler.callers = module.Callers(stream)
            bind(stream, *arguments, **more)

        util.bind = bind_first
        launch(**options)

    app.launch_scheduler = launch_knowing


def let_peers_come_again():
    """Let an engine that connects again be heard at once, and forget those whose host has vanished.

    libzmq ignores it while its connection before is there still, gives a handshake that hangs 30 s, and keeps the
    descriptor of a connection on which nothing comes for ever.
    """
    bind = util.bind
    bind_in, bind_out = ProcessMonitoredQueue.bind_in, ProcessMonitoredQueue.bind_out

    def options_of(kind):
        returning = {zmq.ROUTER_HANDOVER: 1} if kind == zmq.ROUTER else {}
        return {zmq.HANDSHAKE_IVL: HANDSHAKE_MS, **KEEPALIVE, **returning}

    def bind_for_returning(socket, *arguments, **options):
        for option, value in options_of(getattr(socket, "socket", socket).type).items():
            socket.setsockopt(option, value)
        return bind(socket, *arguments, **options)

    # direct work, control and output are relayed by devices, which bind for themselves
    def bind_in_for_returning(self, address):
        for option, value in options_of(self.in_type).items():
            self.setsockopt_in(option, value)
        bind_in(self, address)

    def bind_out_for_returning(self, address):
        for option, value in options_of(self.out_type).items():
            self.setsockopt_out(option, value)
        bind_out(self, address)

    ProcessMonitoredQueue.bind_in, ProcessMonitoredQueue.bind_out = bind_in_for_returning, bind_out_for_returning
    util.bind = heartmonitor.bind = bind_for_returning


def forget_quickly_and_quietly():
    """Let the database forget the oldest tasks without sorting all for each, and without a traceback for their results.

    At ipyparallel's own limit of 1024 a map of 5000 tasks writes 19,000 lines; make bench BENCH=database counts.
    """
    update = DictDB.update_record

    def cull_oldest(self, n=1):
        for msg_id in list(itertools.islice(self._records, n)):  # they are in the order in which they came
            self._culled_ids.add(msg_id)
            self.drop_record(msg_id)

    def update_record(self, msg_id, rec):
        if msg_id not in self._culled_ids:
            update(self, msg_id, rec)

    DictDB._cull_oldest = cull_oldest
    DictDB.update_record = update_record


def let_heartbeat_be_quiet():
    """Give the heartbeat the level WARNING; its own is a line for each beat that an engine misses, until it is gone."""
    start = app.start_heartmonitor

    def start_quietly(**settings):
        start(**{**settings, "log_level": logging.WARNING})

    app.start_heartmonitor = start_quietly


try:
    STATE = pathlib.Path(os.environ["IPYPARALLEL_STATE"])
    configure(get_config(), STATE)  # noqa: F821 - given by traitlets; pylint: disable=undefined-variable
    GONE = drop_stale_engines(STATE)
    let_old_clients_learn(GONE)
    let_engines_come_back(GONE, unknown_too=get_config().IPController.enable_curve)  # noqa: F821 - pylint: disable=undefined-variable
    let_engines_be_used_at_once()
    live_and_die_as_one(STATE / "controller" / "log" / "tasks")
    let_clock_be_set()
    keep_tasks()
    let_hub_save_engines_in_place()
    let_peers_come_again()
    let_heartbeat_be_quiet()
    forget_quickly_and_quietly()
except BaseException:  # noqa: BLE001 - whatever it is
    # ipcontroller would go on with its defaults: other ports and no encryption
    traceback.print_exc()
    os._exit(EX_CONFIG)
