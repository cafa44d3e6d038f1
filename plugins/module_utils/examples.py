# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Examples, which are laid down for users to change: what they have changed or removed is theirs.

A record of what was laid down, outside the users' directory, has the digest of each example by directory. An example is
written where the record does not know it and nothing is there, and replaced by a newer one where it is as it was laid
down. So what is there and differs is a user's, and what is missing was removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import (
    Ownership,
    make_directory,
    read_text,
    write_text,
)

Record = dict[str, dict[str, str]]
"""Digests of what was laid down, by directory and name."""


class ExamplesError(RuntimeError):
    """Examples cannot be laid down; the message names the path and the remedy."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be written: examples, and the record at the end."""

    before: dict[str, str]
    """The texts that are replaced, by path; empty where there is none."""
    after: dict[str, str]
    """The texts that are written, by path."""

    @property
    def diff(self) -> list[dict[str, str]]:
        """What differs, as Ansible shows it."""
        return [
            {"before_header": path, "after_header": path, "before": self.before[path], "after": text}
            for path, text in self.after.items()
        ]


def make_plan(directory: str, record: str, files: Mapping[str, str], ownership: Ownership) -> Plan:
    """Return what is to be done.

    Args:
        directory: of the examples; one that was removed is not made again.
        record: path of the record.
        files: the texts of the examples by name.
        ownership: the account whose directory it is.

    Raises:
        ExamplesError: the record is damaged.
        OSError: the record cannot be read.
    """
    text = read_text(record, ownership)
    remembered = parse_record(record, text)
    laid_down = remembered.get(directory, {})
    digests = {name: digest(content) for name, content in files.items()}
    plan = Plan({}, {})
    if digests.items() <= laid_down.items():
        return plan
    # where a user has a file in its place, there is none for examples either
    is_missing = not os.path.isdir(directory) and bool(laid_down or os.path.lexists(directory))
    for name, content in files.items():
        path = os.path.join(directory, name)
        found = look(path, ownership)
        is_new = found is None and name not in laid_down and not is_missing
        is_older = found is not None and digest(found) == laid_down.get(name) != digests[name]
        if is_new or is_older:
            plan.before[path], plan.after[path] = found or "", content
    plan.before[record] = text or ""
    plan.after[record] = json.dumps({**remembered, directory: {**laid_down, **digests}}, indent=2) + "\n"
    return plan


def apply(plan: Plan, ownership: Ownership) -> None:
    """Do what is to be done; the record comes last, so that what is interrupted is gone on with.

    Raises:
        ExamplesError: something cannot be written.
    """
    for path, text in plan.after.items():
        directory = os.path.dirname(path)
        try:
            if not os.path.isdir(directory):
                make_directory(directory, 0o700, ownership)
            write_text(path, text, 0o600, ownership)
        except OSError as error:
            raise ExamplesError(
                f"cannot lay down {path}: {error.strerror}; let the account write there, or set "
                "ipyparallel_notebook_examples to false"
            ) from error


def parse_record(path: str, text: str | None) -> Record:
    """Return what was laid down, as the record at *path* tells.

    Raises:
        ExamplesError: it is damaged.
    """
    try:
        return {directory: dict(digests) for directory, digests in json.loads(text or "{}").items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ExamplesError(
            f"{path}, the record of the examples that were laid down, is damaged ({error}): remove it; what users have "
            "changed stays"
        ) from None


def look(path: str, ownership: Ownership) -> str | None:
    """Return the text at *path*; none for what is no file or cannot be read, and None where there is nothing."""
    if not os.path.lexists(path):
        return None
    if os.path.islink(path):
        return ""
    try:
        return read_text(path, ownership, errors="surrogateescape")
    except OSError:
        return ""


def digest(text: str) -> str:
    """Return what tells *text* from others."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
