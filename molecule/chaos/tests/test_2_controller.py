# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller, or one of its children, ends or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cluster import CHILDREN, Cluster, Fault, place
from waiting import wait_until

Begin = Callable[[str], AbstractContextManager[Fault]]


def operators_connector() -> bytes:
    return Path(os.environ["IPYTHONDIR"], "profile_ipyparallel/security/ipcontroller-client.json").read_bytes()


@pytest.mark.parametrize("number", range(-1, 8), ids=["main", *CHILDREN])
def test_one_process_of_the_controller_killed(cluster: Cluster, fault: Begin, number: int) -> None:
    connector = operators_connector()
    with fault(f"controller: {'main process' if number < 0 else CHILDREN[number]} killed") as it:
        main, children = wait_until(cluster.controller, 20, "a controller with 8 children")
        victim = main if number < 0 else children[number]
        under_way = len(cluster.agent("report")["open"])
        victim.kill(signal.SIGKILL)
        it.restart_clock()
        it.detected(lambda: not main.is_alive(), 15, "the controller ends")
        after = it.whole(15)
        it.count()
        assert operators_connector() == connector
        restarted = [where for where in after if after[where][0] != it.before[where][0]]
        if restarted:
            it.say(f"engines started again: {restarted}")
        assert all(after[where][1] == it.before[where][1] for where in after if where not in restarted)
        it.say(f"{under_way} tasks were under way")
        # the kernel takes what comes in the 20 ms in which a killed process goes, and nobody reads it any more
        it.hold(15, lost=1 if victim in (main, children[CHILDREN.index("task")]) else 0)


WAITING = """
import time, ipyparallel

def nap(number):
    import time
    time.sleep(2)
    return number * number

client = ipyparallel.Client(profile="ipyparallel", timeout=20)
view = client.load_balanced_view()
sent = [view.apply_async(nap, number) for number in range(24)]
sent[0].get(30)
print("under way", flush=True)
print(sum(one.get(60) == number * number for number, one in enumerate(sent)))
"""


def test_a_client_that_only_waits_gets_its_results_from_the_next_controller(cluster: Cluster, fault: Begin) -> None:
    argv = [sys.executable, "-c", WAITING]
    with fault("controller killed while a client has sent all, and waits") as it:
        main, _children = wait_until(cluster.controller, 20, "a controller with 8 children")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout
            assert client.stdout.readline() == "under way\n"
            main.kill(signal.SIGKILL)
            it.restart_clock()
            it.detected(lambda: not main.is_alive(), 15, "the controller ends")
            it.whole(15)
            assert client.stdout.read() == "24\n"
        it.count()
        it.hold(15, lost=1)


def test_one_child_of_the_controller_stopped(cluster: Cluster, fault: Begin) -> None:
    """Nothing has ended, so no service manager sees it: health does."""
    with fault("controller: task scheduler stopped (SIGSTOP)") as it:
        main, children = wait_until(cluster.controller, 20, "a controller with 8 children")
        children[CHILDREN.index("task")].kill(signal.SIGSTOP)
        it.restart_clock()
        it.detected(lambda: not main.is_alive(), 60, "the controller ends")
        it.whole(30)
        it.count()
        it.hold(30)


def test_an_engine_wedged_for_load_balanced_work(cluster: Cluster, fault: Begin) -> None:
    """It answers, and does direct work; only a task of its own for each engine finds it."""
    with fault("engine wedged for load-balanced work") as it:
        before = cluster.status()["repairs"].get("wedged", 0)
        victim = place(cluster.idents()[number := cluster.on("node3")[0]])
        cluster.agent("wedge", target=number)
        it.restart_clock()
        it.detected(lambda: cluster.status()["repairs"].get("wedged", 0) > before, 90, "the watchdog ends the engine")
        after = it.whole(90)
        it.count()
        it.say([event["text"] for event in cluster.status()["events"] if "no load-balanced" in event["text"]][-1])
        assert {where for where in after if after[where] != it.before[where]} == {victim}
        it.hold(90)
