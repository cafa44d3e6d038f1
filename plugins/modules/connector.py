#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make, keep, change, check or rotate the identity of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: connector
short_description: Make, keep, change, check or rotate the identity of an ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, before any process of the cluster starts. Makes the cluster's identity once, which is
    its ports, keys and addresses, and from it the two halves of the connector, for clients and for engines.
  - The identity is kept. Options that are not given keep what is remembered; options that are given change it and keep
    the keys.
  - The identity is in C(<state_directory>/identity.json), the halves are in C(<state_directory>/connector/), all of
    mode 0600. A half that is missing or differs is written again.
options:
  cluster:
    description: Name of the cluster, of the form C([a-z][a-z0-9_]{0,31}).
    type: str
    required: true
  state:
    description:
      - V(present) makes the identity where there is none, and applies the options that are given.
      - V(rotated) makes new keys in any case, and keeps the other settings. It also repairs a broken identity.
    type: str
    choices: [present, rotated]
    default: present
  state_directory:
    description: Directory on the controller host that holds the state of the cluster. It is made when missing, mode
      0700.
    type: path
    required: true
  address:
    description:
      - IPv4 address at which engines and clients reach the controller (C(IPController.ip)).
      - Without it, as remembered, else O(default_address).
    type: str
  default_address:
    description: The address of a new identity when O(address) is not given.
    type: str
    default: 127.0.0.1
  port_base:
    description:
      - First of the 20 ports of the cluster. 9 for engines, 6 for clients, 3 internal ones on loopback, 2 kept for
        later.
      - Without it, as remembered, else 10100.
    type: int
  packer:
    description:
      - Serialiser of messages (C(Session.packer)), one of V(json), V(pickle), V(msgpack), V(orjson).
      - Without it, as remembered, else V(json).
    type: str
  encryption:
    description:
      - V(curve) is CurveZMQ; V(none) leaves HMAC signatures only, for trusted networks and bulk data.
      - Without it, as remembered, else V(curve).
    type: str
  scheduler:
    description:
      - Scheme of the load-balancing scheduler (C(TaskScheduler.scheme_name)), one of V(leastload), V(lru),
        V(plainrandom), V(twobin), V(weighted).
      - Without it, as remembered, else V(leastload).
    type: str
  python:
    description:
      - Python interpreter of the cluster's environment, whose pyzmq makes the keys. The module continues there only
        when keys are to be made.
    type: path
    required: true
extends_documentation_fragment:
  - ipyparallel.cluster.owned
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=rotated) makes new keys each time.
"""

EXAMPLES = r"""
- name: Make the identity of the cluster
  ipyparallel.cluster.connector:
    cluster: ipyparallel
    state_directory: /var/lib/ipyparallel/ipyparallel
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    default_address: 10.0.0.5
"""

RETURN = r"""
identity:
  description: What may be shown of the identity. It has no key.
  type: dict
  returned: success
  sample:
    cluster: ipyparallel
    address: 10.0.0.5
    port_base: 10100
    packer: json
    encryption: curve
    scheduler: leastload
    fingerprint: 0d5f1f4bb8a0c1e2
fingerprint:
  description: Changes whenever anything of the identity does, its keys included.
  type: str
  returned: success
  sample: 0d5f1f4bb8a0c1e2
stale:
  description:
    - Whether the controller on this host runs with another identity than this one, so that the ordered restart is due.
      It stays true until that restart has been done, however often the run is interrupted.
  type: bool
  returned: success
  sample: false
client_path:
  description: Path of the client half on this host.
  type: str
  returned: success
  sample: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
engine_path:
  description: Path of the engine half on this host.
  type: str
  returned: success
  sample: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-engine.json
"""

import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    ConnectorError,
    Half,
    Identity,
    half_path,
    identity_path,
    identity_text,
    load_identity,
    merge,
    new_keys,
    salvage,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import (
    OWNED_ARGUMENT_SPEC,
    Ownership,
    directory_differs,
    make_directory,
    read_text,
    write_text,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import respawn
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import running_processes

HALVES: tuple[Half, ...] = ("client", "engine")
SETTINGS = ("address", "port_base", "packer", "encryption", "scheduler")


def wanted_identity(module: AnsibleModule, before: Identity | None) -> Identity:
    """Return the identity that the options and what is remembered make; new keys where they are due."""
    params = module.params
    remembered = dataclasses.asdict(before) if before else salvage(params["state_directory"])
    given = {name: params[name] for name in SETTINGS}
    settings = merge(params["cluster"], given, remembered, params["default_address"])
    if before and params["state"] == "present":
        keys = {name: getattr(before, name) for name in ("key", "curve_publickey", "curve_secretkey")}
    elif module.check_mode:
        keys = {"key": "to be made", "curve_publickey": "to be made", "curve_secretkey": "to be made"}
    else:
        respawn(module, params["python"])
        keys = new_keys()
    return Identity(**settings, **keys)


def write_identity(module: AnsibleModule, files: dict[str, str]) -> bool:
    """Write what differs of *files* (path to text); return whether anything did."""
    params = module.params
    changed = [path for path, text in files.items() if read_text(path) != text]
    directories = (params["state_directory"], os.path.dirname(half_path(params["state_directory"], "client")))
    if module.check_mode:
        return bool(changed) or any(directory_differs(path, 0o700) for path in directories)
    ownership = Ownership(params["owner"], params["group"])
    made = [make_directory(path, 0o700, ownership) for path in directories]
    for path in changed:
        write_text(path, files[path], ownership=ownership)
    return bool(changed) or any(made)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "rotated"], "default": "present"},
            "state_directory": {"type": "path", "required": True},
            "address": {"type": "str"},
            "default_address": {"type": "str", "default": "127.0.0.1"},
            "port_base": {"type": "int"},
            "packer": {"type": "str"},
            "encryption": {"type": "str"},
            "scheduler": {"type": "str"},
            "python": {"type": "path", "required": True},
            **OWNED_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    state = params["state_directory"]
    try:
        before = load_identity(state, broken_is_none=params["state"] == "rotated")
        identity = wanted_identity(module, before)
    except ConnectorError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot read the identity of {params['cluster']} below {state}: {error}")

    # the identity first: when this is interrupted, the next run makes the halves from it
    files = {identity_path(state): identity_text(identity)}
    files.update({half_path(state, half): identity.text(half) for half in HALVES})
    try:
        changed = write_identity(module, files)
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"cannot write the identity of {params['cluster']} below {state}: {error}")

    stale = any(
        process.fingerprint != identity.fingerprint
        for process in running_processes(params["cluster"])
        if process.name == "controller"
    )
    result: dict[str, t.Any] = {
        "changed": changed,
        "identity": identity.public,
        "fingerprint": identity.fingerprint,
        "stale": stale,
        "client_path": half_path(state, "client"),
        "engine_path": half_path(state, "engine"),
    }
    if module._diff:
        result["diff"] = {"before": before.public if before else {}, "after": identity.public}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
