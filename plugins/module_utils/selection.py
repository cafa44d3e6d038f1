# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engines an operator means: by id, by host and by pool."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Sequence

SELECTION_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "ids": {"type": "list", "elements": "int", "default": []},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "pools": {"type": "list", "elements": "str", "default": []},
}
"""The options of every module that works on chosen engines (documentation fragment ``selection``)."""
MOST_NAMES = 20


class SelectionError(ValueError):
    """No engine is meant, or one that is not there; the message names it, and those that are."""


def words(value: t.Any) -> list[str]:
    """Return a list, which the operator may have given as a text with commas, as one number, or left empty."""
    if isinstance(value, int):
        return [str(value)]
    found = value.split(",") if isinstance(value, str) else value or []
    return [str(word).strip() for word in found if str(word).strip()]


def in_words(names: Iterable[t.Any]) -> str:
    """Return *names* as a message lists them, the first of them where there are many."""
    found = [str(name) for name in sorted(set(names))]
    return ", ".join(found[:MOST_NAMES]) + (" ..." if found[MOST_NAMES:] else "") if found else "none"


def select(
    engines: Sequence[dict[str, t.Any]],
    *,
    ids: Sequence[int] = (),
    hosts: Sequence[str] = (),
    pools: Sequence[str] = (),
) -> list[dict[str, t.Any]]:
    """Return the engines that are in every list which is given; without one, all.

    Args:
        engines: those that are registered, as ``hub.registered`` returns them.
        ids: numbers of engines.
        hosts: names of hosts.
        pools: names of pools.

    Raises:
        SelectionError: a list has one that is not there, no engine is in all lists, or there are no engines at all.
    """
    if not engines:
        raise SelectionError("the cluster has no engines: look at its status (playbook ipyparallel.cluster.status)")
    chosen = list(engines)
    places = "s with registered engines are"
    lists = (
        ("engine", "id", ids, "s that are registered are"),
        ("host", "host", hosts, places),
        ("pool", "pool", pools, places),
    )
    for what, key, wanted, there in lists:
        known = {engine[key] for engine in engines if engine[key] is not None}
        if unknown := set(wanted) - known:
            raise SelectionError(
                f"there is no {what} {in_words(unknown)} in the cluster; {what}{there}: {in_words(known)}"
            )
        if wanted:
            chosen = [engine for engine in chosen if engine[key] in wanted]
    if not chosen:
        raise SelectionError(
            f"no engine is in all of ids ({in_words(ids)}), hosts ({in_words(hosts)}) and pools ({in_words(pools)}): "
            "leave one of them out"
        )
    return chosen
