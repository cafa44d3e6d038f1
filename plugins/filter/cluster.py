# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the playbooks and roles: what would be a program in Jinja."""

from __future__ import annotations

import ipaddress
import os
import shlex
import typing as t
from collections.abc import Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.ipyparallel.cluster.plugins.module_utils import overview, packages, paths, report, transfer
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, as_count
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import words

LOGIN = "__ipyparallel_login"
LOGS = "__ipyparallel_logs"
ASKED = "__ipyparallel_asked"
ENVIRONMENT = "__ipyparallel_environment"
RESOLVED = "__ipyparallel_environment_resolved"
INSTALLED = "__ipyparallel_environment_installed"
PREFLIGHT = "__ipyparallel_common_host"
SECRETS = "__ipyparallel_notebook_secrets"
FETCHED = "__ipyparallel_fetched"
HOST = "__ipyparallel_host"
HOST_ROLES = ("controller", "engines", "notebook")


def cluster_paths(facts: Mapping[str, t.Any], scope: str, cluster: str) -> dict[str, str]:
    """Return where everything of *cluster* is on the host with these *facts*."""
    return paths.paths(scope, cluster, facts)


def host_roles(group_names: Iterable[str], cluster: str) -> list[str]:
    """Return what a host with these groups is in *cluster*."""
    names = set(group_names)
    return [role for role in HOST_ROLES if f"{cluster}_{role}" in names]


def text_of_file(path: str) -> str:
    """Return the text of a file of the operator's.

    Raises:
        AnsibleFilterError: it cannot be read.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise AnsibleFilterError(f"cannot read {path} on the operator's machine: {why}") from None


def new_hosts(
    wanted: t.Any, engines: Iterable[str], deployed: Iterable[str], left_out: Iterable[str] = ()
) -> list[str]:
    """Return the engine hosts that are to be added.

    Args:
        wanted: those that the operator named; none for all that are new.
        engines: the engine hosts of the inventory.
        deployed: those that the cluster has already.
        left_out: those that have no part in the run.

    Raises:
        AnsibleFilterError: one that was named is no engine host of the inventory, or ``--limit`` leaves it, or all that
            are new, out.
    """
    there = list(engines)
    named = words(wanted)
    if unknown := [host for host in named if host not in there]:
        raise AnsibleFilterError(
            f"{', '.join(unknown)} is no engine host of the inventory, which has {', '.join(there)}: add it to the "
            "cluster's group for engines first"
        )
    already, away = set(deployed), set(left_out)
    new = [host for host in named or there if host not in already]
    within = [host for host in new if host not in away]
    if len(within) < len(new) and (named or not within):
        missing = ", ".join(host for host in new if host in away)
        raise AnsibleFilterError(f"{missing}: new, and left out of this run: add it to --limit, or run without")
    return within


def at_places(engines: Iterable[Mapping[str, t.Any]], places: Iterable[Mapping[str, t.Any]] | None) -> list[t.Any]:
    """Return those of *engines* that are at one of *places* (``host``, ``pool``, ``core``); None is all."""
    if places is None:
        return list(engines)
    wanted = {Engine.of(one) for one in places}
    return [one for one in engines if Engine.of(one) in wanted]


def requirement_lines(text: str) -> list[str]:
    """Return the requirements of a file on the operator, or the reference to one at a URL.

    Raises:
        AnsibleFilterError: the file cannot be read.
    """
    if not text:
        return []
    if "://" in text:
        return [f"--requirement {text}"]
    try:
        with open(text, encoding="utf-8") as stream:
            return packages.logical_lines(stream.read())
    except OSError as error:
        raise AnsibleFilterError(f"ipyparallel_requirements: cannot read {text}: {error.strerror}") from None


def shell_words(text: str | Iterable[t.Any], variable: str) -> list[str]:
    """Return the words of *text* as a shell has them; a list is as it is.

    Raises:
        AnsibleFilterError: a quotation mark is missing; names *variable*.
    """
    if not isinstance(text, str):
        return [str(word) for word in text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise AnsibleFilterError(f"{variable}: {str(error).lower()}: put it right") from None


def unresolved(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> str:
    """Return why packages cannot be had on some of *hosts*; empty where they can on all."""
    said: dict[str, list[str]] = {}
    for host in hosts:
        result = hostvars[host].get(RESOLVED) or {}
        if "due" not in result:
            said.setdefault(str(result.get("msg", "it did not answer")), []).append(host)
    if not said:
        return ""
    reasons = [f"{', '.join(places)}: {why}" for why, places in said.items()]
    return f"Nothing was installed on any host. {'; '.join(reasons)}"


def version_differences(hostvars: Mapping[str, t.Any], hosts: Iterable[str], controller: str) -> str:
    """Return which of *hosts* have another ipyparallel than the controller host; empty where none is known to have.

    A run with ``--limit`` and another lock does that.
    """

    def version(host: str, *sources: str) -> str:
        found = [(hostvars[host].get(source) or {}).get("versions") for source in sources]
        return next((str(versions["ipyparallel"]) for versions in found if versions and "ipyparallel" in versions), "")

    hosts = list(hosts)
    ours = version(controller, ENVIRONMENT, PREFLIGHT, ASKED)
    # it has no part in the run, and every host was told
    ours = ours or next((found for host in hosts if (found := version(host, "__ipyparallel_common_remembered"))), "")
    others = [(host, theirs) for host in hosts if (theirs := version(host, ENVIRONMENT)) and ours and theirs != ours]
    if not others:
        return ""
    said = ", ".join(f"{host} has ipyparallel {theirs}" for host, theirs in others)
    return (
        f"{said}, and the controller host {controller} has {ours}: run playbook ipyparallel.cluster.deploy for all "
        "hosts, with the same ipyparallel_environment_lock"
    )


def installation(
    hostvars: Mapping[str, t.Any],
    defined: Iterable[str],
    begun: Iterable[str],
    left: Iterable[str],
    would: bool = False,
) -> dict[str, t.Any]:
    """Return what a run that installed packages came to.

    Args:
        hostvars: with what module ``python_environment`` returned.
        defined: all hosts of the cluster.
        begun: those that the run began with.
        left: those that have not failed.
        would: whether this is check mode.

    Returns:
        ``remember``: the requirements that hold for the cluster from now on, none where a host was left out by
        ``--limit``, or has failed to install what it had resolved; and ``text`` for people.
    """
    left = list(left)
    results: dict[str, Mapping[str, t.Any]] = {}
    for host in left:
        resolved, done = hostvars[host][RESOLVED], hostvars[host].get(INSTALLED) or {}
        results[host] = {**resolved, "changes": done.get("changes", resolved["changes"])}
    # a host that was not reached gets them when it is deployed
    failed = [host for host in begun if host not in left and "due" in (hostvars[host].get(RESOLVED) or {})]
    limited = sorted(set(defined) - set(begun))
    recorded = next((list(result["recorded"]) for result in results.values()), [])
    reason = ""
    if not recorded:
        reason = "a flag says where they come from; put that into ipyparallel_install_environment instead"
    elif failed:
        reason = f"{', '.join(failed)} failed; run again"
    elif limited:
        reason = f"{', '.join(limited)} had no part; run without --limit"
    unreached = [host for host in begun if host not in left and host not in failed]
    remember = [] if reason else recorded
    return {"remember": remember, "text": report.installation(results, reason, [*failed, *unreached], would)}


Pools: t.TypeAlias = "Mapping[str, Iterable[Mapping[str, t.Any]]]"


def engine_counts(pools: Pools, hosts: Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """Return ``{host: {pool: count}}`` of the engine hosts among *hosts*, as module ``compare_hosts`` returned them."""
    there = set(hosts)
    return {
        host: {pool["name"]: as_count(pool["instances"]) for pool in found}
        for host, found in pools.items()
        if host in there
    }


def defined_counts(pools: Pools, hosts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the same as the inventory alone says it."""
    there = set(hosts)
    return {
        host: {pool["name"]: pool["defined"] for pool in found if pool["defined"] is not None}
        for host, found in pools.items()
        if host in there
    }


def roles_of_hosts(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> dict[str, list[str]]:
    """Return what each of *hosts* is in the cluster."""
    return {host: list(hostvars[host].get("ipyparallel_host_roles") or []) for host in hosts}


def with_startup(pools: Iterable[Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return *pools* with the text of their start-up scripts, files of the operator's, as their ``code``.

    Raises:
        AnsibleFilterError: a script cannot be read.
    """
    return [{**pool, "code": text_of_file(pool["script"])} if pool.get("script") else dict(pool) for pool in pools]


def preflights(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """Return what the preflight of *hosts* returned, that of failed hosts included; unreachable ones have none."""
    return {host: dict(hostvars[host][PREFLIGHT]) for host in hosts if hostvars[host].get(PREFLIGHT)}


def notebooks(hostvars: Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """Return what the operator is told of the notebooks that this run laid down, by host."""
    found: dict[str, dict[str, t.Any]] = {}
    for host in hostvars:
        values = hostvars[host]
        if values.get(PREFLIGHT) and values[PREFLIGHT].get("notebook") and values.get(SECRETS):
            found[host] = {**values[PREFLIGHT]["notebook"], "password_command": values[SECRETS].get("command")}
    return found


def host_address(values: Mapping[str, t.Any]) -> str:
    """Return the address from which a host reaches the controller, as its variables *values* say; empty if unknown.

    This is the one place that decides it.
    """
    found = (
        values.get("ipyparallel_address"),
        (values.get(PREFLIGHT) or {}).get("address"),
        ((values.get("ansible_facts") or {}).get("default_ipv4") or {}).get("address"),
    )
    return next((str(address) for address in found if address), "")


def firewall_hosts(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """Return what module ``firewall`` needs to know of *hosts*, as far as this run has looked at them.

    A notebook that listens on loopback only needs no guard.
    """
    found: dict[str, dict[str, t.Any]] = {}
    for host in hosts:
        values = hostvars[host]
        address = host_address(values)
        if not address:
            continue
        notebook = (values.get(PREFLIGHT) or {}).get("notebook") or {}
        guarded = notebook and not is_loopback(str(notebook["address"]))
        found[host] = {
            "address": address,
            "roles": list(values.get("ipyparallel_host_roles") or []),
            "notebook_port": int(notebook["port"]) if guarded else None,
        }
    return found


def is_loopback(address: str) -> bool:
    """Return whether only this host itself reaches *address*, an IP address or a name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def overview_of(result: Mapping[str, t.Any], hostvars: Mapping[str, t.Any], name: str) -> dict[str, t.Any]:
    """Return the status of cluster *name*, see ``module_utils/overview.py``.

    Args:
        result: what was registered of module ``cluster_info``.
        hostvars: of all hosts, each with what was registered of module ``host_info``.
        name: of the cluster.
    """
    hosts = hostvars["localhost"]["groups"][name]
    controller = hostvars["localhost"]["groups"][f"{name}_controller"][0]
    answers = {host: result if host == controller else hostvars[host].get(HOST) or {} for host in hosts}
    found = {
        host: {"roles": hostvars[host]["ipyparallel_host_roles"], "found": answer} for host, answer in answers.items()
    }
    return overview.overview(name, controller, result, found)


def logs(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> str:
    """Return in words what module ``fetch_logs`` has brought of *hosts*."""
    return report.logs({host: hostvars[host].get(LOGS) or {} for host in hosts})


def files_brought(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> int:
    """Return how many files playbook ``get`` has found on *hosts*; one that has failed has none."""
    return sum(len((hostvars[host].get(FETCHED) or {}).get("results") or []) for host in hosts)


def ssh_logins(hostvars: Mapping[str, t.Any], hosts: Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """Return how *hosts* are reached, as module ``ssh_login_info`` returned it, and what they are."""
    return {
        host: {
            "lines": list(hostvars[host][LOGIN]["lines"]),
            "left_out": list(hostvars[host][LOGIN]["left_out"]),
            "roles": list(hostvars[host]["ipyparallel_host_roles"]),
        }
        for host in hosts
    }


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """Return the filters."""
        return {
            "at_places": at_places,
            "cluster_paths": cluster_paths,
            "connection": report.connection,
            "defined_counts": defined_counts,
            "engine_counts": engine_counts,
            "execution": report.execution,
            "files_brought": files_brought,
            "files_to_bring": transfer.plan,
            "firewall_hosts": firewall_hosts,
            "host_roles": host_roles,
            "installation": installation,
            "lock_problem": packages.lock_problem,
            "logs": logs,
            "new_hosts": new_hosts,
            "notebooks": notebooks,
            "overview": overview_of,
            "preflights": preflights,
            "requirement_lines": requirement_lines,
            "requirement_list": packages.split_requirements,
            "restarts": report.restarts,
            "roles_of_hosts": roles_of_hosts,
            "rotation": report.rotation,
            "shell_words": shell_words,
            "ssh_logins": ssh_logins,
            "ssh_report": report.ssh,
            "status": report.status,
            "summary": report.summary,
            "text_of_file": text_of_file,
            "transfer_or_problem": transfer.transfer_or_problem,
            "unresolved": unresolved,
            "verification": report.verification,
            "version_differences": version_differences,
            "what_stays": report.what_stays,
            "with_remembered": packages.merge_requirements,
            "with_startup": with_startup,
            "words": words,
        }
