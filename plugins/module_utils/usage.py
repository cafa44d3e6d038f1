# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a host is used: its memory, its load, and what of a cluster runs there. Read from ``/proc``, nothing is asked."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import certificate_days
from ansible_collections.ipyparallel.cluster.plugins.module_utils.paths import own_paths
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import age, running_processes, stat_fields


def memory(text: str) -> dict[str, int]:
    """Return what ``/proc/meminfo`` says: ``total``, ``available`` (without swapping) and ``used``, in bytes."""
    found = {name: int(kibibytes) * 1024 for name, kibibytes in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    total = found.get("MemTotal", 0)
    available = found.get("MemAvailable", found.get("MemFree", 0))
    return {"total": total, "available": available, "used": total - available}


def uptime() -> float:
    """Return for how many seconds this host runs.

    That is the age of its first process: a container has the clock of the machine below it, and a first process of its
    own. Where that may not be seen, the time since the machine's boot.
    """
    fields = stat_fields(1)
    return age(fields) if fields else time.clock_gettime(time.CLOCK_BOOTTIME)


def resident(pid: int) -> int:
    """Return the memory of process *pid* that is in use, in bytes; 0 where it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def processes(cluster: str, run: str) -> list[dict[str, t.Any]]:
    """Return the processes of *cluster* that run here, without their children, by name.

    Args:
        cluster: its name.
        run: its directory of sockets and process ids, which tells it from clusters of the same name.
    """
    found = []
    for process in running_processes(cluster, run=run):
        fields = stat_fields(process.pid)
        if fields:
            found.append(
                {
                    "name": f"{process.name}-{process.instance}" if process.instance else process.name,
                    "pid": process.pid,
                    "uptime_seconds": round(age(fields)),
                    "memory_bytes": resident(process.pid),
                }
            )
    return sorted(found, key=lambda process: (process["name"], process["pid"]))


def usage(cluster: str, scope: str) -> dict[str, t.Any]:
    """Return how this host is used; module ``host_info`` describes what there is.

    Args:
        cluster: name of the cluster.
        scope: ``system`` or ``user``.

    Raises:
        OSError: something cannot be read.
    """
    places = own_paths(scope, cluster)
    with open("/proc/meminfo", encoding="ascii") as stream:
        bytes_of = memory(stream.read())
    days = certificate_days(os.path.join(places["state"], "notebook", "certificate.pem"))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "memory_total_bytes": bytes_of["total"],
        "memory_available_bytes": bytes_of["available"],
        "memory_used_bytes": bytes_of["used"],
        "uptime_seconds": round(uptime()),
        "processes": processes(cluster, places["run"]),
        "certificate_days": None if days is None else round(days, 1),
    }
