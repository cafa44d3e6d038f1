#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check that a host reaches the controller of its cluster, which need not run yet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reach
short_description: Check that a host reaches the controller of an ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Opens a TCP connection to each port at once, and closes it. A connection that is refused is an answer of the
    controller host, so that it is reached, though nobody listens there yet.
  - No route, an answer that the port is forbidden, and no answer at all fail.
options:
  controller:
    description: Name of the controller host, for the message.
    type: str
    required: true
  address:
    description: IPv4 address of the controller.
    type: str
    required: true
  ports:
    description: Its ports.
    type: list
    elements: int
    required: true
  seconds:
    description: How long an answer may take.
    type: float
    default: 3.0
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
"""

EXAMPLES = r"""
- name: Check that the controller is reached
  ipyparallel.cluster.reach:
    controller: node1
    address: 10.0.0.5
    ports: [10100, 10101]
"""

RETURN = r"""
unreachable:
  description: Ports that are not reached, with the reason; empty on success.
  type: dict
  returned: always
  sample: {}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.machine import is_own_address, unreachable_ports


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "controller": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "seconds": {"type": "float", "default": 3.0},
        },
        supports_check_mode=True,
    )
    controller, address, ports = module.params["controller"], module.params["address"], module.params["ports"]
    node = os.uname().nodename
    if is_own_address(address):
        module.fail_json(
            msg=f"{address}, the address of the controller on {controller}, is one of {node}'s own, which would look "
            f"for the controller on itself: set ipyparallel_address of {controller} to an address that only it has"
        )
    failed = unreachable_ports(address, ports, module.params["seconds"])
    if failed:
        port, reason = next(iter(failed.items()))
        more = f" (and so are {len(failed) - 1} more of {ports[0]} to {ports[-1]})" if len(failed) > 1 else ""
        module.fail_json(
            msg=f"port {port} at {address}, the controller on {controller}, is not reached from {node}: {reason}"
            f"{more}; let TCP to these ports through, or set ipyparallel_address of "
            f"{controller} to an address that {node} reaches",
            unreachable=failed,
        )
    module.exit_json(changed=False, unreachable={})


if __name__ == "__main__":
    main()
