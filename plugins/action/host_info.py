# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a host, and wait no longer than told: a host that is away is an answer too, and no failure."""

from __future__ import annotations

import contextlib
import signal
import time
import typing as t
from collections.abc import Callable, Iterator

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import why_not

OURS = 10.0
"""Seconds that this machine may take on top, to pack the module on all its busy processors."""


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


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.host_info``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module, or say why the host does not answer."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        limit = float(self._task.args.get("limit") or 0)
        if limit:
            # what counts is how long the host takes, and not this machine
            spent: list[float] = []
            for name in ("exec_command", "put_file"):
                setattr(self._connection, name, limited(getattr(self._connection, name), limit, spent))
        try:
            with at_most(limit + OURS) if limit else contextlib.nullcontext():
                answer = self._execute_module(task_vars=task_vars)
        except NoAnswer:
            answer = {"unreachable": True, "msg": f"no answer in {limit:g} s"}
        except AnsibleConnectionFailure as error:
            answer = {"unreachable": True, "msg": error.message}
        if problem := why_not(answer):
            return {**result, "changed": False, "host": None, "problem": problem}
        return {**result, **answer, "problem": ""}
