# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The definition of a cluster in an inventory: group NAME, and its children by what their hosts are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import check_cluster_name


class DefinitionError(ValueError):
    """The inventory does not define the cluster, or the run lacks hosts; the message names what is missing."""


@dataclasses.dataclass(frozen=True)
class ClusterHosts:
    """The hosts of a cluster by what they are for."""

    cluster: str
    controller: str
    engines: list[str]
    notebook: list[str]


def clusters_of(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of the clusters that an inventory defines: groups with a ``_controller`` beside them."""
    return sorted(name for name in groups if f"{name}_controller" in groups)


def read_definition(cluster: str, groups: Mapping[str, Sequence[str]]) -> ClusterHosts:
    """Return the hosts of *cluster*.

    Args:
        cluster: its name.
        groups: all groups of the inventory with their hosts.

    Raises:
        ConnectorError: the name is not one for a cluster.
        DefinitionError: a group is unknown or empty, the controller is not one host, or a host is in two clusters.
    """
    check_cluster_name(cluster)
    known = clusters_of(groups)
    if cluster not in known:
        there = f"it has {', '.join(known)}" if known else "it has no cluster at all"
        raise DefinitionError(
            f"the inventory has no cluster {cluster!r} (group {cluster} with children {cluster}_controller, "
            f"{cluster}_engines, {cluster}_notebook): {there}; choose one with -e cluster=NAME"
        )
    for suffix in ("controller", "engines"):
        if not groups.get(f"{cluster}_{suffix}"):
            raise DefinitionError(f"group {cluster}_{suffix} has no host: name one in the inventory")
    controllers = groups[f"{cluster}_controller"]
    if len(controllers) > 1:
        raise DefinitionError(
            f"group {cluster}_controller has {len(controllers)} hosts ({', '.join(controllers)}), but a cluster has "
            "one controller: leave one in the group"
        )
    hosts = {host for suffix in ("controller", "engines", "notebook") for host in groups.get(f"{cluster}_{suffix}", [])}
    if missing := sorted(hosts - set(groups.get(cluster, []))):
        raise DefinitionError(
            f"host {missing[0]} is not in group {cluster}: make {cluster}_* children of group {cluster}"
        )
    for other in known:
        if other != cluster and (shared := sorted(hosts & set(groups.get(other, [])))):
            raise DefinitionError(
                f"host {shared[0]} is in clusters {cluster} and {other}, whose variables Ansible would merge: list the "
                f"machine once per cluster under an alias, such as {shared[0]}_{cluster} with ansible_host: {shared[0]}"
            )
    return ClusterHosts(
        cluster, controllers[0], list(groups[f"{cluster}_engines"]), list(groups.get(f"{cluster}_notebook", []))
    )


def left_out(hosts: ClusterHosts, run: Collection[str]) -> list[str]:
    """Return the hosts of a cluster that have no part in the *run*, which is the names of those that have."""
    return sorted({hosts.controller, *hosts.engines, *hosts.notebook} - set(run))


def check_run(hosts: ClusterHosts, run: Collection[str], needs: Collection[str]) -> None:
    """Check that a run has the hosts that it cannot do without.

    Args:
        hosts: of the cluster.
        run: the hosts that have a part in the run.
        needs: what they are for: ``controller``, ``engines``.

    Raises:
        DefinitionError: ``--limit`` leaves out one of them.
    """
    missing = left_out(hosts, run)
    if "controller" in needs and hosts.controller in missing:
        raise DefinitionError(
            f"the controller host {hosts.controller} is left out of this run, which can neither ask nor change "
            "anything without it: add it to --limit, or run without"
        )
    if "engines" in needs and (engines := [host for host in hosts.engines if host in missing]):
        raise DefinitionError(
            f"{', '.join(engines)}: left out of this run, so that a change of engines there would be remembered and "
            "not made. Nothing was changed; run for all engine hosts, without --limit"
        )
