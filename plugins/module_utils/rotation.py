# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That a connector whose keys were renewed opens nothing any more, and its successor does: tried, not assumed."""

from __future__ import annotations

import time
import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import CLIENT_CHANNELS

if t.TYPE_CHECKING:
    import zmq

CHANNELS = ("registration", *CLIENT_CHANNELS)
PUBLISHED = ("iopub", "notification")
"""Channels on which clients only listen; a socket of another kind would be refused for that."""
REMEDY = "run playbook ipyparallel.cluster.deploy, which ends what runs with other keys, and rotate_connector again"


class RotationError(Exception):
    """The old connector opens something, or the new one does not; the message says what, and what to do."""


def with_old_keys(new: Mapping[str, t.Any], old: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the client half *new* with the keys of *old*: what listens where may have changed together with them.

    Raises:
        RotationError: the keys are the same.
    """
    if old["key"] == new["key"]:
        raise RotationError(
            "the keys are the old ones, so nothing was renewed: leave ipyparallel_controller_identity to the playbook"
        )
    # where nothing was encrypted before, there is no old key of this kind, and an unencrypted client is tried
    return {**new, "key": old["key"], "curve_serverkey": old["curve_serverkey"] if new["curve_serverkey"] else None}


def socket_for(context: zmq.Context[zmq.Socket[bytes]], half: Mapping[str, t.Any], channel: str) -> zmq.Socket[bytes]:
    """Return a socket with the keys of *half*, not connected yet."""
    import zmq

    socket = context.socket(zmq.SUB if channel in PUBLISHED else zmq.DEALER)
    if half["curve_serverkey"]:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = half["curve_serverkey"].encode("ascii")
    return socket


def accepted(half: Mapping[str, t.Any], channels: Iterable[str], seconds: float) -> list[str]:
    """Return those of *channels* that let a socket with the keys of *half* in, within *seconds*.

    With CURVE that is the proof: who does not know the server's key is refused before the first message. Without,
    everybody is let in, and the signature of each message decides.
    """
    import zmq
    from zmq.utils.monitor import recv_monitor_message

    let_in = []
    context = zmq.Context()
    monitors: dict[t.Any, str] = {}
    sockets: list[zmq.Socket[bytes]] = []
    refused = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    refused |= zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED
    try:
        poller = zmq.Poller()
        for channel in channels:
            socket = socket_for(context, half, channel)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | refused)
            sockets += [socket, monitor]
            monitors[monitor] = channel
            poller.register(monitor, zmq.POLLIN)
            socket.connect(f"{half['interface']}:{half[channel]}")
        deadline = time.monotonic() + seconds
        while monitors and (left := deadline - time.monotonic()) > 0:
            for monitor, _event in poller.poll(int(left * 1000) + 1):
                poller.unregister(monitor)
                channel = monitors.pop(monitor)
                if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    let_in.append(channel)
    finally:
        for socket in reversed(sockets):
            socket.close(linger=0)
        context.term()
    return let_in


def answer(half: Mapping[str, t.Any], key: str, seconds: float) -> str:
    """Return what the hub answers to a client with *half* that wants to be connected; empty where it says yes.

    Args:
        half: of the client.
        key: with which the hub signs, so that its answer is read even where the client could not.
        seconds: how long an answer is waited for.
    """
    import zmq
    from jupyter_client.session import Session

    context = zmq.Context()
    socket = socket_for(context, half, "registration")
    socket.connect(f"{half['interface']}:{half['registration']}")
    writes, reads = (
        Session(
            key=secret.encode(),
            packer=half["pack"],
            unpacker=half["unpack"],
            signature_scheme=half["signature_scheme"],
        )
        for secret in (half["key"], key)
    )
    try:
        writes.send(socket, "connection_request")
        if not socket.poll(int(seconds * 1000)):
            return f"no answer in {seconds:g} s"
        _idents, message = reads.recv(socket, mode=0)
    finally:
        socket.close(linger=0)
        context.term()
    if message is None or message["content"].get("status") != "ok":
        return "an error in place of an answer"
    return ""


def runs_code(half: dict[str, t.Any], key: str, seconds: float) -> int | None:
    """Return the engine that runs what is signed with *key*, which is not that of *half*; None where none does.

    Without encryption the schedulers pass on what anybody sends, and each engine judges the signature.
    """
    import ipyparallel

    client = ipyparallel.Client(half, timeout=seconds)
    try:
        engines = hub.registered(client)
        if not engines:
            return None
        number: int = engines[0]["id"]
        # signs with the one, and reads an answer with the other; the client sends in its own thread, in this order
        sign = client.session.clone()
        sign.key = key.encode()
        client._io_loop.add_callback(setattr, client.session, "send", sign.send)
        result = hub.no_op(client, "direct", number, seconds)
        result.wait(seconds)
        return number if result.ready() else None
    finally:
        client.close(linger=0)


def prove(new: dict[str, t.Any], old: Mapping[str, t.Any], seconds: float) -> dict[str, t.Any]:
    """Try a connector that was replaced, and its successor.

    Args:
        new: the client half; a client with it is known to work.
        old: the one that it replaced.
        seconds: how long each thing that should not happen is waited for.

    Returns:
        ``refused``: what a client with the old one gets; ``channels``: how many refused its key before the first
        message, 0 without encryption.

    Raises:
        RotationError: the old one opens something, or the new one does not.
    """
    tried = with_old_keys(new, old)
    if new["curve_serverkey"]:
        closed = sorted(set(CHANNELS) - set(accepted(new, CHANNELS, seconds)))
        if closed:
            raise RotationError(f"the controller does not let the new connector in on {', '.join(closed)}: {REMEDY}")
        if opened := accepted(tried, CHANNELS, seconds):
            raise RotationError(f"the controller lets the old connector in on {', '.join(sorted(opened))}: {REMEDY}")
    why = answer(tried, new["key"], seconds)
    if not why:
        raise RotationError(f"the hub answers a client with the old connector: {REMEDY}")
    if not new["curve_serverkey"] and (number := runs_code(new, old["key"], seconds)) is not None:
        raise RotationError(f"engine {number} runs what is signed with the old key: {REMEDY}")
    return {"refused": why, "channels": len(CHANNELS) if new["curve_serverkey"] else 0}
