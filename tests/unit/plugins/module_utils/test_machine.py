# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import errno
import os
import socket
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import machine

# ---- which machine this is


@pytest.fixture
def root(tmp_path):
    """A root directory with all signs of a machine."""
    for path, text in (("etc/machine-id", "m1\n"), ("proc/sys/kernel/random/boot_id", "b1\n")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    for name in ("net", "pid"):
        (tmp_path / "proc/self/ns" / name).symlink_to(f"{name}:[1]")
    return tmp_path


def test_the_signs_of_a_machine(root):
    assert machine.signs(str(root)) == [os.uname().nodename, "m1", "b1", "net:[1]", "pid:[1]"]


def test_signs_that_are_missing_leave_the_others_in_their_places(tmp_path):
    assert machine.signs(str(tmp_path)) == [os.uname().nodename, "", "", "", ""]


def test_a_machine_is_the_same_each_time():
    assert machine.machine_digest(machine.signs()) == machine.machine_digest(machine.signs())


@pytest.mark.parametrize("place", range(5))
def test_each_sign_tells_machines_apart(place):
    one = ["node", "m", "b", "net:[1]", "pid:[1]"]
    other = [*one]
    other[place] += "x"
    assert machine.machine_digest(one) != machine.machine_digest(other)


def test_the_digest_tells_nothing_else():
    digest = machine.machine_digest(["node1", "4c4c4544"])
    assert len(digest) == 16
    assert "4c4c" not in digest


# ---- addresses


def outward():
    """Return this machine's address in its network, or skip."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if probe.connect_ex(("198.51.100.1", 9)):
            pytest.skip("this machine has no default route")
        return probe.getsockname()[0]


@pytest.mark.parametrize(("address", "own"), [("127.0.0.1", True), ("127.3.2.1", True), ("198.51.100.1", False)])
def test_addresses_of_this_host(address, own):
    assert machine.is_own_address(address) is own


def test_the_address_in_the_network_is_this_hosts_too():
    assert machine.is_own_address(outward())


def test_without_a_route_an_address_is_not_this_hosts(monkeypatch):
    def connect(self, _address):
        raise OSError(errno.ENETUNREACH, "")

    monkeypatch.setattr(machine.socket, "socket", type("Socket", (socket.socket,), {"connect": connect}))
    assert not machine.is_own_address("198.51.100.1")


# ---- what is reached


def test_listening_and_closed_ports_are_reached(free_port):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = [listening.getsockname()[1], free_port]
        assert machine.unreachable_ports("127.0.0.1", ports, 3.0) == {}
    assert machine.unreachable_ports("127.0.0.1", [], 3.0) == {}


@pytest.fixture
def silent():
    """A port whose queue is full: it answers nothing, as behind a firewall that drops packets."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = []
        while len(waiting) < 8:
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        yield address[1]
        for attempt in waiting:
            attempt.close()


def test_all_ports_are_waited_for_at_once(silent, free_port):
    start = time.monotonic()
    failed = machine.unreachable_ports("127.0.0.1", [free_port, silent], 0.3)
    assert failed == {silent: "no answer in 0.3 s"}
    assert 0.25 < time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EHOSTUNREACH, "a firewall on the way forbids it"),
        (errno.ENETUNREACH, "no route to it"),
        (errno.EACCES, "a firewall on this host"),
        (errno.EPERM, "a firewall on this host"),
        (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
        (0, None),
        (errno.ECONNREFUSED, None),
        (errno.ECONNRESET, None),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_reasons(monkeypatch, code, reason, at_once):
    """By an error of connect itself, or by one that comes later."""

    ends = socket.socketpair()

    class Attempt:
        def __init__(self, *_kind):
            # one that can be written to, so that the attempt has ended
            self.end = ends[0].dup()

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            self.end.close()

        def connect_ex(self, _address):
            return code if at_once else errno.EINPROGRESS

        def fileno(self):
            return self.end.fileno()

        def setblocking(self, _flag):
            pass

        def getsockopt(self, *_arguments):
            return code

    monkeypatch.setattr(machine.socket, "socket", Attempt)
    failed = machine.unreachable_ports("192.0.2.7", [2, 1], 3.0)
    monkeypatch.undo()
    for end in ends:
        end.close()
    assert list(failed) == ([] if reason is None else [1, 2])
    assert all(reason in text for text in failed.values())
