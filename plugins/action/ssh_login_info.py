# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell how Ansible reaches a host. Nothing is sent there."""

from __future__ import annotations

import shlex
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ssh_config import login_lines


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.ssh_login_info``; its documentation is in the module of this name."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the lines of ``ssh_config(5)``."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        if getattr(self._connection, "transport", "") != "ssh":
            return {**result, "changed": False, "lines": [], "left_out": []}
        words = [self._option(name) for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
        lines, left_out = login_lines(
            {
                "host": self._option("host"),
                "user": self._option("remote_user"),
                "port": self._option("port"),
                "key": self._option("private_key_file"),
                "host_key_checking": self._option("host_key_checking"),
                "arguments": shlex.split(" ".join(str(word) for word in words if word)),
            }
        )
        return {**result, "changed": False, "lines": lines, "left_out": left_out}

    def _option(self, name: str) -> t.Any:
        """Return an option of the connection; that of the play where the connection does not know it."""
        try:
            return self._connection.get_option(name)
        except KeyError:
            return getattr(self._play_context, {"host": "remote_addr"}.get(name, name), None)
