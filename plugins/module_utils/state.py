# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster remembers: ``<state>/cluster.json`` on the controller host.

By playbook ``deploy``:

- ``engines``: those that are expected, as ``{host: {pool: count}}``, for hosts that a run with ``--limit`` leaves out,
  and for the watchdog;
- ``defined``: the same as the inventory alone says it;
- ``notebooks``: what the operator is told of each notebook, by host.

By what operators do after the definition (``changes.py``):

- ``pools``: launched pools, by name;
- ``scaled``: other counts than the inventory's, as ``{host: {pool: numbers}}``;
- ``packages``: Python packages that were installed later;
- ``lease``: the operator who is at work (``lease.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership, read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import is_count

STATE_FILE = "cluster.json"
PARTS: dict[str, type] = {
    "engines": dict,
    "defined": dict,
    "notebooks": dict,
    "pools": dict,
    "scaled": dict,
    "packages": list,
    "lease": dict,
}


class StateError(ValueError):
    """The state is broken; the message names the file and the remedy."""


def state_path(directory: str) -> str:
    """Return where the state is kept below the state directory."""
    return os.path.join(directory, STATE_FILE)


def read_state(directory: str) -> dict[str, t.Any]:
    """Return what the cluster remembers; empty where it remembers nothing.

    Raises:
        StateError: the file is broken.
    """
    path = state_path(directory)
    empty = {part: kind() for part, kind in PARTS.items()}
    try:
        state = {**empty, **json.loads(read_text(path) or "{}")}
        sound = all(isinstance(state[part], kind) for part, kind in PARTS.items())
        counts = [state["engines"], state["defined"], state["scaled"]]
        sound = sound and all(is_count(n) for part in counts for pools in part.values() for n in pools.values())
    except (ValueError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise StateError(f"{path} is broken: remove it, and run playbook ipyparallel.cluster.deploy for all hosts")
    return state


def remember(state: Mapping[str, t.Any], **defined: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return *state* with what is *defined*, by part and host, as it is there; other hosts keep theirs.

    Args:
        state: what is remembered.
        defined: ``engines={host: {pool: count}}``, ``notebooks={host: {...}}``.
    """
    return {**state, **{part: {**state.get(part, {}), **dict(hosts)} for part, hosts in defined.items()}}


CHANGED_LATER = ("defined", "pools", "scaled", "packages")


def changed_later(state: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what operators have changed after the definition, and what that was."""
    return {part: state[part] for part in CHANGED_LATER}


def shown(state: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return *state* as a diff shows it: of code only what tells it from other code, and not who is at work."""
    pools = {
        name: {**pool, "code": f"sha256 {hashlib.sha256(pool['code'].encode()).hexdigest()[:16]}"}
        if pool.get("code")
        else pool
        for name, pool in state["pools"].items()
    }
    return {**state, "pools": pools, "lease": {}}


def write_state(directory: str, state: Mapping[str, t.Any], ownership: Ownership | None = None) -> None:
    """Write what the cluster remembers, in one step.

    Raises:
        OSError: it cannot be written; what was remembered is as it was.
    """
    write_text(state_path(directory), json.dumps(state, indent=2, sort_keys=True) + "\n", ownership=ownership)
