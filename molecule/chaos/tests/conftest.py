# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from cluster import PROJECT, Cluster, Fault, Report
from lab import Lab

REPORT = Report()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(Lab("chaos"))
    yield cluster
    cluster.agent.end()


@pytest.fixture
def fault(cluster: Cluster) -> Callable[[str], AbstractContextManager[Fault]]:
    """Begin a fault: every engine has a variable, and work goes on all the time."""

    @contextmanager
    def begin(name: str) -> Iterator[Fault]:
        try:
            with REPORT.fault(name) as row:
                yield Fault(cluster, row, cluster.push())
        except BaseException:
            # what it has left would break the next test, too
            cluster.mend()
            raise
        finally:
            REPORT.write(PROJECT / "build/chaos.json")

    return begin


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if REPORT.rows:
        REPORT.write(PROJECT / "build/chaos.json")
        terminalreporter.section("faults, also in build/chaos.json (seconds)")
        for line in REPORT.lines():
            terminalreporter.write_line(line)
