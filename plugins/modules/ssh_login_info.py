#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of action plugin ``ssh_login_info``, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_login_info
short_description: Tell how Ansible reaches a host by SSH, in the words of ssh_config(5)
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Returns address, login, port, key and further arguments, from wherever Ansible has them, without passwords.
  - Nothing is sent to the host.
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
seealso:
  - module: ipyparallel.cluster.ssh_config
"""

EXAMPLES = r"""
- name: Look at how the host is reached
  ipyparallel.cluster.ssh_login_info:
  register: login
"""

RETURN = r"""
lines:
  description: The lines. None where the host is not reached by SSH, as this machine.
  type: list
  elements: str
  returned: success
  sample: [HostName 10.0.0.5, User debian]
left_out:
  description: Arguments of ssh that have no such line.
  type: list
  elements: str
  returned: success
  sample: []
"""
