# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on the controller host, in the cluster's Python and as its account: does what it is told by lines of JSON.

It is started before a measurement, so that its own start is no part of it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import ipyparallel


def client(connector: str, limit: float) -> ipyparallel.Client:
    """Return a client as soon as the hub answers."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return ipyparallel.Client(connector, timeout=max(1, deadline - time.monotonic()))
        except (OSError, ValueError):  # the file is not there yet, or half-written
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def wait(connector: str, engines: int, limit: float = 120) -> float:
    """Wait until exactly so many engines have answered a call."""
    started = time.monotonic()
    rc = client(connector, limit)
    try:
        while len(rc.ids) != engines and time.monotonic() < started + limit:  # some may be on their way out
            time.sleep(0.02)
        answers = rc[:].apply_async(int, "42")
        found = answers.get(limit)
    finally:
        rc.close()
    if found != [42] * engines:
        raise RuntimeError(f"{len(found)} engines answered, {engines} are expected")
    return time.monotonic() - started


def tasks(connector: str, count: int = 1000, turns: int = 3) -> float:
    """Return how many load-balanced tasks that do nothing are done in a second."""
    rc = client(connector, 30)
    try:
        view = rc.load_balanced_view()
        view.map_sync(int, ["1"] * 100, chunksize=1)
        rates = []
        for _turn in range(turns):
            started = time.monotonic()
            view.map_async(int, ["1"] * count, chunksize=1).get(120)
            rates.append(count / (time.monotonic() - started))
            rc.purge_local_results("all")
    finally:
        rc.close()
    return statistics.median(rates)


def matmul(connector: str, host: str, engines: int, threads: str, turns: int = 3) -> float:
    """Return the seconds of numpy's matrix products in so many engines of a host at once.

    A process of its own in each engine has the number of threads that is asked for, in place of the engine's.
    """
    code = (
        "import numpy, time; a = numpy.ones((700, 700)); a @ a; t = time.monotonic()\n"
        "for _ in range(30): a @ a\n"
        "print(time.monotonic() - t)"
    )

    def one(code: str, threads: str) -> float:
        import os
        import subprocess
        import sys

        environ = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        if threads:
            environ["OPENBLAS_NUM_THREADS"] = environ["OMP_NUM_THREADS"] = threads
        return float(subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True).stdout)

    rc = client(connector, 30)
    try:
        there = [number for number, ident in rc._engines.items() if ident.startswith(f"{host}__")][:engines]
        view = rc[there]
        return statistics.median(max(view.apply_sync(one, code, threads)) for _turn in range(turns))
    finally:
        rc.close()


def main() -> None:
    """Answer each line with a line."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            value = {"wait": wait, "tasks": tasks, "matmul": matmul}[request.pop("do")](**request)
            print(json.dumps({"value": value}), flush=True)
        except Exception as error:  # noqa: BLE001 - the benchmark ends with its message
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


main()
