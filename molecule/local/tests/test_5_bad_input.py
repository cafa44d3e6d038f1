# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bad input gets one clear message that names the value and the remedy, and the cluster goes on as it was."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from account import Account


@pytest.fixture(autouse=True)
def unharmed(account: Account) -> Iterator[None]:
    """Nothing runs otherwise, and nothing laid down is changed, by a refused run."""

    def laid_down() -> dict[Path, bytes]:
        directories = (
            account.config,
            account.state / "connector",
            account.home / ".ipython/profile_ipyparallel/security",
        )
        return {path: path.read_bytes() for base in directories for path in base.rglob("*") if path.is_file()}

    before = account.processes(), laid_down(), os.readlink(account.prefix / "current")
    assert before[0]
    yield
    assert (account.processes(), laid_down(), os.readlink(account.prefix / "current")) == before


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("ipyparallel_controller_packer", "yaml", ["json", "pickle", "msgpack", "orjson"]),
        ("ipyparallel_controller_encryption", "tls", ["curve", "none"]),
        ("ipyparallel_controller_scheduler", "pure", ["leastload", "lru", "plainrandom", "twobin", "weighted"]),
        ("ipyparallel_service_manager", "launchd", ["supervisor"]),
        ("ipyparallel_engines_per_host", "-1", ["0 or more"]),
        ("ipyparallel_engines_per_host", "many", ["0 or more"]),
        ("ipyparallel_engines_per_host", "1.5", ["0 or more"]),
        ("ipyparallel_controller_port_base", "80", ["1024"]),
        ("ipyparallel_controller_port_base", "65530", ["65516"]),
        ("ipyparallel_address", "0.0.0.0", ["address of one host"]),
        ("ipyparallel_address", "node1", ["IPv4 address"]),
        ("ipyparallel_python", "/nowhere/python3", ["3.10 to 3.13"]),
        ("ipyparallel_environment_uv", "/nowhere/uv", ["path of uv"]),
        ("ipyparallel_controller_heartbeat_ms", "0", ["50 or more"]),
        ("ipyparallel_scope", "galaxy", ["user"]),
    ],
)
def test_values(account: Account, variable: str, value: str, names: list[str]) -> None:
    said = account.refused("site", "-e", f"{variable}={value}")
    assert variable in said
    assert value in said
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize("name", ["two words", "a/b", "Capital", "1st", "x" * 33, "", "dash-ed", "../up"])
def test_names_of_clusters(account: Account, name: str) -> None:
    done = account.run("make up", CLUSTER=name) if name else account.play("site", "-e", "cluster=")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "is not a name for a cluster" in said
    assert "1 to 32 characters" in said
    assert name[:20] in said


def test_engines_without_nannies(account: Account) -> None:
    settings = {"ipyparallel_engines_settings": {"IPEngine": {"enable_nanny": False}}}
    said = account.refused("site", "-e", json.dumps(settings))
    assert "ipyparallel_engines_settings has IPEngine.enable_nanny: false" in said
    assert "leave it out" in said


def test_a_cluster_that_the_inventory_does_not_have(account: Account) -> None:
    inventory = account.home / "hosts.yml"
    inventory.write_text("""
alpha: {children: {alpha_controller: {hosts: {node1: }}, alpha_engines: {hosts: {node1: }}}}
beta: {children: {beta_controller: {hosts: {node2: }}, beta_engines: {hosts: {}}}}
""")
    said = account.refused("site", "-i", str(inventory), "-e", "cluster=gamma")
    assert "no cluster 'gamma'" in said
    assert "alpha, beta" in said
    assert "beta_engines has no host" in account.refused("site", "-i", str(inventory), "-e", "cluster=beta")


def test_an_empty_inventory(account: Account) -> None:
    inventory = account.home / "empty.yml"
    inventory.write_text("all: {hosts: {}}\n")
    assert "it has no cluster at all" in account.refused("site", "-i", str(inventory))


def test_a_host_in_two_clusters(account: Account) -> None:
    inventory = account.home / "shared.yml"
    groups = "{children: {NAME_controller: {hosts: {node1: }}, NAME_engines: {hosts: {node1: }}}}"
    inventory.write_text("".join(f"{name}: {groups.replace('NAME', name)}\n" for name in ("alpha", "beta")))
    said = account.refused("site", "-i", str(inventory), "-e", "cluster=alpha")
    assert "host node1 is in clusters alpha and beta" in said
    assert "ansible_host: node1" in said


def test_a_port_that_another_process_has(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 21403)):
        said = account.refused("site", "-e", "ipyparallel_controller_port_base=21400")
        assert "port 21403" in said
        assert "ipyparallel_controller_port_base" in said
    listen = (
        'import socket, sys; s = socket.create_server(("127.0.0.1", 21450)); print(1, flush=True); sys.stdin.read()'
    )
    command = f"exec .venv/bin/python -c '{listen}'"
    start = ["runuser", "--login", "ipp-local", "--command"] if os.getuid() == 0 else ["sh", "-c"]
    with subprocess.Popen(
        [*start, f"cd {account.home}/cluster && {command}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline()
        said = account.refused("site", "-e", "ipyparallel_notebook_port=21450")
        assert other.stdin
        other.stdin.close()
    assert "port 21450" in said
    assert "(python" in said
    assert "pid " in said
    assert "ipyparallel_notebook_port" in said


def test_the_other_clusters_notebook_port(account: Account) -> None:
    said = account.refused(
        "site",
        "-e",
        "cluster=other",
        "-e",
        "ipyparallel_controller_port_base=21500",
        "-e",
        "ipyparallel_notebook_port=21888",
    )
    assert "21888" in said
    assert "ipyparallel_notebook_port" in said
    assert "cluster ipyparallel" in said


def fake_python(account: Account, name: str, body: str) -> Path:
    path = account.home / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_python_that_is_too_old(account: Account) -> None:
    probe = '{"executable": "/usr/bin/python3.9", "version": [3, 9, 2], "machine": "x86_64", "venv": true}'
    python = fake_python(account, "python3.9", f"echo {shlex.quote(probe)}")
    said = account.refused("site", "-e", f"ipyparallel_python={python}")
    assert "is Python 3.9" in said
    assert "3.10 to 3.13" in said


def test_a_python_without_venv(account: Account) -> None:
    probe = '{"executable": "/usr/bin/python3.11", "version": [3, 11, 2], "machine": "x86_64", "venv": false}'
    python = fake_python(account, "python3.bare", f"echo {shlex.quote(probe)}")
    said = account.refused("site", "-e", f"ipyparallel_python={python}", "-e", '{"ipyparallel_environment_uv": ""}')
    assert "no venv module" in said
    assert "python3-venv" in said


def test_an_operators_python_that_is_too_old_or_bare(account: Account) -> None:
    account.ok("mkdir ~/clone && tar --create --exclude=./.venv . | tar --extract --directory ~/clone")
    old = fake_python(account, "python3.10", "echo 3.10.4; exit 1")
    said = account.run(f"cd ~/clone && make venv PYTHON={old}")
    assert said.returncode != 0
    assert "too old" in said.stderr
    assert "3.11" in said.stderr
    bare = fake_python(account, "python3.x", 'case "$2" in *ensurepip*) exit 1;; *) echo 3.11.2;; esac')
    said = account.run(f"cd ~/clone && make venv PYTHON={bare}")
    assert said.returncode != 0
    assert "python3-venv" in said.stderr
    account.ok("rm -rf ~/clone")


def test_a_package_that_does_not_exist(account: Account) -> None:
    done = account.play("site", "-e", '{"ipyparallel_packages": ["no-such-package-of-anyone"]}')
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "no package 'no-such-package-of-anyone'" in said
    assert "is as it was" in said


def test_no_network(account: Account) -> None:
    closed = {
        "UV_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_OFFLINE": "false",
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CACHE": "1",
    }
    variables = {"ipyparallel_packages": ["tabulate"], "ipyparallel_install_environment": closed}
    done = account.play("site", "-e", json.dumps(variables))
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "cannot be reached" in said
    assert "ipyparallel_install_environment" in said


def test_connect_before_deploy(account: Account) -> None:
    said = account.refused("connect", "-e", "cluster=nothing_yet")
    assert "deploy the cluster first" in said


@pytest.mark.parametrize("playbook", ["status", "verify", "start"])
def test_others_before_deploy(account: Account, playbook: str) -> None:
    assert "deploy" in account.refused(playbook, "-e", "cluster=nothing_yet")


def test_a_password_that_is_too_short(account: Account) -> None:
    said = account.refused("site", "-e", "ipyparallel_notebook_password=shorty7")
    assert "shorter than 8" in said
    assert "ipyparallel_notebook_password" in said
    assert "shorty7" not in said


def test_a_read_only_place_for_the_operators_profile(account: Account) -> None:
    account.ok("mkdir -p ~/closed && chmod 500 ~/closed")
    done = account.run(".venv/bin/ansible-playbook playbooks/connect.yml", IPYTHONDIR=str(account.home / "closed"))
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "cannot be written" in said
    assert "IPYTHONDIR" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file system that is full")
def test_a_full_place_for_the_operators_profile(account: Account) -> None:
    place = account.home / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0777", "full", str(place)], check=True)
    try:
        (place / "rest").write_bytes(b"x" * 4096)
        done = account.run(".venv/bin/ansible-playbook playbooks/connect.yml", IPYTHONDIR=str(place))
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0
        assert "No space left" in said
        assert "IPYTHONDIR" in said
        assert [path for path in place.rglob("*") if path.is_file()] == [place / "rest"]
    finally:
        subprocess.run(["umount", str(place)], check=True)
