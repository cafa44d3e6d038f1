# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Actions that call their module in turns, and say after each how far the work is.

Plain lines, by Ansible's own display, each of which tells all, since the heading of a task may come with its result
only (``display_skipped_hosts``). In AWX they are events of the task. They go to standard error, as warnings do: they
arrive at once in a pipe too, where Ansible's other output waits, and what a program is to read stays as it is.
"""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

FIRST = 8.0
"""Seconds of the first turn. What usually takes less is one call, and says nothing."""
NEXT = 5.0
NEXT_SHARE = 0.25
"""A later turn takes so many seconds, or so much of the time that has passed: what takes long has few lines."""


class TurnsAction(ActionBase):
    """Calls the module of its name until the work is done; see ``module_utils/turns.py``."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module, in as many turns as it takes."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "")
        started = time.monotonic()
        turn, resume, said = FIRST, None, False
        earlier: dict[str, t.Any] = {}
        while True:
            arguments = {**self._task.args, "turn": turn}
            if resume:
                arguments["resume"] = resume
            answer = self._execute_module(module_args=arguments, task_vars=task_vars)
            resume = answer.pop("resume", None)
            progress = answer.pop("progress", "")
            seconds = time.monotonic() - started
            if not resume:
                break
            said = True
            Display().display(f"{host}: {progress} ({seconds:.0f} s)", stderr=True)
            if answer.get("changed"):
                earlier = {name: answer[name] for name in ("changed", "diff") if name in answer}
            turn = max(NEXT, NEXT_SHARE * seconds)
        if said and not (answer.get("failed") or answer.get("unreachable") or answer.get("problem")):
            Display().display(f"{host}: done ({seconds:.0f} s)", stderr=True)
        # what the first turn has changed, a later one finds as it is to be
        return {**result, **answer, **earlier}
