# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a notebook's kernels, terminals and sidebar know of the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ipyparallel
import pytest
import yaml
import zmq
from ipyparallel.cluster.cluster import clean_cluster_files
from ipyparallel_cluster.cluster import DeployedCluster, RefusedError
from ipyparallel_cluster.sidebar import Manager
from jupyter_client.session import Session

ROLE = Path(__file__).parents[2] / "roles/notebook"


class Hub:
    """A hub that answers as the real one to the question for the queue."""

    def __init__(self, is_encrypted: bool) -> None:
        public, secret = zmq.curve_keypair()
        self.engines = [0, 1, 7]
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if is_encrypted:
            self._socket.curve_server, self._socket.curve_secretkey = True, secret
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.half = {
            "interface": "tcp://127.0.0.1",
            "registration": port,
            "key": "a-key",
            "pack": "json",
            "unpack": "json",
            "signature_scheme": "hmac-sha256",
            "curve_serverkey": public.decode() if is_encrypted else None,
        }
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        session = Session(key=b"a-key")
        while not self._end.is_set():
            if not self._socket.poll(20):
                continue
            idents, message = session.recv(self._socket)
            counts = {str(number): {"queue": 0, "tasks": 0, "completed": 0} for number in self.engines}
            if message["msg_type"] == "queue_request" and message["content"]["targets"] is None:
                content = {"status": "ok", "unassigned": 0, **counts}
                session.send(self._socket, "queue_reply", content, parent=message, ident=idents)

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._context.destroy()


@pytest.fixture(params=[True, False], ids=["curve", "plain"])
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    found = Hub(request.param)
    yield found
    found.close()


@pytest.fixture
def security(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The security directory of the default profile, with the entry of cluster alpha."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    path = tmp_path / "profile_default/security"
    path.mkdir(parents=True)
    entry = {
        "class": "ipyparallel_cluster.cluster.DeployedCluster",
        "name": "alpha",
        "controller_host": "node1",
        "profile_dir": str(path.parent),
        "cluster_id": "",
    }
    (path / "cluster-.json").write_text(json.dumps({"cluster": entry}))
    return path


def model(manager: Manager) -> dict:
    asyncio.run(manager.look())
    found: dict = manager.get_cluster("alpha").to_dict()
    return found


def test_running_while_the_hub_answers_with_as_many_engines(security: Path, hub: Hub) -> None:
    (security / "ipcontroller-client.json").write_text(json.dumps(hub.half))
    manager = Manager()
    found = model(manager)
    assert found["controller"]["state"]["state"] == "running"
    assert [part["n"] for part in found["engines"]["sets"].values()] == [3]
    hub.engines = []
    assert model(manager)["cluster"]["n"] == "0"


def test_stopped_while_nobody_answers_and_running_when_somebody_does_again(
    security: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipyparallel_cluster.sidebar.PATIENCE", 0.2)
    manager = Manager()
    assert "controller" not in model(manager)  # no connector
    (security / "ipcontroller-client.json").write_text(json.dumps({**hub.half, "registration": 1}))
    found = model(manager)
    assert "controller" not in found
    assert found["engines"]["sets"] == {}
    assert found["cluster"]["n"] == "0"
    (security / "ipcontroller-client.json").write_text(json.dumps(hub.half))
    assert "controller" in model(manager)
    assert (security / "cluster-.json").exists()


def test_half_written_connector_is_no_error(security: Path) -> None:
    (security / "ipcontroller-client.json").write_text('{"key": ')
    assert "controller" not in model(Manager())


def test_lists_what_people_start_but_nothing_to_start(security: Path) -> None:
    (security.parent.parent / "profile_other/security").mkdir(parents=True)
    own = ipyparallel.Cluster(profile_dir=str(security.parent), cluster_id="own")
    state = {"pid": os.getpid(), "state": "running", "profile_dir": str(security.parent)}
    description = {**own.to_dict(), "controller": {"class": "Local", "state": state}}
    (security / "cluster-own.json").write_text(json.dumps(description))
    assert sorted(Manager().load_clusters()) == ["alpha", "default:own"]
    with pytest.raises(RefusedError, match="nothing would keep it running"):
        Manager().new_cluster(n=1)


REFUSED = [
    "start_cluster",
    "start_controller",
    "start_engines",
    "start_and_connect",
    "stop_cluster",
    "stop_controller",
    "stop_engines",
    "restart_engines",
    "signal_engines",
    "stop_engine",
    "restart_engine",
    "signal_engine",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_starts_and_ends_nothing(security: Path, name: str) -> None:
    cluster = ipyparallel.Cluster.from_file(str(security / "cluster-.json"))
    assert isinstance(cluster, DeployedCluster)
    with pytest.raises(RefusedError, match=r"alpha is kept running .*\(controller: node1\)"):
        getattr(cluster, f"{name}_sync")()


def test_every_action_of_ipyparallel_is_refused() -> None:
    verbs = ("start", "stop", "restart", "signal")
    actions = {name for name in vars(ipyparallel.Cluster) if name.partition("_")[0] in verbs}
    assert actions == set(REFUSED)


def test_entry_stays_whatever_is_done(security: Path) -> None:
    entry = security / "cluster-.json"
    before = entry.read_bytes()
    (security / "ipcontroller-client.json").write_text("{}")
    cluster = ipyparallel.Cluster.from_file(str(entry))
    cluster.update_cluster_file()
    cluster.remove_cluster_file()
    cluster.write_cluster_file()
    del cluster
    # what `ipcluster clean` does; it would remove the connector too
    with pytest.raises(ValueError, match="still running"):
        clean_cluster_files([str(security.parent)])
    assert entry.read_bytes() == before
    assert (security / "ipcontroller-client.json").exists()


def test_code_that_the_sidebar_injects_connects(security: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("ipyparallel_cluster.cluster.Client", lambda path, **options: made.append((path, options)))
    ipyparallel.Cluster.from_file(str(security / "cluster-.json")).connect_client_sync(timeout=3)
    assert made == [(str(security / "ipcontroller-client.json"), {"timeout": 3})]


CLIENT = """
from IPython import get_ipython

class Client:
    def __init__(self):
        print("connected")
        if "broken" in globals():
            raise TimeoutError("no hub")
        shell = get_ipython()
        shell.register_magic_function(lambda line: print("line", line), "line", "px")
        shell.register_magic_function(lambda line, cell: print("cell", cell), "cell", "px")
"""


def ipython(tmp_path: Path, code: str) -> list[str]:
    """Run cells in a fresh IPython with the role's configuration, and a client that says when it is made."""
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_config.json").write_text(json.dumps(variables["__ipyparallel_notebook_ipython"]))
    library = tmp_path / "lib"
    library.mkdir()
    (library / "ipyparallel.py").write_text(CLIENT)
    environment = {
        **os.environ,
        "IPYTHONDIR": str(tmp_path),
        "PYTHONPATH": f"{library}:{ROLE / 'files'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return (done.stdout + done.stderr).splitlines()


def test_px_connects_when_it_is_first_used(tmp_path: Path) -> None:
    code = "%px 1\n%px 2\nget_ipython().run_cell_magic('px', '', '3')"
    assert ipython(tmp_path, code) == ["connected", "line 1", "line 2", "cell 3"]


def test_a_cell_of_px_may_come_first(tmp_path: Path) -> None:
    assert ipython(tmp_path, "get_ipython().run_cell_magic('px', '', '3')") == ["connected", "cell 3"]


def test_nothing_is_loaded_until_it_is_used(tmp_path: Path) -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith('ipyparallel')])"
    assert ipython(tmp_path, code) == ["[]"]


def test_px_tries_again_after_a_failure(tmp_path: Path) -> None:
    code = "\n".join(
        [
            "import ipyparallel",
            "ipyparallel.broken = True",
            "try: get_ipython().run_line_magic('px', '1')",
            "except TimeoutError as error: print(error)",
            "del ipyparallel.broken",
            "%px 2",
        ]
    )
    assert ipython(tmp_path, code) == ["connected", "no hub", "connected", "line 2"]
