#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of action plugin ``fetch_connector``, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_connector
short_description: Bring the connector of an ipyparallel cluster to the operator
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Reads the client half on the controller host, checks it, and writes it on the operator's machine as IPython profile
    C(profile_<cluster>), so that C(ipyparallel.Client(profile="<cluster>")) connects and C(ipython --profile=<cluster>)
    has C(ipclient) and C(ipview).
  - The certificate of the cluster's authority is written beside it, so that browsers and C(curl --cacert) trust the
    notebook.
  - Each file is replaced in one step and has mode 0600. When one cannot be written, the old one is as it was.
  - A profile that belongs to another account is neither written nor removed.
  - Says so when the operator's Python or ipyparallel is not the cluster's.
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  state:
    description: V(absent) removes the profile. It needs no controller host.
    type: str
    choices: [present, absent]
    default: present
  state_directory:
    description: Directory on the controller host that holds the state of the cluster. Required for O(state=present).
    type: path
  environment:
    description: Directory of the cluster's Python environment on the controller host, to compare versions.
    type: path
  ipython_directory:
    description:
      - IPython's directory on the operator's machine.
      - Without it, E(IPYTHONDIR), else C(~/.ipython).
    type: path
  through:
    description:
      - How clients on the operator's machine reach the controller.
      - V(ssh) opens an SSH tunnel to the controller host, with the login that Ansible uses, and the connector names
        this machine's ends of it. It stays until the profile is removed, or the connection breaks; a further run opens
        it anew.
      - V(direct) uses the controller's address; the client ports must be open to this machine.
      - V(auto) is V(direct) where the controller host is this machine (a local connection), else V(ssh).
    type: str
    choices: [auto, ssh, direct]
    default: auto
extends_documentation_fragment:
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
- name: Bring the connector here
  ipyparallel.cluster.fetch_connector:
    cluster: ipyparallel
    state_directory: /var/lib/ipyparallel/ipyparallel
  delegate_to: "{{ ipyparallel_controller_host }}"
  run_once: true
"""

RETURN = r"""
profile_directory:
  description: The IPython profile on the operator's machine.
  type: str
  returned: success
  sample: /home/ada/.ipython/profile_ipyparallel
path:
  description: The connector on the operator's machine.
  type: str
  returned: success
  sample: /home/ada/.ipython/profile_ipyparallel/security/ipcontroller-client.json
authority:
  description: Certificate of the cluster's authority on the operator's machine; empty where the cluster has none.
  type: str
  returned: when O(state=present)
  sample: /home/ada/.ipython/profile_ipyparallel/security/authority.pem
notebooks:
  description: What the operator is told of each notebook, by host.
  type: dict
  returned: when O(state=present)
  sample: {node1: {url: "https://127.0.0.1:8888/lab", directory: /home/ada/notebooks}}
tunnel:
  description: The login of the tunnel; empty without one.
  type: str
  returned: when O(state=present)
  sample: ada@node1
"""
