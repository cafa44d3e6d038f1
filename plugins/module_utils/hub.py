# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that is said to a running hub, from a client that holds nothing but the client half of the connector.

The modules that use this run in the Python of the cluster's own environment (``respawn``), because client and
engines must have the same minor version of Python.
"""

from __future__ import annotations

import os
import typing as t

if t.TYPE_CHECKING:
    import ipyparallel
    from ansible.module_utils.basic import AnsibleModule

HUB_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "connector": {"type": "path", "required": True},
    "python": {"type": "path", "required": True},
    "timeout": {"type": "float", "default": 30.0},
}
"""The options shared by every module that talks to a hub (documentation fragment ``hub``)."""


class HubError(Exception):
    """The hub cannot be reached or did not answer; the message says where and what to do."""


def respawn(module: AnsibleModule, python: str) -> bool:
    """Continue *module* in the interpreter *python*, unless it runs there already.

    Does not return when it respawns.

    Returns:
        True when the module runs in *python*; False in check mode on a host that has no such interpreter yet.
    """
    from ansible.module_utils.common.respawn import has_respawned, respawn_module

    if has_respawned():
        return True
    if not os.access(python, os.X_OK):
        if module.check_mode:
            return False
        module.fail_json(
            msg=f"the cluster's Python {python} does not exist on this host: deploy the cluster first "
            "(playbook ipyparallel.cluster.deploy)"
        )
    respawn_module(python)
    return True


def connect(connector: str, timeout: float) -> ipyparallel.Client:
    """Return a client of the hub that the client half *connector* names.

    Args:
        connector: path of the client half, a JSON file.
        timeout: seconds to wait for the hub's answer.

    Raises:
        HubError: the file is missing, or no hub answered in time.
    """
    import ipyparallel

    if not os.path.exists(connector):
        raise HubError(f"there is no connector {connector}: deploy the cluster first")
    try:
        return ipyparallel.Client(connector, timeout=timeout)
    except (TimeoutError, ipyparallel.error.TimeoutError) as error:
        raise HubError(
            f"the hub of {connector} did not answer within {timeout:g} s ({error}): "
            "is the cluster started (playbook ipyparallel.cluster.status)?"
        ) from error
