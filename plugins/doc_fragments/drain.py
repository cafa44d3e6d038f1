# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that say how engines are drained."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.drain``; its argument spec is ``module_utils.draining.DRAIN_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  limit:
    description: How long engines that are to leave may take to finish what they have, in seconds.
    type: float
    default: 60.0
  force:
    description: Whether to go on when that time is over. What the engines do then is lost.
    type: bool
    default: false
"""
