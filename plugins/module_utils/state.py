# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster remembers: ``<state>/cluster.json`` on the controller host.

``engines`` holds the engines that are expected, as ``{host: {pool: count}}``: what playbooks defined, for hosts that
a run
with ``--limit`` leaves out, and for the watchdog. ``notebooks`` holds what the operator is told of each notebook, by
host.
"""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership, read_text, write_text

STATE_FILE = "cluster.json"


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
    try:
        state = json.loads(read_text(path) or "{}")
        engines = state.get("engines", {})
        sound = all(isinstance(n, int) for pools in engines.values() for n in pools.values())
        sound = sound and isinstance(state.get("notebooks", {}), dict)
    except (ValueError, AttributeError):
        sound = False
    if not sound:
        raise StateError(f"{path} is broken: remove it, and run playbook ipyparallel.cluster.deploy for all hosts")
    return {"engines": {}, "notebooks": {}, **state}


def remember(state: Mapping[str, t.Any], **defined: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return *state* with what is *defined*, by part and host, as it is there; other hosts keep theirs.

    Args:
        state: what is remembered.
        defined: ``engines={host: {pool: count}}``, ``notebooks={host: {...}}``.
    """
    return {**state, **{part: {**state.get(part, {}), **dict(hosts)} for part, hosts in defined.items()}}


def write_state(directory: str, state: Mapping[str, t.Any], ownership: Ownership | None = None) -> None:
    """Write what the cluster remembers, in one step.

    Raises:
        OSError: it cannot be written; what was remembered is as it was.
    """
    write_text(state_path(directory), json.dumps(state, indent=2, sort_keys=True) + "\n", ownership=ownership)
