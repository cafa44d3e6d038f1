#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the logs of a cluster's processes on a host; the action of this name writes them on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_logs
short_description: Bring the logs of a cluster's processes on a host to the operator
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Reads the logs of all processes of the cluster that are laid down on the host, whether they run or not. Under
    systemd they are in the journal, under supervisor in files, with supervisord's own.
  - Writes each to C(<directory>/<host>/<process>.log) on the operator's machine, with mode 0600.
  - Neither the hub nor an engine is asked.
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  scope:
    description: Whose the cluster is; from that follows where it is on the host.
    type: str
    choices: [system, user]
    required: true
  manager:
    description: The service manager that keeps the processes running.
    type: str
    choices: [systemd, systemd_user, supervisor]
    required: true
  directory:
    description: Directory on the operator's machine, made where it is missing.
    type: path
    required: true
  lines:
    description: How many lines of each log, the last ones.
    type: int
    default: 1000
  since:
    description:
      - No lines before this time, in the words of C(journalctl --since), such as V(1 hour ago). The logs of supervisor
        have no times, and so no beginning.
    type: str
    default: ''
  limit:
    description:
      - How long to wait for the host, in seconds, V(0) for as long as Ansible does. A host that does not answer is told
        by RV(problem) and is no failure.
    type: float
    default: 0.0
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - Logs are no state.
  idempotent:
    support: partial
    details:
      - What runs writes into its log.
seealso:
  - module: ipyparallel.cluster.process_info
"""

EXAMPLES = r"""
- name: Bring the logs here
  ipyparallel.cluster.fetch_logs:
    cluster: ipyparallel
    scope: system
    manager: systemd
    directory: logs
    since: 1 hour ago
"""

RETURN = r"""
logs:
  description: The processes of the host, each with its C(name), its C(state), the number of C(lines) and the C(path).
  type: list
  elements: dict
  returned: always
  sample:
    - {name: controller, state: running, lines: 120, path: /home/ada/logs/ipyparallel/node1/controller.log}
problem:
  description: Why there are no logs of the host. Empty when all is well.
  type: str
  returned: always
  sample: ""
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.managers import MANAGERS, manager_of
from ansible_collections.ipyparallel.cluster.plugins.module_utils.paths import SCOPES, own_paths
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import Manager, ProcessError

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "scope": {"type": "str", "choices": list(SCOPES), "required": True},
    "manager": {"type": "str", "choices": list(MANAGERS), "required": True},
    "lines": {"type": "int", "default": 1000},
    "since": {"type": "str", "default": ""},
    # of the action, which writes and waits
    "directory": {"type": "path", "required": True},
    "limit": {"type": "float", "default": 0.0},
}


def read_logs(manager: Manager, lines: int, since: str, also: list[str]) -> list[dict[str, t.Any]]:
    """Return the logs of all processes that are laid down, or known to their manager.

    Args:
        manager: theirs.
        lines: how many of each.
        since: no lines before this time; empty for any.
        also: further names of logs.

    Raises:
        ProcessError: the manager refuses.
    """
    states: dict[str, str] = {}
    for name in manager.defined():
        states.update(dict.fromkeys(manager.laid_down(name), "stopped"))
        states.update({unit.name: unit.state for unit in manager.units(name)})
    states.update(dict.fromkeys(also, ""))
    return [
        {"name": name, "state": state, "text": manager.history(name, lines, since)}
        for name, state in sorted(states.items())
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    if params["lines"] < 1:
        module.fail_json(msg=f"{params['lines']} is not a number of lines: set ipyparallel_logs_lines to 1 or more")
    places = own_paths(params["scope"], params["cluster"])
    manager = manager_of(params["manager"], params["cluster"], places, places["environment"])
    also = ["supervisord"] if os.path.exists(os.path.join(places["log"], "supervisord.log")) else []
    try:
        logs = read_logs(manager, params["lines"], params["since"], also)
    except (ProcessError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, logs=logs)


if __name__ == "__main__":
    main()
