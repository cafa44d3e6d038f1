#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of action plugin ``compare_hosts``, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compare_hosts
short_description: Check that the hosts of an ipyparallel cluster fit together
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Compares, on the operator alone, what M(ipyparallel.cluster.preflight) found on the hosts of a run.
  - Fails when the controller host has dropped out, when Pythons differ in their minor version, when one machine is
    listed twice, when an earlier phase than those of the run is missing, or when the controller listens on loopback
    though other hosts have to reach it.
  - Warns of clocks that differ by more than 30 seconds, and of architectures that differ.
options:
  controller:
    description: The controller host.
    type: str
    required: true
  defined:
    description: All hosts of the cluster.
    type: list
    elements: str
    required: true
  begun:
    description: The hosts that the run began with (C(ansible_play_hosts_all)).
    type: list
    elements: str
    required: true
  left:
    description: Those of them that have not failed (C(ansible_play_hosts)).
    type: list
    elements: str
    required: true
  found:
    description: What the preflight of each host returned, by host. A host that is not there is not compared.
    type: dict
    required: true
  remembered:
    description:
      - What M(ipyparallel.cluster.connector_info) returned of the controller host, with its C(versions), for a run that
        leaves it out.
    type: dict
    default: {}
  changed:
    description:
      - What M(ipyparallel.cluster.change_engines) returned as C(remembered), for a run that lays this down. In check
        mode nothing has been remembered yet.
    type: dict
    default: {}
  roles:
    description:
      - What each host of the cluster is, as a dictionary of host to a list of C(controller), C(engines),
        C(notebook).
    type: dict
    default: {}
  pools:
    description: The pools of engines as the inventory defines them. The hosts that they name have to be engine hosts.
    type: list
    elements: dict
    default: []
  tags:
    description: Tags of the run (C(ansible_run_tags)). What a phase needs has to be there, or be made by the run.
    type: list
    elements: str
    default: [all]
  skipped_tags:
    description: Tags that are left out (C(ansible_skip_tags)).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
"""

EXAMPLES = r"""
- name: Compare the hosts
  ipyparallel.cluster.compare_hosts:
    controller: "{{ ipyparallel_controller_host }}"
    defined: "{{ ipyparallel_hosts }}"
    begun: "{{ ansible_play_hosts_all }}"
    left: "{{ ansible_play_hosts }}"
    found: "{{ hostvars | ipyparallel.cluster.preflights(ansible_play_hosts_all) }}"
  run_once: true
"""

RETURN = r"""
address:
  description: Where other hosts will look for the controller. Empty where that is not known yet.
  type: str
  returned: success
  sample: 10.0.0.5
port_base:
  description: First port of the cluster. 0 where that is not known yet.
  type: int
  returned: success
  sample: 10100
ports:
  description: Its ports for C(engines) and for the C(notebook).
  type: dict
  returned: success
  sample: {engines: [10100, 10101], notebook: [10100, 10109]}
pools:
  description:
    - The pools of each engine host, as the inventory defines them and operators have changed them since. C(instances)
      are the numbers of their engines, C(defined) is the inventory's count, or null for a launched pool.
  type: dict
  returned: success
  sample: {node1: [{name: default, instances: [0, 1], defined: 2, environment: {}, cpus: null, memory: null, code: ""}]}
remarks:
  description: What the operator was warned of.
  type: list
  elements: str
  returned: success
  sample: []
clocks_differ:
  description: By how many seconds two of the hosts' clocks differ at least.
  type: float
  returned: success
  sample: 0.0
"""
