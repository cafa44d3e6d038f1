# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that every module which talks to a hub has."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.hub``; its argument spec is ``module_utils.hub.HUB_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  connector:
    description:
      - Path of the client half of the cluster's connector on the host where the module runs.
    type: path
    required: true
  python:
    description:
      - Path of the Python interpreter of the cluster's environment; the module continues there.
    type: path
    required: true
  timeout:
    description:
      - How long to wait for the hub to answer, in seconds.
    type: float
    default: 30.0
  account:
    description:
      - Account of the cluster. Where root runs the module, it goes on as this account, because it unpickles what
        engines send.
    type: str
"""
