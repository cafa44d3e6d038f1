# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts lose their power, hang, are cut off, and come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from cluster import EXPECTED, Cluster, Fault, place
from waiting import wait_until

Begin = Callable[[str], AbstractContextManager[Fault]]


def test_power_loss_and_return(cluster: Cluster, fault: Begin) -> None:
    with fault("engine host: power loss and return") as it:
        cluster.lab.kill("node2")
        it.restart_clock()
        it.detected(lambda: not cluster.on("node2"), 60, "the hub drops the engines of node2")
        cluster.lab.start("node2")
        cluster.look_at_nodes()
        it.restart_clock()
        it.whole(15)
        it.count()
        it.hold(15)


def test_partition_and_freeze_while_an_engine_is_busy(cluster: Cluster, fault: Begin) -> None:
    """Three at once: node3 is cut off for 60 s, node2 hangs for 30 s of them, and an engine of node1 works for 60 s."""
    with fault("engine host: frozen 30 s") as frozen, fault("engine host: partition 60 s") as cut:
        busy = cluster.on("node1")[0]
        pid = frozen.before[place(cluster.idents()[busy])][0]
        cluster.agent("begin_long", target=busy, seconds=60)
        cluster.lab.cut("node3")
        cut.restart_clock()
        cluster.lab.freeze("node2")
        frozen.restart_clock()
        thaw, mend = frozen.began + 30, cut.began + 60
        frozen.detected(lambda: not cluster.on("node2") or time.monotonic() > thaw, 31, "")
        cut.detected(lambda: not cluster.on("node3") or time.monotonic() > mend, 61, "the hub drops node3's engines")
        wait_until(lambda: time.monotonic() > thaw, 31, "30 s")
        cluster.lab.thaw("node2")
        frozen.restart_clock()
        # without node3, and without the engine that is busy
        wait_until(lambda: len(cluster.on("node2")) == 3, 30, "node2's engines are back")
        frozen.row["whole_after"] = round(time.monotonic() - frozen.began, 2)
        wait_until(lambda: time.monotonic() > mend, 61, "60 s")
        cluster.lab.mend("node3")
        cut.restart_clock()
        assert cluster.agent("end_long", limit=20) == ["node1", pid], "a busy engine was ended"
        cut.say("an engine that was busy for 60 s was left alone")
        after = cut.whole(15)
        assert after[place(cluster.idents()[busy])][0] == pid
        cut.count()
        kept = [where for where in EXPECTED if where[0] == "node2" and after[where] == frozen.before[where]]
        frozen.row["variables_kept"] = f"{len(kept)} of 3 on it"
        frozen.row["tasks_lost"], frozen.row["tasks_doubled"] = cut.row["tasks_lost"], cut.row["tasks_doubled"]
        cut.hold(15)
        assert frozen.row["whole_after"] <= 15


# Before the hub gives engines up, which it does after 30 s, and before they give the controller up, after 50 s. What
# was on its way stands still for up to as long again, because TCP doubles its waiting time with each loss.
@pytest.mark.parametrize("seconds", [27, 36])
def test_a_short_partition_costs_no_variables(cluster: Cluster, fault: Begin, seconds: int) -> None:
    with fault(f"engine host: partition {seconds} s") as it:
        cluster.lab.cut("node3")
        mend = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > mend, seconds + 1, f"{seconds} s")
        cluster.lab.mend("node3")
        it.restart_clock()
        it.whole(seconds + 10)
        it.count()
        assert it.row["variables_kept"] == f"{len(EXPECTED)} of {len(EXPECTED)}"
        it.hold(seconds + 10)


def test_a_host_that_is_shut_out_and_let_in_again(cluster: Cluster, fault: Begin) -> None:
    """Its connections end, and the controller does not hear of it: it has both, those before and those after."""
    (node,) = cluster.lab.known(["node3"])
    element = f"element inet ipyparallel_ipyparallel engines4 '{{ {node.address} }}'"
    with fault("engine host: shut out by the firewall 27 s") as it:
        cluster.run("node1", f"nft delete {element}")
        mend = time.monotonic() + 27
        wait_until(lambda: time.monotonic() > mend, 28, "27 s")
        cluster.run("node1", f"nft add {element}")
        it.restart_clock()
        it.whole(15)
        it.count()
        assert it.row["variables_kept"] == f"{len(EXPECTED)} of {len(EXPECTED)}"
        it.hold(15)


def test_all_three_are_rebooted_at_once(cluster: Cluster, fault: Begin) -> None:
    with fault("all three hosts rebooted at once") as it:
        it.count()
        cluster.agent.end()
        began = time.monotonic()
        cluster.lab.reboot("node1", "node2", "node3")
        it.say(f"the reboot took {time.monotonic() - began:.1f} s")
        it.restart_clock()
        cluster.look_at_nodes()
        cluster.start_agent()
        it.whole(15)
        it.row["variables_kept"] = "none: engines ended"
        it.count()
        it.hold(15)
