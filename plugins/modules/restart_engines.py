#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restart engines of a running cluster, all at once or one after the other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restart_engines
short_description: Restart engines of a running ipyparallel cluster
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Lets engines finish what they have, ends them, and waits until their service managers have started others in their
    places; the controller stays. What was in their namespaces is gone, and their ids are new.
  - Runs on the controller host, with nothing but the client half. Engines are ended by messages, so no other host is
    logged in to.
options:
  serial:
    description: How many engines are away at a time, 0 for all at once.
    type: int
    default: 1
  wait:
    description: How long to wait for an engine to come back, in seconds.
    type: float
    default: 60.0
  fail:
    description: Whether engines that were not restarted are a failure; otherwise they are only returned.
    type: bool
    default: true
  state_directory:
    description: Directory on the controller host that holds the state of the cluster. Needed with O(lease).
    type: path
extends_documentation_fragment:
  - ipyparallel.cluster.hub
  - ipyparallel.cluster.drain
  - ipyparallel.cluster.lease
  - ipyparallel.cluster.selection
  - ipyparallel.cluster.turns
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - Says which engines would be restarted.
  diff_mode:
    support: none
  idempotent:
    support: none
"""

EXAMPLES = r"""
- name: Restart the engines of a host, two at a time
  ipyparallel.cluster.restart_engines:
    hosts: [node2]
    serial: 2
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
"""

RETURN = r"""
engines:
  description:
    - The engines that were restarted, in their order, with the id C(before) and C(after), and how long each was away in
      C(seconds). C(after) is null in check mode.
  type: list
  elements: dict
  returned: success
  sample: [{host: node2, pool: default, core: 0, before: 3, after: 9, seconds: 1.6}]
seconds:
  description: How long it took.
  type: float
  returned: success, outside check mode
  sample: 13.1
least:
  description: How many engines were registered at least while none was away, after each step.
  type: int
  returned: success, outside check mode
  sample: 8
problem:
  description: Why not all were restarted; empty when they were.
  type: str
  returned: always, outside check mode
  sample: ""
"""

import dataclasses
import typing as t
from collections.abc import Callable

from ansible_collections.ipyparallel.cluster.plugins.module_utils import draining, lease, turns
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubError,
    act_as,
    connect,
    registered,
    respawn,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import (
    SELECTION_ARGUMENT_SPEC,
    SelectionError,
    in_words,
    select,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import StateError

if t.TYPE_CHECKING:
    import ipyparallel


def choose(client: ipyparallel.Client, params: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the engines that are meant, in the order of hosts, pools and cores.

    Raises:
        SelectionError: none is, or one that no service manager would start again.
    """
    found = select(registered(client), **{name: params[name] for name in SELECTION_ARGUMENT_SPEC})
    if foreign := [one["id"] for one in found if one["pid"] is None]:
        raise SelectionError(
            f"engine {in_words(foreign)} was not started by this collection, and nobody would start it again: name "
            "others"
        )
    return sorted(found, key=Engine.of)


def let_leave(
    client: ipyparallel.Client,
    engines: list[dict[str, t.Any]],
    params: dict[str, t.Any],
    between: Callable[[draining.Left], None],
    started: float,
) -> str:
    """Let engines finish what they have; return why they are not to be ended.

    Raises:
        Pause: the turn is over; they still get nothing, and the next goes on.
    """
    try:
        return draining.drain_or_release(client, engines, params["limit"], params["force"], between, started=started)
    except (draining.DrainError, lease.LeaseError, StateError, OSError) as error:
        return str(error)


def restart_all(
    client: ipyparallel.Client,
    engines: list[dict[str, t.Any]],
    params: dict[str, t.Any],
    keeper: lease.Keeper,
    turn: turns.Turn,
) -> tuple[list[draining.Restarted], int, str]:
    """Restart *engines*.

    Returns:
        Those that have come back, how many were registered at least, and what went wrong.

    Raises:
        Pause: the turn is over; what is done is in the turn's state, and the next goes on.
    """
    serial = params["serial"] or len(engines)
    state = turn.state
    if not turn.resumed:
        state.update(engines=engines, done=[], least=len(registered(client)), batch={})
    done = [draining.Restarted(*one) for one in state["done"]]
    least: int = state["least"]

    def so_far(back: int = 0) -> str:
        return f"{len(done) + back} of {len(engines)} engines were restarted"

    def between(away: list[dict[str, t.Any]]) -> None:
        if turn.is_over():
            raise turns.Pause(f"{so_far(len(batch) - len(away))}; to come back: {draining.places(away)}")

    for first in range(len(done), len(engines), serial):
        batch = engines[first : first + serial]
        # engines that have been told to end do not drain again
        if not state["batch"]:
            looks = draining.paused_by(turn, keeper.keep, so_far(), len(batch))
            if problem := let_leave(client, batch, params, looks, turn.since("asked")):
                return done, least, f"{so_far()}; {problem}"
        back = draining.restart(client, batch, params["wait"], between, state["batch"])
        done += back
        least = min(least, len(registered(client)))
        state.update(done=done, least=least, batch={})
        state.pop("asked", None)
        if len(back) < len(batch):
            there = {one.engine["uuid"] for one in back}
            away = ", ".join(draining.place(one) for one in batch if one["uuid"] not in there)
            problem = f"{away} did not come back within {params['wait']:g} s, so no other was ended"
            return done, least, f"{problem}: look at its log (playbook ipyparallel.cluster.logs)"
        if turn.is_over() and len(done) < len(engines):
            raise turns.Pause(so_far())
    return done, least, ""


class Module(QuietModule):
    """A module that does not write all of its engines to the log of the host."""

    logged = ("ids", "hosts", "pools", "serial", "limit", "force", "wait")


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **HUB_ARGUMENT_SPEC,
            **draining.DRAIN_ARGUMENT_SPEC,
            **lease.LEASE_ARGUMENT_SPEC,
            **SELECTION_ARGUMENT_SPEC,
            **turns.TURN_ARGUMENT_SPEC,
            "serial": {"type": "int", "default": 1},
            "wait": {"type": "float", "default": 60.0},
            "fail": {"type": "bool", "default": True},
            "state_directory": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["serial"] < 0:
        module.fail_json(msg=f"{params['serial']} is not a number of engines: set serial to 0 (all at once) or more")
    if params["lease"] and not params["state_directory"]:
        module.fail_json(msg="a lease needs state_directory, where it is remembered")
    if not respawn(module, params["python"]):
        module.fail_json(msg="there is no cluster with engines: deploy it first (playbook ipyparallel.cluster.deploy)")
    turn = turns.Turn(params)
    client = None
    try:
        act_as(params["account"])
        client = connect(params["connector"], params["timeout"])
        engines = turn.state["engines"] if turn.resumed else choose(client, params)
        if module.check_mode:
            module.exit_json(changed=True, engines=[in_result(one, None, None) for one in engines])
        keeper = lease.Keeper(params["state_directory"], params["lease"], "restart")
        keeper.take()
        try:
            done, least, problem = restart_all(client, engines, params, keeper, turn)
        except turns.Pause:
            raise
        except BaseException:
            keeper.end()
            raise
        keeper.end()
    except turns.Pause as pause:
        module.exit_json(changed=False, **turn.answer(pause))
    except (draining.DrainError, HubError, lease.LeaseError, SelectionError, StateError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot write {params['state_directory']}: {error}")
    finally:
        if client:
            client.close(linger=1)
    result = {
        "changed": bool(done),
        "engines": [in_result(*one) for one in done],
        "seconds": turn.seconds(),
        "least": least,
        "problem": problem,
    }
    if problem and params["fail"]:
        module.fail_json(msg=problem, **result)
    module.exit_json(**result)


def in_result(engine: dict[str, t.Any], after: int | None, seconds: float | None) -> dict[str, t.Any]:
    """Return an engine as the module returns it."""
    return {**dataclasses.asdict(Engine.of(engine)), "before": engine["id"], "after": after, "seconds": seconds}


if __name__ == "__main__":
    main()
