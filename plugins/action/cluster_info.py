# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a cluster, and wait no longer than told for its controller host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.modules.cluster_info import ARGUMENT_SPEC
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.patience import ask


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.cluster_info``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; a host that does not answer in time is unreachable."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        # the host itself waits for its hub
        seconds = arguments["limit"] + arguments["timeout"] if arguments["limit"] else 0
        return {**result, **ask(self._connection, lambda: self._execute_module(task_vars=task_vars), seconds)}
