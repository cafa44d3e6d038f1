# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring a file or directory of the operator's to a host: read here, written there."""

from __future__ import annotations

import os
import tempfile
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ipyparallel.cluster.plugins.module_utils.transfer import TransferError, pack, text_of, tree
from ansible_collections.ipyparallel.cluster.plugins.modules.put_files import ASKED_ARGUMENT_SPEC


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.put_files``; the module of this name does the rest, and has the documentation."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Ask the host what it lacks, and send that."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ASKED_ARGUMENT_SPEC)
        source = os.path.abspath(os.path.expanduser(arguments["source"]))
        try:
            directories, files = tree(source)
            arguments.update(directories=directories, files=files)
            found = self._execute_module(module_args=arguments, task_vars=task_vars)
            if found.get("failed"):
                return {**result, **found}
            lacks = {one["path"]: one["before"] for one in found["missing"]}
            wanted = [file for file in files if file["path"] in lacks]
            if wanted and not self._task.check_mode:
                done = self._execute_module(
                    module_args={**arguments, "archive": self._send(source, wanted)}, task_vars=task_vars
                )
                if done.get("failed"):
                    return {**result, **done}
        except TransferError as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            name = error.filename or source
            raise AnsibleActionFail(f"cannot read {name} on this machine: {error.strerror}") from None
        result.update(changed=found["changed"], destination=found["destination"], sent=[one["path"] for one in wanted])
        if self._task.diff:
            top = os.path.dirname(source)
            shown = [
                {"header": path, "before": lacks[path], "after": text_of(os.path.join(top, path))}
                for path in result["sent"]
            ]
            result["diff"] = [
                {"before_header": one["header"], "after_header": one["header"], **one}
                for one in (*found["changes"], *shown)
            ]
        return result

    def _send(self, source: str, files: list[dict[str, t.Any]]) -> str:
        """Send the content of some files in one archive; return its path on the host."""
        shell = self._connection._shell
        path: str = shell.join_path(shell.tmpdir or self._make_tmp_path(), "files.tar")
        with tempfile.NamedTemporaryFile(dir=constants.DEFAULT_LOCAL_TMP) as archive:
            pack(archive, source, files)
            archive.flush()
            self._transfer_file(archive.name, path)
        return path
