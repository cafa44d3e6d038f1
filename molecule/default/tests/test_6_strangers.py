# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who has the address and the ports, and not the keys, has nothing; and does no harm.

They come from the controller host itself, as an account that is not the cluster's; the firewall keeps nobody
away there.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import NODES
from figures import Figures
from remote import DOCUMENTED, HEALTH, METRICS, Operator, wait_until

BASE = 10100
CONNECTOR = "/var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json"
PYTHON = "/opt/ipyparallel/ipyparallel/current/bin/python"
CONNECTIONS = 1000

RECORD = '''
"""Let a client with the right keys do its work through a listener of our own, and keep what it sends, by port."""
import base64, json, pathlib, socket, tempfile, threading
import ipyparallel

connector = json.load(open(CONNECTOR))
names = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
address, sent, shifted = connector["location"], {}, dict(connector)

def pump(source, sink, keep):
    try:
        while data := source.recv(65536):
            if keep is not None:
                keep.extend(data)
            sink.sendall(data)
    except OSError:
        pass

def listen(port, listener):
    while True:
        near, _peer = listener.accept()
        far = socket.create_connection((address, port))
        keep = sent.setdefault(port, bytearray())
        for source, sink, kept in ((near, far, keep), (far, near, None)):
            threading.Thread(target=pump, args=(source, sink, kept), daemon=True).start()

for name in names:
    listener = socket.create_server(("127.0.0.1", 0))
    shifted[name] = listener.getsockname()[1]
    threading.Thread(target=listen, args=(connector[name], listener), daemon=True).start()
shifted["interface"] = "tcp://127.0.0.1"
shifted["location"] = "127.0.0.1"
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump(shifted, file)
    file.flush()
    client = ipyparallel.Client(file.name, timeout=20)
    assert client[:].apply_sync(lambda: 42) == [42] * 5
    assert client.load_balanced_view().apply_sync(lambda: 42) == 42
print(json.dumps({port: base64.b64encode(data).decode() for port, data in sent.items()}))
'''
ATTACK = """
import base64, json, random, socket

asked = ASKED
random.seed(asked["seed"])
streams = [base64.b64decode(text) for text in asked["streams"].values()]
kinds = {"random": 0, "replayed": 0, "greeting and random": 0}
for number in range(asked["count"]):
    address, port = asked["targets"][number % len(asked["targets"])]
    kind = list(kinds)[number // len(asked["targets"]) % len(kinds)]
    if kind == "random":
        data = random.randbytes(random.choice((1, 64, 9000)))
    elif kind == "replayed":
        own = asked["streams"].get(str(port))
        data = base64.b64decode(own) if own else random.choice(streams)
    else:
        # as far as a greeting of ZMTP 3.1 goes, with the right mechanism
        data = b"\\xff" + bytes(8) + b"\\x7f\\x03\\x01CURVE" + bytes(48) + random.randbytes(300)
    with socket.create_connection((address, port), 10) as connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
    kinds[kind] += 1
print(json.dumps(kinds))
"""
MEASURE = """
import json, os
fds = memory = 0
for pid in PIDS:
    fds += len(os.listdir(f"/proc/{pid}/fd"))
    memory += sum(int(l.split()[1]) for l in open(f"/proc/{pid}/smaps_rollup") if l.startswith(("Pss_Anon", "Swap:")))
print(json.dumps({"fds": fds, "kib": memory}))
"""


def controller_pids(operator: Operator) -> str:
    unit = "ipyparallel-ipyparallel-controller.service"
    group = operator.shell("node1", f"systemctl show --value --property=ControlGroup {unit}").strip()
    command = f"cat /sys/fs/cgroup/systemd{group}/cgroup.procs 2>/dev/null || cat /sys/fs/cgroup{group}/cgroup.procs"
    return " ".join(sorted(operator.shell("node1", command).split(), key=int))


def measured(operator: Operator) -> dict[str, int]:
    """Return the open files and the memory of the controller and its children."""
    code = MEASURE.replace("PIDS", repr(controller_pids(operator).split()))
    found: dict[str, int] = operator.python("node1", code, account="ipyparallel")
    return found


def connector(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(operator.shell("node1", f"cat {CONNECTOR}"))
    return found


TRY = """
import json, tempfile
import ipyparallel
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump(CONNECTOR, file)
    file.flush()
    try:
        client = ipyparallel.Client(file.name, timeout=SECONDS)
        said = str(client[:].apply_sync(lambda: 42))
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
print(json.dumps(said))
"""


def tried(operator: Operator, seconds: int = 4, **changes: str) -> str:
    """Return what a stranger gets who has the connector with changes."""
    text = repr({**connector(operator), **changes})
    code = TRY.replace("CONNECTOR", text).replace("SECONDS", str(seconds))
    return str(operator.python("node1", code, account="plain", program=PYTHON))


def test_with_the_right_keys_it_works(operator: Operator) -> None:
    assert tried(operator, 20) == str([42] * 5)


def test_a_wrong_curve_key_is_refused(operator: Operator) -> None:
    # of nobody
    other = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    assert "TimeoutError: Hub connection request timed out" in tried(operator, curve_serverkey=other)


def test_a_wrong_signature_is_refused(operator: Operator) -> None:
    assert "TimeoutError: Hub connection request timed out" in tried(operator, key="0" * 32)


def test_no_key_is_refused(operator: Operator) -> None:
    assert "TimeoutError: Hub connection request timed out" in tried(operator, curve_serverkey="")


@pytest.fixture(scope="module")
def streams(operator: Operator) -> dict[str, str]:
    """Return what a client with the right keys has sent, by port."""
    code = RECORD.replace("CONNECTOR", repr(CONNECTOR), 1)
    found: dict[str, str] = operator.python("node1", code, account="ipyparallel", program=PYTHON)
    assert len(found) == 7
    return found


def test_a_thousand_streams_change_nothing(
    operator: Operator, address: str, figures: Figures, streams: dict[str, str]
) -> None:
    public = [(address, BASE + number) for which in ("engine", "client") for number in DOCUMENTED[which]]
    private = [("127.0.0.1", BASE + number) for number in DOCUMENTED["internal"]] + [("127.0.0.1", 8888)]
    if HEALTH:
        private.append(("127.0.0.1", BASE + METRICS))
    targets = public + private
    pids, before = operator.pids("ipyparallel", NODES), measured(operator)

    def attack(seed: int, count: int) -> dict[str, int]:
        asked = {"seed": seed, "count": count, "streams": streams, "targets": targets}
        code = ATTACK.replace("ASKED", repr(asked), 1)
        found: dict[str, int] = operator.python("node1", code, account="plain")
        return found

    # the first ones fill what libzmq and the allocator keep
    attack(1, CONNECTIONS // 4)
    warm = wait_until(lambda: (found := measured(operator))["fds"] <= before["fds"] + 4 and found, 20, "no open files")
    kinds = attack(2, CONNECTIONS)
    assert min(kinds.values()) > CONNECTIONS // 4
    assert sum(kinds.values()) == CONNECTIONS
    after = wait_until(lambda: (found := measured(operator))["fds"] <= warm["fds"] and found, 20, "no more open files")
    figures.add("1000 strange connections: controller's open files", after["fds"] - before["fds"], "", 4)
    # 18 sockets with a reactor each; a leak of what a connection holds would be ten times as much
    figures.add("1000 strange connections: controller's memory", (after["kib"] - warm["kib"]) / 1024, "MiB", 2)
    assert operator.pids("ipyparallel", NODES) == pids
    operator.verify()
