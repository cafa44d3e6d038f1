# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An engine ends, whatever its nanny does; nobody else notices."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from cluster import UNIT, Cluster, Fault, Process, place
from waiting import wait_until

Begin = Callable[[str], AbstractContextManager[Fault]]
VICTIM = ("node2", 1)


def engine(cluster: Cluster) -> Process:
    return wait_until(lambda: cluster.engine(*VICTIM), 10, "an engine")


@pytest.mark.parametrize("with_nanny", [False, True], ids=["nanny alive", "nanny killed too"])
def test_an_engine_killed(cluster: Cluster, fault: Begin, with_nanny: bool) -> None:
    with fault(f"engine killed, {'and its nanny' if with_nanny else 'nanny alive'}") as it:
        main = engine(cluster)
        nanny = cluster.nanny(main)
        (ident,) = [ident for ident in cluster.idents().values() if place(ident) == VICTIM]
        if with_nanny:
            nanny.kill(signal.SIGKILL)
        main.kill(signal.SIGKILL)
        it.restart_clock()
        all_engines = cluster.agent("all_engines", limit=20)
        it.say(f"DirectView on all: {all_engines['ended']} after {all_engines['took']:.1f} s")
        it.detected(lambda: ident not in cluster.idents().values(), 60, "the hub drops the engine")
        after = it.whole(5)
        it.count()
        others = {where: seen for where, seen in it.before.items() if where != VICTIM}
        assert {where: after[where] for where in others} == others
        assert all_engines["took"] <= 5
        it.hold(5)


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_what_user_code_has_started_ends_with_its_engine(cluster: Cluster, fault: Begin, how: str) -> None:
    """Its own process group, and deaf to SIGTERM; systemd alone would leave it, with KillMode=process."""
    with fault(f"engine {how} that had started processes") as it:
        main = engine(cluster)
        number = next(number for number, ident in cluster.idents().items() if place(ident) == VICTIM)
        started = cluster.agent("children", target=number, count=2)
        there = [process for process in cluster.processes(main.name, VICTIM[0]) if process.own in started]
        assert len(there) == 2
        if how == "killed":
            main.kill(signal.SIGKILL)
        else:
            cluster.run(VICTIM[0], f"systemctl restart --no-block {UNIT}engines-default@{VICTIM[1]}.service")
        it.restart_clock()
        it.detected(lambda: not main.is_alive(), 40, "the engine ends")
        wait_until(lambda: not any(process.is_alive() for process in there), 10, "its children end")
        it.whole(10)
        it.count()
        it.hold(10)
