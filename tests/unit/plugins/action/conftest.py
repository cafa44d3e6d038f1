# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Actions run with everything real but the connection to a host."""

from __future__ import annotations

import os
import types

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.template import Templar


@pytest.fixture
def run_action():
    def run(action, execute_module=None, *, check=False, diff=False, variables=None, tmpdir="/nowhere", **arguments):
        task = Task()
        task.action = f"ipyparallel.cluster.{action.__module__.rpartition('.')[2]}"
        task.args = arguments
        task.check_mode, task.diff = check, diff
        loader = DataLoader()
        # its context is another than that of the action
        connection = types.SimpleNamespace(
            _shell=types.SimpleNamespace(tmpdir=tmpdir, join_path=os.path.join), _play_context=PlayContext()
        )
        connection.exec_command = connection.put_file = None
        plugin = action(task, connection, PlayContext(), loader, Templar(loader=loader, variables=variables or {}))

        def no_connection(**_arguments):
            raise AssertionError("nothing is to be sent to a host")

        plugin._execute_module = execute_module or no_connection
        run.plugin = plugin
        return plugin.run(task_vars=variables or {})

    return run
