# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module on this machine; its single checks are tested with module_utils."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import platform
import socket
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import environment, machine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, identity_text
from ansible_collections.ipyparallel.cluster.plugins.modules import preflight

CLUSTER = f"unit_test_{os.getpid()}"


def free_ports(count: int) -> int:
    """Return the first of so many ports on which nothing of this machine listens."""
    for first in range(24100, 60000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("", port)))
            return first
    raise AssertionError(f"there are no {count} free ports side by side")


BASE = free_ports(100)
NOTEBOOK = BASE + 88


@pytest.fixture
def host(tmp_path, run_module, monkeypatch):
    """An account that is not root, on a host with 4 cores and ports of its own."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(preflight, "check_space", lambda path: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(roles=("controller", "engines", "notebook"), **arguments):
        names = ("prefix", "config", "log", "run")
        places = {name: str(tmp_path / name / CLUSTER) for name in names}
        defaults = {
            "cluster": CLUSTER,
            "python": sys.executable,
            "port_base": BASE,
            "notebook_port": NOTEBOOK,
            "state_directory": str(tmp_path / "state" / CLUSTER),
            "manager": "supervisor",
            "default_address": "127.0.0.1",
        }
        return run_module(preflight, roles=list(roles), **{**defaults, **places, **arguments})

    return run


def test_a_start_up_that_does_not_compile_is_refused(host):
    said = host(["engines"], pools=[{"name": "a", "code": "x ="}])["msg"]
    assert "the start-up code of pool a, line 1 does not compile" in said
    assert "/s.py, line 1" in host(["engines"], pools=[{"name": "a", "code": "x =", "script": "/s.py"}])["msg"]


UNLIMITED = {"environment": {}, "cpus": None, "memory": None, "code": ""}
LEASE = {"holder": "ada@laptop", "run": "1-1", "runs": [], "takeover": False, "phase": "deploy"}


def test_the_controller_host_takes_the_lease_when_nothing_is_wrong(host, tmp_path):
    state = tmp_path / "state" / CLUSTER
    host(["controller"], lease=LEASE)
    assert not state.exists(), "a fresh host has no place for it yet"
    state.mkdir(parents=True)
    host(["controller"], lease=LEASE, check=True)
    host(["engines"], lease=LEASE)
    assert host(["controller"], lease=LEASE, port_base=1)["failed"]
    assert not (state / "cluster.json").exists()
    host(["controller"], lease=LEASE)
    assert json.loads((state / "cluster.json").read_text())["lease"]["holder"] == "ada@laptop"
    refused = host(["controller"], lease={**LEASE, "holder": "bob@desk"})
    assert "ada@laptop is at work on this cluster" in refused["msg"]
    assert "ipyparallel_takeover=true" in refused["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_what_follows_from_the_host(host, tmp_path, check):
    before = sorted(tmp_path.rglob("*"))
    result = host(check=check)
    assert not result["changed"]
    assert result["cores"] == 4
    assert result["pools"] == [{"name": "default", "count": 3, **UNLIMITED}]
    assert result["remembered"] == {"defined": {}, "pools": {}, "scaled": {}, "packages": []}
    assert result["notebook"] == {
        "address": "127.0.0.1",
        "port": NOTEBOOK,
        "url": f"https://127.0.0.1:{NOTEBOOK}/lab",
        "directory": str(tmp_path / "home" / "notebooks"),
    }
    assert result["python_version"] == platform.python_version()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_host_is_asked_for_its_part_only(host):
    result = host(["engines"], engines_per_host="cores")
    assert result["pools"] == [{"name": "default", "count": 4, **UNLIMITED}]
    assert result["memory"] > 2**20
    assert result["remembered"] == {}
    assert result["notebook"] == {}
    result = host(["controller"])
    assert result["pools"] == []
    assert host(["engines"], engines_per_host=0)["pools"][0]["count"] == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_the_names_of_the_notebooks_certificate(host, monkeypatch, address):
    monkeypatch.setattr(preflight.socket, "gethostname", lambda: "node1")
    monkeypatch.setattr(preflight.socket, "getfqdn", lambda: "node1.example.org")
    result = host(
        notebook_address=address, default_address="10.0.0.5", address="127.0.0.1", login_host="lab.example.org"
    )
    here = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    there = ["DNS:node1", "DNS:node1.example.org"]
    if address == "127.0.0.1":
        assert (result["certificate_names"], result["reached_at"]) == ([*here, *there], here)
    else:
        there += ["IP:10.0.0.5", "DNS:lab.example.org"]
        assert (result["certificate_names"], result["reached_at"]) == ([*here, *there], there)
    assert host(["engines"])["certificate_names"] == []
    assert "ipyparallel_notebook_names" in host(notebook_names=["a b"])["msg"]


def test_notebooks_may_be_anywhere(host):
    assert host(notebook_directory="/srv/notebooks")["notebook"]["directory"] == "/srv/notebooks"


def remember(tmp_path, name=CLUSTER, text=None, **changes):
    values = {"port_base": BASE, "packer": "json", "encryption": "curve", "scheduler": "lru", "key": "0" * 64}
    curve = {"curve_publickey": "p" * 40, "curve_secretkey": "s" * 40}
    identity = Identity(cluster=name, address="127.0.0.1", **{**values, **curve, **changes})
    (tmp_path / "state" / name).mkdir(parents=True)
    (tmp_path / "state" / name / "identity.json").write_text(identity_text(identity) if text is None else text)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"cluster": "two words"}, ["'two words'", "variable 'cluster'"]),
        ({"packer": "yaml"}, ["'yaml'", "ipyparallel_controller_packer", "json, pickle, msgpack, orjson"]),
        ({"encryption": "tls"}, ["'tls'", "ipyparallel_controller_encryption"]),
        ({"scheduler": "pure"}, ["'pure'", "ipyparallel_controller_scheduler"]),
        ({"port_base": 80}, ["80", "ipyparallel_controller_port_base"]),
        ({"address": "0.0.0.0"}, ["0.0.0.0", "ipyparallel_address"]),
        ({"engines_per_host": -1}, ["-1", "ipyparallel_engines_per_host", "0 or more"]),
        ({"engines_per_host": "many"}, ["'many'", "ipyparallel_engines_per_host"]),
        ({"pools": [{"name": "A"}]}, ["'A'", "ipyparallel_engines_pools[0].name"]),
        ({"allowed_cidrs": ["office"]}, ["'office'", "ipyparallel_allowed_cidrs"]),
        ({"notebook_port": BASE}, [str(BASE), "ipyparallel_notebook_port"]),
        ({"notebook_port": 99999}, ["99999", "ipyparallel_notebook_port", "65535"]),
        ({"notebook_password": "short"}, ["8 characters", "ipyparallel_notebook_password"]),
        ({"python": "/nowhere/python3"}, ["/nowhere/python3", "ipyparallel_python", "3.10 to 3.13"]),
        ({"run": "/tmp/" + "x" * 100}, ["107", "XDG_STATE_HOME"]),
    ],
)
def test_bad_input_names_value_variable_and_remedy(host, tmp_path, arguments, names):
    before = sorted(tmp_path.rglob("*"))
    for check in (True, False):
        result = host(check=check, **arguments)
        assert result["failed"]
        assert [part for part in names if part not in result["msg"]] == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["prefix", "config", "state_directory", "log", "run"])
def test_every_directory_is_looked_at(host, tmp_path, name):
    (tmp_path / "file").touch()
    result = host(**{name: str(tmp_path / "file" / "below")})
    assert result["failed"]
    for part in (f"{tmp_path}/file/below", f"ipyparallel_path_{name.removesuffix('_directory')}"):
        assert part in result["msg"]


def test_space_is_needed_for_a_first_environment_only(host, tmp_path, monkeypatch):
    def no_space(path):
        raise preflight.PreflightError(f"{path} has no room")

    monkeypatch.setattr(preflight, "check_space", no_space)
    assert host()["failed"]
    (tmp_path / "prefix" / CLUSTER / "current").mkdir(parents=True)
    assert not host().get("failed")


def test_the_interpreter_needs_its_venv_module_or_a_uv(host, monkeypatch):
    lame = environment.Interpreter("/usr/bin/python3", (3, 11, 2), "x86_64", venv=False)
    monkeypatch.setattr(preflight, "probe", lambda python: lame)
    result = host()
    assert result["failed"]
    for part in ("/usr/bin/python3", "python3-venv", "ipyparallel_environment_uv"):
        assert part in result["msg"]
    result = host(uv=sys.executable)
    assert result["packages"] == []
    # root installs it
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host(["engines"])["packages"] == ["python3-venv"]
    assert host(["engines"], uv=sys.executable)["packages"] == []


def test_the_address_of_the_host(host, monkeypatch):
    monkeypatch.setattr(preflight, "default_address", lambda: "192.0.2.7")
    assert host()["address"] == "127.0.0.1"
    assert host(["engines"], default_address=None)["address"] == "192.0.2.7"
    assert host(["engines"], address="192.0.2.8")["address"] == "192.0.2.8"


@pytest.mark.parametrize("roles", [["controller", "engines"], ["engines"]])
def test_what_is_compared_with_other_hosts(host, tmp_path, python, monkeypatch, roles):
    monkeypatch.setattr(preflight, "default_address", lambda: "192.0.2.7")
    before = time.time()
    result = host(roles)
    assert before <= result["time"] <= time.time()
    assert result["architecture"] == platform.machine()
    assert result["machine"] == machine.machine_digest(machine.signs())
    assert result["outward_address"] == "192.0.2.7"
    leads = "controller" in roles
    assert result["controller"] == ({"address": "127.0.0.1", "port_base": BASE} if leads else {})
    assert (result["software"], result["versions"], result["known_as"]) == (False, {}, [])

    (tmp_path / "prefix" / CLUSTER / "current").mkdir(parents=True)
    record = tmp_path / "prefix" / CLUSTER / "current" / environment.RECORD
    record.write_text(json.dumps({"versions": {"python": "3.11.2"}}))
    marks = {"IPYPARALLEL_PROCESS": "engines-default"}
    for name in ("node1", "node1_alias"):
        python(environment=marks | {"IPYPARALLEL_CLUSTER": CLUSTER, "IPYPARALLEL_HOST": name})
    python(environment=marks | {"IPYPARALLEL_CLUSTER": "other", "IPYPARALLEL_HOST": "others"})
    result = host(roles)
    assert result["software"]
    assert result["versions"] == ({"python": "3.11.2"} if leads else {})
    assert result["known_as"] == ["node1", "node1_alias"]


def test_without_a_route_there_is_no_outward_address(host, monkeypatch):
    def no_route():
        raise preflight.PreflightError("no default route")

    monkeypatch.setattr(preflight, "default_address", no_route)
    assert host()["outward_address"] == ""
    assert "no default route" in host(default_address=None)["msg"]


def test_a_controller_listens_at_its_own_address(host):
    result = host(address="198.51.100.1")
    assert "198.51.100.1 is not an address of" in result["msg"]
    assert not host(["engines"], address="198.51.100.1").get("failed")


def test_the_account_of_the_cluster(host, tmp_path, monkeypatch):
    name = "nobody-of-this-name"
    assert host()["account"] == {**host()["account"], "home": str(tmp_path / "home"), "exists": True}
    result = host(account=name)
    assert result["failed"]
    assert "ipyparallel_scope=user" in result["msg"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = host(account=name)
    assert result["account"] == {"name": name, "home": f"/home/{name}", "exists": False}
    assert result["notebook"]["directory"] == f"/home/{name}/notebooks"
    result = host(account="root")
    assert result["failed"]
    assert "not run as root" in result["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_group_that_is_given_has_to_be_there(host, check):
    assert not host(check=check, group=grp.getgrgid(0).gr_name).get("failed")
    result = host(check=check, group="no-such-group")
    for part in ("'no-such-group'", os.uname().nodename, "set ipyparallel_group"):
        assert part in result["msg"]


@pytest.mark.parametrize("manager", ["systemd", "systemd_user"])
def test_a_host_without_the_service_manager(host, monkeypatch, manager):
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/run/systemd/system" and isdir(path))
    result = host(manager=manager)
    assert result["failed"]
    assert "ipyparallel_service_manager=supervisor" in result["msg"]


def test_only_supervisor_has_a_socket(host, monkeypatch):
    monkeypatch.setattr(preflight, "check_manager", lambda manager, account: None)
    assert not host(manager="systemd", run="/tmp/" + "x" * 100).get("failed")


def test_a_port_in_use_names_the_process(host, python, free_port):
    child = python(f"import socket\nlistening = socket.create_server(('127.0.0.1', {free_port}))")
    result = host(notebook_port=free_port)
    assert result["failed"]
    name = Path(f"/proc/{child.pid}/comm").read_text().strip()
    for part in (f"port {free_port} on", f"pid {child.pid} ({name})", "set ipyparallel_notebook_port"):
        assert part in result["msg"]
    assert not host(["controller", "engines"], notebook_port=free_port).get("failed")


def test_ports_of_another_cluster(host, tmp_path):
    remember(tmp_path, "other", port_base=BASE + 10)
    result = host()
    assert result["failed"]
    for part in (f"{BASE + 10} to {BASE + 19}", CLUSTER, "cluster other", "ipyparallel_controller_port_base"):
        assert part in result["msg"]
    assert not host(["engines"]).get("failed")


def test_what_is_remembered_is_checked_with_what_is_given(host, tmp_path):
    remember(tmp_path)
    assert not host(port_base=None).get("failed")
    remember(tmp_path, "other", port_base=BASE + 20)
    assert not host(port_base=None).get("failed")
    assert host(port_base=BASE + 1)["failed"]


@pytest.mark.parametrize("text", ["{", "", "\0"])
def test_a_broken_identity_is_an_error_unless_it_is_to_be_replaced(host, tmp_path, text):
    remember(tmp_path, text=text)
    result = host()
    assert result["failed"]
    for part in (f"{tmp_path}/state/{CLUSTER}/identity.json", "ipyparallel_controller_identity=rotated"):
        assert part in result["msg"]
    assert not host(replace_identity=True).get("failed")


def test_a_password_is_in_no_output(host):
    for password in ("correct horse battery", "a\nb"):
        result = host(notebook_password=password)
        assert password not in result.text
        assert "correct horse" not in result.text


def test_a_notebook_does_not_run_as_root(host, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = host()
    assert result["failed"]
    assert "root" in result["msg"]
    assert not host(["controller", "engines"]).get("failed")


def test_notebooks_inside_the_clusters_own_place_are_refused(host, tmp_path):
    result = host(notebook_directory=str(tmp_path / "state" / CLUSTER / "notebooks"))
    assert result["failed"]
    assert "ipyparallel_notebook_directory" in result["msg"]
