# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the options that say to whom written files are given."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``ipyparallel.cluster.owned``; its argument spec is ``module_utils.files.OWNED_ARGUMENT_SPEC``."""

    DOCUMENTATION = r"""
options:
  owner:
    description: Account that the files are given to.
    type: str
  group:
    description: Group that the files are given to.
    type: str
"""
