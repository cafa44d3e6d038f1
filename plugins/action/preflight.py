# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check a host, and hold its clock against the operator's: only here it is known when the question was asked."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.preflight``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; add what its ``time`` tells of the host's clock."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        before = time.time()
        result.update(self._execute_module(task_vars=task_vars))
        after = time.time()
        if isinstance(result.get("time"), (int, float)):
            result["clock"] = [round(result["time"] - after, 3), round(result["time"] - before, 3)]
        return result
