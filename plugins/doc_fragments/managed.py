# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that say which processes of which cluster are meant, and who keeps them running."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.managed``; its argument spec is ``managers.MANAGED_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  manager:
    description:
      - The service manager that keeps the processes running.
      - V(systemd) is the system's, and needs root. V(systemd_user) is the account's, and needs lingering to start
        without a login. V(supervisor) is one supervisord for the cluster, which nothing starts after a reboot.
    type: str
    choices: [systemd, systemd_user, supervisor]
    required: true
  config:
    description: Directory of the cluster's settings, and of supervisor's definitions.
    type: path
    required: true
  log:
    description: Directory of supervisor's logs. With systemd the journal has them.
    type: path
    required: true
  run:
    description: Directory of sockets and process ids, which also tells clusters of one name apart.
    type: path
    required: true
  prefix:
    description: Directory of the cluster's software. C(current) in it is the link to the environment.
    type: path
    required: true
"""
