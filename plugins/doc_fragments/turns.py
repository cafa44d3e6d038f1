# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options by which an action calls its module in turns."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.turns``; its argument spec is ``module_utils.turns.TURN_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  turn:
    description:
      - After how many seconds the module says how far it is. Set by the action, which prints that and calls the module
        again.
    type: float
  resume:
    description: What the module returned then. Set by the action.
    type: dict
"""
