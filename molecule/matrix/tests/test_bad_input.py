# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts that are not as they should be: refused before anything changes, or left out while the others go on.

The nodes are this module's own, since it takes from them what a host needs. The tests go from empty nodes to a cluster
with a new host, in the order of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lab import TREE, Lab
from remote import Operator

NODES = ["node1", "node2", "node3", "node4", "node5", "node6", "node7"]
GOOD = ["node1", "node2"]
NO_SUDO, OTHER_PYTHON, NO_ROOM, NO_WAY, NO_NETWORK = NODES[2:]
PORTS = "10100-10119"
LISTED = "find /etc /opt /var/lib /home /run/ipyparallel -xdev -printf '%p %m %u %s %T@\\n' 2>/dev/null | sort"
# what logging in and sudo write themselves
NOT_OURS = ("/var/lib/sudo", "/var/lib/systemd", "/.ansible", "/.ssh", "/etc/resolv.conf", "/home/ansible ")
MENDED = {
    NO_WAY: ["nft", "delete table inet bad"],
    NO_NETWORK: ["nft", "delete table inet bad"],
    NO_ROOM: ["umount", "/opt"],
    NO_SUDO: ["mv", "/root/ansible", "/etc/sudoers.d"],
}
TAGS = [
    "environment_account",
    "environment_install",
    "controller_identity",
    "controller_service",
    "engines_service",
    "notebook_login",
    "notebook_certificate",
    "notebook_service",
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    found = Lab("bad")
    found.up(NODES, node_suites={OTHER_PYTHON: "trixie"})
    try:
        yield found
    finally:
        if not os.environ.get("KEEP"):
            found.down()


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Operator]:
    found = Operator(lab)
    yield found
    found.close()


Define = Callable[..., None]


@pytest.fixture
def define(lab: Lab, operator: Operator, tmp_path: Path) -> Iterator[Define]:
    """Define the cluster of the next runs, by its hosts and by variables of each."""

    def write(engines: Sequence[str], controller: str = "node1", **variables: dict[str, Any]) -> None:
        groups = {"controller": [controller], "engines": engines, "notebook": [controller]}
        children = {f"ipyparallel_{part}": {"hosts": dict.fromkeys(hosts)} for part, hosts in groups.items()}
        settings = {"ipyparallel_engines_per_host": 1, "ansible_timeout": 5}
        everything: dict[str, Any] = {"ipyparallel": {"children": children, "vars": settings}}
        hosts = {name: dict(values) for name, values in variables.items()}
        text = json.dumps({"all": {"hosts": hosts, "children": everything}})
        (tmp_path / "2-cluster.yml").write_text(text)

    nodes = tmp_path / "1-nodes.yml"
    # the nodes without the lab's own cluster
    nodes.write_text((lab.directory / "inventory.yml").read_text().split("\n    ipyparallel:")[0] + "\n")
    before, operator.inventory = operator.inventory, tmp_path
    yield write
    operator.inventory = before


def listings(operator: Operator, nodes: Sequence[str]) -> dict[str, list[str]]:
    """Return what is on nodes, by node."""
    said = operator.shells(nodes, LISTED)
    return {
        node: [line for line in text.splitlines() if not any(part in line for part in NOT_OURS)]
        for node, text in said.items()
    }


def login(lab: Lab, address: str) -> dict[str, str]:
    """Return the variables of a further name of a node."""
    return {
        "ansible_host": address,
        "ansible_user": "ansible",
        "ansible_ssh_private_key_file": str(lab.directory / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.directory / 'known_hosts'}",
    }


def engines(operator: Operator) -> dict[str, int]:
    """Return the engines that the hub has, by host."""
    status = operator.status()
    assert status["running"], status
    found: dict[str, int] = {}
    for engine in status["engines"]:
        found[engine["host"]] = found.get(engine["host"], 0) + 1
    return found


# ---- empty hosts


@pytest.fixture(scope="module")
def empty(operator: Operator) -> dict[str, list[str]]:
    """Return what is on empty nodes."""
    operator.home.mkdir(mode=0o700, exist_ok=True)
    return listings(operator, NODES)


def test_check_mode_passes_and_changes_nothing(operator, define, empty):
    define([*GOOD, NO_SUDO])
    run = operator.ok("site", "--check", "--diff")
    assert sum(run.changed.values()) > 0, "it says what would be made"
    after = listings(operator, GOOD)
    assert {node: sorted(set(after[node]) ^ set(empty[node])) for node in GOOD} == {node: [] for node in GOOD}


@pytest.mark.parametrize(
    ("hosts", "variables", "names"),
    [
        pytest.param(
            ["node1", OTHER_PYTHON],
            {},
            ["3.11 on node1", f"3.13 on {OTHER_PYTHON}", "ipyparallel_python"],
            id="other Python",
        ),
        pytest.param(
            ["node1", "node2", "again"],
            {"again": "node2"},
            ["node2", "again", "one machine, listed twice"],
            id="one machine twice",
        ),
        pytest.param(
            ["node1", "again"], {"again": "node1"}, ["node1", "again", "one machine"], id="the controller host twice"
        ),
        pytest.param(
            GOOD,
            {"node1": {"ipyparallel_address": "127.0.0.1"}},
            ["127.0.0.1", "node2 cannot reach it", "ipyparallel_address of node1", "such as 10.93."],
            id="loopback",
        ),
        pytest.param(
            GOOD,
            {"node1": {"ipyparallel_address": "192.0.2.7"}},
            ["192.0.2.7 is not an address of node1", "ipyparallel_address"],
            id="another's address",
        ),
        pytest.param([], {}, ["ipyparallel_engines has no host"], id="no host in a group"),
        pytest.param(
            GOOD,
            {"node1": {"ansible_become_user": "nobody"}},
            ["controller host node1 has failed", "needs root"],
            id="controller host without root",
        ),
        pytest.param(
            GOOD,
            {"node1": {"ansible_port": 9}},
            ["controller host node1 has failed"],
            id="controller host not reached by SSH",
        ),
    ],
)
def test_it_is_refused_before_anything_changes(lab, operator, define, empty, hosts, variables, names):
    addresses = {node.name: node.address for node in lab.known()}
    given = {
        host: values if isinstance(values, dict) else login(lab, addresses[values])
        for host, values in variables.items()
    }
    define(hosts, **given)
    said = operator.refused("deploy")
    assert [name for name in names if name not in said] == [], said
    after = listings(operator, GOOD)
    assert {node: sorted(set(after[node]) ^ set(empty[node])) for node in GOOD} == {node: [] for node in GOOD}


@pytest.mark.parametrize("tag", [tag for tag in TAGS if not tag.startswith("environment")])
def test_a_phase_alone_says_what_is_missing(operator, define, tag):
    define(GOOD)
    said = operator.refused("deploy", "--tags", tag)
    assert "the account of the cluster is missing on node1, node2" in said, said
    assert "ipyparallel.cluster.deploy with --tags environment" in said


def test_one_host_of_a_cluster_that_is_not_there(operator, define):
    define(GOOD)
    said = operator.refused("deploy", "--limit", "node2")
    assert "there is no identity of a cluster" in said, said
    assert "deploy the cluster first" in said


# ---- hosts that fail, and hosts that go on


@pytest.fixture(scope="module")
def broken(lab: Lab) -> None:
    """Take from some nodes what a host needs."""
    (controller,) = lab.known(["node1"])
    subnet = controller.address.rsplit(".", 1)[0] + ".0/24"
    no_way = f"ip daddr {controller.address} tcp dport {PORTS} drop"
    no_network = f"ip daddr != {subnet} drop"
    for node, rule in ((NO_WAY, no_way), (NO_NETWORK, no_network)):
        chain = f"chain output {{\ntype filter hook output priority 0; policy accept;\n{rule}\n}}"
        lab.execute(node, ["nft", f"table inet bad {{\n{chain}\n}}"])
    lab.execute(NO_ROOM, ["mount", "-t", "tmpfs", "-o", "size=20m", "bad", "/opt"])
    lab.execute(NO_SUDO, ["mv", "/etc/sudoers.d/ansible", "/root"])
    lab.kill(OTHER_PYTHON)


def test_hosts_that_fail_are_named_and_the_others_are_a_cluster(lab, operator, define, broken):
    define(NODES)
    run = operator.play("site", seconds=400)
    assert run.status != 0
    assert f"{', '.join(NODES[2:])}: failed" in run.said
    (controller,) = lab.known(["node1"])
    for said in (
        "Missing sudo password",
        "has 20 MB free, but the cluster's software needs",
        f"port 10100 at {controller.address}, the controller on node1, is not reached from {NO_WAY}: no answer in 3 s",
        "the package index cannot be reached",
        "Make sure this host can be reached over ssh",
        "Cluster ipyparallel: 2 engines on 2 nodes",
    ):
        assert said in run.said
    assert engines(operator) == {"node1": 1, "node2": 1}
    # what is not there is not waited for, by nobody
    assert operator.ok("status")
    assert {node: run.changed[node] for node in NODES[2:-1]} == dict.fromkeys(NODES[2:-1], 0)


def test_the_next_run_completes_it(lab, operator, define):
    for node, command in MENDED.items():
        lab.execute(node, command)
    define([*GOOD, NO_SUDO, NO_ROOM, NO_WAY])
    before = operator.pids("ipyparallel", GOOD)
    operator.ok("site")
    assert engines(operator) == dict.fromkeys([*GOOD, NO_SUDO, NO_ROOM, NO_WAY], 1)
    assert operator.pids("ipyparallel", GOOD) == before


# ---- a finished cluster, and parts of it

FINISHED = [*GOOD, NO_SUDO, NO_ROOM, NO_WAY]


@pytest.fixture
def undisturbed(operator: Operator) -> Iterator[None]:
    before = operator.pids("ipyparallel", FINISHED)
    assert all(before.values())
    yield
    assert operator.pids("ipyparallel", FINISHED) == before


def test_check_mode_of_a_finished_cluster_changes_nothing(operator, define, undisturbed):
    define(FINISHED)
    assert set(operator.ok("site", "--check", "--diff").changed.values()) == {0}


@pytest.mark.parametrize("tag", TAGS)
def test_a_phase_alone_on_a_finished_cluster(operator, define, undisturbed, tag):
    define(GOOD)
    assert operator.ok("deploy", "--tags", tag).changed == {"node1": 0, "node2": 0}


@pytest.mark.parametrize("limit", ["node1", "node2"])
def test_limit_to_a_host_of_a_finished_cluster(operator, define, undisturbed, limit):
    define(FINISHED)
    run = operator.ok("deploy", "--limit", limit)
    assert run.changed == {limit: 0}
    assert set(run.tasks) <= {"node1", limit}


def test_a_batch_at_a_time(operator, define, undisturbed, tmp_path_factory):
    define(FINISHED)
    directory = tmp_path_factory.mktemp("playbooks")
    text = (
        (TREE / "playbooks/deploy.yml").read_text().replace("gather_facts: false", "gather_facts: false\n  serial: 1")
    )
    (directory / "batches.yml").write_text(text)
    (directory / "check.yml").symlink_to(TREE / "playbooks/check.yml")
    (directory / "group_vars").symlink_to(TREE / "playbooks/group_vars")
    run = operator.ok(str(Path(os.path.relpath(directory, TREE / "playbooks")) / "batches"))
    assert run.changed == dict.fromkeys(FINISHED, 0)


def test_one_more_host_with_limit(operator, define, undisturbed):
    define([*FINISHED, NO_NETWORK])
    run = operator.ok("deploy", "--limit", NO_NETWORK)
    assert set(run.tasks) == {"node1", NO_NETWORK}
    assert sum(task["changed"] for task in run.tasks["node1"]) <= 3
    assert engines(operator) == dict.fromkeys([*FINISHED, NO_NETWORK], 1)


def test_one_more_host_of_another_python(lab, operator, define, undisturbed):
    lab.start(OTHER_PYTHON)
    define([*FINISHED, OTHER_PYTHON])
    said = operator.refused("deploy", "--limit", OTHER_PYTHON)
    assert "the cluster runs with 3.11 (controller host node1)" in said
    assert f"3.13 on {OTHER_PYTHON}" in said


def test_one_more_host_that_is_there_already(lab, operator, define, undisturbed):
    (node2,) = lab.known(["node2"])
    define([*FINISHED, "again"], again=login(lab, node2.address))
    said = operator.refused("deploy", "--limit", "again")
    assert "node2 and again are one machine, listed twice" in said


def test_the_controller_host_fails_on_a_running_cluster(operator, define, undisturbed):
    define(FINISHED, node1={"ansible_port": 9})
    said = operator.refused("deploy")
    assert "controller host node1 has failed" in said
