# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A controller on this machine as the collection runs it: with its ipcontroller_config.py, and encrypted."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel
import zmq
from common import PROJECT

CONFIG = PROJECT / "roles/controller/files/ipcontroller_config.py"
PORT_BASE = 22300
LIMIT = 120
"""Seconds after which something counts as hanging."""


def tree(pid: int) -> dict[int, tuple[float, int]]:
    """Return the seconds of CPU and the open files of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {}
    for one in [pid, *map(int, children)]:
        # in nanoseconds, where /proc/<pid>/stat has hundredths of seconds
        used = sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{one}/task").glob("*/schedstat")) / 1e9
        found[one] = used, len(os.listdir(f"/proc/{one}/fd"))
    return found


@contextmanager
def controller(directory: Path, settings: Mapping[str, Any], own: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Run a controller with *settings* in an empty directory; without *own*, with ipyparallel's way to forget tasks."""
    state, config = directory / "state", directory / "config"
    public, secret = zmq.curve_keypair()
    identity = {
        "port_base": PORT_BASE,
        "address": "127.0.0.1",
        "encryption": "curve",
        "curve_publickey": public.decode(),
        "curve_secretkey": secret.decode(),
        "scheduler": "leastload",
        "key": secrets.token_hex(32),
        "packer": "json",
    }
    for path in (state, config):
        path.mkdir(parents=True)
    (state / "identity.json").write_text(json.dumps(identity))
    (config / "ipcontroller.json").write_text(json.dumps(settings))
    text = CONFIG.read_text()
    (config / CONFIG.name).write_text(text if own else text.replace("    forget_quickly_and_quietly()\n", ""))
    environ = {
        **os.environ,
        "IPYPARALLEL_STATE": str(state),
        "IPYPARALLEL_CLUSTER": "bench",
        "IPYPARALLEL_HOST": "here",
        "IPYPARALLEL_FINGERPRINT": "none",
    }
    command = [
        Path(sys.executable).with_name("ipcontroller"),
        f"--profile-dir={state / 'controller'}",
        f"--config={config / CONFIG.name}",
    ]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=log) as it,
    ):
        try:
            yield it
        except BaseException:
            print((directory / "log").read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            it.terminate()


def connect(directory: Path) -> ipyparallel.Client:
    """Return a client as soon as the hub answers."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            file = directory / "state/controller/security/ipcontroller-client.json"
            return ipyparallel.Client(str(file), timeout=LIMIT)
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
