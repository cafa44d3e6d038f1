# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of a cluster on three hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import testinfra
from figures import of_scenario
from lab import TREE, Lab
from remote import Operator

figures, pytest_terminal_summary = of_scenario(TREE / "build/default.json")
NODES = ["node1", "node2", "node3"]
EVERY = [*NODES, "node4"]
BASE = 10100
NOTEBOOK = 8888

SCAN = """
import asyncio, json, sys
address, *ports = sys.argv[1:]

async def is_open(port):
    try:
        _reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 20)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True

async def main():
    found = await asyncio.gather(*(is_open(int(port)) for port in ports))
    print(json.dumps([int(port) for port, yes in zip(ports, found) if yes]))

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab("default")


@pytest.fixture(scope="session")
def operator(lab: Lab) -> Operator:
    return Operator(lab)


@pytest.fixture(scope="session")
def address(lab: Lab) -> str:
    """Return the controller's address."""
    return lab.known(["node1"])[0].address


@pytest.fixture(scope="session")
def on(lab: Lab, operator: Operator) -> Callable[[str], Any]:
    """Return testinfra's view of a node, as root over SSH."""

    def host(node: str) -> Any:
        config = str(lab.directory / "ssh_config")
        return testinfra.get_host(f"ssh://{node}", ssh_config=config, sudo=True, controlpersist=60)

    return host


def secrets_of(operator: Operator) -> dict[str, str]:
    """Return the cluster's secrets, and the public key, whose possession lets one in."""
    state = "/var/lib/ipyparallel/ipyparallel"
    code = f"""
import json
identity = json.load(open("{state}/identity.json"))
found = {{name: identity[name] for name in ("key", "curve_secretkey", "curve_publickey")}}
for name in ("password", "token", "password.hash"):
    found[name] = open("{state}/notebook/" + name).read().strip()
for name in ("authority.key.pem", "notebook/key.pem"):
    found[name] = open("{state}/" + name).read().splitlines()[1]
print(json.dumps(found))
"""
    found: dict[str, str] = operator.python("node1", code)
    assert all(len(secret) > 15 for secret in found.values())
    return found


def scan(operator: Operator, node: str, of: str, ports: list[int]) -> set[int]:
    """Return which of the ports of an address are open to a node."""
    return {*operator.python(node, SCAN, of, *map(str, ports), account="plain")}


def connected(operator: Operator) -> str:
    """Return what the operator's own client says, through the tunnel."""
    code = "import ipyparallel as p; print(p.Client(profile='ipyparallel', timeout=20)[:].apply_sync(lambda: 6 * 7))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=operator.environ()
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def more(lab: Lab) -> list[str]:
    """Return the arguments that make the fourth host an engine host of the cluster."""
    path = lab.directory / "more.yml"
    path.write_text("ipyparallel_engines: {hosts: {node4: }}\n")
    return ["--inventory", str(path)]
