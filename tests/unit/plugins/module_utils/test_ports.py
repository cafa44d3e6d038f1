# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ports import (
    Listener,
    Owner,
    conflicts,
    listeners,
    owner_of,
    parse_address,
    parse_listeners,
)
from hypothesis import given
from hypothesis import strategies as st

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 51234 1 0000000000000000 100
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1 0000000000000000 100 0 0
   2: 0100007F:22B8 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 51240 1 0000000000000000 20
   3: 0500000A:2774 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 51300 1 0000000000000000 100
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000     0        0 61 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:22B9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000  1000        0 62 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000  1000        0 63 1 0000000000000000 100 0 0 10 0
"""


# ---- the kernel's tables


def test_the_listening_sockets_of_ipv4():
    assert parse_listeners(TCP) == [
        Listener("127.0.0.1", 8888, 1000, 51234),
        Listener("0.0.0.0", 22, 0, 17),
        Listener("10.0.0.5", 10100, 999, 51300),
    ]


def test_the_listening_sockets_of_ipv6():
    assert parse_listeners(TCP6) == [
        Listener("::", 80, 0, 61),
        Listener("::1", 8889, 1000, 62),
        Listener("127.0.0.1", 8080, 1000, 63),
    ]


@pytest.mark.parametrize("table", ["", "  sl  local_address\n", TCP.splitlines()[0], "head\n   0: 01000"])
def test_tables_without_a_socket(table):
    assert parse_listeners(table) == []


def kernel_form(address):
    raw = address.packed
    return b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4)).hex().upper()


@given(st.ip_addresses(), st.integers(1, 65535), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_address_port_and_owner_reads_back(address, port, uid, inode):
    line = f"0: {kernel_form(address)}:{port:04X} 0:0 0A 0:0 00:0 0 {uid} 0 {inode} 1"
    (found,) = parse_listeners(f"head\n{line}\n")
    expected = getattr(address, "ipv4_mapped", None) or address
    assert ipaddress.ip_address(found.address) == expected
    assert (found.port, found.uid, found.inode) == (port, uid, inode)
    assert parse_address(kernel_form(address)) == str(expected)


# ---- who is in the way


@pytest.mark.parametrize(
    ("address", "held", "conflict"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("::", "10.0.0.5", True),
        ("127.0.0.1", "::1", False),
    ],
)
def test_conflicts_are_by_address(address, held, conflict):
    holder, other = Listener(held, 8888, 0, 1), Listener(held, 8889, 0, 2)
    assert conflicts(address, {8888, 8890}, [holder, other]) == ([holder] if conflict else [])


# ---- real sockets


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1"])
def listening(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as found:
        try:
            found.bind((request.param, 0))
        except OSError as error:
            pytest.skip(f"this machine has no address {request.param}: {error}")
        found.listen()
        yield found


def test_a_socket_of_this_process_is_found_with_its_owner(listening):
    address, port = listening.getsockname()[:2]
    (found,) = conflicts(address, {port}, listeners())
    assert found == Listener(address, port, os.geteuid(), os.fstat(listening.fileno()).st_ino)
    owner = owner_of(found)
    name = Path("/proc/self/comm").read_text().strip()
    assert owner == Owner(os.getpid(), name, os.environ.get("IPYPARALLEL_CLUSTER", ""))
    assert str(owner) == f"pid {os.getpid()} ({name})"


def test_a_socket_that_only_is_bound_is_in_nobodys_way():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert conflicts("127.0.0.1", {bound.getsockname()[1]}, listeners()) == []


LISTEN = "import socket\nlistening = socket.create_server(('127.0.0.1', {port}))"


def test_the_owner_tells_its_cluster(python, free_port):
    child = python(LISTEN.format(port=free_port), environment={"IPYPARALLEL_CLUSTER": "other"})
    (found,) = conflicts("127.0.0.1", {free_port}, listeners())
    owner = owner_of(found)
    assert (owner.pid, owner.cluster) == (child.pid, "other")


def test_an_owner_that_may_not_be_known_is_told_by_its_account():
    account = pwd.getpwuid(os.geteuid()).pw_name
    assert str(owner_of(Listener("127.0.0.1", 1, os.geteuid(), 0))) == f"a process of account {account}"
    assert str(owner_of(Listener("127.0.0.1", 1, 2**31, 0))) == f"a process of account uid {2**31}"
