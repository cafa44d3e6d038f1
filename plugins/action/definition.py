# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check the definition of a cluster in the inventory. Nothing is sent to any host."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.definition import (
    DefinitionError,
    check_run,
    left_out,
    read_definition,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.lease import asked


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.definition``; its documentation is in the module of this name."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the hosts of the cluster, and the time at which the run started."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            {
                "cluster": {"type": "str", "required": True},
                "needs": {"type": "list", "elements": "str", "choices": ["controller", "engines"], "default": []},
                "started": {"type": "float"},
                "takeover": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        run = variables.get("ansible_play_hosts_all", [])
        try:
            hosts = read_definition(arguments["cluster"], variables["groups"])
            check_run(hosts, run, arguments["needs"])
        except (ConnectorError, DefinitionError) as error:
            raise AnsibleActionFail(str(error)) from None
        lease = asked(arguments["takeover"])
        started = arguments["started"] or time.time()
        found = {**dataclasses.asdict(hosts), "left_out": left_out(hosts, run)}
        return {**result, "changed": False, **found, "lease": lease, "started": started}
