# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service managers by name."""

from __future__ import annotations

import os
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import has_environment
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import Manager
from ansible_collections.ipyparallel.cluster.plugins.module_utils.supervisor import Supervisor
from ansible_collections.ipyparallel.cluster.plugins.module_utils.systemd import Systemd

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

MANAGERS = ("systemd", "systemd_user", "supervisor")
MANAGED_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "cluster": {"type": "str", "required": True},
    "manager": {"type": "str", "choices": list(MANAGERS), "required": True},
    "config": {"type": "path", "required": True},
    "log": {"type": "path", "required": True},
    "run": {"type": "path", "required": True},
    "prefix": {"type": "path", "required": True},
}
"""The options of documentation fragment ``managed``."""


def manager_of(kind: str, cluster: str, places: Mapping[str, str], environment: str) -> Manager:
    """Return a manager.

    Args:
        kind: one of `MANAGERS`.
        cluster: name of the cluster.
        places: its directories ``config``, ``log`` and ``run``.
        environment: its Python environment, a link or not.
    """
    if kind == "supervisor":
        return Supervisor(cluster, places["config"], places["log"], places["run"], environment)
    return Systemd(cluster, places["config"], places["run"], environment, kind == "systemd_user")


def make_manager(module: AnsibleModule, environment: str) -> Manager:
    """Return the manager that the options of *module* name; fail where it is of an environment that is not there.

    Args:
        module: has the options ``manager``, ``cluster``, ``config``, ``log`` and ``run``.
        environment: the cluster's Python environment, a link or not.
    """
    params = module.params
    if params["manager"] == "supervisor":
        has_environment(module, os.path.join(environment, "bin", "python"))
    return manager_of(params["manager"], params["cluster"], params, environment)
