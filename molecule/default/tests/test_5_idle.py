# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster at rest says nothing."""

from __future__ import annotations

from conftest import NODES
from figures import Figures
from remote import Operator

SECONDS = 20


def test_no_line_a_second_in_the_journals(operator: Operator, figures: Figures) -> None:
    # what others logged before is not followed; timeout ends each with status 124
    follow = f"timeout {SECONDS} journalctl --follow --lines=0 --output=cat --unit='ipyparallel*'"
    said = operator.shells(NODES, follow)
    lines = [f"{node}: {line}" for node, text in said.items() for line in text.splitlines()]
    figures.keep(f"log lines of an idle cluster in {SECONDS} s", len(lines), "", 2)
    assert len(lines) <= 2, lines
