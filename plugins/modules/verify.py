#!/usr/bin/python

# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: verify
short_description: Prove that a running cluster does everything that its users know
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Performs, on the running cluster and from a client that knows nothing but the connector, the operations of
    IPython's parallel computing, each as a check with a name and a time.
  - These are the calls of the old C(MultiEngineClient) and C(TaskClient) in today's terms, clients by default, by
    path and by profile, views that block and that do not, remote functions and namespaces, imports, results with
    their limits and metadata, errors of one engine and of many, and the magics such as C(%px) in a real IPython.
  - A check that fails or hangs does not stop the others. At the end the module fails with one message that names
    them.
  - The cluster stays as it was. Names used on engines are random and removed at the end, the hub forgets the results,
    and the copies of the connector are in a private temporary directory that is removed. Only counters, such as the
    number of completed tasks, go up.
  - An engine that is busy with the work of others is not waited for. It fails one check, which says so, and the
    others go on without it.
options:
  expected_engines:
    description:
      - Number of engines that have to be registered.
      - By default any number but 0.
    type: int
  packer:
    description:
      - The packer that the connector has to name, ipyparallel's C(Session.packer).
      - By default any.
    type: str
    choices: [json, pickle, msgpack, orjson]
  encryption:
    description:
      - How the connector has to protect messages, V(curve) for CurveZMQ (ipyparallel's C(IPController.enable_curve)),
        or V(none) for signatures only.
      - By default any.
    type: str
    choices: [curve, none]
extends_documentation_fragment:
  - ipyparallel.cluster.hub
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - Executes nothing on the engines, and says so.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
    details:
      - This module changes nothing.
notes:
  - O(timeout) is also the limit of each check; no further check is tried after four times as long.
  - What does not apply to the cluster, such as numpy arrays where numpy is not installed, is omitted and returned
    with its reason.
seealso:
  - module: ipyparallel.cluster.wait_for_engines
  - module: ipyparallel.cluster.cluster_info
"""

EXAMPLES = r"""
- name: Verify the cluster
  ipyparallel.cluster.verify:
    connector: "{{ ipyparallel_path_client }}"
    python: "{{ ipyparallel_path_python }}"

- name: Verify the cluster, its size and its protection
  ipyparallel.cluster.verify:
    connector: "{{ ipyparallel_path_client }}"
    python: "{{ ipyparallel_path_python }}"
    expected_engines: 8
    packer: msgpack
    encryption: curve
  register: __ipyparallel_verified

- name: Show the slowest operations
  ansible.builtin.debug:
    msg: "{{ (__ipyparallel_verified.checks | sort(attribute='seconds', reverse=true))[:5] }}"
"""

RETURN = r"""
msg:
  description: That all checks passed, or each failed check with the first lines of its reason.
  returned: always
  type: str
  sample: all 85 checks passed on 8 engines in 3.9 s
checks:
  description: The checks that were performed, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The operation, as its users call it.
      type: str
    feature:
      description: Number of the feature of this collection that the operation belongs to.
      type: int
    seconds:
      description: How long it took, in seconds.
      type: float
    ok:
      description: Whether the cluster did what it should.
      type: bool
    message:
      description: What was expected and what came.
      returned: when it failed
      type: str
  sample:
    - name: MultiEngineClient.push / pull
      feature: 30
      seconds: 0.007
      ok: true
    - name: MultiEngineClient.get_ids
      feature: 30
      seconds: 0.002
      ok: false
      message: "engines of the client against those of the hub: expected [0, 1], came [0]"
omitted:
  description: The checks that do not apply to this cluster.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The operation.
      type: str
    reason:
      description: Why it does not apply.
      type: str
  sample:
    - name: apply with numpy arrays (get_norms)
      reason: numpy is not installed on engines [3]
passed:
  description: How many checks passed.
  returned: always
  type: int
  sample: 85
failed_checks:
  description: Names of the checks that failed.
  returned: always
  type: list
  elements: str
  sample: []
engines:
  description: How many engines were registered; 0 when the hub was not asked.
  returned: always
  type: int
  sample: 8
seconds:
  description: How long everything took, in seconds.
  returned: always
  type: float
  sample: 3.912
"""

import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub, verification
from ansible_collections.ipyparallel.cluster.plugins.module_utils.verification_checks import CHECKS


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **hub.HUB_ARGUMENT_SPEC,
            "expected_engines": {"type": "int"},
            "packer": {"type": "str", "choices": ["json", "pickle", "msgpack", "orjson"]},
            "encryption": {"type": "str", "choices": ["curve", "none"]},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    nothing = verification.Report([], 0, 0.0).as_dict()
    if parameters["timeout"] <= 0:
        module.fail_json(msg=f"timeout is {parameters['timeout']:g}: give a number of seconds above 0", **nothing)
    if module.check_mode:
        module.exit_json(
            changed=False, msg=f"check mode: none of the {len(CHECKS)} checks was executed on the engines", **nothing
        )
    hub.respawn(module, parameters["python"])
    try:
        hub.act_as(parameters["account"])
        # Ansible's own directory is root's
        with tempfile.TemporaryDirectory() as temporary:
            report = verification.verify(
                parameters["connector"],
                parameters["timeout"],
                verification.Asked(parameters["expected_engines"], parameters["packer"], parameters["encryption"]),
                CHECKS,
                temporary=temporary,
            )
    except (verification.VerificationError, hub.HubError) as error:
        module.fail_json(msg=str(error), **nothing)
    finish = module.fail_json if report.failed else module.exit_json
    finish(changed=False, msg=report.message(), **report.as_dict())


if __name__ == "__main__":
    main()
