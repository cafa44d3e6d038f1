# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Registers as many engines with a hub as it is told, and does for each only what its heart does: answer each beat.

So the controller works for hundreds of engines, on a machine that could not run them. Arguments: the engine half of
the connector, and the number. It says ``ready`` when the hub has accepted each, and ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import uuid

import zmq
from jupyter_client.session import Session

path, number = sys.argv[1], int(sys.argv[2])
with open(path) as file:
    connector = json.load(file)
context = zmq.Context(io_threads=1)
context.set(zmq.MAX_SOCKETS, 8 * number + 100)
session = Session(
    key=connector["key"].encode(), packer=connector["pack"], unpacker=connector["unpack"], session="hearts"
)
own_public, own_secret = zmq.curve_keypair()


def socket(kind: int, port: str, identity: bytes = b"") -> zmq.Socket[bytes]:
    """Return a socket that is connected as an engine's is."""
    one = context.socket(kind)
    one.linger = 0
    if identity:
        one.setsockopt(zmq.IDENTITY, identity)
    if connector.get("curve_serverkey"):
        one.curve_serverkey = connector["curve_serverkey"].encode()
        one.curve_publickey, one.curve_secretkey = own_public, own_secret
    if kind == zmq.SUB:
        one.subscribe(b"")
    one.connect(f"{connector['interface']}:{connector[port]}")
    return one


poller = zmq.Poller()
poller.register(sys.stdin.fileno(), zmq.POLLIN)
pong_of = {}
ident_of = {}
for _number in range(number):
    ident = uuid.uuid4().hex.encode()
    registrar = socket(zmq.DEALER, "registration", ident)
    ident_of[registrar] = ident
    poller.register(registrar, zmq.POLLIN)
    session.send(registrar, "registration_request", content={"uuid": ident.decode(), "id": None})
while True:
    for ready, _event in poller.poll():
        if ready in pong_of:
            pong_of[ready].send_multipart(ready.recv_multipart())
        elif ready in ident_of:
            # accepted; its heart must not beat before, as that would be a stranger's
            ready.recv_multipart()
            poller.unregister(ready)
            ping, pong = socket(zmq.SUB, "hb_ping"), socket(zmq.DEALER, "hb_pong", ident_of.pop(ready))
            pong_of[ping] = pong
            poller.register(ping, zmq.POLLIN)
            if not ident_of:
                print("ready", flush=True)
        else:
            sys.exit()
