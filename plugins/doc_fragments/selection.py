# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that choose engines."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.selection``; its spec is ``module_utils.selection.SELECTION_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  ids:
    description:
      - Ids of engines. An engine is meant that is in all of O(ids), O(hosts) and O(pools) which are given; without any
        of them, every engine is.
    type: list
    elements: int
    default: []
  hosts:
    description:
      - Names of hosts, as in the inventory.
    type: list
    elements: str
    default: []
  pools:
    description:
      - Names of pools.
    type: list
    elements: str
    default: []
"""
