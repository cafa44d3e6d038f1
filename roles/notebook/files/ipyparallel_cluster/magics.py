# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let ``%px`` work in a fresh kernel: IPython loads this when one of ipyparallel's magics is first used."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(_shell: Any) -> None:
    """Connect to the cluster: the first client of a kernel defines the magics, for all engines."""
    import ipyparallel

    ipyparallel.Client()
