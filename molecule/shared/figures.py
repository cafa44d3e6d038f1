# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures that a scenario measures: kept as JSON, and printed as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Figures:
    """What was measured, each with the bar it is held to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def keep(self, check: str, value: float, unit: str, limit: float) -> None:
        """Keep a figure that must not be above *limit*."""
        row = {"check": check, "value": round(value, 2), "unit": unit, "bar": round(limit, 2), "ok": value <= limit}
        self.rows.append(row)

    def watch(self, check: str, seconds: float, limit: float) -> None:
        """Keep a time that machines with other work to do exceed; fail when it is far above its *limit*.

        ``make bench`` holds it to that, beside its alternative.
        """
        self.keep(check, seconds, "s", limit)
        assert seconds <= 2 * limit, f"{check}: {seconds:.2f} s, at most {limit:g} s"

    def add(self, check: str, value: float, unit: str, limit: float) -> None:
        """Keep a figure that must not be above *limit*, and fail when it is."""
        self.keep(check, value, unit, limit)
        assert value <= limit, f"{check}: {value:.2f} {unit}, at most {limit:g} {unit}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    width = max(len(row["check"]) for row in rows)
    verdict = {True: "ok", False: "MISSED"}
    return [
        f"{row['check']:{width}}  {row['value']:>8g} {row['unit']:5} at most {row['bar']:g}  {verdict[row['ok']]}"
        for row in rows
    ]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")


def of_scenario(path: Path) -> tuple[Any, Callable[[Any], None]]:
    """Return what a scenario's conftest needs: fixture ``figures``, and the hook that closes pytest's output with them.

    Args:
        path: the file that the figures are written to.
    """
    kept = Figures()

    @pytest.fixture(scope="session")
    def figures() -> Iterator[Figures]:
        yield kept
        write(kept.rows, path)

    def pytest_terminal_summary(terminalreporter: Any) -> None:
        if kept.rows:
            terminalreporter.section(f"figures, also in build/{path.name}")
            for line in table(kept.rows):
                terminalreporter.write_line(line)

    return figures, pytest_terminal_summary
