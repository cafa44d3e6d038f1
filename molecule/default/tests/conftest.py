# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nodes, as root past SSH; and their faults."""

from __future__ import annotations

import pytest
from lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab("default")
