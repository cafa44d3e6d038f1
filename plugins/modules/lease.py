#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take or end the lease of the operator who is at work on a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Take or end the lease of an ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, for runs of which no other module takes the lease or ends it.
  - Where nothing of a cluster is laid down, or what it remembers cannot be read, nobody is at work on it.
options:
  state_directory:
    description: Directory on the controller host that holds the state of the cluster.
    type: path
    required: true
  state:
    description: Whether this run takes the lease, or renews it; or ends it, if it is this run's.
    type: str
    choices: [held, ended]
    default: held
extends_documentation_fragment:
  - ipyparallel.cluster.lease
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
    details:
      - Whose lease it is, is no change of a cluster.
"""

EXAMPLES = r"""
- name: Nobody else is at work on the cluster
  ipyparallel.cluster.lease:
    state_directory: /var/lib/ipyparallel/ipyparallel
    lease: "{{ definition.lease | combine({'phase': 'stop'}) }}"
"""

RETURN = r"""
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import StateError, read_state


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["held", "ended"], "default": "held"},
            **lease.LEASE_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    directory, wanted = module.params["state_directory"], module.params["lease"]
    try:
        state = read_state(directory)
        lease.check_free(state["lease"], wanted, time.time())
        if os.path.isdir(directory) and not module.check_mode:
            if module.params["state"] == "held":
                lease.take(directory, state, wanted, time.time())
            else:
                lease.end(directory, wanted)
    except StateError:
        pass
    except lease.LeaseError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        # a full disk is no reason not to stop a cluster
        module.warn(f"cannot remember in {directory} who is at work on the cluster: {error}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
