# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lease of the operator who is at work on a cluster, so that two do not change it at once.

It is in what the cluster remembers (``state.py``), is renewed by each phase of a run, and ends with one that ends well,
or ten minutes after the last phase of one that did not. The run of an operator is told from others by its process.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import select
import time
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import acting_as
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import stat_fields
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    read_state,
    write_state,
)

SECONDS = 600
RENEW_EVERY = 60.0
MOST_LOSERS = 20
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
    if not lease or is_of(lease, wanted):
        return
    # a machine that has no /proc knows of no other run, and cannot say that one has ended
    over = lease.get("holder") == wanted["holder"] and wanted.get("sees") and lease.get("run") not in wanted["runs"]
    lost = name(wanted) in lease.get("taken_from", [])
    if not lost and (over or wanted.get("takeover") or now >= lease.get("renewed", 0) + SECONDS):
        return
    raise LeaseError(
        f"{lease.get('holder')} {'took over from this run, and ' if lost else ''}is at work on this cluster since "
        f"{clock(lease.get('since', now))}, last seen at "
        f"{clock(lease.get('renewed', now))} ({lease.get('phase')}): wait for that run to end, or for "
        f"{SECONDS // 60} minutes after it was last seen, or take over with -e ipyparallel_takeover=true; nothing was "
        "changed"
    )


def name(run: Mapping[str, t.Any]) -> str:
    """Return what tells a run from those of all operators."""
    return f"{run.get('holder')} {run.get('run')}"


def is_of(lease: Mapping[str, t.Any], wanted: Mapping[str, t.Any]) -> bool:
    """Tell whether a lease is that of the run which wants it."""
    return bool(lease) and name(lease) == name(wanted)


def clock(seconds: float) -> str:
    """Return a time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def held(lease: Mapping[str, t.Any], wanted: Mapping[str, t.Any], phase: str, now: float) -> dict[str, t.Any]:
    """Return the lease as *wanted* takes or renews it.

    Raises:
        LeaseError: another operator is at work.
    """
    check_free(lease, wanted, now)
    ours = is_of(lease, wanted)
    losers = [*lease.get("taken_from", []), *([] if ours or not lease else [name(lease)])]
    return {
        "holder": wanted["holder"],
        "run": wanted["run"],
        "since": lease["since"] if ours and "since" in lease else now,
        "renewed": now,
        "phase": phase,
        "taken_from": losers[-MOST_LOSERS:],
    }


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


def end(directory: str, wanted: Mapping[str, t.Any]) -> None:
    """End the lease of a run that changes nothing more, if it is that run's.

    Args:
        directory: the state directory.
        wanted: what `asked` returned; nothing for a run without a lease.

    Raises:
        OSError: it cannot be written.
        StateError: what is remembered is broken.
    """
    state = read_state(directory)
    if wanted and is_of(state["lease"], wanted):
        _write(directory, {**state, "lease": {}})


class Keeper:
    """Keeps the lease of a module that takes its time, and sees when the module is to stop."""

    def __init__(self, directory: str, wanted: Mapping[str, t.Any], phase: str) -> None:
        """Keep the lease of a run.

        Args:
            directory: the state directory.
            wanted: what `asked` returned; nothing for a run without a lease.
            phase: what the module does.
        """
        self.directory, self.wanted, self.renewed = directory, {**wanted, "phase": phase} if wanted else {}, 0.0

    def take(self) -> None:
        """Take or renew the lease.

        Raises:
            LeaseError, OSError, StateError: as `take` and ``read_state`` do.
        """
        if self.wanted:
            take(self.directory, read_state(self.directory), self.wanted, time.time())
            self.renewed = time.monotonic()

    def end(self) -> None:
        """End the lease, if it is this run's; where that cannot be written, it ends by itself."""
        with contextlib.suppress(OSError, StateError):
            if self.wanted:
                end(self.directory, self.wanted)

    def keep(self) -> None:
        """Renew the lease now and then.

        Raises:
            LeaseError: another operator has taken over, or this one is gone; nothing more may be changed.
            OSError: it cannot be read or written.
            StateError: what is remembered is broken.
        """
        if is_unheard():
            raise LeaseError("the run that this belongs to was interrupted; nothing more is changed")
        if time.monotonic() >= self.renewed + RENEW_EVERY:
            self.take()
        elif self.wanted:
            check_free(read_state(self.directory)["lease"], self.wanted, time.time())


def is_unheard() -> bool:
    """Tell whether nobody reads what this process writes: its run was interrupted, or its connection has ended."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _file, event in poll.poll(0))
