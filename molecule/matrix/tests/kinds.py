# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kinds of clusters, and the life of each: deployed, verified, deployed again without a change, destroyed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from clusters import Cluster, listing, processes
from remote import Operator
from waiting import wait_until

PLAIN = {"ansible_user": "plain", "ipyparallel_scope": "user", "ipyparallel_engines_per_host": 1}
LINGERING = {**PLAIN, "ipyparallel_service_manager": "systemd_user"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of cluster."""

    cluster: Cluster
    engines: Mapping[str, int]
    lingering: bool = False


# On the nodes of Debian 13, while other tests use the others.
KINDS = {
    "Debian 13, with no engine on the controller's cores": Kind(
        Cluster(
            "trixie", "node4", ["node4", "node5"], ["node5"], of_host={"node4": {"ipyparallel_engines_per_host": 0}}
        ),
        {"node5": 2},
    ),
    "Debian 13, without root": Kind(
        Cluster("plain", "node4", ["node4", "node5"], ["node4"], PLAIN), {"node4": 1, "node5": 1}
    ),
    "Debian 13, by the systemd of an account": Kind(
        Cluster("lingering", "node4", ["node4", "node5"], ["node4"], LINGERING), {"node4": 1, "node5": 1}, True
    ),
    "one host, without root": Kind(Cluster("single", "node5", ["node5"], ["node5"], PLAIN), {"node5": 1}),
}


def engines(operator: Operator, cluster: str = "ipyparallel") -> dict[str, int]:
    """Return how many engines the hub has of each host of a cluster that is as it should be; else nothing."""
    status: dict[str, Any] = operator.status("-e", f"cluster={cluster}")
    return dict(Counter(engine["host"] for engine in status["engines"])) if not status["problem"] else {}


def check_again(operator: Operator, cluster: Cluster) -> None:
    """Deploy a finished cluster: nothing is changed, and nothing restarted."""
    before = processes(operator, cluster.name, cluster.nodes)
    run = operator.ok("site", "-e", f"cluster={cluster.name}")
    assert set(run.changed) >= set(cluster.hosts)
    assert {host: task for host, tasks in run.tasks.items() for task in tasks if task["changed"]} == {}
    assert not any(run.changed.values()), run.said[-3000:]
    after = processes(operator, cluster.name, cluster.nodes)
    assert all(after.values())
    assert after == before


def destroy(operator: Operator, cluster: Cluster, before: Mapping[str, set[str]]) -> None:
    """Destroy a cluster: no process is left, and no file that was not there before."""
    operator.ok("destroy", "-e", f"cluster={cluster.name}")
    assert not any(processes(operator, cluster.name, cluster.nodes).values())
    after = listing(operator, cluster.nodes)
    assert {node: sorted(after[node] - before[node]) for node in cluster.nodes} == {node: [] for node in cluster.nodes}
    assert not list(operator.home.glob(f".ipython/profile_{cluster.name}"))


def check_reboot(operator: Operator, kind: Kind) -> None:
    """Reboot all hosts of a cluster at once: it is whole again, and nobody has logged in."""
    cluster = kind.cluster
    before = processes(operator, cluster.name, cluster.nodes)
    operator.lab.reboot(*cluster.nodes)
    wait_until(lambda: engines(operator, cluster.name) == kind.engines, 120, "whole after a reboot")
    after = processes(operator, cluster.name, cluster.nodes)
    assert [node for node in cluster.nodes if after[node].keys() & before[node].keys()] == []


def live(operator: Operator, kind: Kind) -> None:
    """Let a cluster live from nothing to nothing, and the next one begin with nothing too."""
    try:
        check_life(operator, kind)
    except BaseException:
        operator.play("destroy", "-e", f"cluster={kind.cluster.name}")
        raise


def check_life(operator: Operator, kind: Kind) -> None:
    cluster = kind.cluster
    which = ("-e", f"cluster={cluster.name}")
    before = listing(operator, cluster.nodes)
    if kind.lingering:
        said = operator.refused("site", *which)
        for node in cluster.nodes:
            assert f"systemd of account plain on {node} ends with its last login" in said
            operator.lab.execute(node, ["loginctl", "enable-linger", "plain"])
        assert "let root run 'loginctl enable-linger plain' there once" in said
        assert listing(operator, cluster.nodes) == before
    operator.ok("site", *which)
    assert engines(operator, cluster.name) == kind.engines
    operator.verify(*which)
    check_again(operator, cluster)
    if kind.lingering:
        check_reboot(operator, kind)
    destroy(operator, cluster, before)
    for node in cluster.nodes if kind.lingering else ():
        operator.lab.execute(node, ["loginctl", "disable-linger", "plain"])
