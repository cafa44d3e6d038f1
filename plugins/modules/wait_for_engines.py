#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Remember which engines a cluster should have, and wait until they are there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wait_for_engines
short_description: Wait until the expected engines of an ipyparallel cluster are registered and answer
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host. Remembers in C(<state_directory>/cluster.json) which engines the cluster should have,
    and waits until the hub has each of them registered exactly once and each answers, busy or not.
options:
  state_directory:
    description: Directory on the controller host that holds the state of the cluster.
    type: path
    required: true
  engines:
    description:
      - The engines of some hosts, as a dictionary of host to a dictionary of pool to count. They replace what is
        remembered of these hosts; other hosts keep theirs, and are not waited for.
      - Without it, the remembered engines of all hosts are waited for.
    type: dict
  notebooks:
    description:
      - The notebooks of some hosts, as a dictionary of host to a dictionary. They are remembered likewise.
    type: dict
    default: {}
  defined:
    description:
      - The engines of some hosts as the inventory alone says it. They are remembered likewise. A scaled count ends
        where the inventory's own has changed.
    type: dict
    default: {}
  lease:
    description:
      - Who is at work on the cluster, as M(ipyparallel.cluster.definition) returns it. With it, the module ends the
        lease, unless O(end=false), and fails where another operator has taken over.
    type: dict
    default: {}
  end:
    description: Whether the run, and so its lease, ends here.
    type: bool
    default: true
  hosts:
    description: The engines of these hosts only are waited for; without it, of all.
    type: list
    elements: str
  limit:
    description: How long to wait for the engines, in seconds.
    type: float
    default: 60.0
  fail:
    description: Whether missing engines are a failure; otherwise they are only returned.
    type: bool
    default: true
extends_documentation_fragment:
  - ipyparallel.cluster.hub
  - ipyparallel.cluster.turns
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - Waits for nothing in check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Wait for the engines
  ipyparallel.cluster.wait_for_engines:
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    state_directory: /var/lib/ipyparallel/ipyparallel
    engines:
      node1: {default: 7}
      node2: {default: 8}
"""

RETURN = r"""
registered:
  description: How many engines the hub has registered.
  type: int
  returned: success, outside check mode
  sample: 15
missing:
  description: The expected engines that are not registered, or registered twice, as host, pool and core.
  type: list
  elements: dict
  returned: success, outside check mode
  sample: [{host: node2, pool: default, core: 7}]
problem:
  description: In words, what is not as expected; empty when all is.
  type: str
  returned: success, outside check mode
  sample: "14 of 15 engines are registered; missing: node2 default/7"
seconds:
  description: How long it took.
  type: float
  returned: success, outside check mode
  sample: 2.1
"""

import collections
import contextlib
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import draining, lease, turns
from ansible_collections.ipyparallel.cluster.plugins.module_utils.changes import outdated
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubAwayError,
    HubError,
    Waiting,
    act_as,
    connect,
    registered,
    respawn,
    wait_for,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, expected_engines
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    read_state,
    remember,
    shown,
    write_state,
)

MOST_HOSTS = 8


def in_words(found: Waiting, expected: set[Engine]) -> str:
    """Return what is not as expected."""
    if found.whole:
        return ""
    parts = [f"{len(expected) - len(found.missing)} of {len(expected)} engines are registered"]
    for what, places in (("missing", found.missing), ("registered more than once", found.doubled)):
        if places:
            parts.append(f"{what}: {', '.join(str(place) for place in places[:20])}{' ...' if places[20:] else ''}")
    if found.silent:
        parts.append(f"registered, but without an answer: id {', '.join(str(number) for number in found.silent[:20])}")
    return "; ".join(parts)


def progress(found: Waiting, expected: set[Engine]) -> str:
    """Return how far the engines are, by host."""
    said = [f"{len(expected) - len(found.missing)} of {len(expected)} engines are registered"]
    away = collections.Counter(engine.host for engine in found.missing)
    every = collections.Counter(engine.host for engine in expected)
    if away:
        hosts = [f"{host} {count} of {every[host]}" for host, count in sorted(away.items())]
        said.append(f"missing: {', '.join(hosts[:MOST_HOSTS])}{' ...' if hosts[MOST_HOSTS:] else ''}")
    if found.doubled:
        said.append(f"registered more than once: {len(found.doubled)}")
    if found.silent:
        said.append(f"without an answer: {len(found.silent)}")
    return "; ".join(said)


def wait(params: dict[str, t.Any], expected: set[Engine], turn: turns.Turn) -> dict[str, t.Any]:
    """Wait, and return what was found.

    Raises:
        Pause: the turn is over, and the time to wait is not.
    """
    left = turn.left_of(params["timeout"], "asked")
    seconds = turn.at_most(left)
    try:
        client = connect(params["connector"], seconds, params["timeout"] - left)
    except HubError as error:
        if isinstance(error, HubAwayError) and seconds < left:
            raise turns.Pause("the hub does not answer yet") from None
        missing = [engine.__dict__ for engine in sorted(expected)]
        return {"registered": 0, "missing": missing, "problem": str(error), "seconds": turn.seconds()}
    del turn.state["asked"]
    left = turn.left_of(params["limit"], "answered")
    seconds = turn.at_most(left)
    try:
        found = wait_for(client, expected, seconds)
        if not found.whole and seconds < left:
            raise turns.Pause(progress(found, expected))
        # what was to be ended has been; what was not is to work again at once
        with contextlib.suppress(draining.DrainError):
            draining.release(client, registered(client))
    finally:
        client.close()
    return {
        "registered": found.registered,
        "missing": [engine.__dict__ for engine in (*found.missing, *found.doubled)],
        "problem": in_words(found, expected),
        "seconds": turn.seconds(),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **HUB_ARGUMENT_SPEC,
            **turns.TURN_ARGUMENT_SPEC,
            "state_directory": {"type": "path", "required": True},
            "engines": {"type": "dict"},
            "notebooks": {"type": "dict", "default": {}},
            "defined": {"type": "dict", "default": {}},
            **lease.LEASE_ARGUMENT_SPEC,
            "limit": {"type": "float", "default": 60.0},
            "hosts": {"type": "list", "elements": "str"},
            "end": {"type": "bool", "default": True},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not respawn(module, params["python"]):
        module.exit_json(changed=True, msg="would wait for the engines of a cluster that is to be made")
    try:
        act_as(params["account"])
        found = read_state(params["state_directory"])
        if params["lease"] and not module.check_mode:
            lease.check_free(found["lease"], params["lease"], time.time())
        after = remember(
            outdated(found, params["defined"]),
            engines=params["engines"] or {},
            notebooks=params["notebooks"],
            defined=params["defined"],
        )
        result: dict[str, t.Any] = {"changed": found != after}
        if module._diff:
            result["diff"] = {"before": shown(found), "after": shown(after)}
        if module.check_mode:
            module.exit_json(**result)
        if found != after:
            write_state(params["state_directory"], after)
    except (HubError, lease.LeaseError, StateError, OSError) as error:
        module.fail_json(msg=f"cannot remember the engines of the cluster: {error}")
    counts = after["engines"] if params["engines"] is None else params["engines"]
    if params["hosts"] is not None:
        counts = {host: pools for host, pools in counts.items() if host in params["hosts"]}
    keeper = lease.Keeper(params["state_directory"], params["lease"], "wait")
    turn, end = turns.Turn(params), params["end"]
    try:
        keeper.take()
        result.update(wait(params, expected_engines(counts), turn))
    except turns.Pause as pause:
        end = False
        result.update(turn.answer(pause))
    except (lease.LeaseError, StateError, OSError) as error:
        module.fail_json(msg=f"cannot remember who is at work on the cluster: {error}")
    finally:
        if end:
            keeper.end()
    if result.get("problem") and params["fail"]:
        module.fail_json(msg=f"after {result['seconds']:.0f} s: {result['problem']}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
