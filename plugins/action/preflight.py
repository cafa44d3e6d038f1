# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check a host, and what is on the operator's side of it: the user's own certificate, and its clock.

By how much the host's clock differs is known only where the question was asked.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import (
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    Own,
    own_problem,
)


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.preflight``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; add what is known on the operator's machine."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        before = time.time()
        result.update(self._execute_module(task_vars=task_vars))
        after = time.time()
        if isinstance(result.get("time"), (int, float)):
            result["clock"] = [round(result["time"] - after, 3), round(result["time"] - before, 3)]
        if result.get("notebook"):
            result["certificate_problem"] = self._certificate_problem(result["reached_at"])
        return result

    def _certificate_problem(self, reached: list[str]) -> str:
        """Return what is wrong with the user's own certificate and its key; empty where there is none, or nothing."""
        given = {
            CERTIFICATE_VARIABLE: self._task.args.get("notebook_certificate"),
            KEY_VARIABLE: self._task.args.get("notebook_key"),
        }
        if not any(given.values()):
            return ""
        for variable, path in given.items():
            if not path:
                (other,) = set(given) - {variable}
                return (
                    f"{other} is {given[other]}, and {variable} is not given: set both, or neither for a certificate "
                    "of the cluster's own authority"
                )
        own = []
        for variable, path in given.items():
            place = os.path.abspath(os.path.expanduser(path))
            try:
                # what is in PEM is ASCII; what is not is no error of decoding
                own.append(Own(place, self._loader.get_text_file_contents(place, "latin-1")))
            except AnsibleError as error:
                cause = error.__cause__ or error
                why = (getattr(cause, "strerror", None) or str(cause)).strip().rstrip(".")
                return (
                    f"cannot read {place} ({variable}) on the operator's machine: {why}: give a file that can be read, "
                    "and the password where it is one of ansible-vault"
                )
        return own_problem(own[0], own[1], reached)
