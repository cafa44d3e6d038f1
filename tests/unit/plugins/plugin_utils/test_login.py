# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import types

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import Login
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils.login import login_of


class Connection:
    def __init__(self, **options):
        self.options = options

    def get_option(self, name):
        return self.options[name]


def test_arguments_are_in_the_order_of_ansible(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    connection = Connection(
        host="10.0.0.5",
        remote_user="ada",
        port=2222,
        private_key_file="~/my key",
        host_key_checking=False,
        ssh_args="-C -J bastion",
        ssh_common_args="-F './my ssh.cfg'",
        ssh_extra_args="-4",
    )
    login = login_of(connection, None)
    assert (login.host, str(login)) == ("10.0.0.5", "ada@10.0.0.5")
    assert login.arguments == (
        *("-C", "-J", "bastion", "-o", "StrictHostKeyChecking=no", "-p", "2222", "-i", "/home/ada/my key", "-l", "ada"),
        *("-F", "./my ssh.cfg", "-4"),
    )


@pytest.mark.parametrize("checking", [True, None])
def test_what_is_not_given_is_not_there(checking):
    names = ("remote_user", "port", "private_key_file", "ssh_args", "ssh_common_args", "ssh_extra_args")
    connection = Connection(host="node1", host_key_checking=checking, **dict.fromkeys(names))
    assert login_of(connection, None) == Login("node1")


def test_a_connection_with_other_options_is_known_by_the_play():
    context = types.SimpleNamespace(remote_addr="10.0.0.9", remote_user="ada", port=22, private_key_file=None)
    assert login_of(Connection(), context) == Login("10.0.0.9", "ada", ("-p", "22", "-l", "ada"))
