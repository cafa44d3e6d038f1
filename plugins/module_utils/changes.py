# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What operators change after the definition: other counts, launched pools, hosts and engines that leave.

A change is worked out here, from what the cluster remembers and which engines are registered, and remembered; playbook
``deploy`` then lays it down on the hosts that it concerns. What a later deployment makes of it is here, too:
`effective`.
"""

from __future__ import annotations

import copy
import dataclasses
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import (
    POOL_NAME,
    Count,
    Engine,
    as_count,
    expected_engines,
    numbers_of,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import in_words

State: t.TypeAlias = "dict[str, t.Any]"
EngineDict: t.TypeAlias = "dict[str, t.Any]"
LAUNCHED = "workers"
"""How a launched pool is called that is given no name."""
MOST_ENGINES = 10_000


class ChangeError(ValueError):
    """The change is not possible; the message names what is unknown, and what there is. Nothing was changed."""


@dataclasses.dataclass
class Change:
    """What a change comes to."""

    state: State
    """What the cluster remembers after it."""
    leaving: set[Engine] = dataclasses.field(default_factory=set)
    added: set[Engine] = dataclasses.field(default_factory=set)
    gone: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Pools of which nothing is left, by host."""
    hosts_gone: list[str] = dataclasses.field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        """The hosts that are concerned, but for those that leave."""
        found = {engine.host for engine in self.leaving | self.added} | set(self.gone)
        return sorted(found - set(self.hosts_gone))


def effective(
    host: str, pools: Sequence[Mapping[str, t.Any]], remembered: Mapping[str, t.Any]
) -> list[dict[str, t.Any]]:
    """Return the pools of an engine host: those that the inventory defines, and the launched ones.

    A count that was scaled holds until the inventory's own count changes from what it was then. A pool that the
    inventory defines is not a launched one, whatever it was before.

    Args:
        host: its name.
        pools: the host's, as the inventory defines them, with ``name`` and ``count``.
        remembered: what the cluster remembers.

    Returns:
        The pools, with ``instances``, the numbers of their engines, and ``defined``, the inventory's count or None.
    """
    before = remembered.get("defined", {}).get(host, {})
    scaled = remembered.get("scaled", {}).get(host, {})
    found = []
    for pool in pools:
        kept = scaled.get(pool["name"]) if before.get(pool["name"], pool["count"]) == pool["count"] else None
        instances = numbers_of(pool["count"] if kept is None else kept)
        found.append({**pool, "instances": instances, "defined": pool["count"]})
    names = {pool["name"] for pool in pools}
    for name, pool in sorted(remembered.get("pools", {}).items()):
        if name not in names and host in pool["hosts"]:
            size = {part: pool.get(part) for part in ("environment", "cpus", "memory", "code")}
            found.append({"name": name, **size, "instances": numbers_of(pool["hosts"][host]), "defined": None})
    return found


def outdated(state: State, defined: Mapping[str, Mapping[str, int]]) -> State:
    """Return *state* without what the inventory has overruled: scaled counts, and launched pools that it defines.

    Args:
        state: what is remembered.
        defined: what the inventory says now, as ``{host: {pool: count}}``.
    """

    def holds(host: str, pool: str, count: Count) -> bool:
        if host not in defined:
            return True
        now = defined[host].get(pool)
        unchanged = now is not None and state["defined"].get(host, {}).get(pool, now) == now
        return unchanged and as_count(numbers_of(count)) != now

    scaled = {
        host: {pool: count for pool, count in pools.items() if holds(host, pool, count)}
        for host, pools in state["scaled"].items()
    }
    ours = {pool for pools in defined.values() for pool in pools}
    return {
        **state,
        "scaled": {host: pools for host, pools in scaled.items() if pools},
        "pools": {name: pool for name, pool in state["pools"].items() if name not in ours},
    }


def places(engines: Iterable[EngineDict]) -> set[Engine]:
    """Return where registered engines are, those of this collection."""
    return {Engine.of(one) for one in engines if one["pid"] is not None}


def check_known(what: str, wanted: Iterable[t.Any], known: Iterable[t.Any]) -> None:
    """Check that all that is *wanted* is *known*.

    Raises:
        ChangeError: something is not; names it and what there is.
    """
    there = set(known)
    if unknown := set(wanted) - there:
        raise ChangeError(f"the cluster has no {what} {in_words(unknown)}; it has {in_words(there)}")


def all_engines(state: State, registered: Sequence[EngineDict]) -> set[Engine]:
    """Return the engines that are expected, launched or registered."""
    launched = {
        Engine(host, name, number)
        for name, pool in state["pools"].items()
        for host, count in pool["hosts"].items()
        for number in numbers_of(count)
    }
    return expected_engines(state["engines"]) | launched | places(registered)


def forgotten(state: State, registered: Sequence[EngineDict]) -> set[tuple[str, str]]:
    """Return the hosts and pools with registered engines that the cluster does not remember on that host.

    A run that stopped them was interrupted.
    """
    found = {(one.host, one.pool) for one in places(registered)}
    on_hosts = (state["engines"], state["defined"], state["scaled"])
    known = {(host, pool) for part in on_hosts for host, pools in part.items() for pool in pools}
    return found - known - {(host, name) for name, pool in state["pools"].items() for host in pool["hosts"]}


def check_name(name: str) -> None:
    """Check the name of a pool.

    Raises:
        ChangeError: it is none.
    """
    if not POOL_NAME.fullmatch(name):
        raise ChangeError(
            f"{name!r} is not a name for a pool: give lower-case letters, digits and underscores, a letter first, 32 "
            "at most"
        )


def reachable(state: State, inventory: Sequence[str] | None) -> set[str]:
    """Return the engine hosts of the cluster that are in the inventory; None where that does not matter."""
    return {host for host in state["engines"] if inventory is None or host in inventory}


def scale(
    state: State,
    registered: Sequence[EngineDict],
    pool: str,
    count: int,
    *,
    hosts: Sequence[str] = (),
    inventory: Sequence[str] | None = None,
) -> Change:
    """Give a pool another number of engines on each host.

    Args:
        state: what is remembered.
        registered: the registered engines. Those that a run left behind which was interrupted leave, too.
        pool: name of the pool.
        count: how many, 0 included.
        hosts: where; none for those that it is on, by the inventory or by a launch.
        inventory: the engine hosts of the inventory, which alone can be changed.

    Raises:
        ChangeError: there is no such pool or host, or the count is none.
    """
    known = {name for pools in state["engines"].values() for name in pools}
    check_known("pool", [pool], known | set(state["pools"]))
    there = reachable(state, inventory)
    check_known("engine host", hosts, there)
    if not 0 <= count <= MOST_ENGINES:
        raise ChangeError(f"{count} is not a number of engines for each host: give 0 to {MOST_ENGINES}")
    change = Change(copy.deepcopy(state))
    running = expected_engines(state["engines"]) | places(registered)
    on_hosts = (state["engines"], state["defined"], state["scaled"])
    with_pool = {host for part in on_hosts for host, pools in part.items() if pools.get(pool)}
    launched = set(state["pools"].get(pool, {}).get("hosts", {}))
    for host in hosts or sorted(there & (launched or with_pool) or there):
        before = {one.core for one in running if (one.host, one.pool) == (host, pool)}
        after = set(sorted(before)[:count])
        free = (number for number in range(len(before) + count + 1) if number not in before)
        while len(after) < count:
            after.add(next(free))
        if before == after:
            continue
        set_numbers(change, host, pool, after)
        change.leaving |= {Engine(host, pool, number) for number in before - after}
        change.added |= {Engine(host, pool, number) for number in after - before}
    return change


def set_numbers(change: Change, host: str, pool: str, numbers: set[int]) -> None:
    """Remember the numbers of the engines of a pool on a host; of a launched pool nothing is kept of what is empty."""
    state, count = change.state, as_count(numbers)
    if pool in state["pools"]:
        hosts = state["pools"][pool]["hosts"]
        hosts[host] = count
        if not numbers:
            del hosts[host]
            change.gone.setdefault(host, []).append(pool)
            state["engines"].get(host, {}).pop(pool, None)
        if not hosts:
            del state["pools"][pool]
    else:
        # it holds whatever the inventory says now, which is remembered when this is laid down
        state["scaled"].setdefault(host, {})[pool] = sorted(numbers)
        state["defined"].get(host, {}).pop(pool, None)
    # what is added is expected when it is laid down
    if pool in state["engines"].get(host, {}):
        kept = numbers & set(numbers_of(state["engines"][host][pool]))
        state["engines"][host][pool] = as_count(kept)


def remove(
    state: State,
    registered: Sequence[EngineDict],
    controller: str,
    *,
    ids: Sequence[int] = (),
    hosts: Sequence[str] = (),
    pools: Sequence[str] = (),
    inventory: Sequence[str] | None = None,
) -> Change:
    """Let engines leave: those that are in every list which is given. Hosts alone leave as a whole.

    Args:
        state: what is remembered.
        registered: the registered engines, as ``hub.registered`` returns them.
        controller: the controller host.
        ids: numbers of engines.
        hosts: names of hosts.
        pools: names of pools.
        inventory: the engine hosts of the inventory; None where that does not matter. One that the cluster has not is
            one that has left already. One that the inventory has not cannot leave as a whole, since nobody could clean
            it.

    Raises:
        ChangeError: nothing is given, or something that is not there, or the controller's host.
    """
    if not (ids or hosts or pools):
        raise ChangeError("nothing is to be removed: name hosts, pools or ids of engines")
    engines = all_engines(state, registered)
    check_known("engine", ids, [one["id"] for one in registered])
    there = {one.host for one in engines} | set(state["engines"])
    check_known("engine host", hosts, there | set(inventory or ()))
    check_known("pool", pools, {one.pool for one in engines} | set(state["pools"]))
    whole = [] if ids or pools else list(hosts)
    if controller in whole:
        raise ChangeError(
            f"{controller} is the controller's host, without which there is no cluster: remove its engines by pools or "
            "ids, scale them to 0, or end the cluster with playbook ipyparallel.cluster.destroy"
        )
    if inventory is not None and (lost := set(whole) - set(inventory)):
        raise ChangeError(
            f"{in_words(lost)} is not in the inventory, so what is there cannot be removed: put it back for this run; "
            "or, if the machine is no more, let the cluster forget it with -e ipyparallel_force=true"
        )
    chosen = places(one for one in registered if one["id"] in ids) if ids else engines
    foreign = [one["id"] for one in registered if one["id"] in ids and one["pid"] is None]
    if foreign:
        raise ChangeError(
            f"engine {in_words(foreign)} was not started by this collection, so it cannot be kept from coming back: "
            "end it where it was started"
        )
    leaving = {one for one in chosen if (not hosts or one.host in hosts) and (not pools or one.pool in pools)}
    if ids and not leaving:
        raise ChangeError(
            f"no engine is in all of ids ({in_words(ids)}), hosts ({in_words(hosts)}) and pools ({in_words(pools)}): "
            "leave one of them out"
        )
    # of what nobody remembers, nothing can be kept
    orphans = forgotten(state, registered) & {(one.host, one.pool) for one in leaving}
    leaving |= {one for one in engines if (one.host, one.pool) in orphans}
    change = Change(copy.deepcopy(state), leaving=leaving, hosts_gone=whole)
    for host, pool in sorted({(one.host, one.pool) for one in leaving}):
        if (host, pool) in orphans:
            change.gone.setdefault(host, []).append(pool)
            continue
        numbers = {one.core for one in engines - leaving if (one.host, one.pool) == (host, pool)}
        set_numbers(change, host, pool, numbers)
    for host in whole:
        for part in ("engines", "defined", "scaled"):
            change.state[part].pop(host, None)
        change.gone.pop(host, None)
    return change


def hold(state: State, registered: Sequence[EngineDict], hosts: Sequence[str]) -> Change:
    """Let the registered engines of hosts leave for a moment, since they are to be restarted; nothing else changes.

    A host that has none, because it is new, has nobody who could leave.
    """
    leaving = {one for one in places(registered) if one.host in hosts}
    return Change(copy.deepcopy(state), leaving=leaving)


def launch(
    state: State,
    registered: Sequence[EngineDict],
    count: int,
    pool: Mapping[str, t.Any],
    *,
    name: str = "",
    hosts: Sequence[str] = (),
    inventory: Sequence[str] | None = None,
) -> Change:
    """Add a pool of so many engines, spread over hosts: each goes to the one that has the fewest.

    Args:
        state: what is remembered.
        registered: the registered engines.
        count: how many engines in all.
        pool: what they are: ``environment``, ``cpus``, ``memory``, ``code``, ``origin``.
        name: of the pool; without it, ``workers``, or ``workers_2`` and so on.
        hosts: where; none for all engine hosts, without those whose engines are all missing.
        inventory: the engine hosts of the inventory, which alone can be changed.

    Raises:
        ChangeError: the name is none or taken, a host is unknown, or the count is none.
    """
    taken = {known for pools in state["engines"].values() for known in pools} | set(state["pools"])
    if not name:
        name = next(found for found in names() if found not in taken)
    check_name(name)
    if name in taken:
        raise ChangeError(
            f"there is a pool {name!r} already: give another name, or change its count with playbook "
            "ipyparallel.cluster.scale"
        )
    there = reachable(state, inventory)
    check_known("engine host", hosts, there)
    if not 1 <= count <= MOST_ENGINES:
        raise ChangeError(f"{count} is not a number of workers to launch: give 1 to {MOST_ENGINES}")
    alive = {one.host for one in places(registered)}
    away = {host for host, pools in state["engines"].items() if any(map(numbers_of, pools.values()))} - alive
    loads = dict.fromkeys(hosts or sorted(there - away) or sorted(there), 0)
    if not loads:
        raise ChangeError("the cluster has no engine host: deploy it first (playbook ipyparallel.cluster.deploy)")
    for one in expected_engines(state["engines"]):
        if one.host in loads:
            loads[one.host] += 1
    chosen: dict[str, int] = {}
    for _number in range(count):
        host = min(loads, key=lambda one: (loads[one], one))
        loads[host] += 1
        chosen[host] = chosen.get(host, 0) + 1
    change = Change(copy.deepcopy(state))
    change.state["pools"][name] = {**pool, "hosts": dict(sorted(chosen.items()))}
    change.added = {Engine(host, name, number) for host, found in chosen.items() for number in range(found)}
    return change


def names() -> t.Iterator[str]:
    """Return names for launched pools, one after the other."""
    yield LAUNCHED
    number = 2
    while True:
        yield f"{LAUNCHED}_{number}"
        number += 1


def stop(state: State, registered: Sequence[EngineDict], controller: str, ids: Sequence[int] = ()) -> Change:
    """Let launched workers leave.

    Args:
        state: what is remembered.
        registered: the registered engines.
        controller: the controller host.
        ids: numbers of engines; none for all that were launched, and all that an interrupted run has left behind.

    Raises:
        ChangeError: an id is not one of a launched worker.
    """
    pools = set(state["pools"]) | {pool for _host, pool in forgotten(state, registered)}
    check_known("launched worker", ids, [one["id"] for one in registered if one["pool"] in pools])
    if not ids and not pools:
        return Change(copy.deepcopy(state))
    return remove(state, registered, controller, ids=ids, pools=sorted(pools))


def workers(state: State, engines: Sequence[EngineDict]) -> list[dict[str, t.Any]]:
    """Return the launched workers, as Sense's ``list_workers`` did.

    Args:
        state: what is remembered.
        engines: the registered engines with their state, as ``hub.described`` returns them.

    Returns:
        For each worker ``id``, its number (None where it is not registered), ``engine``, its ident, ``status``
        (``idle``, ``busy`` or ``missing``), ``pool``, ``host``, ``core``, ``pid``, ``cpus``, ``memory`` (bytes)
        and ``origin``, who launched it.
    """
    there = {Engine.of(one): one for one in engines}
    found = []
    for name, pool in sorted(state["pools"].items()):
        for host, count in sorted(pool["hosts"].items()):
            for core in numbers_of(count):
                one = there.get(Engine(host, name, core), {})
                found.append(
                    {
                        "id": one.get("id"),
                        "engine": one.get("uuid"),
                        "status": one.get("state", "missing"),
                        "pool": name,
                        "host": host,
                        "core": core,
                        "pid": one.get("pid"),
                        "cpus": pool.get("cpus"),
                        "memory": pool.get("memory"),
                        "origin": pool.get("origin"),
                    }
                )
    return found
