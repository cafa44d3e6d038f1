#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change which engines a running cluster has, after its definition: scale, remove, launch, stop."""

from __future__ import annotations

DOCUMENTATION = r"""
module: change_engines
short_description: Change which engines a running ipyparallel cluster has
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Works out a change of the engines of a cluster, lets those that are to leave finish what they have, and remembers
    the change in C(<state_directory>/cluster.json). Playbook C(deploy) then lays it down on RV(hosts).
  - Engines that are to leave get no new load-balanced work, but what no other engine may do; work that they have, and
    direct calls, they finish. When that takes longer than O(limit), they get work again, nothing is changed, and the
    module fails naming what they do.
  - Runs on the controller host, with nothing but the client half.
options:
  change:
    description:
      - What to change. V(scale) gives pool O(pool) the count O(count) on each of O(hosts).
      - V(remove) lets engines leave that are in all of O(ids), O(hosts) and O(pools) which are given. With O(hosts)
        alone the hosts leave as a whole.
      - V(launch) adds a pool of O(count) engines in all, spread over O(hosts).
      - V(stop) lets launched engines leave, those of O(ids), or all.
      - V(hold) lets the engines of O(hosts) finish what they have, for what restarts them next, and changes nothing.
    type: str
    choices: [scale, remove, launch, stop, hold]
    required: true
  state_directory:
    description: Directory on the controller host that holds the state of the cluster.
    type: path
    required: true
  controller:
    description: The controller host, as in the inventory.
    type: str
    required: true
  inventory:
    description:
      - The engine hosts of the inventory. To remove one that the cluster has not changes nothing; one that the
        inventory has not can only be forgotten, with O(force), and gets no engines.
    type: list
    elements: str
  pool:
    description:
      - Name of the pool to scale or to launch. A launched pool that is given no name is called C(workers), or
        C(workers_2) and so on.
    type: str
    default: ""
  count:
    description: How many engines, for each host with V(scale), and in all with V(launch).
    type: int
  size:
    description:
      - What one launched engine may use, V(small) (1 CPU, 1 GiB), V(medium) (2 CPUs, 4 GiB), V(large) (4 CPUs, 16
        GiB), or a dictionary with C(cpus) and C(memory). Without it, all there is.
    type: raw
  environment:
    description: Environment variables of launched engines. Service managers show them, so they hold no secrets.
    type: dict
    default: {}
  code:
    description:
      - Python code that launched engines run first, in the namespace that clients see. An engine whose code fails is
        not ready, and its log has the traceback.
    type: str
    default: ""
  name:
    description: What O(code) is called in a message, such as the name of its file.
    type: str
    default: code
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
      - Says what would change, and asks no engine to leave.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - A launch adds a pool each time.
"""

EXAMPLES = r"""
- name: Let the engines of node3 leave
  ipyparallel.cluster.change_engines:
    change: remove
    hosts: [node3]
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    state_directory: /var/lib/ipyparallel/ipyparallel
    controller: node1

- name: Launch three small workers
  ipyparallel.cluster.change_engines:
    change: launch
    count: 3
    size: small
    code: VALUE = 7
    connector: /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json
    python: /opt/ipyparallel/ipyparallel/current/bin/python
    state_directory: /var/lib/ipyparallel/ipyparallel
    controller: node1
"""

RETURN = r"""
hosts:
  description: Hosts on which the change is to be laid down.
  type: list
  elements: str
  returned: success
  sample: [node2]
hosts_gone:
  description: Hosts that leave as a whole.
  type: list
  elements: str
  returned: success
  sample: [node3]
gone:
  description: Pools of which nothing is left, by host.
  type: dict
  returned: success
  sample: {node2: [workers]}
leaving:
  description: The engines that leave, each with C(id) (null where it is not registered), C(host), C(pool) and C(core).
  type: list
  elements: dict
  returned: success
  sample: [{id: 4, host: node3, pool: default, core: 0}]
added:
  description: The engines that are to come, each with C(host), C(pool) and C(core).
  type: list
  elements: dict
  returned: success
  sample: [{host: node2, pool: workers, core: 0}]
workers:
  description: The launched workers before the change, as M(ipyparallel.cluster.cluster_info) returns them.
  type: list
  elements: dict
  returned: success
  sample: []
remembered:
  description: What operators have changed after the definition, with this change.
  type: dict
  returned: success
  sample: {pools: {}, scaled: {node2: {default: [0]}}, defined: {node2: {default: 2}}, packages: []}
seconds:
  description: How long it took until nothing was left to do.
  type: float
  returned: success, outside check mode
  sample: 0.4
"""

import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils import changes, draining, lease, turns
from ansible_collections.ipyparallel.cluster.plugins.module_utils.execution import ExecutionError, check_startup
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubError,
    act_as,
    connect,
    described,
    respawn,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import (
    Engine,
    PoolError,
    read_variables,
    resolve_size,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import SELECTION_ARGUMENT_SPEC
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    changed_later,
    read_state,
    shown,
    write_state,
)

if t.TYPE_CHECKING:
    import ipyparallel

HOLD_SECONDS = 180.0
HOLD_SECONDS_OF_HOST = 3.0
"""How long engines that have drained get nothing, until they are ended by what lays the change down; and as much
longer for each of their hosts."""


def plan(params: dict[str, t.Any], state: dict[str, t.Any], engines: list[dict[str, t.Any]]) -> changes.Change:
    """Work out the change.

    Raises:
        ChangeError, ExecutionError, PoolError: it is not possible.
    """
    inventory = params["inventory"]
    if params["change"] == "scale":
        where = {"hosts": params["hosts"], "inventory": inventory}
        return changes.scale(state, engines, params["pool"], params["count"], **where)
    if params["change"] == "hold":
        return changes.hold(state, engines, params["hosts"])
    if params["change"] == "stop":
        return changes.stop(state, engines, params["controller"], params["ids"])
    if params["change"] == "remove":
        chosen = {name: params[name] for name in SELECTION_ARGUMENT_SPEC}
        known = None if params["force"] else inventory
        return changes.remove(state, engines, params["controller"], **chosen, inventory=known)
    cpus, memory = resolve_size(params["size"], "the size")
    check_startup(params["code"], params["name"])
    pool = {
        "environment": read_variables(params["environment"], "the environment"),
        "cpus": cpus,
        "memory": memory,
        "code": params["code"],
        "origin": f"launched by {params['lease'].get('holder', 'module change_engines')}",
    }
    where = {"name": params["pool"], "hosts": params["hosts"], "inventory": inventory}
    return changes.launch(state, engines, params["count"], pool, **where)


def let_leave(
    client: ipyparallel.Client,
    engines: list[dict[str, t.Any]],
    params: dict[str, t.Any],
    keeper: lease.Keeper,
    turn: turns.Turn,
) -> float:
    """Let engines finish what they have; return how long that took, in seconds.

    Raises:
        ChangeError: they did not in time.
        DrainError: they could not be asked.
        LeaseError: another operator has taken over, or the run was interrupted.
        Pause: the turn is over; they still get nothing, and the next goes on.
    """
    between = draining.paused_by(turn, keeper.keep, "waiting for engines that are to leave", len(engines))
    limit, force = params["limit"], params["force"]
    if problem := draining.drain_or_release(client, engines, limit, force, between, started=turn.started):
        raise changes.ChangeError(problem)
    hosts = {one["host"] for one in engines}
    draining.hold(client, engines, HOLD_SECONDS + HOLD_SECONDS_OF_HOST * len(hosts))
    return turn.seconds()


def carry_out(
    client: ipyparallel.Client,
    engines: list[dict[str, t.Any]],
    state: dict[str, t.Any],
    change: changes.Change,
    params: dict[str, t.Any],
    *,
    turn: turns.Turn,
) -> float:
    """Let *engines* leave, and remember the change; return how long the former took, in seconds.

    Raises:
        ChangeError, DrainError, LeaseError, OSError, StateError: nothing was changed, and the engines get work.
        Pause: as `let_leave` does; the lease is kept.
    """
    directory = params["state_directory"]
    keeper = lease.Keeper(directory, params["lease"], params["change"])
    try:
        keeper.take()
        seconds = let_leave(client, engines, params, keeper, turn) if engines else 0.0
        now = read_state(directory)
        if {**now, "lease": {}} != {**state, "lease": {}}:
            draining.release(client, engines)
            raise changes.ChangeError("the cluster was changed by another run meanwhile: run again; nothing was ended")
        write_state(directory, {**change.state, "lease": now["lease"]})
    except turns.Pause:
        raise
    except BaseException:
        keeper.end()
        raise
    return seconds


class Module(QuietModule):
    """A module that writes no code to the log of the host."""

    logged = ("change", "ids", "hosts", "pools", "pool", "count", "limit", "force")


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **HUB_ARGUMENT_SPEC,
            **draining.DRAIN_ARGUMENT_SPEC,
            **lease.LEASE_ARGUMENT_SPEC,
            **SELECTION_ARGUMENT_SPEC,
            **turns.TURN_ARGUMENT_SPEC,
            "change": {"type": "str", "choices": ["scale", "remove", "launch", "stop", "hold"], "required": True},
            "state_directory": {"type": "path", "required": True},
            "controller": {"type": "str", "required": True},
            "inventory": {"type": "list", "elements": "str"},
            "pool": {"type": "str", "default": ""},
            "count": {"type": "int"},
            "size": {"type": "raw"},
            "environment": {"type": "dict", "default": {}},
            "code": {"type": "str", "default": ""},
            "name": {"type": "str", "default": "code"},
        },
        required_if=[("change", "scale", ["count"]), ("change", "launch", ["count"])],
        supports_check_mode=True,
    )
    params = module.params
    if not respawn(module, params["python"]):
        module.fail_json(msg="there is no cluster to change: deploy it first (playbook ipyparallel.cluster.deploy)")
    turn = turns.Turn(params)
    client = None
    try:
        act_as(params["account"])
        state = read_state(params["state_directory"])
        client = connect(params["connector"], params["timeout"])
        engines, _queue = described(client)
        change = plan(params, state, engines)
        by_place = {Engine.of(one): one for one in engines}
        found = [(one, by_place.get(one)) for one in sorted(change.leaving)]
        result: dict[str, t.Any] = {
            "changed": change.state != state or (params["change"] != "hold" and bool(change.leaving or change.added)),
            "hosts": change.hosts,
            "hosts_gone": change.hosts_gone,
            "gone": change.gone,
            "leaving": [{"id": there and there["id"], **one.__dict__} for one, there in found],
            "added": [one.__dict__ for one in sorted(change.added)],
            "workers": changes.workers(state, engines),
            "remembered": changed_later(change.state),
        }
        if module._diff:
            result["diff"] = {"before": shown(state), "after": shown(change.state)}
        if module.check_mode:
            module.exit_json(**result)
        leaving = [there for _one, there in found if there]
        result["seconds"] = carry_out(client, leaving, state, change, params, turn=turn)
    except turns.Pause as pause:
        module.exit_json(changed=False, **turn.answer(pause))
    except (
        changes.ChangeError,
        draining.DrainError,
        ExecutionError,
        HubError,
        lease.LeaseError,
        PoolError,
        StateError,
    ) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot remember the change in {params['state_directory']}: {error}; nothing was ended")
    finally:
        if client:
            client.close(linger=1)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
