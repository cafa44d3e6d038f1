# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of clusters of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kinds")

from clusters import Cluster, listing, write_inventory  # noqa: E402 - as the line above has to be first
from kinds import KINDS, live  # noqa: E402
from lab import Lab  # noqa: E402
from remote import Operator  # noqa: E402

Define = Callable[..., Operator]


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab("matrix")


@pytest.fixture(scope="session")
def define(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Define]:
    """Return an operator whose inventory has these clusters."""
    made: list[Operator] = []
    directory: Path = tmp_path_factory.mktemp("inventories")

    def of(*clusters: Cluster) -> Operator:
        path = directory / f"{len(made)}.yml"
        write_inventory(lab, path, clusters)
        made.append(Operator(lab, path))
        made[-1].home.mkdir(mode=0o700, exist_ok=True)
        return made[-1]

    yield of
    if made:
        made[0].close()


@pytest.fixture(scope="session")
def empty(define: Define) -> dict[str, set[str]]:
    """Return what is on the nodes before the first cluster."""
    return listing(define(), ["node1", "node2", "node3"])


@pytest.fixture(scope="session", autouse=True)
def lives(request: pytest.FixtureRequest, define: Define) -> Iterator[dict[str, Future[None]]]:
    """Let the kinds of clusters that are asked for live, one after the other, beside the other tests."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [params["kind"] for params in calls if "kind" in params]
    operators = {kind: define(KINDS[kind].cluster) for kind in wanted}
    with ThreadPoolExecutor(1) as beside:
        yield {kind: beside.submit(live, operators[kind], KINDS[kind]) for kind in wanted}
        beside.shutdown(cancel_futures=True)
