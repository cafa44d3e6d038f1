# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three empty hosts, after one `site`."""

from __future__ import annotations

import re

from figures import Figures
from remote import Operator, kept


def test_a_cluster_on_three_empty_hosts_is_fast(operator: Operator, figures: Figures) -> None:
    run = operator.verify()
    figures.watch("three empty hosts until verify passed", kept(operator, "first")["seconds"] + run.seconds, 75)


def test_summary(operator: Operator) -> None:
    said = kept(operator, "first")["stdout"]
    assert re.search(r"Cluster ipyparallel: 5 engines on 3 nodes, in \d+\.\d s", said)
    assert "https://127.0.0.1:8888/lab" in said
    assert "cat /var/lib/ipyparallel/ipyparallel/notebook/password   (on node1)" in said
    assert 'ipp.Client(profile="ipyparallel")' in said


def test_engines_are_where_the_rule_wants_them(operator: Operator) -> None:
    """One for each core, and one fewer beside the controller."""
    status = operator.status("-e", "ipyparallel_status_limit=30")
    cores = {(engine["host"], engine["core"]) for engine in status["engines"]}
    assert cores == {("node1", 0), ("node2", 0), ("node2", 1), ("node3", 0), ("node3", 1)}
    assert status["encryption"] == "curve"
    assert not status["problem"]
    hosts = status["hosts"]
    assert {host: of_host["engines"]["default"]["registered"] for host, of_host in hosts.items()} == {
        "node1": 1,
        "node2": 2,
        "node3": 2,
    }
    for host in hosts.values():
        assert host["reachable"], host["problem"]
        assert 0 < host["memory_used_bytes"] < host["memory_total_bytes"]
    assert all(engine["uptime_seconds"] is not None for engine in status["engines"])
