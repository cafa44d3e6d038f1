# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Count the tasks for which a module ran, by the host where it ran, and say how long each task took."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: tasks
type: aggregate
short_description: Count the tasks for which a module ran
description:
  - Writes the tasks for which a module ran to the file E(TASKS_FILE), as JSON, by the host where it ran.
  - Each has the names of the task and of the module, and says whether something changed.
  - Writes each task of the run, with its seconds, to the file E(TASKS_TIMES_FILE), where there is one.
"""

# These run at the operator, and reach no host.
AT_THE_OPERATOR = frozenset(
    {
        "assert",
        "debug",
        "definition",
        "fail",
        "fetch_connector",
        "import_role",
        "include_role",
        "include_tasks",
        "include_vars",
        "meta",
        "set_fact",
        "validate_argument_spec",
    }
)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "tasks"

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[str, list[dict[str, Any]]] = {}
        self.begun: list[tuple[str, float]] = []

    def count(self, result: Any) -> None:
        task = result._task
        module = task.action.rpartition(".")[2]
        if module in AT_THE_OPERATOR:
            return
        delegated = result._result.get("_ansible_delegated_vars") or {}
        host = result._host.get_name()
        if task.delegate_to:
            # under the name that the inventory has for it, else it is an address
            host = delegated.get("inventory_hostname") or delegated.get("ansible_delegated_host") or task.delegate_to
        row = {"task": task.get_name(), "module": module, "changed": bool(result._result.get("changed"))}
        self.ran.setdefault(str(host), []).append(row)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.begun.append((task.get_name(), time.monotonic()))

    v2_runner_on_ok = count

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.count(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        Path(os.environ["TASKS_FILE"]).write_text(json.dumps(self.ran, indent=2) + "\n")
        if file := os.environ.get("TASKS_TIMES_FILE"):
            ends = [*(began for _name, began in self.begun[1:]), time.monotonic()]
            times = [(name, end - began) for (name, began), end in zip(self.begun, ends, strict=True)]
            Path(file).write_text(json.dumps(times, indent=2) + "\n")
