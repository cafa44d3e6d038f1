# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let engines leave, and say which have still work."""

from __future__ import annotations

from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.turns import TurnsAction


class ActionModule(TurnsAction):
    """Action ``ipyparallel.cluster.change_engines``; the module of this name does the work."""
