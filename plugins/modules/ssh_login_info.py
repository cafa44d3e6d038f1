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
  - Returns address, login, port, key and further arguments, from wherever Ansible has them, without passwords. What the
    operator's configuration of OpenSSH, or that of the argument C(-F), has for the name by which Ansible reaches the
    host is asked of C(ssh -G). Nothing is sent to the host.
  - The lines are what holds now. A C(Match exec) is tried once, and C(%n) is from then on the name that is typed.
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
  description: The lines. None where the host has another connection than C(ssh), as this machine.
  type: list
  elements: str
  returned: success
  sample: [HostName 10.0.0.5, User debian]
left_out:
  description: Arguments of ssh that have no such line. Only where there is no C(ssh) on this machine to be asked.
  type: list
  elements: str
  returned: success
  sample: []
"""
