# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the option that says who is at work."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.lease``; its argument spec is ``module_utils.lease.LEASE_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  lease:
    description:
      - Who is at work on the cluster, as M(ipyparallel.cluster.definition) returns it, and the C(phase) of the run.
        With it, the module fails where another operator is at work, and remembers this one for ten minutes from now.
        Nothing is remembered in check mode.
    type: dict
    default: {}
"""
