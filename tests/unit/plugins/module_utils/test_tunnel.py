# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's tunnel, against a program `ssh` that keeps a record and a socket as the real one does."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import CLIENT_CHANNELS, Identity
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import (
    CHANNELS,
    TUNNEL_FILE,
    Login,
    Tunnel,
    TunnelError,
    choose_ports,
    local_half,
    remembered_ports,
)

IDENTITY = Identity("alpha", "10.0.0.5", 10100, "json", "curve", "leastload", "0" * 64, "p" * 40, "s" * 40)
LOGIN = Login("node1", "ada", ("-o", "UserKnownHostsFile=/known hosts", "-l", "ada"))
SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/arguments"
case " $* " in
  *" refused "*) echo "ada@refused: Permission denied (publickey)." >&2; exit 255 ;;
  *" check "*) exit 0 ;;
  *" exit "*) rm "$2" ;;
  *) : > "$2" ;;
esac
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A program of this name; what it was given last."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return lambda: (tmp_path / "arguments").read_text().splitlines()


def test_the_channels_are_those_of_the_client_half():
    assert set(CHANNELS) == {"registration", *CLIENT_CHANNELS}


def test_a_half_of_this_machine_has_its_ends_and_the_clusters_keys():
    ports = dict(zip(CHANNELS, range(20000, 20007), strict=True))
    ours, theirs = json.loads(local_half(IDENTITY.text("client"), ports)), IDENTITY.half("client")
    assert {name: ours[name] for name in CHANNELS} == ports
    assert (ours["interface"], ours["location"]) == ("tcp://127.0.0.1", "127.0.0.1")
    same = set(theirs) - {*CHANNELS, "interface", "location"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert list(ours) == list(theirs)


def test_ports_are_the_clusters_where_they_are_free_here(free_port):
    wanted = {"registration": free_port}
    assert choose_ports(wanted) == wanted


def test_other_ports_are_chosen_where_one_is_taken(free_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = {"registration": free_port, "mux": taken.getsockname()[1]}
        chosen = choose_ports(wanted)
    assert list(chosen) == list(wanted)
    assert len(set(chosen.values())) == 2
    assert wanted["mux"] not in chosen.values()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": {}}', '{"ports": {"mux": 1}}', '{"ports": null}'])
def test_a_broken_memory_is_none(tmp_path, text):
    (tmp_path / TUNNEL_FILE).write_text(text)
    assert remembered_ports(str(tmp_path)) == {}


def test_ports_are_remembered(tmp_path):
    ports = dict(zip(CHANNELS, range(20000, 20007), strict=True))
    (tmp_path / TUNNEL_FILE).write_text(json.dumps({"ports": ports}))
    assert remembered_ports(str(tmp_path)) == ports
    assert remembered_ports(str(tmp_path / "elsewhere")) == {}


def test_a_tunnel_opens_once_and_closes(ssh, tmp_path):
    tunnel = Tunnel("/home/ada/.ipython/profile_alpha", LOGIN)
    assert not tunnel.is_open()
    assert not tunnel.close()
    tunnel.open({20000: ("10.0.0.5", 10100), 20001: ("10.0.0.5", 10109)})
    given = ssh()
    for part in ("BatchMode=yes", "ExitOnForwardFailure=yes", "127.0.0.1:20001:10.0.0.5:10109"):
        assert part in given
    assert given[-5:] == [*LOGIN.arguments, "node1"]
    # before those, as the first one counts: Ansible's own connections end after a while
    assert "ControlPersist=no" in given[:-5]
    assert tunnel.is_open()
    assert Path(tunnel.socket).parent.stat().st_mode & 0o077 == 0
    assert tunnel.close()
    assert not tunnel.is_open()


def test_each_profile_has_a_tunnel_of_its_own_and_a_short_path(ssh):
    one, two = (Tunnel(f"/{'deep/' * 60}profile_{name}", LOGIN).socket for name in ("alpha", "beta"))
    assert one != two
    assert len(os.path.basename(one)) < 32


def test_a_refusal_names_login_reason_and_remedy(ssh):
    with pytest.raises(TunnelError) as caught:
        Tunnel("/profile", Login("refused", "ada")).open({20000: ("10.0.0.5", 10100)})
    for part in ("ada@refused", "Permission denied", "key", "ipyparallel_connect_through=direct"):
        assert part in str(caught.value)


def test_without_ssh_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(TunnelError, match="openssh-client"):
        Tunnel("/profile", LOGIN).open({})
