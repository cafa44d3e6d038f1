# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes are stopped and started in a careless order, and hosts are away meanwhile."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from cluster import NODES, UNIT, Cluster, Fault
from waiting import wait_until

Begin = Callable[[str], AbstractContextManager[Fault]]


def systemctl(cluster: Cluster, verb: str, what: str) -> None:
    if what == "controller":
        cluster.run("node1", f"systemctl {verb} {UNIT}controller.service")
        return
    for node in NODES:
        cluster.run(node, f"systemctl {verb} {UNIT}engines-default.target '{UNIT}engines-default@*.service'")


@pytest.mark.parametrize("order", ["controller first, controller last", "engines first, engines last"])
def test_stopped_and_started_in_a_careless_order(cluster: Cluster, fault: Begin, order: str) -> None:
    first, last = (text.split()[0].rstrip(",") for text in order.split(", "))
    with fault(f"stopped {first} first, started {last} last") as it:
        other = {"controller": "engines", "engines": "controller"}
        systemctl(cluster, "stop", first)
        systemctl(cluster, "stop", other[first])
        assert not cluster.processes("controller")
        assert not cluster.processes("engines-default")
        for node, count in NODES.items() if last == "controller" else ():
            units = " ".join(f"{UNIT}engines-default@{core}.service" for core in range(count))
            cluster.run(node, f"systemctl start {UNIT}engines-default.target {units}")
        systemctl(cluster, "start", "controller")
        for node in NODES:
            cluster.run(node, f"systemctl start {UNIT}engines-default.target")
        it.restart_clock()
        it.whole(15)
        it.row["variables_kept"] = "none: engines ended"
        it.count()
        it.hold(15, lost=math.inf)


def test_playbooks_stop_and_start(cluster: Cluster, fault: Begin) -> None:
    with fault("playbooks stop and start") as it:
        done = cluster.play("stop")
        assert done.returncode == 0, done.stdout[-2000:]
        assert not cluster.processes()
        done = cluster.play("start")
        assert done.returncode == 0, done.stdout[-2000:]
        it.restart_clock()
        it.whole(5)
        it.row["variables_kept"] = "none: engines ended"
        it.count()
        it.hold(5, lost=math.inf)


def test_an_engine_dies_while_there_is_no_controller(cluster: Cluster, fault: Begin) -> None:
    """It is restored as an id on which every task for all engines would hang."""
    with fault("engines killed while the controller is down") as it:
        systemctl(cluster, "stop", "controller")
        for node in ("node1", "node2"):
            main = wait_until(lambda node=node: cluster.engine(node, 0), 5, "an engine")
            cluster.nanny(main).kill(signal.SIGKILL)
            main.kill(signal.SIGKILL)
        systemctl(cluster, "start", "controller")
        it.restart_clock()
        it.whole(15)
        it.count()
        it.hold(15, lost=math.inf)


def test_the_controller_restarts_while_a_host_is_away(cluster: Cluster, fault: Begin) -> None:
    with fault("controller killed while an engine host is cut off") as it:
        main, _children = wait_until(cluster.controller, 20, "a controller")
        cluster.lab.cut("node3")
        main.kill(signal.SIGKILL)
        it.restart_clock()
        it.detected(lambda: not main.is_alive() and cluster.controller(), 15, "another controller")
        cluster.expected = [where for where in cluster.expected if where[0] != "node3"]
        cluster.wait_until_whole(60)
        it.say(f"whole without it after {time.monotonic() - it.began:.1f} s")
        cluster.expected = sorted((node, core) for node, count in NODES.items() for core in range(count))
        cluster.lab.mend("node3")
        it.restart_clock()
        it.whole(30)
        it.count()
        it.hold(30)
