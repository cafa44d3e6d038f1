# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules whose options are the users' own code, files and secrets, which are not for the log of a host."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    """A module that writes only the options in `logged` to the log of the host.

    Ansible's own takes a secret out of what it logs only where the option is one, and the secret a single line.
    """

    logged: tuple[str, ...] = ()

    def _log_invocation(self) -> None:
        self.log(" ".join(f"{name}={self.params[name]}" for name in self.logged))
