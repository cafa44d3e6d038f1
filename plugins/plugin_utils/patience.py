# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long the operator waits for a host, for actions to which a host that is away is an answer too."""

from __future__ import annotations

import contextlib
import signal
import time
import typing as t
from collections.abc import Callable, Iterator

from ansible.errors import AnsibleConnectionFailure

OURS = 10.0
"""Seconds that this machine may take on top, to pack a module on all its busy processors."""


class NoAnswer(BaseException):
    """The time is over. No `Exception`: a connection would try again after one."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `NoAnswer` after *seconds*; in the main thread, as Ansible runs its workers. May be nested."""

    def end(_number: int, _frame: object) -> None:
        raise NoAnswer

    before = signal.signal(signal.SIGALRM, end)
    started = time.monotonic()
    outer = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    finally:
        left = max(0.001, outer - (time.monotonic() - started)) if outer else 0
        # else an alarm that comes now would end this process, or be taken for the outer one
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def limited(call: Callable[..., t.Any], seconds: float, spent: list[float]) -> Callable[..., t.Any]:
    """Return *call* with a time limit, which it shares with others that have the same list *spent*."""

    def limited_call(*arguments: t.Any, **options: t.Any) -> t.Any:
        started = time.monotonic()
        try:
            with at_most(max(0.001, seconds - sum(spent))):
                return call(*arguments, **options)
        finally:
            spent.append(time.monotonic() - started)

    return limited_call


def ask(connection: t.Any, question: Callable[[], dict[str, t.Any]], seconds: float) -> dict[str, t.Any]:
    """Return what the host answers, or ``unreachable`` and why in ``msg``, as Ansible has it.

    What counts is how long the host takes, and not this machine. Ansible's own time limit of a task would be a
    failure of the host, and is in whole seconds.

    Args:
        connection: to the host; it is limited from then on.
        question: runs a module over it.
        seconds: how long to wait, 0 for as long as Ansible does.
    """
    if seconds:
        spent: list[float] = []
        for name in ("exec_command", "put_file"):
            setattr(connection, name, limited(getattr(connection, name), seconds, spent))
    try:
        with at_most(seconds + OURS) if seconds else contextlib.nullcontext():
            return question()
    except NoAnswer:
        return {"unreachable": True, "msg": f"no answer in {seconds:g} s"}
    except AnsibleConnectionFailure as error:
        return {"unreachable": True, "msg": error.message}
