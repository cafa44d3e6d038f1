# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A task's name begins with the file it is in, so that a reader of a run finds it."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).parents[2] / "roles"


def tasks(entries: list[dict[str, t.Any]]) -> Iterator[dict[str, t.Any]]:
    for entry in entries:
        yield entry
        for block in ("block", "rescue", "always"):
            yield from tasks(entry.get(block, []))


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/tasks/*.yml")), ids=lambda path: str(path.relative_to(ROLES)))
def test_task_names_begin_with_the_file(path: Path) -> None:
    if path.stem == "main":
        return  # it lists the other files
    prefix = f"{path.stem.replace('_', ' ').capitalize()} | "
    for task in tasks(yaml.safe_load(path.read_text()) or []):
        assert task["name"].startswith(prefix)
