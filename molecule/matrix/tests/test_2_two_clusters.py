# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two clusters on the same hosts: the second beside the one that the tests before have left."""

from __future__ import annotations

from clusters import Cluster, listing, processes
from conftest import Define
from kinds import check_again, destroy, engines
from test_1_bad_input import GOOD, SETTINGS

FIRST, NODES = GOOD, ["node1", "node2"]
PORTS = {"ipyparallel_controller_port_base": 10200, "ipyparallel_notebook_port": 8889}
HOSTS = ["node1_second", "node2_second"]
SECOND = Cluster("second", HOSTS[0], HOSTS, [HOSTS[0]], {**SETTINGS, **PORTS})


def test_the_second_needs_ports_of_its_own(define: Define) -> None:
    operator = define(FIRST, Cluster("second", HOSTS[0], HOSTS, [HOSTS[0]], SETTINGS))
    said = operator.refused("deploy", "-e", "cluster=second")
    assert "port 10100 to 10119 of cluster second belongs to cluster ipyparallel on node1 already" in said
    assert "ipyparallel_controller_port_base" in said


def test_both_work_and_the_end_of_one_leaves_the_other(define: Define) -> None:
    operator = define(FIRST, SECOND)
    first = processes(operator, FIRST.name, FIRST.nodes)
    assert all(first.values())
    before = listing(operator, NODES)
    operator.ok("site", "-e", "cluster=second")
    assert engines(operator, "second") == dict.fromkeys(HOSTS, 1)
    assert engines(operator) == dict.fromkeys(FIRST.hosts, 1)
    operator.verify("-e", "cluster=second")
    operator.verify()
    check_again(operator, SECOND)
    destroy(operator, SECOND, before)
    assert processes(operator, FIRST.name, FIRST.nodes) == first
    assert engines(operator) == dict.fromkeys(FIRST.hosts, 1)
    check_again(operator, FIRST)


def test_the_end_of_the_first_leaves_nothing(define: Define, empty: dict[str, set[str]]) -> None:
    destroy(define(FIRST), FIRST, empty)
