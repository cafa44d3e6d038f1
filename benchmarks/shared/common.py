# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the benchmarks share: figures, each beside its alternative of the same run; a table, and build/bench.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "build/bench.json"


class Bench:
    """The figures of one benchmark. Each is written at once, so an interrupted run keeps what it has measured."""

    def __init__(self, benchmark: str) -> None:
        self.benchmark = benchmark
        self.rows: list[dict[str, Any]] = []

    def keep(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        alternative: str = "",
        beside: float | None = None,
        bar: float | None = None,
        bar_of_ratio: float | None = None,
    ) -> None:
        """Keep a figure.

        Args:
            name: What was measured.
            value: The figure.
            unit: Its unit.
            alternative: What it is compared with.
            beside: The figure of that, from the same run.
            bar: What the figure must not exceed.
            bar_of_ratio: What the figure must not exceed as a part of *beside*.
        """
        ratio = value / beside if beside else None
        over = (bar is not None and value > bar) or (
            bar_of_ratio is not None and (ratio is None or ratio > bar_of_ratio)
        )
        row = {
            "benchmark": self.benchmark,
            "name": name,
            "value": round(value, 3),
            "unit": unit,
            "alternative": alternative,
            "alternative_value": None if beside is None else round(beside, 3),
            "ratio": None if ratio is None else round(ratio, 3),
            "bar": bar_of_ratio if bar is None else round(bar, 2),
            "bar_is_of": None if bar is None and bar_of_ratio is None else "ratio" if bar is None else "value",
            "met": None if bar is None and bar_of_ratio is None else not over,
        }
        self._add(row)

    def missing(self, name: str, reason: str) -> None:
        """Keep that a figure was not measured, and why."""
        self._add({"benchmark": self.benchmark, "name": name, "not_measured": reason, "met": None})

    def missed(self) -> list[str]:
        """Return the names of the figures that are above their bar."""
        return [row["name"] for row in self.rows if row["met"] is False]

    def table(self) -> str:
        """Return the figures as a table of Markdown."""
        lines = ["| figure | value | alternative | ratio | bar | |", "|---|---:|---|---:|---|---|"]
        for row in self.rows:
            if "not_measured" in row:
                lines.append(f"| {row['name']} | not measured: {row['not_measured']} | | | | |")
                continue
            beside = ""
            if row["alternative"]:
                value = row["alternative_value"]
                beside = row["alternative"] + ("" if value is None else f": {number(value)} {row['unit']}".rstrip())
            most = (
                ""
                if row["bar"] is None
                else f"{row['bar']:g} {'of it' if row['bar_is_of'] == 'ratio' else row['unit']}"
            )
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
            value = f"{number(row['value'])} {row['unit']}".rstrip()
            lines.append(f"| {row['name']} | {value} | {beside} | {ratio} | {most.rstrip()} | {verdict} |")
        return "\n".join(lines)

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        print(
            f"  {row['name']}: {row.get('value', row.get('not_measured'))} {row.get('unit', '')}".rstrip(), flush=True
        )
        mine = {(one["benchmark"], one["name"]) for one in self.rows}
        try:
            there = json.loads(RESULTS.read_text())
        except (OSError, ValueError):
            there = []
        # an older layout had no benchmark's name
        others = [one for one in there if "benchmark" in one and (one["benchmark"], one["name"]) not in mine]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([*others, *self.rows], indent=2) + "\n")


def number(value: float) -> str:
    """Return a figure as people read it."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
