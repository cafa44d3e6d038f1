#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that a connector that was replaced opens nothing any more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prove_rotation
short_description: Prove that a replaced connector of an ipyparallel cluster is refused, and its successor works
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, after M(ipyparallel.cluster.connector) has made new keys and the controller was
    restarted with them. Fails where anything opens to the old keys.
  - Connects to the hub with the new connector, and tries to with the old one. With CURVE it also tries the old key on
    each of the ports that clients use; without encryption, whether an engine runs what the old key has signed.
options:
  replaced:
    description: Text of the client half that was replaced. Secret. Without it, only the new one is tried.
    type: str
  patience:
    description: How long each answer that should not come is waited for, in seconds.
    type: float
    default: 1.0
extends_documentation_fragment:
  - ipyparallel.cluster.hub
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is tried in check mode, because nothing was renewed.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
    details:
      - This module changes nothing.
"""

EXAMPLES = r"""
- name: Prove that the old connector is refused
  ipyparallel.cluster.prove_rotation:
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    replaced: "{{ old_client_half.text }}"
"""

RETURN = r"""
refused:
  description: What a client with the old connector got.
  type: str
  returned: when O(replaced) is given, outside check mode
  sample: no answer in 1 s
channels:
  description: How many ports refused the old key before the first message. 0 without encryption.
  type: int
  returned: when O(replaced) is given, outside check mode
  sample: 7
answered:
  description: After how many seconds the new connector was a client of the hub.
  type: float
  returned: outside check mode
  sample: 0.02
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, parse_half
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubError,
    act_as,
    connect,
    respawn,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.rotation import RotationError, prove


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **HUB_ARGUMENT_SPEC,
            "replaced": {"type": "str", "no_log": True},
            "patience": {"type": "float", "default": 1.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    respawn(module, params["python"])
    result: dict[str, t.Any] = {"changed": False}
    try:
        replaced = parse_half(params["replaced"], "client", "the old connector") if params["replaced"] else None
        act_as(params["account"])
        started = time.monotonic()
        connect(params["connector"], params["timeout"]).close(linger=0)
        result["answered"] = round(time.monotonic() - started, 3)
        if replaced:
            new = parse_half(read_text(params["connector"]) or "", "client", params["connector"])
            result.update(prove(new, replaced, params["patience"]))
    except (ConnectorError, HubError, RotationError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
