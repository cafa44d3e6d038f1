# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the configuration of engines does to the process that reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "roles/engines/files/ipengine_config.py"
# As an engine: a handler of Python's own for SIGTERM, and forks that are told to end at once. On one processor, so that
# most of them are told before they have begun.
FORKS = """
import json, os, pathlib, signal, sys, threading, time
source = pathlib.Path(sys.argv[1]).read_text()
functions = source[: source.index("\\ntry:\\n    configure(")]
exec(compile(functions, sys.argv[1], "exec"), globals())

let_forks_end()
ended = []
signal.signal(signal.SIGTERM, lambda *_arguments: ended.append(1))
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
children = []
for _number in range(200):
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    children.append(child)
deadline = time.monotonic() + 20
left = set(children)
while left and time.monotonic() < deadline:
    left = {child for child in left if os.waitpid(child, os.WNOHANG)[0] == 0}
    time.sleep(0.01)
for child in left:
    os.kill(child, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGTERM)
blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(json.dumps({"left": len(left), "own handler": ended, "blocked": blocked}))
"""


def test_forks_end_when_they_are_told_to_before_they_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(CONFIG)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"left": 0, "own handler": [1], "blocked": False}


NANNY = """
import runpy, sys
import zmq

def run_module(name, **_options):
    import zmq.asyncio  # as what the nanny imports
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        print(name, socket.getsockopt(zmq.TCP_KEEPALIVE), socket.getsockopt(zmq.CONNECT_TIMEOUT))

runpy.run_module = run_module
exec(compile(open(sys.argv.pop(1)).read(), "nanny.py", "exec"))
"""


def test_the_connections_of_a_nanny_have_options() -> None:
    pairs = json.dumps([[34, 1], [79, 3000]])  # ZMQ_TCP_KEEPALIVE, ZMQ_CONNECT_TIMEOUT
    done = subprocess.run(
        [sys.executable, "-c", NANNY, str(CONFIG.with_name("nanny.py")), pairs],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ipyparallel.engine.nanny", "1", "3000"]


def test_start_up_code_of_a_pool_is_in_no_diff():
    run = yaml.safe_load((CONFIG.parents[1] / "tasks/service.yml").read_text())[-1]
    assert sorted(run["vars"]["__ipyparallel_engines_startup"]) == ["path", "secret"]
