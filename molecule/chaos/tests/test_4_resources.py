# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file system is full, or the clock is wrong: degraded, and whole when the cause is gone."""

from __future__ import annotations

import math
import os
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cluster import CHILDREN, UNIT, Cluster, Fault
from waiting import wait_until

Begin = Callable[[str], AbstractContextManager[Fault]]
FILL = "dd if=/dev/zero of={}/chaos-fill bs=1M status=none 2>/dev/null; true"
FREE = "rm -f {}/chaos-fill"

# libfaketime 0.9.10 gives clock_nanosleep, which time.sleep calls, no valid time where the monotonic clock is right
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


def problem(cluster: Cluster, text: str) -> str:
    """Return the problem with this text, of which the watchdog tells."""
    return next((problem for problem in cluster.status()["problems"] if text in problem), "")


def has_logged(cluster: Cluster, since: float, pattern: str, node: str = "node1") -> str:
    command = f"journalctl -q --no-pager -o cat --since=@{since:.0f} -u '{UNIT}*' | grep -iE '{pattern}' | head -n 1"
    return cluster.run(node, command, check=False).strip()


def test_the_disk_with_the_controllers_state_is_full(cluster: Cluster, fault: Begin) -> None:
    """An engine that comes while it is full is taken in; a controller that ends is back at the latest afterwards."""
    with fault("disk full on the controller's state, engine and controller killed") as it:
        main, _children = wait_until(cluster.controller, 20, "a controller")
        cluster.run("node1", FILL.format("/var/lib/ipyparallel"))
        it.restart_clock()
        wait_until(lambda: cluster.engine("node3", 0), 5, "an engine").kill(signal.SIGKILL)
        it.detected(lambda: problem(cluster, "disk is full at /var/lib"), 30, "the watchdog says that the disk is full")
        assert cluster.status()["state"] == "degraded"
        it.say(f"log: {has_logged(cluster, it.at, 'the disk is full')}"[:160])
        cluster.wait_until_whole(20)
        main.kill(signal.SIGKILL)
        wait_until(lambda: not main.is_alive(), 5, "the controller ends")
        began = time.monotonic()
        try:
            cluster.wait_until_whole(10)
            it.say(f"whole while it was full, {time.monotonic() - began:.1f} s after the controller was killed")
        except AssertionError:
            it.say(f"not whole while it was full: {cluster.why}")
        cluster.run("node1", FREE.format("/var/lib/ipyparallel"))
        it.restart_clock()
        it.whole(15)
        it.count()
        it.told_whole()
        it.hold(15, lost=math.inf)  # what cannot be noted is lost with the controller


def test_tmp_is_full(cluster: Cluster, fault: Begin) -> None:
    with fault("/tmp full on the controller's and an engine host, engine and controller killed") as it:
        main, _children = wait_until(cluster.controller, 20, "a controller")
        for node in ("node1", "node3"):
            cluster.run(node, "mount -o remount,size=16m /tmp; " + FILL.format("/tmp"))
        it.restart_clock()
        wait_until(lambda: cluster.engine("node3", 0), 5, "an engine").kill(signal.SIGKILL)
        main.kill(signal.SIGKILL)
        it.restart_clock()
        it.detected(lambda: not main.is_alive(), 5, "the controller ends")
        it.whole(15)
        it.say("whole while it was full")
        wait_until(lambda: problem(cluster, "/tmp"), 30, "the watchdog says that /tmp is full")
        for node in ("node1", "node3"):
            cluster.run(node, FREE.format("/tmp") + "; mount -o remount,size=50% /tmp")
        it.count()
        it.told_whole()
        it.hold(15)


def test_file_descriptors_near_the_limit(cluster: Cluster, fault: Begin) -> None:
    """Seen in time: without any, a process of the controller uses a core, and engines are missing without an error."""
    with fault("file descriptors of the heartbeat near their limit") as it:
        _main, children = wait_until(cluster.controller, 20, "a controller with 8 children")
        victim = children[CHILDREN.index("heartbeat")]
        used = len(os.listdir(f"/proc/{victim.pid}/fd"))
        before = cluster.agent("limit_files", pid=victim.own, most=used + used // 8 + 1)
        it.restart_clock()
        said = it.detected(lambda: problem(cluster, "file descriptors"), 20, "the watchdog tells")
        it.say(said)
        shown = cluster.play("status")
        assert "file descriptors" in shown.stdout, shown.stdout[-2000:]
        cluster.agent("limit_files", pid=victim.own, most=before)
        it.restart_clock()
        wait_until(lambda: cluster.status()["state"] == "whole", 20, "the watchdog says that it is whole")
        it.whole(15)
        it.count()
        it.hold(15)


def test_the_clock_is_set_back_an_hour(cluster: Cluster, fault: Begin) -> None:
    """Of controller and watchdog, by libfaketime: a node has the clock of this machine, which is not touched."""
    units = [f"{UNIT}health.service", f"{UNIT}controller.service"]
    library = cluster.run("node1", "ls /usr/lib/*/faketime/libfaketime.so.1").strip()
    lines = [
        "[Service]",
        f"Environment=LD_PRELOAD={library}",
        "Environment=FAKETIME_TIMESTAMP_FILE=/etc/chaos-clock",
        "Environment=FAKETIME_NO_CACHE=1",
        "Environment=FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]
    shim = "/usr/local/lib/chaos-clock/sitecustomize.py"
    cluster.run("node1", f"mkdir -p {Path(shim).parent}; printf '%s' {shlex.quote(SLEEP)} > {shim}")
    for unit in units:
        drop_in = f"/etc/systemd/system/{unit}.d"
        cluster.run("node1", f"mkdir -p {drop_in}; printf '%s\\n' {' '.join(map(repr, lines))} > {drop_in}/clock.conf")
        lines.append(f"Environment=PYTHONPATH={Path(shim).parent}")
    try:
        cluster.run(
            "node1", f"echo +0 > /etc/chaos-clock; systemctl daemon-reload; systemctl restart {' '.join(units)}"
        )
        cluster.wait_until_whole(30)
        with fault("clock of the controller set back an hour, and right again") as it:
            main, _children = wait_until(cluster.controller, 20, "a controller")
            it.count()  # those that were under way when the controller was told to stop are dropped
            cluster.run("node1", "echo -3600 > /etc/chaos-clock")
            it.restart_clock()
            # two periods in which the hub would drop an engine that does not answer; the load goes on
            engine = wait_until(lambda: cluster.engine("node2", 0), 5, "an engine")
            engine.kill(signal.SIGKILL)
            it.detected(lambda: not engine.is_alive(), 5, "the engine ends")
            after = it.whole(15)
            cluster.run("node1", "echo +0 > /etc/chaos-clock")
            cluster.wait_until_whole(15)
            it.count()
            assert main.is_alive(), cluster.journal(it.at)
            assert {where for where in after if after[where] != it.before[where]} == {("node2", 0)}
            it.hold(15)
    finally:
        for unit in units:
            cluster.run("node1", f"rm -r /etc/systemd/system/{unit}.d")
        cluster.run("node1", f"systemctl daemon-reload; systemctl restart {' '.join(units)}")
        cluster.wait_until_whole(30)
