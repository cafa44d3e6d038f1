#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of action plugin ``ssh_config``, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_config
short_description: Keep the operator's settings of OpenSSH for the hosts of a cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Writes a file in the form of ssh_config(5) on the operator's machine, with mode 0600, so that
    C(ssh <cluster>-<host>) reaches each host as Ansible does. The hosts of controller and notebook are
    C(<cluster>-controller) and C(<cluster>-notebook) too; engines have several hosts, and no such name.
  - A file that is there and not its own it leaves as it is.
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  state:
    description: V(absent) removes the file.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: Path of the file. Without it, C(~/.ssh/ipyparallel/<cluster>.conf).
    type: str
    default: ''
  hosts:
    description: All hosts of the cluster, in order. Those that are not in O(logins) keep what the file has of them.
    type: list
    elements: str
    default: []
  logins:
    description:
      - By host, C(lines) as of M(ipyparallel.cluster.ssh_login_info), and C(roles), what it is in the cluster. A host
        without lines is left out.
    type: dict
    default: {}
  include:
    description: Whether C(~/.ssh/config) is to include the file, before anything else.
    type: bool
    default: false
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: ipyparallel.cluster.ssh_login_info
"""

EXAMPLES = r"""
- name: Keep the settings
  ipyparallel.cluster.ssh_config:
    cluster: ipyparallel
    hosts: [node1]
    logins:
      node1:
        lines: [HostName 10.0.0.5, User debian]
        roles: [controller, engines]
"""

RETURN = r"""
path:
  description: Path of the file.
  type: str
  returned: success
  sample: /home/ada/.ssh/ipyparallel/ipyparallel.conf
names:
  description: What the hosts of O(logins) are called.
  type: list
  elements: str
  returned: when O(state=present)
  sample: [ipyparallel-controller, ipyparallel-node1]
include:
  description: The line that C(~/.ssh/config) needs, empty where it has it.
  type: str
  returned: when O(state=present)
  sample: Include ~/.ssh/ipyparallel/*.conf
"""
