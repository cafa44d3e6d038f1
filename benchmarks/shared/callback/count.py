# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say which tasks of a run started a module on which host, and how long each task took."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: count
type: aggregate
short_description: Write the tasks of a run to a file
description:
  - Writes each task with its time, and the hosts on which it started a module.
  - The file is named by E(BENCH_COUNT_FILE).
"""
# They run on the operator's machine, and start no module on a host.
OF_THE_OPERATOR = {
    "add_host",
    "assert",
    "debug",
    "definition",
    "fail",
    "group_by",
    "import_role",
    "import_tasks",
    "include_role",
    "include_tasks",
    "include_vars",
    "meta",
    "set_fact",
    "validate_argument_spec",
}


class CallbackModule(CallbackBase):
    """Writes the file at the end of the run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "count"

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[dict[str, Any]] = []
        self.started = 0.0

    def _end_task(self) -> None:
        if self.tasks:
            self.tasks[-1]["seconds"] = round(time.monotonic() - self.started, 3)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Begin a task."""
        del is_conditional
        self._end_task()
        self.started = time.monotonic()
        self.tasks.append({"name": task.get_name(), "action": task.action, "hosts": {}, "changed": []})

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count the modules that a task has started on a host."""
        values = result.result
        delegated = values.get("_ansible_delegated_vars") or {}
        host = delegated.get("ansible_delegated_host") or result.host.get_name()
        items = [item for item in values.get("results", [values]) if not item.get("skipped")]
        if self.tasks[-1]["action"].rpartition(".")[2] not in OF_THE_OPERATOR and items:
            hosts = self.tasks[-1]["hosts"]
            hosts[host] = hosts.get(host, 0) + len(items)
            if values.get("changed"):
                self.tasks[-1]["changed"].append(host)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the file."""
        del stats
        self._end_task()
        Path(os.environ["BENCH_COUNT_FILE"]).write_text(json.dumps(self.tasks))
