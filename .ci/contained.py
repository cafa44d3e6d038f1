# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a command, and end whatever it leaves running, daemons included: python3 .ci/contained.py COMMAND ARGUMENT..."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def descendants() -> dict[int, str]:
    """Return all processes below this one, each with its command line."""
    children: dict[int, list[int]] = {}
    commands: dict[int, str] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(") ")[2].split()[:2]
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                commands[pid] = file.read().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(pid)
    found: dict[int, str] = {}
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), []):
            found[pid] = commands[pid]
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


def main() -> int:
    """Run the command of the command line; return its exit status."""
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
        wait_until_none(2)
        for pid, command in descendants().items():
            print(f"left running, ended now: {pid} {command}", file=sys.stderr)
        end_all()


if __name__ == "__main__":
    sys.exit(main())
