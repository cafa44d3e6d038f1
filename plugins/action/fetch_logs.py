# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring the logs of a host to the operator: read there, written here."""

from __future__ import annotations

import os
import re
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import make_directory, read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import why_not
from ansible_collections.ipyparallel.cluster.plugins.modules.fetch_logs import ARGUMENT_SPEC
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.patience import ask

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Of a process. A host may say anything, and what it says becomes the name of a file here."""


def no_name(logs: list[dict[str, t.Any]]) -> str:
    """Return in words that the host has a log with a name that no process has; an empty text where it has not."""
    wrong = [str(log["name"]) for log in logs if not NAME.fullmatch(str(log["name"]))]
    return f"it names a log {wrong[0]!r}, as no process is named: nothing of the host was written" if wrong else ""


def write_log(directory: str, name: str, lines: list[str], check: bool) -> tuple[str, bool]:
    """Write a log in *directory*; return its path, and whether it was another.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.join(directory, f"{name}.log")
    text = "".join(f"{line}\n" for line in lines)
    if read_text(path) == text:
        return path, False
    if not check:
        write_text(path, text)
    return path, True


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.fetch_logs``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module, and write what it has read."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        answer = ask(self._connection, lambda: self._execute_module(task_vars=task_vars), arguments["limit"])
        if answer.get("failed") and not answer.get("unreachable"):
            return {**result, **answer}
        if problem := why_not(answer) or no_name(answer["logs"]):
            return {**result, "changed": False, "logs": [], "problem": problem}
        host = str((task_vars or {}).get("inventory_hostname", "")).replace(os.sep, "_")
        top = os.path.abspath(os.path.expanduser(arguments["directory"]))
        directory = os.path.join(top, host)
        check = bool(self._task.check_mode)
        logs, changed = [], False
        try:
            if answer["logs"] and not check:
                for path in (top, directory):
                    if not os.path.isdir(path):
                        make_directory(path)
            for log in answer["logs"]:
                path, differs = write_log(directory, log["name"], log["text"], check)
                changed = changed or differs
                logs.append({"name": log["name"], "state": log["state"], "lines": len(log["text"]), "path": path})
        except OSError as error:
            raise AnsibleActionFail(
                f"cannot write the logs of {host} into {directory}: {error.strerror}; make room, or set "
                "ipyparallel_logs_directory to another directory"
            ) from None
        return {**result, "changed": changed, "logs": logs, "problem": ""}
