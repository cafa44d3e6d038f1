#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell which processes of a cluster are laid down on a host, and what they do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: process_info
short_description: Tell which processes of a cluster are laid down on a host, and what they do
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Returns the processes as their service manager sees them, with the last lines of their logs.
options:
  lines:
    description: How many lines of each log to return.
    type: int
    default: 10
extends_documentation_fragment:
  - ipyparallel.cluster.managed
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
seealso:
  - module: ipyparallel.cluster.process
"""

EXAMPLES = r"""
- name: Look at the processes of the cluster
  ipyparallel.cluster.process_info:
    cluster: ipyparallel
    manager: supervisor
    config: /home/ada/.config/ipyparallel/ipyparallel
    log: /home/ada/.local/state/ipyparallel/ipyparallel/log
    run: /home/ada/.local/state/ipyparallel/ipyparallel/run
    prefix: /home/ada/.local/share/ipyparallel/ipyparallel
"""

RETURN = r"""
processes:
  description: The single processes.
  type: list
  elements: dict
  returned: success
  sample:
    - {process: controller, name: controller, state: running, pid: 4711, since: 1780000000, log: /x.log, tail: []}
text:
  description: The same for people. State and last lines of the log of each process.
  type: str
  returned: success
  sample: "engines-default-0: backoff; last lines of /var/log/x.log:"
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.managers import MANAGED_ARGUMENT_SPEC, make_manager
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import Manager


def look(manager: Manager, lines: int) -> list[dict[str, t.Any]]:
    """Return the processes of the cluster on this host."""
    return [
        {
            "process": name,
            "name": unit.name,
            "state": unit.state,
            "pid": unit.pid,
            "since": unit.since,
            "log": unit.log,
            "tail": manager.tail(unit, lines),
        }
        for name in manager.defined()
        for unit in manager.units(name)
    ]


def in_words(process: dict[str, t.Any]) -> str:
    """Return state and last lines of a process."""
    log = "".join(f"\n    {line}" for line in process["tail"]) or " none"
    return f"{process['name']}: {process['state']}; last lines of {process['log']}:{log}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **MANAGED_ARGUMENT_SPEC,
            "lines": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    environment = os.path.join(params["prefix"], "current")
    if not os.path.isdir(environment):
        module.exit_json(changed=False, processes=[], text="nothing of the cluster is laid down on this host")
    manager = make_manager(module, environment)
    processes = look(manager, params["lines"])
    text = "\n".join(in_words(process) for process in processes) or "no process of the cluster is known on this host"
    module.exit_json(changed=False, processes=processes, text=text)


if __name__ == "__main__":
    main()
