# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written is read by ssh itself (``ssh -G``), where there is one."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import ssh_config
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ssh_config import FIRST_LINE, SshConfigError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("arguments", "lines", "left_out"),
    [
        ("", [], []),
        ("-o ControlMaster=auto -o ControlPersist=60s -C", ["Compression yes"], []),
        ("-o StrictHostKeyChecking=yes", ["StrictHostKeyChecking yes"], []),
        ("-oPort=2222 -o 'User ada'", ["Port 2222", "User ada"], []),
        ("-J ada@bastion:22 -i '~/my key'", ["ProxyJump ada@bastion:22", 'IdentityFile "/home/ada/my key"'], []),
        ("-i keys/id -o IdentityFile=keys/id", ["IdentityFile /work/keys/id", "IdentityFile /work/keys/id"], []),
        (
            "-o 'userknownhostsfile=\"my known/x\" ~/y none'",
            ['userknownhostsfile "/work/my known/x" ~/y none'],
            [],
        ),
        ("-l 'a da' -o 'UserKnownHostsFile=\"'", ['User "a da"', 'UserKnownHostsFile /work/"'], []),
        ("-Jbastion", ["ProxyJump bastion"], []),
        (
            "-o proxycommand='ssh -W %h:%p -q bastion' -F ./x",
            ["ProxyCommand ssh -W %h:%p -q bastion"],
            ["-F ./x"],
        ),
        ("-4 -A -q", ["AddressFamily inet", "ForwardAgent yes", "LogLevel QUIET"], []),
        ("-X -vvv -L 1:2:3", [], ["-X", "-vvv", "-L", "1:2:3"]),
        ("-o Port -o", [], ["-o", "-o"]),
    ],
)
def test_arguments_of_ssh_as_lines(arguments, lines, left_out, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(os, "getcwd", lambda: "/work")
    assert ssh_config.directives(shlex.split(arguments)) == (lines, left_out)


@given(st.lists(st.text("-oJipF =x\n", max_size=8)))
def test_any_arguments_are_lines_or_left_out(words):
    lines, left_out = ssh_config.directives(words)
    assert all("\n" not in line and " " in line for line in lines)
    assert all(one in words or one.startswith("-F ") for one in left_out)


NO_SSH = "/nowhere/ssh"


def test_a_login_without_ssh(monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: "/work")
    assert ssh_config.login_lines(NO_SSH, "10.0.0.5", []) == (["HostName 10.0.0.5"], [])
    arguments = ["-p", "2222", "-J", "c,ada@b:22", "-J", "c,ada@b:22", "-F", "100%/x", "-X"]
    assert ssh_config.login_lines(NO_SSH, "10.0.0.5", arguments) == (
        ["HostName 10.0.0.5", "Port 2222", "ProxyCommand ssh -F /work/100%%/x -J c -W '[%h]:%p' ssh://ada@b:22"],
        ["-F 100%/x", "-X"],
    )


def test_what_is_said_of_a_host_and_not_of_all():
    nobody = {
        "host": ["unknown.invalid"],
        "hostname": ["unknown.invalid"],
        "user": ["me"],
        "ciphers": ["a,b"],
        "macs": ["a,b"],
        "compression": ["no"],
        "proxyjump": ["bastion"],
    }
    found = {
        "host": ["node2"],
        "hostname": ["10.0.0.5"],
        "user": ["do main"],
        "identityfile": ["~/my key", "/y"],
        "userknownhostsfile": ["/x /y"],
        "ciphers": ["a,b,c"],
        "macs": ["b"],
        "compression": ["no"],
        "controlpath": ["/x"],
    }
    assert ssh_config.lines_of(found, nobody) == [
        "HostName 10.0.0.5",
        'User "do main"',
        'IdentityFile "~/my key"',
        "IdentityFile /y",
        "userknownhostsfile /x /y",
        "ciphers +c",
        "macs b",
        "ProxyJump none",
    ]
    assert ssh_config.lines_of(nobody, nobody) == []


@pytest.mark.parametrize(
    ("host", "roles", "hosts", "names"),
    [
        ("node1", ["controller", "engines", "notebook"], ["node1"], ["a-node1", "a-controller", "a-notebook"]),
        ("node2", ["engines"], ["node1", "node2"], ["a-node2"]),
        ("node1", ["controller"], ["node1", "controller"], ["a-node1"]),
        ("controller", ["controller"], ["controller"], ["a-controller"]),
    ],
)
def test_names(host, roles, hosts, names):
    assert ssh_config.names_of("a", host, roles, hosts) == names


BLOCKS = {
    host: ssh_config.make_block(host, [f"a-{host}"], [f"HostName {host}.example.org", "User ada"])
    for host in ("node1", "node2")
}


def text_of(before, blocks, hosts=("node1", "node2")):
    return ssh_config.file_text(before, "/x.conf", hosts, blocks)


def test_a_run_for_some_hosts_keeps_the_others():
    whole = text_of(None, BLOCKS)
    assert whole.startswith(FIRST_LINE)
    assert ssh_config.blocks_of(whole) == BLOCKS
    assert text_of(whole, {"node2": BLOCKS["node2"]}) == whole
    changed = text_of(whole, {"node2": ssh_config.make_block("node2", ["a-node2"], ["HostName other"])})
    assert "HostName other" in changed
    assert "HostName node1.example.org" in changed
    assert "HostName node2" not in changed
    # one that left the inventory, and one that is not reached by SSH any more
    assert ssh_config.blocks_of(text_of(whole, {}, hosts=["node1"])) == {"node1": BLOCKS["node1"]}
    assert ssh_config.blocks_of(text_of(whole, {"node1": None})) == {"node2": BLOCKS["node2"]}


@pytest.mark.parametrize("before", ["", "Host x\n", "# my own\n"])
def test_a_file_of_somebody_else_stays(before):
    with pytest.raises(SshConfigError, match=r"/x.conf was not written by .* set ipyparallel_ssh_config_path"):
        text_of(before, BLOCKS)


def test_one_line_includes_all_clusters(monkeypatch, tmp_path):
    home = pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.setenv("HOME", home)
    assert ssh_config.include_of(f"{home}/.ssh/ipyparallel/a.conf") == "Include ~/.ssh/ipyparallel/*.conf"
    assert ssh_config.include_of("/etc/my ssh/a.conf") == 'Include "/etc/my ssh/a.conf"'
    monkeypatch.setenv("HOME", str(tmp_path))
    # ssh would look elsewhere for ~
    assert ssh_config.include_of(f"{tmp_path}/.ssh/ipyparallel/a.conf") == f"Include {tmp_path}/.ssh/ipyparallel/*.conf"


def test_the_line_comes_first_and_once():
    line = "Include ~/.ssh/ipyparallel/*.conf"
    assert ssh_config.with_include(None, line) == f"{line}\n"
    with_it = ssh_config.with_include("Host *\n    User ada\n", line)
    assert with_it == f"{line}\n\nHost *\n    User ada\n"
    assert ssh_config.with_include(with_it, line) == with_it


@pytest.mark.parametrize(
    "text", ["Host x\n    {}\n", "match all\n{}\n", "User ada\n  HOST x\n{}", "Host=x\n{}", "Match\tall\n{}"]
)
def test_a_line_of_a_block_is_not_for_all(text):
    line = "Include ~/.ssh/ipyparallel/*.conf"
    assert ssh_config.with_include(text.format(line), line) == f"{line}\n\n{text.format(line)}"


def test_a_line_before_all_blocks_is_for_all():
    text = "User ada\nHostKeyAlias x\n  Include ~/.ssh/ipyparallel/*.conf\nHost x\n"
    assert ssh_config.with_include(text, "Include ~/.ssh/ipyparallel/*.conf") == text


# ---- as ssh reads it

with_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """What ssh would use, with a configuration of the operator's in place of the account's own."""
    real = shutil.which("ssh")
    own = tmp_path / "own"
    program = tmp_path / "ssh"
    # as -F of the arguments has it, else the operator's own
    program.write_text(
        f'#!/bin/sh\ncase " $* " in *" -F "*) exec {real} "$@" ;; *) exec {real} -F {own} "$@" ;; esac\n'
    )
    program.chmod(0o700)
    monkeypatch.chdir(tmp_path)

    def run(arguments, text="", host="node2"):
        own.write_text(text)
        lines, left_out = ssh_config.login_lines(str(program), host, shlex.split(arguments))
        block = ssh_config.make_block(host, [f"a-{host}", "a-controller"], lines)
        own.write_text(text_of(None, {host: block}, [host]) + "\n" + text)
        assert left_out == []
        found = [ssh_config.ask_ssh(str(program), [], name) for name in (f"a-{host}", "a-controller")]
        for one in found:
            del one["host"]
        assert found[0] == found[1]
        return {name: ", ".join(values) for name, values in found[0].items()}, lines

    return run


@with_ssh
def test_ssh_takes_arguments_from_there(settings):
    found, lines = settings(
        "-o 'UserKnownHostsFile=\"/my known/x\"' -J ada@bastion:2200 -4 -p 2222 -l ada -i '/keys/my key'"
    )
    assert lines[0] == "HostName node2"
    assert 'UserKnownHostsFile "/my known/x"' in lines
    assert {
        "hostname": "node2",
        "user": "ada",
        "port": "2222",
        "identityfile": "/keys/my key",
        "userknownhostsfile": "/my known/x",
        "proxyjump": "ada@bastion:2200",
        "addressfamily": "inet",
    }.items() <= found.items()


OWN = """
Host node2
    HostName 10.0.0.5
    User debian
    ProxyJump bastion
    IdentityFile "~/my key"
    IdentitiesOnly yes
    KexAlgorithms +diffie-hellman-group1-sha1
Match host 10.0.0.5
    Port 2222
Host *
    User ada
    ServerAliveInterval 7
    ControlPath /x
"""


@with_ssh
def test_ssh_takes_a_block_that_is_for_the_name_ansible_uses(settings):
    found, lines = settings("-o ControlMaster=auto", OWN)
    assert {
        "hostname": "10.0.0.5",
        "user": "debian",
        "port": "2222",
        "proxyjump": "bastion",
        "identityfile": "~/my key",
        "identitiesonly": "yes",
        "serveraliveinterval": "7",
    }.items() <= found.items()
    assert found["kexalgorithms"].endswith(",diffie-hellman-group1-sha1")
    assert lines == [
        "HostName 10.0.0.5",
        "User debian",
        "Port 2222",
        *(line for line in lines[3:] if not line.lower().startswith(("control", "server"))),
    ]
    assert "kexalgorithms +diffie-hellman-group1-sha1" in lines
    # arguments win, as for Ansible
    found, lines = settings("-l root -i /key", OWN)
    assert (found["user"], found["identityfile"]) == ("root", "/key, ~/my key")
    assert [line for line in lines if line.startswith("User")] == ["User root"]


@with_ssh
def test_ssh_takes_what_is_not_for_a_host(settings):
    text = "Host node2\n    ProxyJump none\n    User root\nHost *\n    ProxyJump bastion\n    User ada\n"
    found, _lines = settings("", text)
    assert found["user"] == "root"
    assert {"proxyjump", "proxycommand"} & set(found) == set()


@with_ssh
def test_ssh_takes_a_configuration_of_ansible_alone(settings, tmp_path):
    (tmp_path / "ssh.cfg").write_text(
        "Host 10.0.*\n    ProxyJump ada@bastion:2200\n    IdentityFile keys/id\n    UserKnownHostsFile ./known /x\n"
    )
    found, _lines = settings("-F ./ssh.cfg", "Host *\n    User ada\n", "10.0.0.5")
    assert found["identityfile"] == f"{tmp_path}/keys/id"
    assert found["userknownhostsfile"] == f"{tmp_path}/known /x"
    assert found["user"] == pwd.getpwuid(os.getuid()).pw_name
    # the bastion too is looked up there
    assert found["proxycommand"] == f"ssh -F {tmp_path}/ssh.cfg -W '[%h]:%p' ssh://ada@bastion:2200"


@with_ssh
@pytest.mark.parametrize("arguments", ["-o Nonsense=1", "-F ./none.cfg", "-o", "-F ./broken.cfg"])
def test_what_ssh_does_not_take_is_told(settings, tmp_path, arguments):
    (tmp_path / "broken.cfg").write_text("Host x\n    Nonsense yes\n")
    with pytest.raises(SshConfigError, match=r"how it reaches node2: .+: put right what Ansible gives it"):
        settings(arguments)
