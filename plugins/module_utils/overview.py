# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of a cluster: what its hub says, and what each of its hosts says, put together."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

NOTHING_KNOWN: dict[str, t.Any] = {
    "deployed": None,
    "running": False,
    "problem": "",
    "engines": [],
    "expected": None,
    "expected_by_host": {},
    "missing": [],
    "notebooks": {},
    "workers": [],
    "queue": {},
    "health": {},
}
"""Of a cluster whose controller host does not answer; what module ``cluster_info`` begins with."""
FACTS = (
    "cores",
    "load_average",
    "memory_total_bytes",
    "memory_available_bytes",
    "memory_used_bytes",
    "uptime_seconds",
    "certificate_days",
)


def why_not(result: Mapping[str, t.Any]) -> str:
    """Return in words why there is no answer of a host, an empty text where there is one.

    Args:
        result: what a module returned, or Ansible registered.
    """
    if not (result.get("unreachable") or result.get("failed")):
        return ""
    said = str(result.get("msg") or "no reason is known").strip()
    for beginning in ("Task failed: ", "Failed to connect to the host via ssh: "):
        said = said.removeprefix(beginning)
    # ssh says first what it tried
    said = " ".join(said.splitlines()[-1:])
    return f"unreachable: {said}" if result.get("unreachable") else said


def counts_of(cluster: Mapping[str, t.Any], host: str) -> dict[str, dict[str, t.Any]]:
    """Return the engines of *host* by pool, as ``expected``, ``registered`` and ``busy``."""
    engines = [engine for engine in cluster["engines"] if engine["host"] == host]
    expected = cluster["expected_by_host"].get(host, {})
    known = bool(cluster["running"])
    found = {}
    for pool in sorted({*expected, *(engine["pool"] for engine in engines)}):
        of_pool = [engine for engine in engines if engine["pool"] == pool]
        found[pool] = {
            "expected": expected.get(pool, 0),
            "registered": len(of_pool) if known else None,
            "busy": sum(engine["state"] == "busy" for engine in of_pool) if known else None,
        }
    return found


def summed(counts: t.Iterable[Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """Return the sum of counts of engines; what is not known of one is not known of all."""
    listed = list(counts)

    def total(name: str) -> int | None:
        values = [count[name] for count in listed]
        return None if None in values else sum(values)

    return {name: total(name) for name in ("expected", "registered", "busy")}


def overview(
    name: str,
    controller: str,
    result: Mapping[str, t.Any],
    hosts: Mapping[str, Mapping[str, t.Any]],
) -> dict[str, t.Any]:
    """Return the status of a cluster.

    Args:
        name: of the cluster.
        controller: the controller host.
        result: what Ansible registered of module ``cluster_info``.
        hosts: by name, each with its ``roles`` and with ``found``, what Ansible registered of module ``host_info``.

    Returns:
        What ``cluster_info`` returned, and besides: ``hosts`` with the facts of ``host_info``, ``roles``, ``reachable``
        (null where it was not asked), ``problem`` and ``engines`` by pool; ``pools``; and with each engine
        ``uptime_seconds`` and ``memory_bytes``. What is not known is null.
    """
    cluster = {**NOTHING_KNOWN, "name": name, **(result.get("cluster") or {})}
    if "cluster" not in result:
        cluster["problem"] = f"controller host {controller}: {why_not(result) or 'it was not asked'}"
    found: dict[str, dict[str, t.Any]] = {}
    others = {engine["host"] for engine in cluster["engines"] if engine["host"]} | set(cluster["expected_by_host"])
    for host in [*hosts, *sorted(others - set(hosts))]:
        told = hosts.get(host, {})
        answer = told.get("found") or {}
        facts = answer.get("host") or {}
        found[host] = {
            "roles": list(told.get("roles") or []),
            "reachable": None if not answer or answer.get("skipped") else bool(facts),
            "problem": str(answer.get("problem") or why_not(answer)),
            "engines": None if cluster["deployed"] is None else counts_of(cluster, host),
            **{fact: facts.get(fact) for fact in FACTS},
            "processes": list(facts.get("processes") or []),
        }
    cluster["hosts"] = found
    counts = [host["engines"] or {} for host in found.values()]
    pools = sorted({pool for of_host in counts for pool in of_host})
    cluster["pools"] = {pool: summed(of_host[pool] for of_host in counts if pool in of_host) for pool in pools}
    cluster["engines"] = [{**engine, **process_of(engine, found)} for engine in cluster["engines"]]
    if "controller" in cluster:
        up = [one["uptime_seconds"] for one in processes_of(found, controller) if one["name"] == "controller"]
        cluster["controller"] = {**cluster["controller"], "uptime_seconds": min(up, default=None)}
    return cluster


def processes_of(hosts: Mapping[str, Mapping[str, t.Any]], host: str | None) -> list[dict[str, t.Any]]:
    """Return the processes of *host*, as far as they are known."""
    return list(hosts[host]["processes"]) if host is not None and host in hosts else []


def process_of(engine: Mapping[str, t.Any], hosts: Mapping[str, Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """Return for how long *engine* runs, and its memory."""
    name = f"engines-{engine['pool']}-{engine['core']}"
    for process in processes_of(hosts, engine["host"]):
        if (process["name"], process["pid"]) == (name, engine["pid"]):
            return {"uptime_seconds": process["uptime_seconds"], "memory_bytes": process["memory_bytes"]}
    return {"uptime_seconds": None, "memory_bytes": None}
