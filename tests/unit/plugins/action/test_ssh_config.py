# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ipyparallel.cluster.plugins.action import ssh_config, ssh_login_info

LOGINS = {
    "node1": {"lines": ["HostName 10.0.0.5", "User ada"], "roles": ["controller", "engines"], "left_out": []},
    "here": {"lines": [], "roles": ["engines"], "left_out": []},
}


@pytest.fixture
def keep(run_action, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(check=False, **arguments):
        given = {"cluster": "alpha", "hosts": ["node1", "here"], "logins": LOGINS, **arguments}
        return run_action(ssh_config.ActionModule, check=check, **given)

    return run


def mode(path):
    return oct(path.stat().st_mode & 0o777)


def test_fours(keep, tmp_path):
    result = keep(check=True)
    path = tmp_path / ".ssh" / "ipyparallel" / "alpha.conf"
    assert result["changed"]
    assert "HostName 10.0.0.5" in result["diff"][0]["after"]
    assert list(tmp_path.iterdir()) == []

    result = keep()
    assert result["changed"]
    assert result["path"] == str(path)
    assert result["names"] == ["alpha-controller", "alpha-node1"]
    assert result["include"] == f"Include {tmp_path}/.ssh/ipyparallel/*.conf"
    assert [mode(one) for one in (path, path.parent, path.parent.parent)] == ["0o600", "0o700", "0o700"]
    assert "Host alpha-node1 alpha-controller\n" in path.read_text()
    assert "here" not in path.read_text()

    for check in (True, False):
        assert not keep(check=check)["changed"]
    path.chmod(0o644)
    assert keep()["changed"]
    assert mode(path) == "0o600"

    assert keep(check=True, state="absent")["changed"]
    assert path.exists()
    assert keep(state="absent")["changed"]
    assert not path.exists()
    for check in (True, False):
        assert not keep(check=check, state="absent")["changed"]


def test_the_operator_s_own_file_is_touched_only_when_asked(keep, tmp_path):
    own = tmp_path / ".ssh" / "config"
    own.parent.mkdir()
    own.write_text("Host x\n")
    own.chmod(0o644)
    keep()
    assert own.read_text() == "Host x\n"
    result = keep(include=True)
    assert result["changed"]
    assert result["include"] == ""
    assert own.read_text() == f"Include {tmp_path}/.ssh/ipyparallel/*.conf\n\nHost x\n"
    assert mode(own) == "0o644"
    assert not keep(include=True)["changed"]
    assert keep()["include"] == ""


def test_the_operator_s_own_file_keeps_its_bytes(keep, tmp_path):
    own = tmp_path / ".ssh" / "config"
    own.parent.mkdir()
    own.write_bytes(b"# f\xfcr mich\r\nHost x\n")
    result = keep(include=True)
    assert own.read_bytes() == f"Include {tmp_path}/.ssh/ipyparallel/*.conf\n\n".encode() + b"# f\xfcr mich\r\nHost x\n"
    # for people, who could not be shown them
    assert "f\N{REPLACEMENT CHARACTER}r" in result["diff"][1]["after"]
    str(result["diff"]).encode()


def test_a_file_of_somebody_else_stays(keep, tmp_path):
    path = tmp_path / "mine"
    path.write_text("Host x\n")
    with pytest.raises(AnsibleActionFail, match="is left as it is: set ipyparallel_ssh_config_path"):
        keep(path=str(path))
    assert not keep(path=str(path), state="absent")["changed"]
    assert path.read_text() == "Host x\n"


def test_what_cannot_be_written_is_named(keep, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AnsibleActionFail, match=r"cannot keep .*/file/a\.conf: .*set ipyparallel_ssh_config_path"):
        keep(path=str(tmp_path / "file" / "a.conf"))
    with pytest.raises(AnsibleActionFail, match="Bad"):
        keep(cluster="Bad")


# ---- how a host is reached


class Connection:
    transport = "ssh"

    def __init__(self, **options):
        self.options = options

    def get_option(self, name):
        return self.options[name]


@pytest.fixture
def look(run_action, monkeypatch):
    def run(connection):
        made = ssh_login_info.ActionModule.__init__

        def attach(self, *arguments, **options):
            made(self, *arguments, **options)
            self._connection.transport = connection.transport
            self._connection.get_option = connection.get_option
            self._play_context.remote_addr = "10.0.0.9"

        monkeypatch.setattr(ssh_login_info.ActionModule, "__init__", attach)
        return run_action(ssh_login_info.ActionModule)

    return run


OPTIONS = {
    "host": "10.0.0.5",
    "remote_user": "ada",
    "port": None,
    "private_key_file": "/keys/x",
    "host_key_checking": True,
    "ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s",
    "ssh_common_args": "-J 'bastion' -X",
    "ssh_extra_args": None,
}


def test_how_ansible_reaches_a_host(look):
    result = look(Connection(**OPTIONS, ssh_executable="/nowhere/ssh"))
    assert not result["changed"]
    assert result["lines"] == [
        "HostName 10.0.0.5",
        "Compression yes",
        "IdentityFile /keys/x",
        "User ada",
        "ProxyJump bastion",
    ]
    assert result["left_out"] == ["-X"]


def test_ssh_is_asked_and_only_asked(look, tmp_path):
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho port 2222\n')
    program.chmod(0o700)
    assert look(Connection(**OPTIONS, ssh_executable=str(program)))["lines"][-1] == "ProxyJump bastion"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0].startswith("-G -C ")
    assert asked[0].endswith("-J bastion -X 10.0.0.5")
    assert asked[1:] == ["-G unknown.invalid"]
    program.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 255\n")
    with pytest.raises(AnsibleActionFail, match=r"reaches 10\.0\.0\.5: no such option: put right"):
        look(Connection(**OPTIONS, ssh_executable=str(program)))


def test_this_machine_is_not_reached_by_ssh(look):
    connection = Connection()
    connection.transport = "local"
    assert look(connection)["lines"] == []
