# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written is read by ssh itself (``ssh -G``), where there is one."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess

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
        ("-J ada@bastion:22 -i ~/key", ["ProxyJump ada@bastion:22", "IdentityFile ~/key"], []),
        ("-Jbastion", ["ProxyJump bastion"], []),
        (
            "-o ProxyCommand='ssh -W %h:%p -q bastion' -F /etc/x",
            ["ProxyCommand ssh -W %h:%p -q bastion", "Include /etc/x"],
            [],
        ),
        ("-4 -A -q", ["AddressFamily inet", "ForwardAgent yes", "LogLevel QUIET"], []),
        ("-X -vvv -L 1:2:3", [], ["-X", "-vvv", "-L", "1:2:3"]),
        ("-o Port -o", [], ["-o", "-o"]),
    ],
)
def test_arguments_of_ssh_as_lines(arguments, lines, left_out):
    assert ssh_config.directives(shlex.split(arguments)) == (lines, left_out)


@given(st.lists(st.text("-oJipF =x\n", max_size=8)))
def test_any_arguments_are_lines_or_left_out(words):
    lines, left_out = ssh_config.directives(words)
    assert all("\n" not in line and " " in line for line in lines)
    assert set(left_out) <= set(words)


def login(**options):
    return ssh_config.login_lines({"host": "10.0.0.5", **options})[0]


def test_a_login():
    assert login() == ["HostName 10.0.0.5"]
    assert login(
        user="ada", port=2222, key="/keys/my key", host_key_checking=False, arguments=["-J", "b", "-J", "b"]
    ) == [
        "HostName 10.0.0.5",
        "User ada",
        "Port 2222",
        'IdentityFile "/keys/my key"',
        "StrictHostKeyChecking no",
        "ProxyJump b",
    ]
    assert login(host_key_checking=True) == ["HostName 10.0.0.5"]
    assert ssh_config.login_lines({"host": "x", "arguments": ["-X"]})[1] == ["-X"]


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


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
def test_ssh_reads_it(tmp_path):
    arguments = ["-o", "UserKnownHostsFile=/my known/x", "-J", "ada@bastion:2200", "-4"]
    lines = login(user="ada", port=2222, key="/keys/my key", arguments=arguments)
    path = tmp_path / "a.conf"
    path.write_text(text_of(None, {"node1": ssh_config.make_block("node1", ["a-node1", "a-controller"], lines)}))
    for name in ("a-node1", "a-controller"):
        done = subprocess.run(["ssh", "-F", str(path), "-G", name], capture_output=True, text=True, check=True)
        said = done.stdout.splitlines()
        for line in (
            "hostname 10.0.0.5",
            "user ada",
            "port 2222",
            "identityfile /keys/my key",
            "proxyjump ada@bastion:2200",
            "addressfamily inet",
        ):
            assert line in said
