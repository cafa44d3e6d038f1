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
from conftest import NODES, NOTEBOOK
from figures import Figures
from remote import DOCUMENTED, HEALTH, METRICS, Operator
from waiting import wait_until

BASE = 10100
CONNECTOR = "/var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json"
PYTHON = "/opt/ipyparallel/ipyparallel/current/bin/python"
# on each port
CONNECTIONS = 1000
# MiB that a round may add. What is kept of a connection is more than 10 KiB, so a leak adds 10 MiB in each
GROWTH = 2

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
# open files, and memory that is nobody else's, of groups of processes
MEASURE = """
import json, os, sys
groups = json.loads(sys.argv[1])
found = {}
for name, pids in groups.items():
    fds = memory = 0
    for pid in pids:
        fds += len(os.listdir(f"/proc/{pid}/fd"))
        with open(f"/proc/{pid}/smaps_rollup") as file:
            memory += sum(int(line.split()[1]) for line in file if line.startswith(("Pss_Anon", "Swap:")))
    found[name] = {"fds": fds, "mib": memory / 1024}
print(json.dumps(found))
"""
SERVERS = ["controller", "notebook", "health"]


def pids_of(operator: Operator, unit: str) -> list[str]:
    """Return the processes of a unit, its children too."""
    group = operator.shell("node1", f"systemctl show --value --property=ControlGroup ipyparallel-ipyparallel-{unit}")
    roots = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup")
    paths = " || ".join(f"cat {root}{group.strip()}/cgroup.procs 2>/dev/null" for root in roots)
    return operator.shell("node1", paths).split()


def measured(operator: Operator) -> dict[str, dict[str, float]]:
    """Return the open files and the memory of what listens on the controller host."""
    groups = {name: pids_of(operator, f"{name}.service") for name in SERVERS}
    found: dict[str, dict[str, float]] = operator.python("node1", MEASURE, json.dumps(groups), account="ipyparallel")
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
    private = [("127.0.0.1", BASE + number) for number in DOCUMENTED["internal"]] + [("127.0.0.1", NOTEBOOK)]
    if HEALTH:
        private.append(("127.0.0.1", BASE + METRICS))
    targets = public + private
    assert len(targets) == 20
    pids, before = operator.pids("ipyparallel", NODES), measured(operator)

    def attack(seed: int, targets: list[tuple[str, int]]) -> dict[str, int]:
        asked = {"seed": seed, "count": CONNECTIONS * len(targets), "streams": streams, "targets": targets}
        code = ATTACK.replace("ASKED", repr(asked), 1)
        found: dict[str, int] = operator.python("node1", code, account="plain")
        return found

    def settled(most: dict[str, dict[str, float]], more: int, what: str) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}

        def is_settled() -> bool:
            found.update(measured(operator))
            return all(found[name]["fds"] <= most[name]["fds"] + more for name in SERVERS)

        wait_until(is_settled, 30, f"{what}: {most}, {found}")
        return found

    kinds = attack(1, targets)
    assert min(kinds.values()) > CONNECTIONS * len(targets) // 4
    assert sum(kinds.values()) == CONNECTIONS * len(targets)
    # the first ones fill what libzmq and the allocator keep; what grows is found by what further ones add
    rounds = [settled(before, 4, "no open files of the first connections")]

    def more(seed: int, targets: list[tuple[str, int]]) -> dict[str, float]:
        attack(seed, targets)
        rounds.append(settled(before, 4, "no open files of further connections"))
        return {name: rounds[-1][name]["mib"] - rounds[-2][name]["mib"] for name in SERVERS}

    added = more(2, targets)
    # the peak of a server that is slower than the strangers takes some rounds
    for seed in range(3, 9):
        if added["notebook"] <= GROWTH:
            break
        added["notebook"] = more(seed, [("127.0.0.1", NOTEBOOK)])["notebook"]
    for name in SERVERS:
        files = rounds[-1][name]["fds"] - before[name]["fds"]
        figures.keep(f"1000 strangers on each port: open files left in {name}", files, "", 4)
        figures.keep(f"1000 strangers on each port: memory that more of them add to {name}", added[name], "MiB", GROWTH)
    assert max(added.values()) <= GROWTH, (before, *rounds)
    assert operator.pids("ipyparallel", NODES) == pids
    operator.verify()
