# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the heartbeat costs and what it gives, by the number of engines and the interval.

Runs the controller as the collection does, with its ipcontroller_config.py and encrypted, and gives it engines that are
only hearts (shared/hearts.py). The interval that the collection chooses by itself is beside fixed ones.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipyparallel

sys.path.insert(0, str(Path(__file__).parent / "shared"))
from common import Bench
from controller import LIMIT, connect, controller, tree

CHOSEN = 0
"""Stands for the interval that is chosen by the number of engines."""


def until(client: ipyparallel.Client, engines: int) -> None:
    """Wait until the hub has so many engines."""
    deadline = time.monotonic() + LIMIT
    while len(client.ids) != engines:
        if time.monotonic() > deadline:
            sys.exit(f"{len(client.ids)} of {engines} engines are registered after {LIMIT} s")
        time.sleep(0.005)


def measure(engines: int, period: int, turns: int, idle: float) -> tuple[float, float, float]:
    """Return the seconds until engines are registered, the heartbeat's part of a core, and its files, when idle."""
    starts = []
    settings: dict[str, Any] = {"TaskScheduler": {"hwm": 1}, "IPController": {"log_level": 40}}
    if period != CHOSEN:
        settings["HeartMonitor"] = {"period": period}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(turns):
            directory = Path(name) / str(turn)
            directory.mkdir()
            with controller(directory, settings) as process:
                client = connect(directory)
                before = tree(process.pid)
                started = time.monotonic()
                hearts = subprocess.Popen(
                    [
                        sys.executable,
                        str(Path(__file__).parent / "shared/hearts.py"),
                        str(directory / "state/controller/security/ipcontroller-engine.json"),
                        str(engines),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert hearts.stdin
                assert hearts.stdout
                hearts.stdout.readline()  # all have asked, and have their answer
                accepted = time.monotonic()
                until(client, engines)
                starts.append(time.monotonic() - accepted)
                if turn == turns - 1:
                    # the heartbeat is the child with most new files: each heart has two connections to it
                    grown = tree(process.pid)
                    heartbeat = max((pid for pid in grown if pid != process.pid), key=lambda pid: grown[pid][1])
                    files = (grown[heartbeat][1] - before[heartbeat][1]) / engines
                    time.sleep(max(0.0, 3 - (time.monotonic() - started)))  # until the start is over
                    began, before = time.monotonic(), tree(process.pid)
                    time.sleep(idle)  # what is measured is what it does when nobody asks
                    after, lasted = tree(process.pid), time.monotonic() - began
                    cost = (after[heartbeat][0] - before[heartbeat][0]) / lasted * 100
                client.close()
                hearts.stdin.close()
                hearts.wait(LIMIT)
    return statistics.median(starts), cost, files


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description="The cost of the heartbeat.")
    parser.add_argument("--engines", default="8,23,64,512", help="numbers of engines (8,23,64,512)")
    parser.add_argument("--periods", default="3000,1000,500,300,0", help="intervals in ms, 0 for the chosen one")
    parser.add_argument("--turns", type=int, default=1, help="starts of each (1)")
    parser.add_argument("--idle", type=float, default=6, help="seconds in which the idle heartbeat is watched (6)")
    options = parser.parse_args(arguments)
    bench = Bench("heartbeat")
    rows: dict[tuple[int, int], tuple[float, float, float]] = {}
    for engines in map(int, options.engines.split(",")):
        for period in map(int, options.periods.split(",")):
            row = rows[engines, period] = measure(engines, period, options.turns, options.idle)
            print(f"  {engines} engines, {period or 'chosen'} ms: {row[0]:.2f} s, {row[1]:.2f} %", flush=True)
        chosen, stock = rows.get((engines, CHOSEN)), rows.get((engines, 3000), (None, None, None))
        if chosen is not None:
            words = f"{engines} hearts, the chosen interval"
            alternative = "3000 ms, ipyparallel's own"
            bench.keep(f"{words}: until registered", chosen[0], "s", alternative=alternative, beside=stock[0])
            bench.keep(
                f"{words}: idle heartbeat", chosen[1], "% of a core", alternative=alternative, beside=stock[1], bar=5
            )
            bench.keep(f"{words}: open files of the heartbeat, an engine", chosen[2], "")
    print("\n| engines | interval | until registered | idle heartbeat process | its files an engine |")
    print("|---:|---:|---:|---:|---:|")
    for (engines, period), (took, cost, files) in rows.items():
        word = f"{period} ms" if period else "chosen"
        print(f"| {engines} | {word} | {took:.2f} s | {cost:.2f} % of a core | {files:.1f} |")
    print(f"\n{bench.table()}")
    return 1 if bench.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
