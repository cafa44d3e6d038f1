# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules connector and connector_info: the identity on the controller host, and what may be read of it."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import connector as identities
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import RECORD
from ansible_collections.ipyparallel.cluster.plugins.modules import connector, connector_info

CLUSTER = f"unit_test_{os.getpid()}"


class Host:
    def __init__(self, directory, run_module):
        self.directory = directory
        self.state = str(directory / "state")
        self.run_module = run_module

    def connector(self, **arguments):
        arguments = {"cluster": CLUSTER, "state_directory": self.state, "python": sys.executable, **arguments}
        return self.run_module(connector, **arguments)

    def info(self, **arguments):
        return self.run_module(connector_info, **{"state_directory": self.state, **arguments})

    @property
    def identity(self):
        return identities.load_identity(self.state)

    def files(self):
        return {
            str(path.relative_to(self.state)): path.read_bytes()
            for path in (self.directory / "state").rglob("*")
            if path.is_file()
        }

    def secrets(self):
        identity = self.identity
        return [identity.key, identity.curve_publickey, identity.curve_secretkey]


@pytest.fixture
def host(tmp_path, run_module):
    return Host(tmp_path, run_module)


# ---- in fours


def test_fours(host):
    result = host.connector(check=True, diff=True)
    assert result["changed"]
    assert result["diff"]["before"] == {}
    assert not os.path.exists(host.state)

    result = host.connector(diff=True)
    assert result["changed"]
    assert sorted(host.files()) == [
        "connector/ipcontroller-client.json",
        "connector/ipcontroller-engine.json",
        "identity.json",
    ]
    before = host.files()
    assert result["identity"] == host.identity.public
    assert result["fingerprint"] == host.identity.fingerprint
    for half in ("client", "engine"):
        assert result[f"{half}_path"] == identities.half_path(host.state, half)
        with open(result[f"{half}_path"]) as stream:
            assert stream.read() == host.identity.text(half)

    for check in (True, False):
        result = host.connector(check=check, diff=True)
        assert not result["changed"]
        assert result["diff"]["before"] == result["diff"]["after"]
    assert host.files() == before


def test_everything_is_private_under_any_umask(host):
    before = os.umask(0)
    try:
        host.connector()
    finally:
        os.umask(before)
    for path in (host.state, f"{host.state}/connector"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    for name in host.files():
        assert stat.S_IMODE(os.stat(f"{host.state}/{name}").st_mode) == 0o600


def test_fours_of_a_change_which_keeps_the_keys(host):
    host.connector(packer="pickle", address="10.0.0.5")
    before = host.identity
    changes = {"packer": "msgpack", "port_base": 10200, "address": "10.0.0.6", "encryption": "none", "scheduler": "lru"}
    result = host.connector(check=True, diff=True, **changes)
    assert result["changed"]
    assert host.identity == before
    assert {name: result["diff"]["after"][name] for name in changes} == changes

    assert host.connector(**changes)["changed"]
    assert host.identity == dataclasses.replace(before, **changes)
    for arguments in (changes, {}):
        for check in (True, False):
            assert not host.connector(check=check, **arguments)["changed"]


def test_fours_of_a_rotation_which_changes_the_keys_each_time(host):
    host.connector(packer="msgpack", port_base=10200)
    before = host.identity
    assert host.connector(check=True, state="rotated")["changed"]
    assert host.identity == before
    for _time in range(2):
        assert host.connector(state="rotated")["changed"]
        after = host.identity
        for field in dataclasses.fields(after):
            differs = getattr(after, field.name) != getattr(before, field.name)
            assert differs == (field.name in ("key", "curve_publickey", "curve_secretkey"))
        before = after
    with open(identities.half_path(host.state, "engine")) as stream:
        assert stream.read() == after.text("engine")


def test_the_default_address_is_for_a_new_identity(host):
    host.connector(default_address="10.0.0.5")
    assert host.identity.address == "10.0.0.5"
    assert not host.connector(default_address="10.0.0.6")["changed"]
    assert host.connector(address="10.0.0.6")["changed"]


@pytest.mark.parametrize("half", ["client", "engine"])
@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_half_that_is_missing_or_broken_is_written_again(host, half, content):
    host.connector()
    before = host.files()
    path = identities.half_path(host.state, half)
    os.unlink(path)
    if content is not None:
        with open(path, "w") as stream:
            stream.write(content)
    assert host.connector(check=True)["changed"]
    assert host.connector()["changed"]
    assert host.files() == before


def test_an_open_directory_is_closed(host):
    host.connector()
    os.chmod(host.state, 0o755)
    assert host.connector(check=True)["changed"]
    assert host.connector()["changed"]
    assert stat.S_IMODE(os.stat(host.state).st_mode) == 0o700
    assert not host.connector()["changed"]


def test_no_key_is_in_any_output(host):
    outputs = [host.connector(diff=True)]
    secrets = host.secrets()
    outputs += [host.connector(diff=True, packer="pickle"), host.connector(diff=True, state="rotated"), host.info()]
    for secret in [*secrets, *host.secrets()]:
        assert [output for output in outputs if secret in output.text] == []


# ---- what runs with another identity


@pytest.mark.parametrize(
    ("name", "fingerprint", "stale"),
    [
        ("controller", "another", True),
        ("engines-default", "another", False),
        ("notebook", "another", False),
        ("controller", None, False),
    ],
)
def test_a_process_with_another_identity_makes_the_restart_due(host, python, name, fingerprint, stale):
    host.connector()
    marks = {
        "IPYPARALLEL_CLUSTER": CLUSTER,
        "IPYPARALLEL_PROCESS": name,
        "IPYPARALLEL_FINGERPRINT": fingerprint or host.identity.fingerprint,
    }
    python(environment=marks)
    for check in (True, False):
        assert host.connector(check=check)["stale"] == stale
    assert host.connector(check=True, packer="pickle")["stale"] == (name == "controller")


# ---- broken identities


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"packer": "msgpack", "port_base": 10200}'])
def test_a_broken_identity_is_an_error_and_a_rotation_repairs_it(host, content):
    host.connector()
    path = identities.identity_path(host.state)
    with open(path, "wb") as stream:
        stream.write(content)
    before = host.files()
    for check in (True, False):
        result = host.connector(check=check, packer="pickle")
        assert result["failed"]
        for part in (path, "ipyparallel_controller_identity=rotated"):
            assert part in result["msg"]
    assert host.files() == before

    assert host.connector(state="rotated", check=True)["changed"]
    assert host.files() == before
    assert host.connector(state="rotated")["changed"]
    assert not host.connector()["changed"]
    if b"packer" in content:
        assert (host.identity.packer, host.identity.port_base) == ("msgpack", 10200)


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"cluster": "two words"}, ["'two words'", "variable 'cluster'"]),
        ({"packer": "yaml"}, ["'yaml'", "ipyparallel_controller_packer", "msgpack"]),
        ({"encryption": "tls"}, ["'tls'", "ipyparallel_controller_encryption", "curve, none"]),
        ({"scheduler": "pure"}, ["'pure'", "ipyparallel_controller_scheduler", "leastload"]),
        ({"port_base": 80}, ["80", "ipyparallel_controller_port_base", "1024"]),
        ({"address": "node1"}, ["'node1'", "ipyparallel_address"]),
        ({"owner": "nobody-of-this-name"}, ["nobody-of-this-name", CLUSTER]),
        ({"group": "nobody-of-this-name"}, ["nobody-of-this-name", CLUSTER]),
    ],
)
def test_bad_input_changes_nothing(host, arguments, names):
    for laid_down in (False, True):
        if laid_down:
            host.connector()
        before = host.files()
        result = host.connector(**arguments)
        assert result["failed"]
        assert [part for part in names if part not in result["msg"]] == []
        assert host.files() == before


def test_an_account_that_is_yet_to_be_made_is_no_error_of_a_check(host):
    assert host.connector(check=True, owner="nobody-of-this-name", group="nobody-of-this-name")["changed"]


def test_a_full_disk_names_the_place_and_keeps_the_old_identity(host, full_disk):
    host.connector()
    before = host.files()
    with full_disk():
        result = host.connector(state="rotated")
    assert result["failed"]
    for part in (CLUSTER, host.state, "File too large"):
        assert part in result["msg"]
    assert host.files() == before


@pytest.mark.parametrize("place", ["state", "state/identity.json", "state/connector"])
def test_something_else_in_the_place_of_the_state_is_named(host, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    if place.endswith("json"):
        (tmp_path / place).mkdir()
    else:
        (tmp_path / place).touch()
    result = host.connector()
    assert result["failed"]
    assert str(tmp_path / "state") in result["msg"]
    assert "Traceback" not in result.text


def test_the_halves_are_never_ahead_of_the_identity(host, monkeypatch):
    """An interruption between two files leaves what the next run finishes with the same keys, not with a third set."""
    host.connector()
    before = host.files()
    write, written = connector.write_text, []

    def write_one(path, text, **options):
        if written:
            raise OSError("interrupted")
        written.append(path)
        write(path, text, **options)

    monkeypatch.setattr(connector, "write_text", write_one)
    assert host.connector(state="rotated")["failed"]
    monkeypatch.setattr(connector, "write_text", write)
    assert written == [identities.identity_path(host.state)]
    identity = host.identity
    assert host.files() != before
    assert host.connector()["changed"]
    assert host.identity == identity
    assert not host.connector()["changed"]


# ---- connector_info


def test_info_returns_what_is_asked_for(host, tmp_path):
    host.connector()
    for check in (True, False):
        for half in ("client", "engine"):
            result = host.info(check=check, half=half)
            assert not result["changed"]
            assert result["exists"]
            assert result["text"] == host.identity.text(half)
            assert result["path"] == identities.half_path(host.state, half)
    result = host.info()
    assert (result["identity"], result["fingerprint"]) == (host.identity.public, host.identity.fingerprint)
    assert "text" not in result
    assert "versions" not in result

    assert host.info(environment=str(tmp_path))["versions"] == {}
    (tmp_path / RECORD).write_text(json.dumps({"versions": {"python": "3.11.2"}}))
    assert host.info(environment=str(tmp_path))["versions"] == {"python": "3.11.2"}


def test_info_of_no_cluster(host):
    result = host.info(half="client")
    assert result["failed"]
    for part in (host.state, os.uname().nodename, "deploy the cluster first"):
        assert part in result["msg"]
    result = host.info(half="client", check=True)
    assert (result["exists"], result["changed"], result["fingerprint"]) == (False, False, "")


@pytest.mark.parametrize("content", [None, "", "{}", "other"])
def test_info_refuses_a_half_that_is_not_the_identitys(host, content):
    host.connector()
    path = identities.half_path(host.state, "client")
    other = dataclasses.replace(host.identity, key="1" * 64).text("client")
    os.unlink(path)
    if content is not None:
        with open(path, "w") as stream:
            stream.write(other if content == "other" else content)
    result = host.info(half="client")
    assert result["failed"]
    assert path in result["msg"]
    assert "ipyparallel.cluster.deploy" in result["msg"]
    assert not host.info(half="engine").get("failed")


def test_info_of_a_broken_identity(host):
    host.connector()
    with open(identities.identity_path(host.state), "w") as stream:
        stream.write("{")
    result = host.info()
    assert result["failed"]
    assert "rotated" in result["msg"]


def test_info_of_something_that_is_no_file(host, tmp_path):
    (tmp_path / "state" / "identity.json").mkdir(parents=True)
    result = host.info()
    assert result["failed"]
    assert host.state in result["msg"]


# ---- as Ansible sends it to a host


def test_keys_are_made_in_the_clusters_python(host, tmp_path):
    """The interpreter of the host has no pyzmq: the module goes on in the one that has."""
    options = f"cluster={CLUSTER} state_directory={host.state} python={sys.executable}"
    interpreter = f"ansible_python_interpreter={os.path.realpath(sys.executable)}"
    command = [os.path.join(sys.prefix, "bin", "ansible"), "localhost", "-e", interpreter]
    command += ["-m", "ipyparallel.cluster.connector", "-a", options]
    (tmp_path / "ansible.cfg").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment["ANSIBLE_HOME"] = str(tmp_path / "ansible")
    environment["ANSIBLE_REMOTE_TMP"] = str(tmp_path / "ansible" / "remote")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.identity.fingerprint in done.stdout
    assert not host.connector()["changed"]
