# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the hub's database costs, by its kind and its bounds: one large map of tasks that do nothing.

Runs the controller as the collection does, with its ipcontroller_config.py and encrypted, and two engines beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent / "shared"))
from common import PROJECT, Bench
from controller import connect, controller, tree

DATABASE = "ipyparallel.controller."
BOUNDS = yaml.safe_load((PROJECT / "roles/controller/vars/main.yml").read_text())["__ipyparallel_controller_settings"][
    "DictDB"
]
STOCK = {"record_limit": 1024, "size_limit": 1 << 30}
"""ipyparallel's own bounds."""


def pss(pid: int) -> float:
    """Return the proportional set size of a process, in MB."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024 / 1e6


def measure(kind: str, bounds: Mapping[str, int], count: int, own: bool = True) -> dict[str, float]:
    """Return tasks a second, CPU of the hub for a task, memory of the hub, and lines of its log."""
    settings = {
        "IPController": {"log_level": 30, "db_class": DATABASE + kind},
        "DictDB": dict(bounds),
        "TaskScheduler": {"hwm": 1},
    }
    with tempfile.TemporaryDirectory() as name, controller(Path(name), settings, own=own) as process:
        client = connect(Path(name))
        program = [str(Path(sys.executable).with_name("ipengine")), f"--profile-dir={name}/state/controller"]
        engines = [subprocess.Popen(program, stdout=-3, stderr=-3) for _number in range(2)]
        try:
            client.wait_for_engines(2, timeout=60, interactive=False)
            view = client.load_balanced_view()
            view.map_sync(int, ["1"] * 50, chunksize=1)
            log = Path(name) / "log"
            lines, cpu, memory = log.read_text().count("\n"), tree(process.pid)[process.pid][0], pss(process.pid)
            started = time.monotonic()
            view.map_async(int, ["1"] * count, chunksize=1).get(300)
            seconds = time.monotonic() - started
            found: dict[str, Any] = {
                "rate": count / seconds,
                "cpu": (tree(process.pid)[process.pid][0] - cpu) / count * 1e3,
                "memory": pss(process.pid) - memory,
                "lines": log.read_text().count("\n") - lines,
            }
        finally:
            for engine in engines:
                engine.kill()
                engine.wait()
            client.close()
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description="The cost of the hub's database.")
    parser.add_argument("--tasks", type=int, default=12_000, help="of the map (12000)")
    options = parser.parse_args(arguments)
    bench = Bench("database")
    rows = {
        "none": measure("dictdb.NoDB", {}, options.tasks),
        "SQLite": measure("sqlitedb.SQLiteDB", {}, options.tasks),
        "in memory, ipyparallel's bounds": measure("dictdb.DictDB", STOCK, options.tasks, own=False),
        "in memory, the collection's": measure("dictdb.DictDB", BOUNDS, options.tasks),
    }
    ours, stock = rows["in memory, the collection's"], rows["in memory, ipyparallel's bounds"]
    words = f"a map of {options.tasks} tasks"
    alternative = "ipyparallel's bounds"
    bench.keep(f"{words}: lines in the log", ours["lines"], "", alternative=alternative, beside=stock["lines"], bar=10)
    bench.keep(f"{words}: tasks", ours["rate"], "a second", alternative=alternative, beside=stock["rate"])
    bench.keep(f"{words}: memory of the hub", ours["memory"], "MB", alternative=alternative, beside=stock["memory"])
    print(f"\n| database ({words}) | tasks a second | CPU of the hub a task | its memory grows by | lines in the log |")
    print("|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row['rate']:.0f} | {row['cpu']:.2f} ms | {row['memory']:.0f} MB | {row['lines']:.0f} |")
    print(f"\n{bench.table()}")
    return 1 if bench.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
