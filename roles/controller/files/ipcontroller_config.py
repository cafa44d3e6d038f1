# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Configuration of ipcontroller: the cluster's identity, and a controller that lives and dies as one.

The identity is read from ``$IPYPARALLEL_STATE/identity.json`` (0600), never from the environment or an argument, under
every service manager. Settings that are no secret are in ``ipcontroller.json`` beside this file.
"""

import collections
import ctypes
import json
import logging
import os
import pathlib
import signal
import traceback
from urllib.parse import unquote

from ipyparallel.controller import app
from ipyparallel.controller.hub import Hub
from ipyparallel.controller.task_scheduler import TaskScheduler
from traitlets.config import Config

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POOLS = (9, 6, 3)  # ports for engines, for clients, internal ones; at broadcast_scheduler_depth 1
EX_CONFIG = 78  # sysexits.h
RECONNECT_SECONDS = 1.0  # ten times the interval at which libzmq reconnects
CLIENT_SECONDS = 600.0  # that a result waits for its client


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

    # Engines, their ids and their variables survive a restart of the controller: with fixed keys, separate pools of
    # ports, and restore_engines without reuse_files.
    controller.restore_engines = True
    controller.reuse_files = False


def is_gone(ident):
    """Return whether the engine with this *ident* (see ``ipengine_config.py``) ran on this host, and does no more."""
    parts = ident.split("__")
    if len(parts) != 5 or unquote(parts[0].replace("_", "%")) != os.environ["IPYPARALLEL_HOST"]:
        return False  # nothing is known of other hosts here
    try:
        environ = pathlib.Path("/proc", parts[3], "environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return f"IPYPARALLEL_CLUSTER={os.environ['IPYPARALLEL_CLUSTER']}".encode() not in environ  # another has its number


def drop_stale_engines(state):
    """Forget those of the saved engines that cannot come back; they would stay as ids on which every task hangs.

    That is all of them when they belong to another identity, or when the file is half-written; and those of this host
    that have ended while there was no controller.
    """
    log = state / "controller" / "log"
    saved, mark = log / "engines.json", log / "fingerprint"
    fingerprint = os.environ["IPYPARALLEL_FINGERPRINT"]
    log.mkdir(parents=True, exist_ok=True)
    try:
        known = json.loads(saved.read_text())
        if mark.read_text() != fingerprint:
            raise ValueError("another identity")
        alive = {number: ident for number, ident in known["engines"].items() if not is_gone(ident)}
    except (OSError, ValueError, KeyError, AttributeError):
        saved.unlink(missing_ok=True)
        mark.write_text(fingerprint)
    else:
        if alive != known["engines"]:
            save(saved, {**known, "engines": alive})


def save(path, content):
    """Write JSON at once or not at all: what is half-written costs all engines their variables."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(json.dumps(content))
        new.replace(path)
    except OSError as error:
        os.write(2, f"[ipcontroller] cannot write {path}: {error}: a restart would forget who is there\n".encode())


def keep_engines():
    """Save the engines so that they can be restored again and again.

    While the hub restores them it saves them with 0 as the next id. Where that was its last word, engines that register
    after one more restart are given ids that others have, and take the place of these, which become ghosts.
    """
    load = Hub._load_engine_state

    def save_engine_state(self):
        following = max([self._idcounter, *(number + 1 for number in self.engines)])
        engines = {str(number): engine.uuid for number, engine in self.engines.items()}
        save(pathlib.Path(self.engine_state_file), {"engines": engines, "next_id": following})

    def load_engine_state(self):
        load(self)
        self._idcounter = max([self._idcounter, *(number + 1 for number in self.engines)])

    Hub._save_engine_state, Hub._load_engine_state = save_engine_state, load_engine_state


def live_and_die_as_one():
    """Let the children end with the main process, and the main process with any of them.

    The children of a killed controller would live on and hold its ports, and a controller without one of its children
    looks alive and is not. The service manager starts it again.
    """
    main = os.getpid()
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
            os._exit(0)  # ipcontroller has been told to stop, and tells its children
        if pid:
            os.write(2, f"[ipcontroller] child {pid} ended with status {status}: the controller ends\n".encode())
            os._exit(1)

    os.register_at_fork(after_in_child=die_with_main)
    signal.signal(signal.SIGCHLD, end_with_child)


def let_engines_reconnect():
    """Give restored engines load-balanced work only when they have had time to reconnect.

    The scheduler takes restored engines for ready at once. What it sends before an engine is connected again is dropped
    without a word and counts as outstanding for ever, so that with a high-water mark of 1 the engine never gets a task
    again. So the scheduler asks the hub once more, a moment later, and believes that answer.
    """
    first_reply = TaskScheduler.dispatch_query_reply
    register = TaskScheduler._register_engine

    def register_once(self, uid):
        if uid not in self.targets:  # a notification may have come first
            register(self, uid)

    def dispatch_query_reply(self, _msg):
        def ask_again():
            self.query_stream.on_recv(lambda reply: first_reply(self, reply))
            self.session.send(self.query_stream, "connection_request", {})

        self.loop.call_later(RECONNECT_SECONDS, ask_again)

    TaskScheduler._register_engine = register_once
    TaskScheduler.dispatch_query_reply = dispatch_query_reply


def deliver_results_of_before():
    """Bring clients the results of load-balanced tasks that they gave to a scheduler that has ended since.

    Engines finish them, and send the results to the new scheduler. It knows nothing of the tasks, and drops the
    results; and it could not send them: libzmq numbers the connections of clients, and a client has another number now,
    maybe that of another one before. So a result waits until its client gives the new scheduler work, which tells its
    number.
    """
    start, finish_job, maybe_run = TaskScheduler.start, TaskScheduler.finish_job, TaskScheduler.maybe_run
    handle_result, handle_unmet_dependency = TaskScheduler.handle_result, TaskScheduler.handle_unmet_dependency

    def is_known(self, idents, parent):
        return parent["msg_id"] in self.pending.get(idents[0], {})

    def start_anew(self):
        self.retries = collections.defaultdict(int, self.retries)  # none are left for what is not known
        self.numbers, self.waiting = {}, collections.defaultdict(list)
        start(self)

    def learn_and_maybe_run(self, job):
        client = job.header["session"]
        self.numbers[client] = job.idents[0]
        for message in self.waiting.pop(client, ()):
            self.client_stream.send_multipart([job.idents[0], *message], copy=False)
        return maybe_run(self, job)

    def finish_known_job(self, idx):
        if self.loads[idx] > 0:
            finish_job(self, idx)

    def handle_any_result(self, idents, parent, raw_msg, success=True):
        if is_known(self, idents, parent):
            handle_result(self, idents, parent, raw_msg, success)
            return
        client, message = parent["session"], [idents[0], *raw_msg[2:]]
        if client in self.numbers:
            self.client_stream.send_multipart([self.numbers[client], *message], copy=False)
        else:
            self.waiting[client].append(message)
            self.loop.call_later(CLIENT_SECONDS, self.waiting.pop, client, None)
        self.update_graph(None)

    def handle_unmet_dependency_of_known(self, idents, parent):
        if is_known(self, idents, parent):
            handle_unmet_dependency(self, idents, parent)

    TaskScheduler.start, TaskScheduler.finish_job = start_anew, finish_known_job
    TaskScheduler.maybe_run, TaskScheduler.handle_result = learn_and_maybe_run, handle_any_result
    TaskScheduler.handle_unmet_dependency = handle_unmet_dependency_of_known


def let_heartbeat_be_quiet():
    """Give the heartbeat the level WARNING; its own is a line for each beat that an engine misses, until it is gone."""
    start = app.start_heartmonitor

    def start_quietly(**settings):
        start(**{**settings, "log_level": logging.WARNING})

    app.start_heartmonitor = start_quietly


try:
    configure(get_config(), pathlib.Path(os.environ["IPYPARALLEL_STATE"]))  # noqa: F821 - given by traitlets; pylint: disable=undefined-variable
    drop_stale_engines(pathlib.Path(os.environ["IPYPARALLEL_STATE"]))
    keep_engines()
    live_and_die_as_one()
    let_engines_reconnect()
    deliver_results_of_before()
    let_heartbeat_be_quiet()
except BaseException:  # noqa: BLE001 - whatever it is
    # ipcontroller would go on with its defaults: other ports and no encryption
    traceback.print_exc()
    os._exit(EX_CONFIG)
