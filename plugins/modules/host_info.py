#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell how a host of a cluster is used."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Tell how a host of a cluster is used
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Returns memory, load and uptime of the host, and the cluster's processes on it.
  - Everything is read from C(/proc) and from files. Neither the hub nor an engine is asked, so that it is known of a
    host whose engines are busy or gone too.
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
  limit:
    description:
      - How long to wait for the host, in seconds, V(0) for as long as Ansible does. A host that does not answer, or on
        which the module fails, is told by RV(problem) and is no failure.
    type: float
    default: 0.0
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
seealso:
  - module: ipyparallel.cluster.cluster_info
  - module: ipyparallel.cluster.process_info
"""

EXAMPLES = r"""
- name: Look at each host
  ipyparallel.cluster.host_info:
    cluster: ipyparallel
    scope: system
    limit: 2
  register: host
"""

RETURN = r"""
problem:
  description: Why nothing is known of the host, which is then null. Empty when all is well.
  type: str
  returned: always
  sample: ""
host:
  description: How the host is used.
  type: dict
  returned: always
  contains:
    cores:
      description: How many processors the cluster may use.
      type: int
      sample: 8
    load_average:
      description: Processes that ran or waited for a processor, on average over 1, 5 and 15 minutes.
      type: list
      elements: float
      sample: [0.52, 0.61, 0.44]
    memory_total_bytes:
      description: Memory of the host.
      type: int
      sample: 16000000000
    memory_available_bytes:
      description: What can be had without swapping.
      type: int
      sample: 12000000000
    memory_used_bytes:
      description: The rest.
      type: int
      sample: 4000000000
    uptime_seconds:
      description: Since the host started.
      type: int
      sample: 86400
    processes:
      description:
        - The processes of the cluster, without their children, with C(name), C(pid), C(uptime_seconds) and
          C(memory_bytes) (resident).
      type: list
      elements: dict
      sample:
        - {name: engines-default-0, pid: 4711, uptime_seconds: 86000, memory_bytes: 80000000}
    certificate_days:
      description: For how many more days the certificate of the notebook on this host is valid; null without one.
      type: float
      sample: 824.5
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.paths import SCOPES
from ansible_collections.ipyparallel.cluster.plugins.module_utils.usage import usage

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "scope": {"type": "str", "choices": list(SCOPES), "required": True},
    # of the action, which waits
    "limit": {"type": "float", "default": 0.0},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        host = usage(module.params["cluster"], module.params["scope"])
    except OSError as error:
        module.fail_json(msg=f"cannot look at this host: {error}")
    module.exit_json(changed=False, host=host)


if __name__ == "__main__":
    main()
