# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The figures of a local cluster: its start against ipyparallel's own ``ipcluster``, and its memory when idle.

Makes cluster ``bench`` of this account, with two engines, and removes it again. Writes build/bench.json.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ipyparallel

sys.path.insert(0, str(Path(__file__).parent / "shared"))
from common import PROJECT, Bench

CLUSTER = "bench"
ENGINES = 2
NOTEBOOK_PORT = 22888
ROUNDS = 5
STATE = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "ipyparallel" / CLUSTER
CONFIG = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ipyparallel" / CLUSTER
PREFIX = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "ipyparallel" / CLUSTER
BIN = PREFIX / "current/bin"


def make(target: str, *arguments: str) -> None:
    """Run a target of the Makefile for the cluster of this benchmark."""
    ports = ("PORT_BASE=22100", f"NOTEBOOK_PORT={NOTEBOOK_PORT}") if target == "up" else ()
    command = ["make", "--silent", target, f"CLUSTER={CLUSTER}", *ports, *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}")


def until_all_answer(connector: Path, limit: float = 60) -> None:
    """Wait until every engine has answered a call."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            client = ipyparallel.Client(str(connector), timeout=limit)
        except (OSError, ValueError):  # not there yet, or half-written
            time.sleep(0.01)
            continue
        try:
            client.wait_for_engines(ENGINES, timeout=limit, interactive=False)
            assert client[:].apply_sync(lambda: 6 * 7) == [42] * ENGINES
            return
        finally:
            client.close()
    sys.exit(f"no answer through {connector} in {limit:g} s")


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def start_ours() -> float:
    """Start everything of the cluster, its notebook too, and return how long it took until every engine answered."""
    started = time.monotonic()
    subprocess.run([BIN / "supervisord", "-c", CONFIG / "supervisord.conf"], check=True, cwd="/")
    until_all_answer(STATE / "connector/ipcontroller-client.json")
    return time.monotonic() - started


def stop_ours() -> None:
    """End everything of the cluster."""
    subprocess.run([BIN / "supervisorctl", "-c", CONFIG / "supervisord.conf", "shutdown"], check=True, stdout=-3)
    while not all(is_free(port) for port in (22100, 22109, NOTEBOOK_PORT)):
        time.sleep(0.02)


@contextmanager
def stock() -> Iterator[float]:
    """Start a cluster with ipcluster, in a directory of its own; give how long it took until every engine answered."""
    directory = tempfile.mkdtemp(prefix="ipcluster-")
    started = time.monotonic()
    with subprocess.Popen(
        [BIN / "ipcluster", "start", "-n", str(ENGINES), f"--ipython-dir={directory}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until_all_answer(Path(directory) / "profile_default/security/ipcontroller-client.json")
            yield time.monotonic() - started
        finally:
            process.terminate()
    shutil.rmtree(directory, ignore_errors=True)


def memory() -> dict[str, float]:
    """Return the proportional set size of the cluster's processes by name, in MB."""

    def megabytes(pid: str) -> float:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024 / 1_000_000

    found = {"supervisord": megabytes((STATE / "run/supervisord.pid").read_text().strip())}
    for entry in Path("/proc").iterdir():
        try:
            environ = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            marks = dict(pair.partition(b"=")[::2] for pair in environ)
            if marks.get(b"IPYPARALLEL_CLUSTER") == CLUSTER.encode():
                name = marks[b"IPYPARALLEL_PROCESS"].decode()
                found[name] = found.get(name, 0) + megabytes(entry.name)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return found


def main() -> None:
    """Measure, print a table, and write it."""
    bench = Bench("local")
    if os.getuid() == 0:
        bench.missing("a local cluster", "run it as an ordinary account: JupyterLab does not run as root")
        return
    make("up", f"ARGS=-e ipyparallel_engines_per_host={ENGINES}")
    try:
        stop_ours()
        ours, theirs = [], []
        for _round in range(ROUNDS):  # turn by turn, because these machines are noisy
            ours.append(start_ours())
            stop_ours()
            with stock() as seconds:
                theirs.append(seconds)
        start_ours()
        while is_free(NOTEBOOK_PORT):
            time.sleep(0.05)
        used = memory()
    finally:
        make("destroy")
    for name, megabytes in sorted(used.items()):
        print(f"memory of {name}: {megabytes:.0f} MB")
    bench.keep(
        f"start until {ENGINES} engines answer, with a notebook and encryption",
        statistics.median(ours),
        "s",
        alternative=f"ipcluster start -n {ENGINES}, with neither",
        beside=statistics.median(theirs),
        bar_of_ratio=1,
    )
    name = f"memory of the idle cluster with {ENGINES} engines and notebook (PSS)"
    bench.keep(name, sum(used.values()), "MB", bar=450)
    print(bench.table())
    sys.exit(bool(bench.missed()))


if __name__ == "__main__":
    main()
