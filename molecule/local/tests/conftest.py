# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of the local cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import figures as kept
import pytest
from account import PROJECT, Account

FIGURES = kept.Figures()


@pytest.fixture(scope="session")
def account() -> Account:
    return Account()


@pytest.fixture(scope="session")
def figures() -> Iterator[kept.Figures]:
    yield FIGURES
    kept.write(FIGURES.rows, PROJECT / "build/local.json")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if FIGURES.rows:
        terminalreporter.section("figures, also in build/local.json")
        for line in kept.table(FIGURES.rows):
            terminalreporter.write_line(line)
