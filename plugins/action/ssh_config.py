# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep the operator's settings of OpenSSH for a cluster, all of it on this machine."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, check_cluster_name
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import make_directory, read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ssh_config import (
    FIRST_LINE,
    SshConfigError,
    file_text,
    include_of,
    make_block,
    names_of,
    with_include,
)

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "str", "default": ""},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "logins": {"type": "dict", "default": {}},
    "include": {"type": "bool", "default": False},
}


def printable(text: str) -> str:
    """Return *text* with marks for bytes that are no text."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.ssh_config``; its documentation is in the module of this name."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Write or remove the file."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, given = self.validate_argument_spec(ARGUMENT_SPEC)
        cluster = given["cluster"]
        path = os.path.abspath(os.path.expanduser(given["path"] or f"~/.ssh/ipyparallel/{cluster}.conf"))
        try:
            check_cluster_name(cluster)
            done = self._remove(path) if given["state"] == "absent" else self._write(given, path)
        except (ConnectorError, SshConfigError) as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(
                f"cannot keep {error.filename or path}: {error.strerror}; make it writable, or set "
                "ipyparallel_ssh_config_path to another"
            ) from None
        return {**result, **done, "path": path}

    def _remove(self, path: str) -> dict[str, t.Any]:
        before = read_text(path)
        if before is None or not before.startswith(FIRST_LINE):
            return {"changed": False}
        if not self._task.check_mode:
            os.unlink(path)
        return {"changed": True, "diff": [{"before_header": path, "before": before, "after": ""}]}

    def _write(self, given: dict[str, t.Any], path: str) -> dict[str, t.Any]:
        hosts = given["hosts"]
        names = {
            host: names_of(given["cluster"], host, login.get("roles") or [], hosts)
            for host, login in given["logins"].items()
            if login["lines"]
        }
        blocks = {
            host: make_block(host, names[host], login["lines"]) if host in names else None
            for host, login in given["logins"].items()
        }
        line = include_of(path)
        own = os.path.expanduser("~/.ssh/config")
        # whatever bytes the operator has written there stay
        before, own_before = read_text(path), read_text(own, errors="surrogateescape")
        wanted = {path: (before, file_text(before, path, hosts, blocks))}
        own_after = with_include(own_before, line)
        if given["include"]:
            wanted[own] = (own_before, own_after)
        diff = []
        for file, (old, new) in wanted.items():
            mode = os.stat(file).st_mode & 0o777 if old is not None else 0o600
            # the operator's own file keeps its mode
            wanted_mode = 0o600 if file == path else mode
            if old == new and mode == wanted_mode:
                continue
            diff.append(
                {"before_header": file, "after_header": file, "before": printable(old or ""), "after": printable(new)}
            )
            if not self._task.check_mode:
                directory = os.path.dirname(file)
                for place in (os.path.dirname(directory), directory):
                    if not os.path.isdir(place):
                        make_directory(place)
                write_text(os.path.realpath(file), new, wanted_mode)
        included = given["include"] or own_before == own_after
        return {
            "changed": bool(diff),
            "diff": diff,
            "names": sorted(name for found in names.values() for name in found),
            "include": "" if included else line,
        }
