# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.definition import (
    ClusterHosts,
    DefinitionError,
    check_run,
    clusters_of,
    left_out,
    read_definition,
)

ALPHA = {
    "alpha": ["node1", "node2"],
    "alpha_controller": ["node1"],
    "alpha_engines": ["node1", "node2"],
    "alpha_notebook": ["node1"],
}
BETA = {"beta": ["node3"], "beta_controller": ["node3"], "beta_engines": ["node3"]}
INVENTORY = {**ALPHA, **BETA, "all": ["node1", "node2", "node3"], "ungrouped": []}


def test_the_hosts_of_a_cluster():
    assert read_definition("alpha", INVENTORY) == ClusterHosts("alpha", "node1", ["node1", "node2"], ["node1"])


def test_a_notebook_is_optional():
    assert read_definition("beta", INVENTORY) == ClusterHosts("beta", "node3", ["node3"], [])
    assert read_definition("beta", {**INVENTORY, "beta_notebook": []}).notebook == []


def test_the_clusters_of_an_inventory():
    assert clusters_of(INVENTORY) == ["alpha", "beta"]
    assert clusters_of({"all": []}) == []


@pytest.mark.parametrize(
    ("cluster", "groups", "names"),
    [
        ("gamma", {}, ["no cluster 'gamma'", "it has alpha, beta", "-e cluster=NAME"]),
        ("alpha", {"alpha_controller": []}, ["alpha_controller", "no host", "inventory"]),
        ("alpha", {"alpha_engines": []}, ["alpha_engines", "no host", "inventory"]),
        ("alpha", {"alpha_controller": ["node1", "node2"]}, ["alpha_controller", "2 hosts", "node1, node2", "one"]),
        ("alpha", {"alpha": ["node1"]}, ["node2", "not in group alpha", "children"]),
        ("alpha", {"alpha_notebook": ["node9"]}, ["node9", "not in group alpha", "children"]),
        (
            "alpha",
            {"beta": ["node3", "node2"], "beta_engines": ["node3", "node2"]},
            ["node2", "clusters alpha and beta", "alias", "node2_alpha", "ansible_host: node2"],
        ),
    ],
)
def test_a_bad_inventory_is_refused_with_what_it_lacks(cluster, groups, names):
    with pytest.raises(DefinitionError) as caught:
        read_definition(cluster, {**INVENTORY, **groups})
    assert [part for part in names if part not in str(caught.value)] == []


def test_a_cluster_without_a_group_for_engines_is_refused():
    with pytest.raises(DefinitionError, match="group alpha_engines has no host"):
        read_definition("alpha", {name: hosts for name, hosts in ALPHA.items() if name != "alpha_engines"})


def test_an_inventory_without_any_cluster_says_so():
    with pytest.raises(DefinitionError, match=r"no cluster 'alpha'.*it has no cluster at all"):
        read_definition("alpha", {"all": ["localhost"]})


def test_a_name_that_is_none_is_refused_first():
    with pytest.raises(ConnectorError, match="'two words' is not a name"):
        read_definition("two words", INVENTORY)


@pytest.mark.parametrize(
    ("run", "needs", "names"),
    [
        (["node2", "node3"], ["controller", "engines"], ["controller host node1", "add it to --limit"]),
        ([], ["controller"], ["controller host node1", "add it to --limit"]),
        (["node1"], ["controller", "engines"], ["node2, node3: left out", "Nothing was changed", "without --limit"]),
        (["node1", "node3", "node9"], ["engines"], ["node2: left out"]),
    ],
)
def test_a_run_that_lacks_a_host_it_needs_is_refused(run, needs, names):
    hosts = ClusterHosts("alpha", "node1", ["node1", "node2", "node3"], [])
    with pytest.raises(DefinitionError) as caught:
        check_run(hosts, run, needs)
    assert [part for part in names if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("run", "needs"), [(["node2"], []), (["node1"], ["controller"]), (["localhost", "node1", "node2"], ["engines"])]
)
def test_a_run_may_lack_other_hosts(run, needs):
    hosts = ClusterHosts("alpha", "node1", ["node2"], ["node3"])
    check_run(hosts, run, needs)
    assert left_out(hosts, run) == sorted({"node1", "node2", "node3"} - set(run))
