# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which machine this is, and what it reaches. Nothing is changed, and nothing is sent but the first packet of TCP."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import os
import selectors
import socket
import time
import typing as t
from collections.abc import Iterable

UNREACHABLE = {
    errno.EHOSTUNREACH: "no route to it, or a firewall on the way forbids it",
    errno.ENETUNREACH: "no route to it",
    errno.ENETDOWN: "the network is down",
    errno.EHOSTDOWN: "the host is down",
    errno.ETIMEDOUT: "no answer",
    errno.EACCES: "a firewall on this host forbids it",
    errno.EPERM: "a firewall on this host forbids it",
}


def signs(root: str = "/") -> list[str]:
    """Return by what this machine is known from others.

    No one of them is enough. Cloned images share the machine's id and hostname, and containers the kernel, whose boot
    id they show; but two machines on one kernel never share both the network and the process namespace.
    """
    found = [os.uname().nodename]
    for path in ("etc/machine-id", "proc/sys/kernel/random/boot_id"):
        try:
            with open(os.path.join(root, path), encoding="ascii") as stream:
                found.append(stream.read().strip())
        except OSError:
            found.append("")
    for name in ("net", "pid"):
        try:
            found.append(os.readlink(os.path.join(root, "proc/self/ns", name)))
        except OSError:
            found.append("")
    return found


def machine_digest(known_by: Iterable[str]) -> str:
    """Return one short text for the signs of a machine; it tells nothing else about it."""
    return hashlib.sha256("\n".join(known_by).encode()).hexdigest()[:16]


def is_own_address(address: str) -> bool:
    """Return whether IPv4 *address* is one of this host's. Nothing is sent."""
    if ipaddress.IPv4Address(address).is_loopback:
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
        # the kernel talks to its own addresses from just these; binding would succeed for any with ip_nonlocal_bind
        return str(probe.getsockname()[0]) == address


def unreachable_ports(address: str, ports: Iterable[int], seconds: float) -> dict[int, str]:
    """Return the *ports* of *address* that cannot be reached, with the reason; all are tried at once.

    A refused connection is an answer of the host: the port is reached, and nobody listens there yet.
    """
    failed: dict[int, str] = {}
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as selector:
        waiting: set[int] = set()

        def judge(port: int, code: int) -> None:
            if code not in (0, errno.ECONNREFUSED, errno.ECONNRESET):
                failed[port] = UNREACHABLE.get(code, os.strerror(code))

        for port in ports:
            attempt = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            attempt.setblocking(False)
            code = attempt.connect_ex((address, port))
            if code == errno.EINPROGRESS:
                waiting.add(port)
                selector.register(attempt, selectors.EVENT_WRITE, port)
            else:
                judge(port, code)
        deadline = time.monotonic() + seconds
        while waiting and (left := deadline - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                ended = t.cast(socket.socket, key.fileobj)
                selector.unregister(ended)
                waiting.discard(key.data)
                judge(key.data, ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        failed.update(dict.fromkeys(waiting, f"no answer in {seconds:g} s"))
    return dict(sorted(failed.items()))
