# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's SSH tunnel to a cluster whose client ports are closed to the outside.

ipyparallel has tunnels of its own (``ssh`` in the connector), but they leave out CURVE, so that an encrypted controller
never answers (``Client._connect`` of ipyparallel 9.2). So one ``ssh`` forwards all client ports to this machine's
loopback, and the operator's connector names those.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text

TUNNEL_FILE = "tunnel.json"
CHANNELS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
"""The ports of the client half (``connector.CLIENT_CHANNELS``, and registration)."""
OPEN_SECONDS = 30


class TunnelError(RuntimeError):
    """The tunnel cannot be opened; the message names the login, SSH's reason and the remedy."""


@dataclasses.dataclass(frozen=True)
class Login:
    """How SSH reaches the controller host: as Ansible does.

    Attributes:
        host: as it is given to ssh.
        user: for people; the arguments have it too.
        arguments: of ssh.
    """

    host: str
    user: str | None = None
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.user}@{self.host}" if self.user else self.host


def local_half(text: str, ports: Mapping[str, int]) -> str:
    """Return the client half *text* with this machine's ends of the tunnel in place of the controller's ports."""
    half = json.loads(text)
    half.update(interface="tcp://127.0.0.1", location="127.0.0.1", **ports)
    return json.dumps(half, indent=2)


def remembered_ports(directory: str) -> dict[str, int]:
    """Return this machine's ends of the tunnel as they were last time, so that a connector stays as it is."""
    try:
        ports = json.loads(read_text(os.path.join(directory, TUNNEL_FILE)) or "{}")["ports"]
        return {name: int(ports[name]) for name in CHANNELS}
    except (ValueError, KeyError, TypeError):
        return {}


def is_free(port: int) -> bool:
    """Return whether nobody listens on *port* of this machine's loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """Return *wanted* (channel to port) where all are free here, else others that are."""
    if all(is_free(port) for port in wanted.values()):
        return dict(wanted)
    # held together, so that no two are the same
    probes = {name: socket.create_server(("127.0.0.1", 0)) for name in wanted}
    ports = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return ports


class Tunnel:
    """One SSH connection for one cluster, told by its control socket."""

    def __init__(self, directory: str, login: Login) -> None:
        """Describe the tunnel of the operator's profile *directory*.

        Args:
            directory: the profile, which tells tunnels apart.
            login: of the controller host.
        """
        self.login = login
        name = hashlib.sha256(directory.encode()).hexdigest()[:16]
        # the path of a socket has to be short, which that of a profile need not be
        runtime = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.ssh")
        self.runtime = runtime
        self.socket = os.path.join(runtime, f"ipyparallel-{name}")

    def is_open(self) -> bool:
        """Return whether the connection stands."""
        return os.path.exists(self.socket) and self._ssh("-O", "check", self.login.host).returncode == 0

    def open(self, forwards: Mapping[int, tuple[str, int]]) -> None:
        """Open it.

        Args:
            forwards: ports of this machine's loopback, each with the address and port that it leads to.

        Raises:
            TunnelError: SSH does not connect, or cannot forward.
        """
        os.makedirs(self.runtime, mode=0o700, exist_ok=True)
        options = ["BatchMode=yes", "ExitOnForwardFailure=yes", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
        command = ["-f", "-N", "-M"]
        # Ansible's own connections end when nobody has used them for a while
        for option in (*options, "ControlPersist=no", f"ConnectTimeout={OPEN_SECONDS}"):
            command += ["-o", option]
        for port, (address, there) in forwards.items():
            command += ["-L", f"127.0.0.1:{port}:{address}:{there}"]
        done = self._ssh(*command, *self.login.arguments, self.login.host)
        if done.returncode:
            raise TunnelError(
                f"the SSH tunnel to {self.login} does not open: {done.stderr.strip() or 'no message'}; it needs a key "
                "or an agent, as no password can be typed here; or open the client ports to this machine "
                "(ipyparallel_allowed_cidrs) and set ipyparallel_connect_through=direct"
            )

    def close(self) -> bool:
        """Close it; return whether it was open."""
        was_open = self.is_open()
        if was_open:
            self._ssh("-O", "exit", self.login.host)
        return was_open

    def _ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # a file, because what goes to the background would hold a pipe open
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            try:
                done = subprocess.run(
                    ["ssh", "-S", self.socket, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    check=False,
                )
            except FileNotFoundError:
                raise TunnelError(
                    "there is no ssh on this machine: install it (Debian package openssh-client)"
                ) from None
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, "", output.read())
