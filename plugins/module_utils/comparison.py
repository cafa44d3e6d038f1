# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must be right between the hosts of a cluster, judged on the operator by what each host's preflight found."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.changes import effective
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Ports
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import ENGINE_MEMORY, GIB

CLOCK_LIMIT = 30.0
"""Seconds of difference between two clocks above which the operator is warned."""

# what a later phase needs, as preflight tells of it, and the tags of the phase that makes it
EARLIER = {
    "the account": ("account", {"environment", "environment_account"}),
    "the software": ("software", {"environment", "environment_install"}),
}

Findings = Mapping[str, Mapping[str, t.Any]]
"""What the preflight of each host returned, by host."""


class ComparisonError(ValueError):
    """The hosts do not fit together; the message names them, the values and the remedy."""


def minor(version: str) -> str:
    """Return such as ``3.11`` of ``3.11.2``."""
    return ".".join(version.split(".")[:2])


def by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the hosts of each value."""
    found: dict[str, list[str]] = {}
    for host, value in values.items():
        found.setdefault(value, []).append(host)
    return found


def in_words(values: Mapping[str, str]) -> str:
    """Return which hosts have which value, as a message says it."""
    return "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in sorted(by_value(values).items()))


def check_controller_is_there(controller: str, defined: Sequence[str], left: Sequence[str], found: Findings) -> None:
    """Check that the controller host has not dropped out of the run.

    Args:
        controller: the controller host.
        defined: hosts that the run began with.
        left: hosts that have not failed.
        found: what their preflight returned; of a host that has failed, its ``msg``.

    Raises:
        ComparisonError: it has; with its own message, where there is one.
    """
    if controller in defined and controller not in left:
        why = found.get(controller, {}).get("msg")
        raise ComparisonError(
            f"the controller host {controller} has failed, and without it there is no cluster, so no other host was "
            f"changed: {why or 'its own message is above; mend it and run again'}"
        )


def check_certificates(found: Findings) -> None:
    """Check that the certificates which the user gives for notebooks will do.

    Raises:
        ComparisonError: one will not, as the preflight of its host says.
    """
    for host, result in found.items():
        if problem := result.get("certificate_problem"):
            raise ComparisonError(f"notebook of {host}: {problem}. Nothing was changed")


def check_phases(found: Findings, tags: Sequence[str], skipped: Sequence[str]) -> None:
    """Check that what the phases of this run need is there, or made by it.

    Args:
        found: what the hosts' preflight returned.
        tags: those that run (``ansible_run_tags``).
        skipped: those that do not (``ansible_skip_tags``).

    Raises:
        ComparisonError: an earlier phase is missing; names the hosts, the phase and its tag.
    """
    ours = set().union(*(made_by for _key, made_by in EARLIER.values()))
    if not set(tags) - ours - {"always", "never", "tagged", "untagged"}:
        return
    for what, (key, made_by) in EARLIER.items():
        if ({"all", *made_by} & set(tags)) and not made_by & set(skipped):
            continue
        if without := [host for host, result in found.items() if not exists(result, key)]:
            raise ComparisonError(
                f"{what} of the cluster is missing on {', '.join(without)}, and this run does not make it: run "
                f"playbook ipyparallel.cluster.deploy with --tags environment first, or as a whole"
            )


def exists(result: Mapping[str, t.Any], key: str) -> bool:
    """Return whether preflight found the account or the software on a host."""
    return bool(result["account"]["exists"] if key == "account" else result[key])


def check_pythons(found: Findings, controller: str, remembered: str | None) -> None:
    """Check that all hosts have the same minor version of Python.

    Args:
        found: what the hosts' preflight returned.
        controller: the controller host.
        remembered: version of the controller's environment where hosts are left out of this run, and so keep theirs.

    Raises:
        ComparisonError: they have not; client and engines could not exchange functions (ipyparallel#880).
    """
    minors = {host: minor(result["python_version"]) for host, result in found.items()}
    remedy = (
        "engines and clients exchange functions as bytecode, which differs between minor versions of Python: set "
        "ipyparallel_python to an interpreter of the same minor version on every host"
    )
    if len(set(minors.values())) > 1:
        raise ComparisonError(f"the hosts' Pythons differ: {in_words(minors)}; {remedy}")
    if remembered and minors and (wanted := minor(remembered)) not in minors.values():
        raise ComparisonError(
            f"the hosts' Pythons differ: the cluster runs with {wanted} (controller host {controller}), but this run "
            f"has {in_words(minors)}; {remedy}, or run for all hosts at once, without --limit"
        )


def check_machines(found: Findings, defined: Sequence[str]) -> None:
    """Check that no machine is listed twice within the cluster.

    Args:
        found: what the hosts' preflight returned.
        defined: all hosts of the cluster, whether they are part of the run or not.

    Raises:
        ComparisonError: one is; names both names.
    """
    remedy = (
        "leave one of them in the cluster's groups (a host may be in several of them); for more engines on it set "
        "ipyparallel_engines_per_host"
    )
    machines = by_value({host: result["machine"] for host, result in found.items()})
    for names in machines.values():
        if len(names) > 1:
            raise ComparisonError(f"{' and '.join(names)} are one machine, listed twice: {remedy}")
    for host, result in found.items():
        # a host that was renamed in the inventory is known by a name that is there no more
        for other in result.get("known_as", []):
            if other != host and other in defined and other not in found:
                raise ComparisonError(
                    f"{other} and {host} are one machine, listed twice (processes of {other} run there): {remedy}"
                )


def clock_difference(found: Findings) -> tuple[float, str, str]:
    """Return by how many seconds two clocks differ at least, and the hosts whose do most: behind, ahead.

    Each host's ``clock`` is the interval in which its difference to the operator's clock is; its width is the time
    that the question took, so hosts asked one after the other do not seem to differ.
    """
    clocks = {host: result["clock"] for host, result in found.items() if result.get("clock")}
    if not clocks:
        return 0.0, "", ""
    ahead = max(clocks, key=lambda host: clocks[host][0])
    behind = min(clocks, key=lambda host: clocks[host][1])
    return max(0.0, clocks[ahead][0] - clocks[behind][1]), behind, ahead


def remarks(found: Findings) -> list[str]:
    """Return what the operator is warned of: it works, but may surprise."""
    said = []
    seconds, behind, ahead = clock_difference(found)
    if seconds > CLOCK_LIMIT:
        said.append(
            f"the clock of {behind} is at least {seconds:.0f} s behind that of {ahead}: certificates may seem not yet "
            "valid or expired, and logs do not fit together; let both follow a time server (such as chrony)"
        )
    architectures = {host: result["architecture"] for host, result in found.items()}
    if len(set(architectures.values())) > 1:
        said.append(
            f"the hosts' architectures differ: {in_words(architectures)}; each host has an environment of its own, so "
            "the cluster works, but a package may have no wheel for one of them, floating-point results may differ in "
            "the last digits, and compiled code that a task carries with it runs on its own kind only"
        )
    return said


def pools_of(
    found: Findings, roles: Mapping[str, Sequence[str]], remembered: Mapping[str, t.Any]
) -> dict[str, list[dict[str, t.Any]]]:
    """Return the pools of each engine host, see ``changes.effective``.

    Args:
        found: what the hosts' preflight returned.
        roles: what each host is.
        remembered: what operators have changed after the definition.
    """
    return {
        host: effective(host, result["pools"], remembered)
        for host, result in found.items()
        if "engines" in roles.get(host, ())
    }


def memory_remarks(found: Findings, pools: Mapping[str, Sequence[Mapping[str, t.Any]]]) -> list[str]:
    """Return what the operator is warned of: engines that need, or may take, more memory than their host has."""
    said = []
    for host, here in pools.items():
        total = found[host].get("memory") or 0
        needed = sum(len(pool["instances"]) * ENGINE_MEMORY for pool in here)
        allowed = sum(len(pool["instances"]) * (pool.get("memory") or ENGINE_MEMORY) for pool in here)
        count = sum(len(pool["instances"]) for pool in here)
        for amount, verb in ((needed, "need at least"), (allowed, "may take")):
            if total and amount > total:
                said.append(
                    f"{count} engines on {host} {verb} {amount / GIB:.1f} GiB of memory, and it has "
                    f"{total / GIB:.1f}: the system will end some of them when memory runs out; set a lower count or "
                    "size"
                )
                break
    return said


def check_pool_hosts(pools: Sequence[Mapping[str, t.Any]], engines: Sequence[str]) -> None:
    """Check that the hosts which pools name are engine hosts.

    Raises:
        ComparisonError: one is not; names it and those that are.
    """
    for pool in pools:
        if unknown := sorted(set(pool.get("hosts") or []) - set(engines)):
            raise ComparisonError(
                f"pool {pool.get('name')} is to be on {', '.join(unknown)}, which is no engine host of the cluster: "
                f"set its hosts in ipyparallel_engines_pools to some of {', '.join(sorted(engines))}"
            )


def controller_place(
    controller: str, defined: Sequence[str], identity: Mapping[str, t.Any], own_address: str | None
) -> dict[str, t.Any]:
    """Return where the others will look for the controller: ``address``, ``port_base``, ``ports`` by what a host is.

    Args:
        controller: the controller host.
        defined: all hosts of the cluster.
        identity: ``address`` and ``port_base`` of the controller, as they will be; empty where not known.
        own_address: the address from which the controller host reaches others, for the remedy.

    Raises:
        ComparisonError: others would look for it on themselves.
    """
    if not identity:
        return {"address": "", "port_base": 0, "ports": {"engines": [], "notebook": []}}
    address = str(identity["address"])
    others = [host for host in defined if host != controller]
    if others and ipaddress.IPv4Address(address).is_loopback:
        usable = own_address and not ipaddress.IPv4Address(own_address).is_loopback
        raise ComparisonError(
            f"the controller on {controller} listens on {address}, where {', '.join(others)} cannot reach it: set "
            f"ipyparallel_address of {controller} to its address in the network of the cluster"
            f"{f', such as {own_address}' if usable else ''}"
        )
    ports = Ports(identity["port_base"])
    return {"address": address, "port_base": ports.base, "ports": ports.asked}
