# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is not as it should be: refused before anything changes, or a host left out while the others go on.

The tests go from empty hosts to a finished cluster, in the order of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, changes, mark, processes
from conftest import Define
from kinds import engines
from lab import TREE, Lab
from remote import Operator, Run

NODES = ["node1", "node2", "node3"]
PORTS = "10100-10119"
SETTINGS = {"ipyparallel_engines_per_host": 1, "ansible_timeout": 5}
OFF = {"ansible_port": 9}
# an account with sudo is made one without
NO_ROOT = {"ansible_become_user": "nobody"}


def cluster(*names: str, of_host: Mapping[str, Any] | None = None, **settings: Any) -> Cluster:
    """Return cluster ipyparallel, with its controller on node1 and engines on these hosts."""
    return Cluster("ipyparallel", "node1", names, ["node1"], {**SETTINGS, **settings}, of_host or {})


GOOD = cluster(*NODES)


def at_once(runs: Mapping[str, tuple[Operator, tuple[str, ...]]]) -> dict[str, Run]:
    """Run playbooks that change nothing, some at a time."""
    with ThreadPoolExecutor(3) as pool:
        started = {name: pool.submit(operator.play, *given) for name, (operator, given) in runs.items()}
    return {name: run.result() for name, run in started.items()}


def check_refusal(run: Run, names: list[str]) -> None:
    assert run.status != 0
    assert [name for name in names if name not in run.said] == [], run.said
    assert not any(run.changed.values()), run.said
    assert "Traceback" not in run.said


# ---- what is refused, on empty hosts and on a finished cluster

DEFINITIONS: dict[str, tuple[list[Cluster], tuple[str, ...], list[str]]] = {
    "another Python on a host": (
        [cluster("node1", "node4")],
        ("deploy",),
        ["3.11 on node1", "3.13 on node4", "ipyparallel_python"],
    ),
    "one machine twice": (
        [cluster("node1", "node2", "node2_again")],
        ("deploy",),
        ["node2 and node2_again are one machine, listed twice"],
    ),
    "the controller host twice": (
        [cluster("node1", "node1_again")],
        ("deploy",),
        ["node1 and node1_again are one machine"],
    ),
    "an address of nobody": (
        [cluster("node1", "node2", of_host={"node1": {"ipyparallel_address": "192.0.2.7"}})],
        ("deploy",),
        ["192.0.2.7 is not an address of node1", "ipyparallel_address"],
    ),
    "a controller on loopback": (
        [cluster("node1", "node2", of_host={"node1": {"ipyparallel_address": "127.0.0.1"}})],
        ("deploy",),
        ["127.0.0.1", "node2 cannot reach it", "ipyparallel_address of node1", "such as 10."],
    ),
    "a group without a host": ([cluster()], ("deploy",), ["ipyparallel_engines has no host"]),
    "a cluster that is not there": (
        [GOOD],
        ("deploy", "-e", "cluster=gamma"),
        ["no cluster 'gamma'", "it has ipyparallel"],
    ),
    "a name that is none": ([GOOD], ("deploy", "-e", "cluster=a/b"), ["'a/b' is not a name for a cluster"]),
    "one name in two clusters": (
        [GOOD, Cluster("beta", "node3", ["node3"])],
        ("deploy",),
        ["host node3 is in clusters ipyparallel and beta", "node3_ipyparallel with ansible_host: node3"],
    ),
    "a controller host without root": (
        [cluster("node1", "node2", of_host={"node1": NO_ROOT})],
        ("deploy",),
        ["controller host node1 has failed", "scope system needs root", "ipyparallel_scope=user"],
    ),
    "a controller host without SSH": (
        [cluster("node1", "node2", of_host={"node1": OFF})],
        ("deploy",),
        ["controller host node1 has failed", "Make sure this host can be reached over ssh"],
    ),
    "a port that another process has": (
        [cluster("node1", "node2", ipyparallel_controller_port_base=20500)],
        ("deploy",),
        [r"port 20503 on node1 is in use by pid", "(python3", "set ipyparallel_controller_port_base"],
    ),
    "a packer that is none": (
        [cluster("node1", "node2", ipyparallel_controller_packer="yaml")],
        ("deploy",),
        ["ipyparallel_controller_packer", "yaml", "json, pickle, msgpack, orjson"],
    ),
    "a wrong variable of the controller host, and nothing else is destroyed": (
        [cluster(*NODES, of_host={"node1": {"ipyparallel_engines_wait": "soon"}})],
        ("destroy",),
        ["ipyparallel_engines_wait", "The controller host node1 has failed"],
    ),
    "a number of engines that is none": (
        [cluster("node1", "node2", ipyparallel_engines_per_host="many")],
        ("deploy",),
        ["ipyparallel_engines_per_host", "many", "0 or more"],
    ),
    "a group of the system that is not there": (
        [cluster("node1", "node2", ipyparallel_group="nobodys")],
        ("deploy",),
        ["there is no group 'nobodys' on node1", "set ipyparallel_group"],
    ),
}

PHASES = ["controller_identity", "notebook"]


@pytest.fixture(scope="module")
def taken(lab: Lab, define: Define) -> Iterator[None]:
    """Let another process have a port."""
    code = "import socket, sys; s = socket.create_server(('0.0.0.0', 20503)); print(1, flush=True); sys.stdin.read()"
    with define(GOOD).start("node1", f'exec python3 -c "{code}"') as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline()
        yield
        process.stdin.close()


@pytest.fixture(scope="module")
def refusals(define: Define, empty: object, taken: None) -> tuple[dict[str, Run], dict[str, list[str]]]:
    """Try what is refused on empty hosts; return that, and what it has changed on them."""
    tried = {name: (define(*clusters), given) for name, (clusters, given, _names) in DEFINITIONS.items()}
    phases = {f"--tags {tag}": (define(GOOD), ("deploy", "--tags", tag)) for tag in PHASES}
    limited = {"--limit": (define(GOOD), ("deploy", "--limit", "node2"))}
    operator = define(GOOD)
    mark(operator, NODES)
    runs = at_once({**tried, **phases, **limited})
    return runs, changes(operator, NODES)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_it_is_refused(refusals: tuple[dict[str, Run], Any], definition: str) -> None:
    check_refusal(refusals[0][definition], DEFINITIONS[definition][2])


@pytest.mark.parametrize("tag", PHASES)
def test_a_phase_alone_says_what_is_missing(refusals: tuple[dict[str, Run], Any], tag: str) -> None:
    missing = "the account of the cluster is missing on node1, node2, node3"
    check_refusal(refusals[0][f"--tags {tag}"], [missing, "ipyparallel.cluster.deploy with --tags environment"])


def test_a_host_of_a_cluster_that_is_not_there(refusals: tuple[dict[str, Run], Any]) -> None:
    check_refusal(refusals[0]["--limit"], ["there is no identity of a cluster", "deploy the cluster first"])


def test_nothing_has_changed(refusals: tuple[Any, dict[str, list[str]]]) -> None:
    assert refusals[1] == {}


OTHER_PYTHONS = """
mkdir -p /usr/local/lib/ahead
echo 'import time; now = time.time; time.time = lambda: now() + 3600' > /usr/local/lib/ahead/sitecustomize.py
echo '#!/bin/sh
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/usr/local/lib/ahead exec /usr/bin/python3 "$@"' > /usr/local/bin/python-ahead
echo '#!/bin/sh
/usr/bin/python3 "$@" | sed "s/x86_64/riscv64/; s/aarch64/riscv64/"' > /usr/local/bin/python-other
chmod 755 /usr/local/bin/python-*
"""


def test_clocks_and_architectures_that_differ_are_warned_of(define: Define) -> None:
    """All nodes have one clock and one processor, so one host's Python tells of others."""
    told = {"ansible_python_interpreter": "/usr/local/bin/python-ahead", "ipyparallel_python": "python-other"}
    operator = define(cluster("node1", "node2", of_host={"node2": told}))
    operator.shell("node2", OTHER_PYTHONS)
    mark(operator, NODES)
    run = operator.ok("deploy", "--check", "--diff")
    after = changes(operator, NODES)
    operator.shell("node2", "rm -r /usr/local/lib/ahead /usr/local/bin/python-*")
    clock = re.search(r"the clock of node1 is at least (\d+) s behind that of node2", run.said)
    assert clock, run.said
    assert 3400 < int(clock.group(1)) <= 3600
    assert re.search(r"architectures differ: riscv64 on node2; \w+ on node1", run.said)
    assert sum(run.changed.values()) > 0, "it says what would be made"
    assert after == {}


# ---- hosts that fail, and hosts that go on


def test_hosts_that_fail_are_named_and_the_others_are_a_cluster(lab: Lab, define: Define) -> None:
    operator = define(cluster(*NODES, "node4", of_host={"node4": OFF}))
    lab.execute("node2", ["mv", "/etc/sudoers.d/ansible", "/root"])
    lab.execute("node3", ["mount", "-t", "tmpfs", "-o", "size=20m", "bad", "/opt"])
    try:
        run = operator.play("site")
    finally:
        lab.execute("node2", ["mv", "/root/ansible", "/etc/sudoers.d"])
        lab.execute("node3", ["umount", "/opt"])
    assert run.status != 0
    for said in (
        "node2, node3, node4: failed",
        "Missing sudo password",
        "has 20 MB free, but the cluster's software needs",
        "Make sure this host can be reached over ssh",
        "Cluster ipyparallel: 1 engine on 1 node",
    ):
        assert said in run.said
    assert [run.changed[node] for node in ("node2", "node3", "node4")] == [0, 0, 0]
    # nobody waits for what is not there
    assert engines(operator) == {"node1": 1}


def test_so_are_hosts_that_reach_not_enough(lab: Lab, define: Define) -> None:
    operator = define(GOOD)
    (controller,) = lab.known(["node1"])
    subnet = controller.address.rsplit(".", 1)[0] + ".0/24"
    drop = {
        "node2": f"ip daddr != {subnet} drop",
        "node3": f"ip daddr {controller.address} tcp dport {PORTS} drop",
    }
    before = processes(operator, "ipyparallel", ["node1"])
    for node, rule in drop.items():
        chain = f"chain output {{\ntype filter hook output priority 0; policy accept;\n{rule}\n}}"
        lab.execute(node, ["nft", f"table inet bad {{\n{chain}\n}}"])
    try:
        run = operator.play("site")
    finally:
        for node in drop:
            lab.execute(node, ["nft", "delete table inet bad"])
    assert run.status != 0
    for said in (
        "node2, node3: failed",
        "the package index cannot be reached",
        f"port 10100 at {controller.address}, the controller on node1, is not reached from node3: no answer in 3 s",
        "let TCP to these ports through",
        "Cluster ipyparallel: 1 engine on 1 node",
    ):
        assert said in run.said
    assert (run.changed["node1"], run.changed["node3"]) == (0, 0)
    assert processes(operator, "ipyparallel", ["node1"]) == before


def test_the_next_run_completes_it(define: Define) -> None:
    """It is limited to the hosts that had failed, and touches the others no more than a new host does."""
    operator = define(GOOD)
    before = processes(operator, "ipyparallel", ["node1"])
    run = operator.ok("deploy", "--limit", "node2,node3")
    assert engines(operator) == dict.fromkeys(NODES, 1)
    assert sum(task["changed"] for task in run.tasks["node1"]) <= 3
    assert processes(operator, "ipyparallel", ["node1"]) == before


# ---- a finished cluster, and parts of it


@pytest.fixture(scope="module")
def finished(define: Define) -> Operator:
    operator = define(GOOD)
    assert engines(operator) == dict.fromkeys(NODES, 1)
    return operator


@pytest.fixture(scope="module")
def trial(
    define: Define, finished: Operator, taken: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Run], dict[str, dict[str, Any]]]:
    """Run parts of a deployment, and what is refused, on a finished cluster; return that, and what it has disturbed."""
    playbooks = tmp_path_factory.mktemp("playbooks")
    text = (TREE / "playbooks/deploy.yml").read_text()
    batches = text.replace("gather_facts: false", "gather_facts: false\n  serial: 1")
    assert batches.count("serial: 1") > 5
    (playbooks / "batches.yml").write_text(batches)
    for name in ("check.yml", "group_vars"):
        (playbooks / name).symlink_to(TREE / "playbooks" / name)
    runs: dict[str, tuple[Operator, tuple[str, ...]]] = {
        name: (define(*clusters), given) for name, (clusters, given, _names) in DEFINITIONS.items() if name in AGAIN
    }
    runs.update({tag: (finished, ("deploy", "--tags", tag)) for tag in TAGS})
    runs.update({f"--limit {node}": (finished, ("deploy", "--limit", node)) for node in ("node1", "node2")})
    runs["--check"] = (finished, ("deploy", "--check", "--diff"))
    runs["serial"] = (finished, (f"{os.path.relpath(playbooks, TREE / 'playbooks')}/batches",))
    new = {"node4": cluster(*NODES, "node4"), "node2_again": cluster(*NODES, "node2_again")}
    runs.update({f"new {host}": (define(new[host]), ("deploy", "--limit", host)) for host in new})
    mark(finished, NODES)
    before = processes(finished, "ipyparallel", NODES)
    found = at_once(runs)
    after = processes(finished, "ipyparallel", NODES)
    other = {node: {*after[node].items()} ^ {*before[node].items()} for node in NODES}
    laid_down = {
        node: [path for path in paths if not RUNTIME.fullmatch(path)]
        for node, paths in changes(finished, NODES).items()
    }
    return found, {"processes": other, "files": laid_down}


@pytest.fixture(scope="module")
def parts(trial: tuple[dict[str, Run], Any]) -> dict[str, Run]:
    return trial[0]


# what processes write while they run
RUNTIME = re.compile(r"/var/lib/ipyparallel/ipyparallel/(controller|engines|health|notebook)(/.*)?")


def tags() -> list[str]:
    """Return the tag of each phase of each role."""
    files = sorted((TREE / "roles").glob("*/tasks/main.yml"))
    found = (re.findall(rf"\b{path.parts[-3]}_[a-z]+", " ".join(tag_lines(path))) for path in files)
    return [tag for tags_of_role in found for tag in dict.fromkeys(tags_of_role)]


def tag_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "tags:" in line]


TAGS = tags()
AGAIN = (
    "one machine twice",
    "a controller host without SSH",
    "a port that another process has",
    "a wrong variable of the controller host, and nothing else is destroyed",
)


def test_the_finished_cluster_is_undisturbed(trial: tuple[Any, dict[str, dict[str, Any]]]) -> None:
    disturbed = {what: {node: found for node, found in nodes.items() if found} for what, nodes in trial[1].items()}
    assert disturbed == {"processes": {}, "files": {}}


def test_there_are_phases() -> None:
    assert {"environment_install", "controller_identity", "engines_service", "notebook_service"} < set(TAGS)


@pytest.mark.parametrize("tag", TAGS)
def test_a_phase_alone_on_a_finished_cluster(parts: dict[str, Run], tag: str) -> None:
    assert (parts[tag].status, parts[tag].changed) == (0, dict.fromkeys(NODES, 0)), parts[tag].said


@pytest.mark.parametrize("part", ["--check", "serial"])
def test_all_hosts_in_check_mode_and_one_at_a_time(parts: dict[str, Run], part: str) -> None:
    assert (parts[part].status, parts[part].changed) == (0, dict.fromkeys(NODES, 0)), parts[part].said


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_limit_to_one_host_of_a_finished_cluster(parts: dict[str, Run], node: str) -> None:
    run = parts[f"--limit {node}"]
    assert (run.status, run.changed) == (0, {node: 0}), run.said
    assert set(run.tasks) <= {"node1", node}


@pytest.mark.parametrize("definition", AGAIN)
def test_it_is_refused_beside_a_finished_cluster(parts: dict[str, Run], definition: str) -> None:
    check_refusal(parts[definition], DEFINITIONS[definition][2])


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("node4", ["the cluster runs with 3.11 (controller host node1)", "3.13 on node4"]),
        ("node2_again", ["node2 and node2_again are one machine, listed twice"]),
    ],
)
def test_one_more_host_that_does_not_fit(parts: dict[str, Run], host: str, names: list[str]) -> None:
    check_refusal(parts[f"new {host}"], names)
