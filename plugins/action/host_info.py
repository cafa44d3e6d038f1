# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a host, and wait no longer than told: a host that is away is an answer too, and no failure."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import why_not
from ansible_collections.ipyparallel.cluster.plugins.modules.host_info import ARGUMENT_SPEC
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.patience import ask


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.host_info``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module, or say why the host does not answer."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        answer = ask(self._connection, lambda: self._execute_module(task_vars=task_vars), arguments["limit"])
        if problem := why_not(answer):
            return {**result, "changed": False, "host": None, "problem": problem}
        return {**result, **answer, "problem": ""}
