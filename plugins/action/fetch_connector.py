# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring the connector of a cluster to the operator: read on the controller host, written here."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    ConnectorError,
    check_cluster_name,
    parse_half,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.profile import (
    AUTHORITY,
    differing,
    ipython_directory,
    is_ours,
    other_owner,
    profile_files,
    remove_profile,
    version_differences,
    write_profile,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import (
    CHANNELS,
    TUNNEL_FILE,
    Login,
    Tunnel,
    TunnelError,
    choose_ports,
    local_half,
    remembered_ports,
)
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.login import login_of

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "state_directory": {"type": "path"},
    "environment": {"type": "path"},
    "ipython_directory": {"type": "path"},
    "through": {"type": "str", "choices": ["auto", "ssh", "direct"], "default": "auto"},
}


def operator_versions() -> dict[str, str]:
    """Return the versions of the operator's Python and ipyparallel, where it has one."""
    versions = {"python": platform.python_version()}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["ipyparallel"] = importlib.metadata.version("ipyparallel")
    return versions


class ActionModule(ActionBase):
    """Action ``ipyparallel.cluster.fetch_connector``; its documentation is in the module of this name."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Write or remove the operator's profile."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            ARGUMENT_SPEC, required_if=[("state", "present", ["state_directory"])]
        )
        cluster = arguments["cluster"]
        try:
            check_cluster_name(cluster)
        except ConnectorError as error:
            raise AnsibleActionFail(str(error)) from None
        base = arguments["ipython_directory"] or ipython_directory(os.environ)
        directory = os.path.join(os.path.abspath(os.path.expanduser(base)), f"profile_{cluster}")
        result.update(profile_directory=directory, path=os.path.join(directory, "security", "ipcontroller-client.json"))
        if problem := other_owner(directory):
            raise AnsibleActionFail(problem)
        # tunnels to another host of an older cluster of this name are closed by the same name
        tunnel = Tunnel(directory, self._login())
        if arguments["state"] == "absent":
            return {**result, **self._remove(directory, tunnel)}
        return {**result, **self._fetch(arguments, directory, tunnel, task_vars or {})}

    def _login(self) -> Login:
        """Return how Ansible reaches the host of this task; an empty host where that is this machine."""
        if getattr(self._connection, "transport", "local") == "local":
            return Login("")
        return login_of(self._connection, self._play_context)

    def _remove(self, directory: str, tunnel: Tunnel) -> dict[str, t.Any]:
        if not is_ours(directory):
            return {"changed": False}
        if not self._task.check_mode:
            try:
                tunnel.close()
                remove_profile(directory)
            except OSError as error:
                raise AnsibleActionFail(f"cannot remove {directory}: {error}") from None
        return {"changed": True, "diff": [{"before": f"{directory}\n", "after": ""}]}

    def _fetch(
        self, arguments: dict[str, t.Any], directory: str, tunnel: Tunnel, task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        # the connection would print the module's answer, which holds the keys, at -vvv; its context is one of its own
        contexts = [self._play_context, getattr(self._connection, "_play_context", self._play_context)]
        shown = [context.no_log for context in contexts]
        for context in contexts:
            context.no_log = True
        try:
            info = self._execute_module(
                module_name="ipyparallel.cluster.connector_info",
                module_args={
                    "state_directory": arguments["state_directory"],
                    "half": "client",
                    "environment": arguments["environment"],
                },
                task_vars=task_vars,
            )
        finally:
            for context, no_log in zip(contexts, shown, strict=True):
                context.no_log = no_log
        if info.get("failed"):
            raise AnsibleActionFail(info.get("msg", "the connector cannot be read on the controller host"))
        if not info["exists"]:
            return {"changed": True, "diff": [{"before": "", "after": f"{directory} (when the cluster is there)\n"}]}
        try:
            half = parse_half(info["text"], "client", info["path"])
        except ConnectorError as error:
            raise AnsibleActionFail(str(error)) from None
        for difference in version_differences(operator_versions(), info.get("versions") or {}):
            Display().warning(difference)
        through_ssh = arguments["through"] == "ssh" or (arguments["through"] == "auto" and bool(tunnel.login.host))
        theirs = {name: half[name] for name in CHANNELS}
        ports = remembered_ports(directory) if tunnel.is_open() else {}
        opens = through_ssh and not ports
        if opens:
            ports = choose_ports(remembered_ports(directory) or theirs)
        text = local_half(info["text"], ports) if through_ssh else info["text"]
        link = {"login": str(tunnel.login), "address": half["location"], "theirs": theirs, "ports": ports}
        try:
            files = profile_files(arguments["cluster"], text, directory, info["authority"])
            if through_ssh:
                files[TUNNEL_FILE] = json.dumps(link, indent=2) + "\n"
            changed = differing(directory, files)
            # what is no more would still be believed: the way of the connector, and who signs certificates
            stale = [
                path
                for path in (TUNNEL_FILE, AUTHORITY)
                if path not in files and os.path.lexists(os.path.join(directory, path))
            ]
            # another address or other ports need another tunnel
            opens = opens or (through_ssh and TUNNEL_FILE in changed)
            if not self._task.check_mode:
                if opens or not through_ssh:
                    tunnel.close()
                if opens:
                    tunnel.open({ports[name]: (half["location"], port) for name, port in theirs.items()})
                for path in stale:
                    os.unlink(os.path.join(directory, path))
                if changed:
                    write_profile(directory, files)
        except TunnelError as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(
                f"the operator's profile {directory} cannot be written ({error}); what was there is as it was: make "
                "room or give another directory in IPYTHONDIR"
            ) from None
        # the connector holds the keys: the diff says which file changes, and not how
        diff = [
            {"before_header": path, "after_header": path, "before": "(secret)\n", "after": "(secret, changed)\n"}
            for path in changed
        ]
        diff += [{"before_header": path, "after_header": path, "before": "(secret)\n", "after": ""} for path in stale]
        if opens:
            diff.append({"prepared": f"open an SSH tunnel to {tunnel.login}\n"})
        return {
            "changed": bool(changed or stale or opens),
            "diff": diff,
            "tunnel": str(tunnel.login) if through_ssh else "",
            "notebooks": info["notebooks"],
            "authority": os.path.join(directory, AUTHORITY) if info["authority"] else "",
        }
