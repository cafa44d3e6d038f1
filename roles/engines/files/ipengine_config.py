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
import os
import pathlib
import re
import secrets
import signal
import traceback

from ipyparallel.engine import app
from ipyparallel.engine.kernel import IPythonParallelKernel
from traitlets.config import Config

EX_CONFIG = 78  # sysexits.h
MOST_ANSWERS = 16
MOST_BYTES = 1024 * 1024  # of an answer


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


def let_forks_end():
    """Let what user code forks end when it is told to, as the workers of multiprocessing's pools are.

    They would have the engine's own handler, which leaves the rest to a loop that does not run in a fork: a worker that
    is told to end a moment before it does by itself would stay, and its pool, hence the engine, waits for it for ever.
    """
    os.register_at_fork(after_in_child=functools.partial(signal.signal, signal.SIGTERM, signal.SIG_DFL))


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


try:
    configure(get_config())  # noqa: F821 - given by traitlets; pylint: disable=undefined-variable
    let_nanny_be_quiet()
    let_forks_end()
    let_tasks_be_done_once()
except BaseException:  # noqa: BLE001 - whatever it is
    # ipengine would go on with its defaults
    traceback.print_exc()
    os._exit(EX_CONFIG)
