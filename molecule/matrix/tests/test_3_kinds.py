# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each kind of cluster lives from nothing to nothing; they began beside the tests before."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind(lives: dict[str, Future[None]], kind: str) -> None:
    lives[kind].result()
