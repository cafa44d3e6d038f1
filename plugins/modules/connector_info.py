#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the identity of a cluster and the halves of its connector."""

from __future__ import annotations

DOCUMENTATION = r"""
module: connector_info
short_description: Read the identity of an ipyparallel cluster and the halves of its connector
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, delegated where another host needs a half. Checks what it reads.
  - Use C(no_log) when a half is asked for. It holds the keys of the cluster.
options:
  state_directory:
    description: Directory on the controller host that holds the state of the cluster.
    type: path
    required: true
  half:
    description:
      - Which half of the connector to return, V(client) or V(engine). None, when it is not given.
    type: str
    choices: [client, engine]
  environment:
    description:
      - Directory of the cluster's Python environment, to tell its versions.
    type: path
extends_documentation_fragment:
  - ipyparallel.cluster.lease
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
"""

EXAMPLES = r"""
- name: Read the engine half on the controller host
  ipyparallel.cluster.connector_info:
    state_directory: /var/lib/ipyparallel/ipyparallel
    half: engine
  delegate_to: "{{ ipyparallel_controller_host }}"
  run_once: true
  no_log: true
  register: engine_half
"""

RETURN = r"""
exists:
  description: Whether the cluster has an identity. False only in check mode; otherwise the module fails.
  type: bool
  returned: success
  sample: true
identity:
  description: What may be shown of the identity. It has no key.
  type: dict
  returned: when the identity exists
  sample: {cluster: ipyparallel, address: 10.0.0.5, port_base: 10100, packer: json}
fingerprint:
  description: Fingerprint of the identity.
  type: str
  returned: success
  sample: 0d5f1f4bb8a0c1e2
text:
  description: The exact text of the half that was asked for. Secret.
  type: str
  returned: when O(half) is given
  sample: '{"ssh": "", "interface": "tcp://10.0.0.5", "registration": 10100}'
path:
  description: Path of the half on the controller host.
  type: str
  returned: when O(half) is given
  sample: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-engine.json
authority:
  description:
    - Certificate, in PEM, of the authority that signs the notebook's certificate; empty where there is none yet.
  type: str
  returned: success
  sample: "-----BEGIN CERTIFICATE-----\nMIIB"
notebooks:
  description: What the operator is told of each notebook, by host.
  type: dict
  returned: when the identity exists
  sample: {node1: {url: "https://127.0.0.1:8888/lab", directory: /home/ada/notebooks}}
versions:
  description: Versions of the cluster's Python and of its main packages.
  type: dict
  returned: when O(environment) is given and there is an environment
  sample: {python: 3.11.2, ipyparallel: 9.2.0, pyzmq: 27.1.0}
remembered:
  description: What operators have changed after the definition, see module_utils C(state.py).
  type: dict
  returned: when the identity exists
  sample: {pools: {}, scaled: {}, defined: {node1: {default: 7}}, packages: []}
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import AUTHORITY_FILE
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    ConnectorError,
    half_path,
    load_identity,
    parse_half,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import read_record
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    changed_later,
    read_state,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state_directory": {"type": "path", "required": True},
            "half": {"type": "str", "choices": ["client", "engine"]},
            "environment": {"type": "path"},
            **lease.LEASE_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    state, half = module.params["state_directory"], module.params["half"]
    result: dict[str, t.Any] = {"changed": False, "exists": True}
    try:
        identity = load_identity(state)
        if identity is None:
            if module.check_mode:
                module.exit_json(
                    changed=False, exists=False, fingerprint="", text="{}", path="", authority="", versions={}
                )
            raise ConnectorError(
                f"there is no identity of a cluster in {state} on {os.uname().nodename}: deploy the cluster first "
                "(playbook ipyparallel.cluster.deploy)"
            )
        result.update(identity=identity.public, fingerprint=identity.fingerprint)
        if half:
            path = half_path(state, half)
            text = read_text(path)
            if text is None:
                raise ConnectorError(f"{path} does not exist: playbook ipyparallel.cluster.deploy writes it again")
            if parse_half(text, half, path) != identity.half(half):
                raise ConnectorError(
                    f"{path} is not a half of the identity above it: playbook ipyparallel.cluster.deploy writes it anew"
                )
            result.update(text=text, path=path)
        result["authority"] = read_text(os.path.join(state, AUTHORITY_FILE)) or ""
        remembered = read_state(state)
        if module.params["lease"] and not module.check_mode:
            remembered = lease.take(state, remembered, module.params["lease"], time.time())
        result.update(remembered=changed_later(remembered), notebooks=remembered["notebooks"])
        if module.params["environment"]:
            result["versions"] = read_record(module.params["environment"]).get("versions", {})
    except (ConnectorError, lease.LeaseError, StateError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot read the connector below {state}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
