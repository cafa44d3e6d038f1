# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The firewall's own part: exactly what each kind of host needs, from boot on, whatever others do to nftables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import BASE, scan
from remote import DOCUMENTED, Operator

RANGE = [*range(BASE, BASE + 20)]
ENGINE = {BASE + number for number in DOCUMENTED["engine"]}
CLIENT = {BASE, *(BASE + number for number in DOCUMENTED["client"])}
UNIT = "ipyparallel-ipyparallel-firewall.service"


def shown(operator: Operator, *names: str) -> dict[str, str]:
    text = operator.shell("node1", f"systemctl show {UNIT} --property={','.join(names)}")
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture
def nftables(operator: Operator) -> Iterator[Callable[[str], None]]:
    """Do something with Debian's own nftables.service, which is as it was afterwards."""
    was = operator.shell("node1", "systemctl is-active nftables.service", check=False).strip()

    def do(verb: str) -> None:
        operator.shell("node1", f"systemctl {verb} nftables.service")

    yield do
    do("start" if was == "active" else "stop")


@pytest.mark.parametrize("node", ["node2", "node3"])
def test_engine_hosts_reach_the_engine_ports_and_no_other(operator: Operator, address: str, node: str) -> None:
    assert scan(operator, node, address, RANGE) == ENGINE


def test_the_controller_host_reaches_all_that_listens(operator: Operator, address: str) -> None:
    assert scan(operator, "node1", address, RANGE) == ENGINE | CLIENT


def test_the_table_outlives_what_nftables_service_flushes(
    operator: Operator, address: str, nftables: Callable[[str], None]
) -> None:
    for verb in ("start", "reload", "restart", "stop"):
        nftables(verb)
        assert scan(operator, "node4", address, RANGE) == set(), verb
        assert scan(operator, "node2", address, RANGE) == ENGINE, verb


def test_the_table_is_there_before_anything_listens(operator: Operator) -> None:
    found = shown(operator, "Before", "UnitFileState", "ActiveState")
    assert (found["UnitFileState"], found["ActiveState"]) == ("enabled", "active")
    assert {"network-pre.target", "ipyparallel-ipyparallel-controller.service"} <= set(found["Before"].split())


def test_the_unit_may_do_nothing_else(operator: Operator) -> None:
    wanted = {
        "CapabilityBoundingSet": "cap_net_admin",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "RestrictAddressFamilies": "AF_NETLINK",
    }
    assert shown(operator, *wanted) == wanted


def test_no_other_table_is_ours(operator: Operator) -> None:
    said = operator.shell("node1", "PATH=$PATH:/usr/sbin nft list tables")
    assert [line for line in said.splitlines() if "ipyparallel" in line] == ["table inet ipyparallel_ipyparallel"]
