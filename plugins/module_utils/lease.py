# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lease of the operator who is at work on a cluster, so that two do not change it at once.

It is in what the cluster remembers (``state.py``), is renewed by each phase of a run, and ends with it, or ten minutes
after the last phase of one that was interrupted. The run of an operator is told from others by its process.
"""

from __future__ import annotations

import getpass
import os
import platform
import time
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import acting_as
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import stat_fields
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state, write_state

SECONDS = 600
LEASE_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {"lease": {"type": "dict", "default": {}}}
"""The option of every module that takes, renews or ends the lease (documentation fragment ``lease``)."""


class LeaseError(RuntimeError):
    """Another operator is at work; the message says who, since when, and how to take over."""


def asked(takeover: bool) -> dict[str, t.Any]:
    """Return what a run of this process asks for, on the operator's machine.

    Args:
        takeover: whether to take a lease that another holds.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    # an action runs in a fork of the command
    run = mark(os.getppid())
    return {
        "holder": f"{user}@{platform.node()}",
        "run": run,
        "runs": sorted({run, *runs()}),
        "sees": os.path.isdir("/proc/self"),
        "takeover": takeover,
    }


def mark(pid: int) -> str:
    """Return what tells process *pid* from others, and from a later one with its number."""
    fields = stat_fields(pid)
    return f"{pid}-{fields[19]}" if fields else str(pid)  # starttime, proc(5)


def runs() -> set[str]:
    """Return the marks of the processes on this machine that may be runs of Ansible; none where it has no /proc."""
    found = set()
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        try:
            with open(f"/proc/{int(entry)}/cmdline", "rb") as stream:
                if b"ansible" in stream.read():
                    found.add(mark(int(entry)))
        except (OSError, ValueError):
            continue
    return found


def check_free(lease: Mapping[str, t.Any], wanted: Mapping[str, t.Any], now: float) -> None:
    """Check that nobody else is at work.

    Args:
        lease: what is remembered; empty where nobody is.
        wanted: what `asked` returned.
        now: seconds since the epoch, by the controller host's clock, as in the lease.

    Raises:
        LeaseError: somebody is.
    """
    if not lease or wanted.get("takeover") or now >= lease.get("renewed", 0) + SECONDS:
        return
    # a machine that has no /proc knows of no other run, and cannot say that one has ended
    over = wanted.get("sees") and lease.get("run") not in wanted["runs"]
    if lease.get("holder") == wanted["holder"] and (lease.get("run") == wanted["run"] or over):
        return
    raise LeaseError(
        f"{lease.get('holder')} is at work on this cluster since {clock(lease.get('since', now))}, last seen at "
        f"{clock(lease.get('renewed', now))} ({lease.get('phase')}): wait for that run to end, or for "
        f"{SECONDS // 60} minutes after it was last seen, or take over with -e ipyparallel_takeover=true; nothing was "
        "changed"
    )


def clock(seconds: float) -> str:
    """Return a time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def held(lease: Mapping[str, t.Any], wanted: Mapping[str, t.Any], phase: str, now: float) -> dict[str, t.Any]:
    """Return the lease as *wanted* takes or renews it.

    Raises:
        LeaseError: another operator is at work.
    """
    check_free(lease, wanted, now)
    ours = (lease.get("holder"), lease.get("run")) == (wanted["holder"], wanted["run"])
    since = lease["since"] if ours and "since" in lease else now
    return {"holder": wanted["holder"], "run": wanted["run"], "since": since, "renewed": now, "phase": phase}


def take(directory: str, state: Mapping[str, t.Any], wanted: Mapping[str, t.Any], now: float) -> dict[str, t.Any]:
    """Take or renew the lease of the operator who is at work, for one who may be root; return the new state.

    Args:
        directory: the state directory.
        state: what is remembered.
        wanted: what ``lease.asked`` returned, and ``phase``.
        now: seconds since the epoch.

    Raises:
        LeaseError: another operator is at work; nothing is remembered of this one.
        OSError: it cannot be written.
    """
    after = {**state, "lease": held(state["lease"], wanted, str(wanted.get("phase", "")), now)}
    _write(directory, after)
    return after


def _write(directory: str, state: Mapping[str, t.Any]) -> None:
    """Write what is remembered as the account that owns the state directory, also for root."""
    found = os.stat(directory)
    with acting_as(found.st_uid, found.st_gid):
        write_state(directory, state)


def end(directory: str) -> None:
    """End the lease of a run that changes nothing more.

    Raises:
        OSError: it cannot be written.
    """
    _write(directory, {**read_state(directory), "lease": {}})
