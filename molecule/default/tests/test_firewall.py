# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who reaches the running cluster's ports: its own hosts what they need, everybody else nothing but SSH.

The machine that runs the tests is everybody else: it is beside the nodes, and in none of the cluster's groups.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

RUNNER = AnsibleRunner(os.environ["MOLECULE_INVENTORY_FILE"])
CONTROLLERS = RUNNER.get_hosts("*_controller")
SCAN = """
import json, socket, sys
found = []
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), 10).close()
        found.append(port)
    except ConnectionRefusedError:
        pass
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def controller() -> Host:
    assert len(CONTROLLERS) == 1
    return RUNNER.get_host(CONTROLLERS[0])


@pytest.fixture(scope="module")
def cluster() -> str:
    names = RUNNER.get_variables(CONTROLLERS[0])["group_names"]
    return next(name.removesuffix("_controller") for name in names if name.endswith("_controller"))


@pytest.fixture(scope="module")
def identity(controller: Host, cluster: str) -> dict[str, object]:
    """What may be known of the identity: address and first port."""
    code = "import json, sys; print(json.dumps({n: json.load(open(sys.argv[1]))[n] for n in ('address', 'port_base')}))"
    path = f"/var/lib/ipyparallel/{cluster}/identity.json"
    with controller.sudo():
        return dict(json.loads(controller.check_output("python3 -c %s %s", code, path)))


@pytest.fixture(scope="module")
def ports(identity: dict[str, int]) -> range:
    return range(identity["port_base"], identity["port_base"] + 20)


@pytest.fixture
def scan(identity: dict[str, str], ports: range) -> Callable[[Host | None], set[int]]:
    """Return the ports of the controller host, as numbers within the cluster's range, that are open to a host."""

    def run(host: Host | None) -> set[int]:
        if host is not None:
            arguments = " ".join(str(port) for port in ports)
            output = host.check_output(f"python3 -c {shlex.quote(SCAN)} {identity['address']} {arguments}")
            return {port - ports[0] for port in json.loads(output)}
        return {port - ports[0] for port in ports if is_open(identity["address"], port)}

    return run


def is_open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def nftables(controller: Host) -> Iterator[Callable[[str], None]]:
    """Do something with Debian's own nftables.service, which is as it was afterwards."""
    was_active = controller.run("systemctl is-active nftables.service").rc == 0

    def do(verb: str) -> None:
        with controller.sudo():
            controller.check_output("systemctl %s nftables.service", verb)

    yield do
    do("start" if was_active else "stop")


ENGINE, CLIENT = set(range(9)), {0, *range(9, 15)}


def test_engine_hosts_reach_the_engine_ports_and_no_other(scan):
    others = [name for name in RUNNER.get_hosts("*_engines") if name not in CONTROLLERS]
    notebooks = RUNNER.get_hosts("*_notebook")
    assert others
    for name in others:
        allowed = ENGINE | (CLIENT if name in notebooks else set())
        assert scan(RUNNER.get_host(name)) == allowed, name


def test_the_controller_host_reaches_all_that_listens(scan, controller):
    assert scan(controller) >= ENGINE | CLIENT


def test_everybody_else_reaches_nothing_but_ssh(scan, identity):
    assert scan(None) == set()
    assert is_open(identity["address"], 22)


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_the_table_outlives_what_nftables_service_flushes(nftables, scan, verb):
    if verb == "reload":
        nftables("start")
    nftables(verb)
    assert scan(None) == set()


def test_the_table_is_there_before_anything_listens(controller, cluster):
    unit = f"ipyparallel-{cluster}-firewall.service"
    output = controller.check_output("systemctl show %s --property=Before,UnitFileState,ActiveState", unit)
    shown = dict(line.split("=", 1) for line in output.splitlines())
    assert (shown["UnitFileState"], shown["ActiveState"]) == ("enabled", "active")
    assert {"network-pre.target", f"ipyparallel-{cluster}-controller.service"} <= set(shown["Before"].split())


def test_the_unit_may_do_nothing_else(controller, cluster):
    names = "CapabilityBoundingSet,NoNewPrivileges,ProtectSystem,ProtectHome,RestrictAddressFamilies"
    unit = f"ipyparallel-{cluster}-firewall.service"
    output = controller.check_output("systemctl show %s --property=%s", unit, names)
    assert dict(line.split("=", 1) for line in output.splitlines()) == {
        "CapabilityBoundingSet": "cap_net_admin",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "RestrictAddressFamilies": "AF_NETLINK",
    }


def test_no_other_table_is_ours(controller, cluster):
    with controller.sudo():
        tables = controller.check_output("PATH=$PATH:/usr/sbin nft list tables").splitlines()
    assert [table for table in tables if "ipyparallel" in table] == [f"table inet ipyparallel_{cluster}"]
