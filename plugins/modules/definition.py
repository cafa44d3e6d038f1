#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of action plugin ``definition``, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: definition
short_description: Check that the inventory defines an ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Checks, on the operator alone, that the inventory has group C(NAME) with children C(NAME_controller),
    C(NAME_engines) and optionally C(NAME_notebook), that there is one controller host, and that no host is in two
    clusters.
  - A play of which all hosts of the cluster can be a part runs it, once, so that it sees whom C(--limit) leaves out.
options:
  cluster:
    description: Name of the cluster, of the form C([a-z][a-z0-9_]{0,31}).
    type: str
    required: true
  needs:
    description: The hosts, by what they are for, without which the run is refused, since C(--limit) leaves them out.
    type: list
    elements: str
    choices: [controller, engines]
    default: []
  takeover:
    description: Whether to go on where another operator is at work on the cluster.
    type: bool
    default: false
  started:
    description: What an earlier call in the same run returned as RV(started), to be returned again.
    type: float
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
"""

EXAMPLES = r"""
- name: Check the definition
  ipyparallel.cluster.definition:
    cluster: ipyparallel
  run_once: true
"""

RETURN = r"""
controller:
  description: The controller host.
  type: str
  returned: success
  sample: node1
engines:
  description: The engine hosts.
  type: list
  elements: str
  returned: success
  sample: [node1, node2]
notebook:
  description: The notebook hosts.
  type: list
  elements: str
  returned: success
  sample: [node1]
left_out:
  description: The hosts of the cluster that have no part in the run.
  type: list
  elements: str
  returned: success
  sample: []
lease:
  description: What tells this run of this operator from others, for the modules that take the lease of a cluster.
  type: dict
  returned: success
  sample: {holder: ada@laptop, run: 4711-93812, runs: [4711-93812], sees: true, takeover: false}
started:
  description: When the run started, in seconds since the epoch.
  type: float
  returned: success
  sample: 1780000000.5
"""
