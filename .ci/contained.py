# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a command, and end whatever it leaves running, daemons and containers included.

python3 .ci/contained.py COMMAND ARGUMENT...
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
LAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "molecule", "shared", "lab.py")

# What podman leaves behind: conmon, one above all processes of a container, which ends with it; and the one name server
# of all networks of the machine, other people's too, which ends with the last of them.
OF_PODMAN = {"conmon", "aardvark-dns"}


def processes() -> dict[int, tuple[int, str, list[str]]]:
    """Return all living processes: their parents, names and command lines."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _between, rest = file.read().partition(" (")[2].rpartition(") ")
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                command = file.read().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            found[pid] = int(parent), name, command
    return found


def descendants() -> dict[int, str]:
    """Return all processes below this one, each with its command line; of containers none."""
    children: dict[int, list[int]] = {}
    there = processes()
    for pid, (parent, name, _command) in there.items():
        if name not in OF_PODMAN:
            children.setdefault(parent, []).append(pid)
    found: dict[int, str] = {}
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), []):
            found[pid] = " ".join(there[pid][2]).strip()
            todo.append(pid)
    return found


def end_all() -> None:
    """End what is left: ask first, then insist."""
    for signal_number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        wait_until_none(patience)


def wait_until_none(seconds: float) -> None:
    """Give what is left so long to end."""
    until = time.monotonic() + seconds
    while descendants() and time.monotonic() < until:
        time.sleep(0.1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def remove_containers(run: str) -> None:
    """Remove the containers that this run has started, and the lab's networks that bear its name."""
    podman = shutil.which("podman")
    if not podman or os.geteuid() != 0:
        return
    # stopped nodes and networks have no process: their labels tell
    subprocess.run([sys.executable, LAB, "clean", run], stdin=subprocess.DEVNULL, check=False)
    for parent, name, command in processes().values():
        if name == "conmon" and parent == os.getpid() and "-c" in command:
            container = command[command.index("-c") + 1]
            print(f"left running, removed now: container {container}", file=sys.stderr)
            subprocess.run([podman, "rm", "--force", "--time=0", container], stdout=subprocess.DEVNULL, check=False)


def main() -> int:
    """Run the command of the command line; return its exit status."""
    run = os.environ["IPYPARALLEL_LAB_RUN"] = f"{os.getpid()}-{time.time():.0f}"
    # daemons become children of this process instead of init's, and so can be told from everybody else's
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
        # every child is collected when it ends, as init would: an ended daemon must not look alive
        while True:
            pid, status = os.wait()
            if pid == command.pid:
                command.returncode = os.waitstatus_to_exitcode(status)
                return command.returncode if command.returncode >= 0 else 128 - command.returncode
    finally:
        # what ends here ends whole
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        wait_until_none(2)
        for pid, line in descendants().items():
            print(f"left running, ended now: {pid} {line}", file=sys.stderr)
        end_all()
        # last: nothing is left that could make another one
        remove_containers(run)


if __name__ == "__main__":
    sys.exit(main())
