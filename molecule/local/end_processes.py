# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""End the processes whose home is the directory that is given: those that a failed test left."""

from __future__ import annotations

import os
import signal
import sys
import time

home = os.fsencode(sys.argv[1])


def left() -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as stream:
                environ = stream.read().split(b"\0")
        except OSError:
            continue
        if b"HOME=" + home in environ:
            found.append(int(entry))
    return found


deadline = time.monotonic() + 20
while (pids := left()) and time.monotonic() < deadline:
    for pid in pids:
        print(f"ending {pid}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    time.sleep(0.1)
sys.exit(f"these do not end: {pids}" if pids else 0)
