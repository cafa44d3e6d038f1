# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Configuration of ipengine. Settings that are no secret are in ``ipengine.json`` beside this file.

The engine tells the hub in its ident where it runs: ``<host>__<pool>__<core>__<pid>__<random>``. So whoever asks the
hub knows the place and the process of each engine, and need not ask a busy one. Broadcast views make names in Python
code of it, so all but letters, digits and hyphens is written as ``_`` and two hexadecimal digits.
"""

import collections
import functools
import json
import logging
import math
import os
import pathlib
import re
import secrets
import signal
import sys
import threading
import time
import traceback

import zmq
from ipykernel.iostream import IOPubThread
from ipyparallel.engine import app, nanny
from ipyparallel.engine.kernel import IPythonParallelKernel
from jupyter_client.session import DELIM
from traitlets.config import Config

EX_CONFIG = 78  # sysexits.h
STARTUP_AGAIN = 15  # seconds
MOST_ANSWERS = 16
MOST_BYTES = 1024 * 1024  # of an answer
# An attempt to connect that nobody answers is made again after 3 s: the kernel's own waits grow to minutes, and a host
# that was shut out would come back late. What is connected is not closed before a minute is over, which a partition may
# last (seconds).
CONNECTION = {
    zmq.CONNECT_TIMEOUT: 3000,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 5,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 12,
}
# A heart loses nothing by another connection, and is what an engine is taken back for. TCP alone would try again after
# about as long as the network was away.
HEART = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 3,
    zmq.TCP_KEEPALIVE_INTVL: 2,
    zmq.TCP_KEEPALIVE_CNT: 2,
    zmq.TCP_MAXRT: 6000,
    zmq.CONNECT_TIMEOUT: 2000,
}
HEARD_AFTER = 0.3  # seconds; 50 ms do on a quiet machine
MOST_CLIENTS = 1000
LONGEST_BEAT = 3000  # of ipcontroller_config.py, in milliseconds
# How long an engine waits for a controller that has gone, in milliseconds. Longer than the controller waits for an
# engine, so that none leaves a controller that counts on it; and an end, since an engine that the controller has given
# up never registers again, while another in its place does.
GIVE_UP_AFTER = 50_000


def quote(text):
    """Return *text* with all but letters, digits and hyphens as ``_`` and two hexadecimal digits for each byte."""
    return re.sub(rb"[^A-Za-z0-9-]", lambda found: b"_%02x" % found.group()[0], text.encode()).decode()


def configure(c):
    """Apply the settings, and the ident of this engine, to configuration *c*."""
    c.merge(Config(json.loads(pathlib.Path(__file__).with_name("ipengine.json").read_text())))
    place = os.environ["IPYPARALLEL_HOST"], os.environ["IPYPARALLEL_PROCESS"].removeprefix("engines-")
    core = os.environ["IPYPARALLEL_INSTANCE"]
    c.Session.session = "__".join([*map(quote, place), core, str(os.getpid()), secrets.token_hex(8)])


def let_nanny_be_quiet():
    """Start the nanny with another level than its own INFO, which is a line for each time that health looks."""
    app.start_nanny = functools.partial(app.start_nanny, log_level=logging.WARNING)


def let_heartbeat_fit(c):
    """Look for the controller's beat no more often than its longest interval, which it may change to at any time.

    A look between two beats would be a line in the log.
    """
    misses_are_given = "max_heartbeat_misses" in c.IPEngine
    start = app.IPEngine.start_heartbeat

    def start_heartbeat(self, hb_ping, hb_pong, hb_period, identity):
        period = max(hb_period, LONGEST_BEAT)
        if not misses_are_given:
            self.max_heartbeat_misses = math.ceil(GIVE_UP_AFTER / (period + 500))  # it looks 500 ms later
        start(self, hb_ping, hb_pong, period, identity)

    app.IPEngine.start_heartbeat = start_heartbeat


def let_restarted_controller_be_found():
    """Ask for a sign of the controller where nothing comes from it.

    One that was restarted while this host was cut off answers that it knows nothing of the connection, and the engine
    connects again; without this it waits GIVE_UP_AFTER, and ends.
    """
    heart = app.Heart

    def start_heart(*arguments, **options):
        one = heart(*arguments, **options)  # its sockets are of another context
        for option, value in HEART.items():
            one.device.setsockopt_in(option, value)
            one.device.setsockopt_out(option, value)
        return one

    start_process = nanny.Popen

    def start_nanny(command, **options):
        # it connects for itself, with a context of its own
        pairs = json.dumps([[int(option), value] for option, value in CONNECTION.items()])
        ours = pathlib.Path(__file__).with_name("nanny.py")
        return start_process([command[0], str(ours), pairs], **options)

    for option, value in CONNECTION.items():
        zmq.Context.instance().setsockopt(option, value)
    app.Heart, nanny.Popen = start_heart, start_nanny


def run_startup_first():
    """Run the pool's start-up code before the engine registers, in the namespace that its clients will see.

    An engine whose start-up fails is not ready, and does not register. It ends, later than at once, and its service
    manager tries again.
    """
    if "IPYPARALLEL_STARTUP" not in os.environ:
        return
    path = os.environ["IPYPARALLEL_STARTUP"]
    start = app.IPEngine.start

    def run_and_start(self):
        namespace = {"__name__": "__main__"}
        try:
            code = compile(pathlib.Path(path).read_bytes(), path, "exec", dont_inherit=True)
            exec(code, namespace)  # noqa: S102 - it is the users' own, as all that engines run
        except BaseException as error:  # noqa: BLE001 - whatever the user's code makes of it
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            traceback.print_exception(error)
            print(
                f"the start-up failed; the engine ends, and tries again in {STARTUP_AGAIN} s",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(STARTUP_AGAIN)
            os._exit(1)
        self.user_ns = namespace
        start(self)

    app.IPEngine.start = run_and_start


def let_forks_end():
    """Let what user code forks end when it is told to, as the workers of multiprocessing's pools are.

    They would have the engine's own handler, which leaves the rest to a loop that does not run in a fork: a worker that
    is told to end a moment before it does by itself would stay, and its pool, hence the engine, waits for it for ever.

    Python forgets in a fork which signals have come since then, so one that comes before the fork has begun is held
    back until it has the handler that ends it.
    """
    held = threading.local()

    def hold():
        held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def release():
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    def begin():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)


def let_tasks_be_done_once():
    """Keep the last answers, for tasks that come again because the controller was killed (``task_scheduler.py``)."""
    do_apply = IPythonParallelKernel.do_apply
    answers = collections.OrderedDict()

    def do_once(self, content, bufs, msg_id, reply_metadata):
        if msg_id not in answers:
            reply, buffers = do_apply(self, content, bufs, msg_id, reply_metadata)
            if sum(memoryview(buffer).nbytes for buffer in buffers) > MOST_BYTES:
                return reply, buffers
            # copied, because user code may change what it has returned
            answers[msg_id] = reply, [memoryview(buffer).tobytes() for buffer in buffers]
            if len(answers) > MOST_ANSWERS:
                answers.popitem(last=False)
        return answers[msg_id]

    IPythonParallelKernel.do_apply = do_once


def let_new_clients_hear():
    """Hold what a client's first calls publish until the client hears it.

    A client connects to all schedulers at once, and may have its first call done before its subscription has arrived.
    What is published then is lost, with the ``idle`` that ``execute(..., block=True)`` and ``%px`` wait for, without a
    limit. Answers are not held, only output, and only for HEARD_AFTER seconds from a client's first call.

    A welcome to a new subscription, which is the controller's, has no topic: the hub logs it as an error.
    """
    send = IOPubThread._really_send
    clients = collections.OrderedDict()  # by session: messages that are held, None when it hears; of the IOPub thread

    def release(thread, client):
        held, clients[client] = clients[client], None
        for arguments, options in held:
            send(thread, *arguments, **options)
        while len(clients) > MOST_CLIENTS and next(iter(clients.values())) is None:
            clients.popitem(last=False)

    def hold_or_send(self, message, *arguments, **options):
        parent = message[message.index(DELIM) + 3]
        client = app.IPEngine.instance().session.unpack(parent).get("session") if self._is_master_process() else None
        if client and client not in clients:
            clients[client] = []
            self.io_loop.call_later(HEARD_AFTER, release, self, client)
        if client and clients[client] is not None:
            # copied, because user code may change what it has published
            copy = [bytes(memoryview(part)) for part in message]
            clients[client].append(((copy, *arguments), options))
        else:
            send(self, message, *arguments, **options)

    IOPubThread._really_send = hold_or_send
    IOPubThread._send_welcome_message = lambda _self, _subscription: None


try:
    configure(get_config())  # noqa: F821 - given by traitlets; pylint: disable=undefined-variable
    let_heartbeat_fit(get_config())  # noqa: F821 - pylint: disable=undefined-variable
    let_nanny_be_quiet()
    let_restarted_controller_be_found()
    let_forks_end()
    let_tasks_be_done_once()
    let_new_clients_hear()
    run_startup_first()
except BaseException:  # noqa: BLE001 - whatever it is
    # ipengine would go on with its defaults
    traceback.print_exc()
    os._exit(EX_CONFIG)
