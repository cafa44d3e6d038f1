#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Remember the extra Python packages of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: remember_packages
short_description: Remember the extra Python packages of an ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, when packages have been installed on all hosts. Keeps their requirements in
    C(<state_directory>/cluster.json), for hosts that are added and for an environment that is made anew.
  - Ends the lease of this run, if O(lease) is given.
options:
  state_directory:
    description: Directory on the controller host that holds the state of the cluster.
    type: path
    required: true
  packages:
    description:
      - Requirement specifiers. One takes the place of another one of the same package; the others stay.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - ipyparallel.cluster.lease
  - ipyparallel.cluster.owned
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Remember what was installed
  ipyparallel.cluster.remember_packages:
    state_directory: /var/lib/ipyparallel/ipyparallel
    packages: [scipy, "pandas>=2"]
    owner: ipyparallel
"""

RETURN = r"""
packages:
  description: All requirements that are remembered.
  type: list
  elements: str
  returned: success
  sample: ["pandas>=2", scipy]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import OWNED_ARGUMENT_SPEC, ownership_of
from ansible_collections.ipyparallel.cluster.plugins.module_utils.lease import (
    LEASE_ARGUMENT_SPEC,
    LeaseError,
    check_free,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.packages import merge_requirements
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import StateError, read_state, write_state


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            **LEASE_ARGUMENT_SPEC,
            **OWNED_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    directory, lease = module.params["state_directory"], module.params["lease"]
    try:
        state = read_state(directory)
        after = dict(state)
        if lease:
            check_free(state["lease"], lease, time.time())
            after["lease"] = {}
        packages = sorted(merge_requirements(module.params["packages"], state["packages"]))
        changed = packages != state["packages"]
        after["packages"] = packages
        if after != state and not module.check_mode:
            write_state(directory, after, ownership_of(module, "owner"))
    except (LeaseError, StateError) as error:
        module.fail_json(msg=str(error))
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"cannot remember the packages of the cluster: {error}")
    result = {"changed": changed, "packages": packages}
    if module._diff:
        result["diff"] = {"before": {"packages": state["packages"]}, "after": {"packages": packages}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
