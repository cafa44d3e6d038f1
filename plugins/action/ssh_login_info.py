# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell how Ansible reaches a host. Nothing is sent there."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ssh_config import SshConfigError, login_lines
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.login import login_of, option_of


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.ssh_login_info``; its documentation is in the module of this name."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the lines of ``ssh_config(5)``."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        if getattr(self._connection, "transport", "") != "ssh":
            return {**result, "changed": False, "lines": [], "left_out": []}
        login = login_of(self._connection, self._play_context)
        program = option_of(self._connection, self._play_context, "ssh_executable") or "ssh"
        try:
            lines, left_out = login_lines(program, login.host, login.arguments)
        except SshConfigError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, "changed": False, "lines": lines, "left_out": left_out}
