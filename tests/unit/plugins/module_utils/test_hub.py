# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said to a hub, with a client that answers at once or never; a real hub answers in scenario local."""

from __future__ import annotations

import concurrent.futures
import json
import os
import sys
import time
import types
import zipfile

import ipyparallel
import pytest
from ansible.module_utils.common import respawn as ansible_respawn
from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError, Waiting
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine

FOREIGN = "6fb7a9d4-0d1d5f5b5e3a"


def ident(host, core, pool="default", pid=4711):
    return f"{host}__{pool}__{core}__{pid}__0a1b2c3d"


class Client:
    """A client of a hub with these engines, of which some do not answer."""

    def __init__(self, idents, silent=(), queue=None):
        self._engines = dict(idents)
        self.mute = set(silent)
        self.queue = queue or {}
        self.asked = []
        self.told = []
        self.session = self._io_loop = self
        self._query_socket = "query"

    def add_callback(self, callback, *arguments, **options):
        callback(*arguments, **options)

    def send(self, socket, message, content):
        self.told.append((socket, message, content))
        self._engines.pop(content["id"])

    def queue_status(self):
        return {"unassigned": 0, **self.queue}

    def send_signal(self, number, targets, block):
        assert (number, block) == (0, False)
        self.asked += targets
        answer = concurrent.futures.Future()
        if targets[0] not in self.mute:
            answer.set_result(None)
        return answer


# ---- engines and queue


def test_registered_engines_by_id():
    client = Client({3: FOREIGN, 0: ident("node1", 0), 1: ident("node2", 1, "big", 12)})
    assert hub.registered(client) == [
        {"id": 0, "uuid": ident("node1", 0), "host": "node1", "pool": "default", "core": 0, "pid": 4711},
        {"id": 1, "uuid": ident("node2", 1, "big", 12), "host": "node2", "pool": "big", "core": 1, "pid": 12},
        {"id": 3, "uuid": FOREIGN, "host": None, "pool": None, "core": None, "pid": None},
    ]
    assert client.asked == []


def test_the_queue_is_of_direct_and_of_load_balanced_work():
    queue = {
        "unassigned": 7,
        0: {"queue": 2, "tasks": 0, "completed": 5},
        1: {"queue": 0, "tasks": 1, "completed": 0},
        2: {"queue": 0, "tasks": 0, "completed": 3},
    }
    client = Client({number: ident("node1", number) for number in range(4)}, queue=queue)
    engines, total = hub.described(client)
    assert [(engine["state"], engine["queued"], engine["completed"]) for engine in engines] == [
        ("busy", 2, 5),
        ("busy", 1, 0),
        ("idle", 0, 3),
        # registered after the hub told of its queue
        ("idle", 0, 0),
    ]
    assert total == {"queued": 3, "unassigned": 7, "completed": 8}
    assert client.asked == []


def test_engines_that_do_not_answer():
    client = Client({number: ident("node1", number) for number in range(3)}, silent=[1])
    assert hub.silent(client, [0, 1, 2], seconds=0.05) == [1]
    assert client.asked == [0, 1, 2]
    started = time.monotonic()
    assert hub.silent(client, [0, 2], seconds=60) == []
    assert hub.silent(client, [], seconds=60) == []
    assert time.monotonic() - started < 10


# ---- waiting

TWO = {Engine("node1", "default", 0), Engine("node1", "default", 1)}


@pytest.fixture
def impatient(monkeypatch):
    """Who does not answer at once is silent."""
    silent = hub.silent
    monkeypatch.setattr(hub, "silent", lambda client, ids, seconds: silent(client, ids, 0.01))


def test_a_whole_cluster_is_not_waited_for():
    client = Client({0: ident("node1", 0), 1: ident("node1", 1), 2: FOREIGN})
    started = time.monotonic()
    assert hub.wait_for(client, TWO, seconds=60) == Waiting([], [], [], 3)
    assert time.monotonic() - started < 10
    assert hub.wait_for(client, TWO, seconds=0).whole


def test_no_engine_may_be_expected():
    assert hub.wait_for(Client({}), set(), seconds=60).whole


@pytest.mark.parametrize(
    ("idents", "silent", "expected"),
    [
        ({}, [], Waiting(sorted(TWO), [], [], 0)),
        ({0: ident("node1", 0)}, [], Waiting([Engine("node1", "default", 1)], [], [], 1)),
        ({0: ident("node2", 0), 1: ident("node1", 1)}, [], Waiting([Engine("node1", "default", 0)], [], [], 2)),
        ({0: FOREIGN, 1: FOREIGN}, [], Waiting(sorted(TWO), [], [], 2)),
        (
            {0: ident("node1", 0), 1: ident("node1", 1), 2: ident("node1", 1, pid=4712)},
            [],
            Waiting([], [Engine("node1", "default", 1)], [], 3),
        ),
        ({0: ident("node1", 0), 1: ident("node1", 1)}, [1], Waiting([], [], [1], 2)),
    ],
)
def test_what_is_not_whole_is_told_after_the_time(impatient, idents, silent, expected):
    found = hub.wait_for(Client(idents, silent), TWO, seconds=0)
    assert found == expected
    assert not found.whole


def test_an_engine_that_died_and_was_replaced_is_forgotten(impatient):
    idents = {0: ident("node1", 0), 1: ident("node1", 1), 2: ident("node1", 1, pid=4712)}
    client = Client(idents, silent=[1])
    assert hub.wait_for(client, TWO, seconds=5) == Waiting([], [], [], 2)
    assert client.told == [("query", "unregistration_request", {"id": 1})]


@pytest.mark.parametrize(
    ("idents", "silent"),
    [
        # busy beyond its time, and not replaced
        ({0: ident("node1", 0), 1: ident("node1", 1)}, [1]),
        # two that answer
        ({0: ident("node1", 0), 1: ident("node1", 1), 2: ident("node1", 1, pid=4712)}, []),
        # of others
        ({0: ident("node1", 0), 1: ident("node1", 1), 2: FOREIGN, 3: FOREIGN}, [2, 3]),
    ],
)
def test_no_other_engine_is_forgotten(impatient, idents, silent):
    client = Client(idents, silent)
    hub.wait_for(client, TWO, seconds=0)
    assert client.told == []


def test_an_engine_that_comes_later_is_waited_for():
    class Growing(Client):
        looks = 0

        @property
        def _engines(self):
            self.looks += 1
            return {0: ident("node1", 0), **({1: ident("node1", 1)} if self.looks > 3 else {})}

        @_engines.setter
        def _engines(self, idents):
            pass

    client = Growing({})
    assert hub.wait_for(client, TWO, seconds=60).whole
    assert client.looks == 4


# ---- connecting


@pytest.fixture
def connector(tmp_path, free_port):
    identity = Identity(
        "alpha", "127.0.0.1", free_port, "json", "none", "leastload", "0" * 64, curve_publickey="", curve_secretkey=""
    )
    path = tmp_path / "ipcontroller-client.json"
    path.write_text(identity.text("client"))
    return path


def test_without_a_connector(tmp_path):
    with pytest.raises(HubError, match=r"there is no connector .*none\.json: deploy the cluster first"):
        hub.connect(str(tmp_path / "none.json"), 1)


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "not JSON"), ("{}", "has no 'registration'"), ("[]", "not a JSON object")]
)
def test_a_broken_connector_is_named(connector, content, reason):
    connector.write_text(content)
    with pytest.raises(HubError) as caught:
        hub.connect(str(connector), 1)
    for part in (str(connector), reason, "ipyparallel.cluster.deploy"):
        assert part in str(caught.value)


def test_a_connector_that_is_a_directory_is_named(tmp_path):
    with pytest.raises(HubError, match=f"cannot read the connector {tmp_path}: Is a directory"):
        hub.connect(str(tmp_path), 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_hub_that_does_not_answer(connector):
    with pytest.raises(HubError, match=r"did not answer within 0\.2 s") as caught:
        hub.connect(str(connector), 0.2)
    assert str(connector) in str(caught.value)
    assert "ipyparallel.cluster.status" in str(caught.value)


def test_the_client_has_nothing_but_the_connector(connector, monkeypatch):
    monkeypatch.setattr(ipyparallel, "Client", lambda *arguments, **options: (arguments, options))
    assert hub.connect(str(connector), 2.5) == ((str(connector),), {"timeout": 2.5})


# ---- the cluster's Python


class FailedError(Exception):
    pass


class Module(types.SimpleNamespace):
    def fail_json(self, msg):
        raise FailedError(msg)


@pytest.fixture
def respawned(monkeypatch):
    calls = []
    monkeypatch.setattr(ansible_respawn, "has_respawned", lambda: False)
    monkeypatch.setattr(ansible_respawn, "respawn_module", calls.append)
    return calls


def test_the_module_goes_on_in_the_clusters_python(respawned, tmp_path):
    python = tmp_path / "python"
    python.touch(0o755)
    assert hub.respawn(Module(check_mode=False), str(python))
    assert hub.respawn(Module(check_mode=True), str(python))
    assert respawned == [str(python)] * 2


def test_it_does_so_once(respawned, monkeypatch):
    monkeypatch.setattr(ansible_respawn, "has_respawned", lambda: True)
    assert hub.respawn(Module(check_mode=False), "/nowhere/python")
    assert respawned == []


def test_a_host_without_it_says_so_and_in_check_mode_goes_on(respawned):
    assert not hub.respawn(Module(check_mode=True), "/nowhere/python")
    with pytest.raises(FailedError, match="/nowhere/python does not exist on this host: deploy the cluster first"):
        hub.respawn(Module(check_mode=False), "/nowhere/python")
    assert respawned == []


@pytest.mark.parametrize("minor", [f"python{sys.version_info.major}.{sys.version_info.minor}", "python3.1"])
def test_in_place_where_the_minor_version_is_the_same(respawned, monkeypatch, tmp_path, minor):
    packages = tmp_path / "lib" / minor / "site-packages"
    packages.mkdir(parents=True)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch(0o755)
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert hub.respawn(Module(check_mode=False), str(python), in_place=True)
    if minor == "python3.1":
        assert (respawned, sys.path) == ([str(python)], ["/elsewhere"])
    else:
        assert (respawned, sys.path) == ([], [str(packages), "/elsewhere"])


def test_under_mitogen_this_process_takes_the_packages_of_the_clusters_python(respawned, monkeypatch, tmp_path):
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "lib" / minor / "site-packages"
    packages.mkdir(parents=True)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch(0o755)
    monkeypatch.setitem(sys.modules, "ansible_mitogen.runner", types.ModuleType("runner"))
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert hub.respawn(Module(check_mode=False), str(python))
    assert hub.respawn(Module(check_mode=False), str(python))
    assert (respawned, sys.path, sys.executable) == ([], [str(packages), "/elsewhere"], str(python))


def test_under_mitogen_another_minor_version_is_refused(respawned, monkeypatch, tmp_path):
    (tmp_path / "lib" / "python3.1" / "site-packages").mkdir(parents=True)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch(0o755)
    monkeypatch.setitem(sys.modules, "ansible_mitogen.runner", types.ModuleType("runner"))
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    with pytest.raises(FailedError, match="mitogen cannot respawn it: set ansible_python_interpreter"):
        hub.respawn(Module(check_mode=False), str(python))
    assert (respawned, sys.path) == ([], ["/elsewhere"])


# ---- as the account of the cluster


def in_child(function):
    """Return what *function* returns in a process of its own, or the name of its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = function()
        except BaseException as error:  # noqa: BLE001 - nothing of the tests may go on here
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text)


def who():
    return [*os.getresuid(), *os.getresgid(), os.getgroups()]


def test_root_becomes_the_account_for_good(account, tmp_path):
    (tmp_path / "secret").touch(0o600)

    def act():
        hub.act_as(account.pw_name)
        refused = []
        for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), (tmp_path / "secret").read_text):
            try:
                attempt()
            except PermissionError:
                refused.append(True)
        told = [os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")]
        return [who(), refused, told, os.getcwd()]

    uid, gid = account.pw_uid, account.pw_gid
    groups = os.getgrouplist(account.pw_name, gid)
    told = [account.pw_dir, account.pw_name, account.pw_name]
    assert in_child(act) == [[uid, uid, uid, gid, gid, gid, groups], [True] * 3, told, "/"]


def archive_of(directory, name):
    """A module's archive, in a directory for its owner only, as Ansible makes it."""
    directory.mkdir(mode=0o700)
    with zipfile.ZipFile(directory / name, "w") as archive:
        archive.writestr("only_in_the_archive.py", "found = True\n")
    (directory / name).chmod(0o600)
    return directory / name


def test_the_account_can_go_on_to_import_the_module(account, common_path):
    archive = archive_of(common_path / "ansible_verify_payload_x", "ansible_verify_payload.zip")

    def act():
        sys.path.insert(0, str(archive))
        hub.act_as(account.pw_name)
        import only_in_the_archive

        return only_in_the_archive.found

    assert in_child(act) is True


def test_no_other_archive_is_given_to_the_account(account, common_path):
    """Python itself may be an archive, in a directory of the system's."""
    archive = archive_of(common_path / "lib", "python311.zip")

    def act():
        sys.path.insert(0, str(archive))
        hub.act_as(account.pw_name)

    assert in_child(act) is None
    assert (archive.stat().st_uid, archive.parent.stat().st_uid) == (0, 0)


def test_an_account_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HubError) as caught:
        hub.act_as("nobody-of-this-name")
    for part in ("nobody-of-this-name", os.uname().nodename, "ipyparallel.cluster.deploy", "ipyparallel_user"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("uid", "account"), [(0, None), (1000, None), (1000, "root"), (1000, "nobody-of-this-name")])
def test_without_an_account_or_root_it_stays_what_it_is(monkeypatch, uid, account):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    before = who(), os.getcwd(), os.environ.get("HOME")
    hub.act_as(account)
    assert (who(), os.getcwd(), os.environ.get("HOME")) == before


def test_on_engine_makes_a_function_of_nobody():
    def function(first, second=2, *, third=3):
        return [first, second, third]

    made = hub.on_engine(function)
    assert made.__module__ == "__main__"
    assert made.__globals__ is not function.__globals__
    assert made(1) == [1, 2, 3]
    assert function.__module__ != "__main__"
