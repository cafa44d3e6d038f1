# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A hub as an inventory, asked by a real process; the hub is made up, and a real one answers in scenario local."""

from __future__ import annotations

import json
import socket
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import yaml
from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub, hub_inventory
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub_inventory import by_host, host_variables
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import TUNNEL_FILE, local_half

PROJECT = Path(__file__).parents[4]
QUEUE = {"queued": 3, "unassigned": 1, "completed": 12}


def engine(number, host="node1", pool="default", *, core=0, pid=4711, queued=0, completed=0):
    state = "busy" if queued else "idle"
    place = {"id": number, "host": host, "pool": pool, "core": core, "pid": pid}
    return {**place, "state": state, "queued": queued, "completed": completed}


def identity(port, packer="json"):
    return Identity(
        "alpha", "127.0.0.1", port, packer, "none", "leastload", "0" * 64, curve_publickey="", curve_secretkey=""
    )


@pytest.fixture
def connector(tmp_path, free_port):
    """The client half in the profile of an operator; nobody listens at its ports."""
    path = tmp_path / "profile_alpha/security/ipcontroller-client.json"
    path.parent.mkdir(parents=True)
    path.write_text(identity(free_port).text("client"))
    return path


def ask(connector, python=sys.executable, timeout=0.2):
    return hub_inventory.ask(str(connector), "alpha", str(python), timeout)


def refused(connector, **arguments):
    with pytest.raises(HubError) as caught:
        ask(connector, **arguments)
    return str(caught.value)


# ---- hosts


def test_engines_by_host():
    engines = [engine(0), engine(2, "node2"), engine(3, core=1), engine(5, None, None, core=None, pid=None)]
    assert by_host(engines) == (
        {
            "node1": [
                {"id": 0, "pool": "default", "core": 0, "pid": 4711, "state": "idle", "queued": 0, "completed": 0},
                {"id": 3, "pool": "default", "core": 1, "pid": 4711, "state": "idle", "queued": 0, "completed": 0},
            ],
            "node2": [
                {"id": 2, "pool": "default", "core": 0, "pid": 4711, "state": "idle", "queued": 0, "completed": 0}
            ],
        },
        [5],
    )
    assert by_host([]) == ({}, [])


@pytest.mark.parametrize("host", ["node1.example.org", "10.0.0.5", "::1", "node1_alpha", "Knöten 1", "{{ 7 * 6 }}"])
def test_names_of_hosts(host):
    assert list(by_host([engine(0, host)])[0]) == [host]


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=id", "..", ".hidden", "../../tmp/x", "/", "a/b", " a", "a\nb", "a\x1b[2J", "all"]
)
def test_names_that_could_do_something(host):
    assert by_host([engine(0), engine(1, host)], taken=["all"]) == (by_host([engine(0)])[0], [1])


@pytest.mark.parametrize("pool", ["", "Big", "a-b", "x" * 33, "{{ x }}"])
def test_pools_that_nobody_can_define(pool):
    assert by_host([engine(0, pool=pool)]) == ({}, [0])


def test_variables_of_a_host():
    engines = by_host([engine(0, queued=3, completed=2), engine(1, completed=4), engine(4, pool="big", queued=1)])[0]
    found = host_variables(engines["node1"])
    assert found.pop("ipyparallel_engines") == engines["node1"]
    assert found == {
        "ipyparallel_engine_ids": [0, 1, 4],
        "ipyparallel_pools": {"big": 1, "default": 2},
        "ipyparallel_busy_engines": 2,
        "ipyparallel_queued": 4,
        "ipyparallel_completed": 6,
        "ipyparallel_load": 1.33,
    }


def test_no_variable_is_an_input_of_a_role():
    inputs = set()
    for path in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            inputs.update(entry.get("options") or {})
    assert "ipyparallel_engines_per_host" in inputs
    ours = {*host_variables([engine(0)]), "ipyparallel_queue", "ipyparallel_other_engines"}
    assert not ours & inputs


# ---- what is said to the hub


class Client:
    closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def client(monkeypatch):
    found = Client()
    monkeypatch.setattr(hub, "connect", lambda connector, timeout: found)
    return found


def test_the_answer_of_a_hub(connector, client, monkeypatch):
    monkeypatch.setattr(hub, "described", lambda client: ([engine(0)], QUEUE))
    assert hub_inventory.answer(str(connector), 5) == {"engines": [engine(0)], "queue": QUEUE}
    assert client.closed


def test_no_client_is_left_of_a_hub_that_dies(connector, client, monkeypatch):
    def die(client):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(hub, "described", die)
    with pytest.raises(ConnectionResetError):
        hub_inventory.answer(str(connector), 5)
    assert client.closed


def test_a_packer_that_is_not_there(connector, client):
    half = json.loads(connector.read_text())
    connector.write_text(json.dumps({**half, "pack": "nowhere_packer"}))
    assert hub_inventory.answer(str(connector), 5)["missing"] == "nowhere_packer"


# ---- a process that asks

NOISY = """\
import sys
print("noise on standard output")
print("noise on standard error", file=sys.stderr)

class Client:
    _engines = {0: "node1__default__0__4711__0a1b", 1: "6fb7a9d4-0d1d5f5b5e3a"}

    def __init__(self, connector, timeout):
        print("noise", connector, timeout)

    def queue_status(self):
        return {0: {"queue": 1, "tasks": 1, "completed": 5}, "unassigned": 7}

    def close(self):
        print("noise at the end")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put another ipyparallel into the way of the process that asks."""

    def write(text):
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages/ipyparallel.py").write_text(textwrap.dedent(text))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))

    return write


def test_what_packages_print_is_no_answer(connector, package, capfd):
    package(NOISY)
    foreign = engine(1, None, None, core=None, pid=None)
    threads = threading.active_count()
    assert ask(connector) == {
        "engines": [engine(0, queued=2, completed=5), foreign],
        "queue": {"queued": 2, "unassigned": 7, "completed": 5},
    }
    assert capfd.readouterr() == ("", "")
    assert threading.active_count() == threads


def test_nothing_is_imported_from_the_working_directory(connector, package, tmp_path, monkeypatch):
    package(NOISY)
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert ask(connector)["engines"]


def test_what_the_client_raises_is_told(connector, package):
    package("class error: TimeoutError = TimeoutError\ndef Client(*_a, **_o): raise OSError('no curve here')")
    said = refused(connector)
    for part in (str(connector), sys.executable, "OSError: no curve here"):
        assert part in said


def test_an_interpreter_without_ipyparallel(connector, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    said = refused(connector, python=python)
    for part in (f"{python} -m pip install --upgrade ipyparallel", "No module named", "option python"):
        assert part in said


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "No such file or directory"),
        ("echo 'too old' >&2; exit 1", "too old"),
        ("exit 3", "status 3, and no message"),
    ],
)
def test_an_interpreter_that_is_none(connector, tmp_path, script, reason):
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    said = refused(connector, python=python)
    assert str(python) in said
    assert reason in said


def test_a_hub_that_hangs_after_it_has_answered(connector, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_inventory, "START_SECONDS", 0)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    assert "did not answer within 0.1 s" in refused(connector, python=python, timeout=0.1)


@pytest.mark.parametrize("timeout", [0, -1, 3601, float("inf"), float("nan")])
def test_times_that_nobody_waits(connector, timeout):
    assert refused(connector, timeout=timeout).startswith(f"{timeout:g} is no time to wait: set option timeout")


# ---- a connector without a hub


def test_without_a_connector(tmp_path):
    said = refused(tmp_path / "none.json")
    for part in (f"there is no connector {tmp_path}/none.json", "ipyparallel.cluster.connect -e cluster=alpha"):
        assert part in said


@pytest.mark.parametrize(("content", "reason"), [("{", "not JSON"), ("{}", "has no 'registration'")])
def test_a_broken_connector(connector, content, reason):
    connector.write_text(content)
    said = refused(connector)
    for part in (str(connector), reason, "ipyparallel.cluster.connect -e cluster=alpha"):
        assert part in said


def test_a_connector_that_is_a_directory(tmp_path):
    assert refused(tmp_path) == f"cannot read the connector {tmp_path}: Is a directory"


def test_nothing_listens(connector, free_port):
    said = refused(connector)
    for part in (str(connector), f"127.0.0.1:{free_port}", "within 0.2 s", "nothing listens", "cluster.status -e"):
        assert part in said


@pytest.fixture
def tunnel(connector, free_port):
    """Let the connector lead through a tunnel, as playbook connect does."""
    ports = dict.fromkeys(("control", "mux", "task", "iopub", "notification", "broadcast"), 1)
    ports["registration"] = free_port
    connector.write_text(local_half(identity(10100).text("client"), ports))
    (connector.parents[1] / TUNNEL_FILE).write_text(json.dumps({"login": "ada@node1", "ports": ports}))


@pytest.mark.usefixtures("tunnel")
def test_a_tunnel_that_is_closed(connector):
    said = refused(connector)
    assert "the SSH tunnel to ada@node1 is closed" in said
    assert "run playbook ipyparallel.cluster.connect -e cluster=alpha again" in said


@pytest.mark.usefixtures("tunnel")
def test_a_tunnel_that_is_open(connector, free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        said = refused(connector)
    for part in ("the SSH tunnel to ada@node1 is open, but no hub answers", "cluster.status", "another identity"):
        assert part in said


@pytest.mark.usefixtures("tunnel")
def test_a_connector_that_leads_past_a_tunnel(connector, free_port):
    connector.write_text(identity(free_port + 1).text("client"))
    assert "tunnel" not in refused(connector)


def test_an_address_that_is_not_reached(connector):
    half = json.loads(connector.read_text())
    connector.write_text(json.dumps({**half, "interface": "tcp://0.0.0.0", "location": "host.invalid"}))
    said = hub_inventory.silence(str(connector), json.loads(connector.read_text()), "alpha", 5)
    for part in ("host.invalid:", "does not reach it", "ipyparallel_allowed_cidrs", "connect_through=ssh"):
        assert part in said
