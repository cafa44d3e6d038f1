# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kill ansible-playbook where a test says: before the task whose name ends with INTERRUPT_BEFORE."""

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
  - Kills the run before the first task whose name ends with what is in E(INTERRUPT_BEFORE).
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if task.get_name().endswith(os.environ["INTERRUPT_BEFORE"]):
            print("INTERRUPTED", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
