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
from lab import Lab
from remote import Operator

NODES = ["node1", "node2", "node3", "node4", "node5", "node6", "node7"]
GOOD = ["node1", "node2"]
NO_SUDO, OTHER_PYTHON, NO_ROOM, NO_WAY, NO_NETWORK = NODES[2:]
PORTS = "10100-10119"
LISTED = "find /etc /opt /var/lib /home /run/ipyparallel -xdev -printf '%p %m %u %s %T@\\n' 2>/dev/null | sort"
# what logging in and sudo write themselves
NOT_OURS = ("/var/lib/sudo", "/var/lib/systemd", "/.ansible", "/.ssh", "/etc/resolv.conf", "/home/ansible ")
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
    login = {"ansible_user": "ansible", "ansible_ssh_private_key_file": str(lab.directory / "id_ed25519")}
    login["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={lab.directory / 'known_hosts'}"
    given = {
        host: values if isinstance(values, dict) else {"ansible_host": addresses[values], **login}
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
def broken(lab: Lab) -> dict[str, list[str]]:
    """Take from some nodes what a host needs; return how each is mended."""
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
    return {
        NO_WAY: ["nft", "delete table inet bad"],
        NO_NETWORK: ["nft", "delete table inet bad"],
        NO_ROOM: ["umount", "/opt"],
        NO_SUDO: ["mv", "/root/ansible", "/etc/sudoers.d"],
    }


def test_hosts_that_fail_are_named_and_the_others_are_a_cluster(operator, define, broken):
    define(NODES)
    run = operator.play("site", seconds=400)
    print(run.stdout[-12000:], run.stderr[-3000:], run.seconds)
    assert run.status != 0
    left_out = f"{', '.join(NODES[2:])}: failed"
    assert left_out in run.said
    assert engines(operator) == {"node1": 1, "node2": 1}
