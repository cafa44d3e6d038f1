# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who listens where on this host, read from ``/proc``: no tool and no root is needed."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pwd
import re

from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import PREFIX, as_owner_of, process_environ

LISTEN = "0A"


@dataclasses.dataclass(frozen=True)
class Listener:
    """A listening TCP socket."""

    address: str
    port: int
    uid: int
    inode: int


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a listening socket, as far as this account may know it."""

    pid: int | None
    name: str
    cluster: str = ""

    def __str__(self) -> str:
        """Return it as a message names it."""
        return f"pid {self.pid} ({self.name})" if self.pid else self.name


def parse_address(text: str) -> str:
    """Return the address in the form of ``/proc/net/tcp`` (little-endian hexadecimal words) as usual text."""
    raw = bytes.fromhex(text)
    swapped = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    address = ipaddress.ip_address(swapped)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def parse_listeners(table: str) -> list[Listener]:
    """Return the listening sockets of a table in the form of ``/proc/net/tcp`` or ``/proc/net/tcp6``."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != LISTEN:
            continue
        address, _colon, port = fields[1].rpartition(":")
        found.append(Listener(parse_address(address), int(port, 16), int(fields[7]), int(fields[9])))
    return found


def listeners() -> list[Listener]:
    """Return the listening TCP sockets of this host."""
    found: list[Listener] = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as stream:
                found += parse_listeners(stream.read())
        except FileNotFoundError:
            continue
    return found


def conflicts(address: str, ports: set[int], sockets: list[Listener]) -> list[Listener]:
    """Return the sockets that hold one of *ports* where *address* wants to listen."""
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
    return [
        socket
        for socket in sockets
        if socket.port in ports and (socket.address in anywhere or address in anywhere or socket.address == address)
    ]


def owner_of(socket: Listener) -> Owner:
    """Return the process that holds *socket*."""
    wanted = f"socket:[{socket.inode}]"
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        directory = f"/proc/{pid}/fd"
        try:
            with as_owner_of(pid):
                held = any(os.readlink(os.path.join(directory, name)) == wanted for name in os.listdir(directory))
            if held:
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                    name = stream.read().strip()
                return Owner(pid, name, process_environ(pid).get(f"{PREFIX}CLUSTER", ""))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    try:
        account = pwd.getpwuid(socket.uid).pw_name
    except KeyError:
        account = f"uid {socket.uid}"
    return Owner(None, f"a process of account {re.sub(r'[^ -~]', '?', account)}")
