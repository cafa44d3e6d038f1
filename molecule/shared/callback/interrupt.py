# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kill ansible-playbook where a test says: before the task whose number is in INTERRUPT_BEFORE."""

from __future__ import annotations

import os
import signal
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: interrupt
type: aggregate
short_description: Kill ansible-playbook before a task
description:
  - Counts the tasks that a role names as C(File | What), and kills the run before the one with the number in
    E(INTERRUPT_BEFORE).
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"

    def __init__(self) -> None:
        super().__init__()
        self.tasks = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if " | " not in task.get_name():
            return
        self.tasks += 1
        if self.tasks == int(os.environ["INTERRUPT_BEFORE"]):
            print(f"INTERRUPTED before {task.get_name()}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
