# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What listens on the nodes, and who reaches it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from conftest import BASE, NODES, NOTEBOOK, SCAN, scan
from lab import TREE, Lab
from remote import DOCUMENTED, FIREWALL, Operator

SSH = {("0.0.0.0", 22), ("[::]", 22)}


def listening(operator: Operator) -> dict[str, set[tuple[str, int]]]:
    found = {}
    for node, text in operator.shells(NODES, "ss --no-header --tcp --udp --listening --numeric").items():
        words = [line.split()[4] for line in text.splitlines()]
        found[node] = {(word.rpartition(":")[0], int(word.rpartition(":")[2])) for word in words}
    return found


def documented(address: str) -> dict[str, set[tuple[str, int]]]:
    """Return what docs/ports.md says, but for the ports that engines choose."""
    places = {"the controller's address": address, "127.0.0.1": "127.0.0.1"}
    lines = [line for line in (TREE / "docs/ports.md").read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {("127.0.0.1", NOTEBOOK)}
    for ports, _what, where, *_who in rows:
        numbers = [BASE + int(number) for number in re.findall(r"\+(\d+)", ports)]
        if numbers and where:
            found |= {(places[where], port) for port in range(numbers[0], numbers[-1] + 1)}
    assert len(found) == 20
    return {"node1": found | SSH, "node2": SSH, "node3": SSH}


@pytest.mark.parametrize(("node", "engines"), [("node1", 1), ("node2", 2), ("node3", 2)])
def test_listens_on_the_documented_ports_only(operator: Operator, address: str, node: str, engines: int) -> None:
    found, expected = listening(operator)[node], documented(address)[node]
    assert expected <= found
    # one for each engine and one for its nanny
    chosen = found - expected
    assert {where for where, _port in chosen} == {"127.0.0.1"}
    assert len(chosen) == 2 * engines


@pytest.fixture(scope="module")
def everything(operator: Operator) -> list[int]:
    """Return all ports on which something listens anywhere, and all of the cluster's range."""
    found = {port for sockets in listening(operator).values() for _address, port in sockets}
    return sorted(found | {*range(BASE, BASE + 20), NOTEBOOK})


@pytest.mark.parametrize("node", NODES)
def test_a_fourth_host_reaches_ssh_only(lab: Lab, operator: Operator, everything: list[int], node: str) -> None:
    found = scan(operator, "node4", lab.known([node])[0].address, everything)
    expected = {22}
    if node == "node1" and not FIREWALL:
        # without the firewall, what listens on the address; the keys guard it
        expected |= {BASE + number for which in ("engine", "client") for number in DOCUMENTED[which]}
    assert found == expected


def test_the_operators_machine_reaches_ssh_only(
    lab: Lab, operator: Operator, address: str, everything: list[int]
) -> None:
    """It is beside the nodes, and in none of the cluster's groups."""
    done = subprocess.run(
        [sys.executable, "-c", SCAN, address, *map(str, everything)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert 22 in found
    assert not FIREWALL or found == [22]
