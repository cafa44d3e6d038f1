# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The watchdog's loop, with a hub that is made up and a clock that a test turns; real ones are in the scenarios."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import sys
import types
import urllib.error
import urllib.request

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import watchdog_service as service
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog import GHOST_GRACE
from ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog_service import Settings, Watchdog


def ident(core=0, pid=4711, host="far"):
    return f"{host}__default__{core}__{pid}__0a1b2c3d"


def answer(value=None):
    future = concurrent.futures.Future()
    future.set_result(value)
    return future


class Result:
    """Work that was submitted."""

    msg_ids = ("1",)

    def __init__(self, how):
        self.how = how

    def wait_for_output(self, _seconds):
        return True


class World:
    """A cluster as the watchdog sees it: who is registered, who answers, what works."""

    def __init__(self, settings, monkeypatch):
        self.now = 1000.0
        self.engines = {}
        self.alive = set()
        self.busy = {}
        self.hub = True
        self.works = lambda way, number: "done"
        self.did = []
        self.ended = []
        self.clients = 0
        for name in ("connect", "registered", "ask_engine", "ask_nanny", "ask_queue", "queue_of", "forget"):
            monkeypatch.setattr(service.hub, name, getattr(self, name))
        monkeypatch.setattr(
            service.hub, "tell_to_end", lambda _c, who, signal=None: self.did.append(("end", who, signal))
        )
        monkeypatch.setattr(service.hub, "no_op", lambda _c, way, number, _limit: Result(self.works(way, number)))
        monkeypatch.setattr(service.hub, "outcome", lambda result: result.how)
        monkeypatch.setattr(service.hub, "listen", lambda *_: None)
        self.session = types.SimpleNamespace(session="0a1b")
        monkeypatch.setattr(service.hub, "drop_records", lambda *_: None)
        monkeypatch.setattr(service, "end_at_once", self.ended.append)
        monkeypatch.setattr(Watchdog, "_find_controller", lambda _: self.controller)
        self.controller = os.getpid()
        monkeypatch.setattr(service, "children_of", lambda _: [])
        self.watchdog = Watchdog(settings, clock=lambda: self.now)

    # the client is its hub
    _engines = property(lambda self: {number: who for who, number in self.engines.items()})

    def __len__(self):
        # as a client's: one without engines is false
        return len(self.engines)

    def close(self, linger=None):
        self.clients -= 1

    def connect(self, _connector, timeout):
        if not self.hub:
            raise HubError("nobody is there")
        self.clients += 1
        return self

    def registered(self, _client):
        return [{"id": number, "uuid": who} for who, number in self.engines.items()]

    def ask_nanny(self, _client, who):
        return answer() if who in self.alive else concurrent.futures.Future()

    ask_engine = ask_nanny

    def ask_queue(self, _client):
        return answer() if self.hub else concurrent.futures.Future()

    def queue_of(self, _message):
        idle = {"queue": 0, "tasks": 0, "completed": 0}
        return {number: {**idle, **self.busy.get(number, {})} for number in self.engines.values()}, 0

    def forget(self, _client, number):
        self.did.append(("forget", number))
        self.engines = {who: other for who, other in self.engines.items() if other != number}

    # what a test does

    def start(self, *cores):
        for core in cores:
            self.engines[ident(core)] = core
            self.alive.add(ident(core))

    def run(self, seconds):
        for _number in range(int(seconds / service.TICK)):
            self.watchdog.tick()
            self.now += service.TICK

    @property
    def said(self):
        return [event.text for event in self.watchdog.journal.events]


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "health").mkdir()
    (tmp_path / "cluster.json").write_text(json.dumps({"engines": {"far": {"default": 2}}}))
    return Settings("alpha", "here", 0, str(tmp_path), str(tmp_path / "client.json"))


@pytest.fixture
def world(settings, monkeypatch):
    return World(settings, monkeypatch)


def test_what_it_sends_can_be_told_from_the_users(world):
    world.run(1)
    assert service.hub.is_of_watchdog(f"{world.session.session}_1_2")
    assert not service.hub.is_of_watchdog("0a1b_1_2")


def test_without_an_engine_one_client_is_enough(world):
    world.run(60)
    assert world.clients == 1
    assert [text for text in world.said if text == "connected to the hub"] == ["connected to the hub"]
    assert world.watchdog.status()["problems"]


def test_a_whole_cluster_is_left_alone_and_not_written_of(world):
    world.start(0, 1)
    world.run(10)
    before = world.said
    assert before[-1].startswith("whole, after ")
    world.run(300)
    assert world.said == before
    assert (world.did, world.ended) == ([], [])
    assert world.watchdog.status()["state"] == "whole"


def test_a_zombie_is_forgotten_and_a_ghost_that_it_becomes_is_told_to_end(world):
    world.start(0, 1)
    world.run(10)
    world.alive.remove(ident(1))
    world.run(14)
    assert world.did == []
    assert world.watchdog.status()["problems"] == ["no answer from far default/1"]
    world.run(6)
    assert world.did == [("forget", 1)]
    world.run(20)
    assert len(world.did) == 1
    world.alive.add(ident(1))
    world.run(GHOST_GRACE)
    assert len(world.did) == 1
    world.run(5)
    assert world.did[1:] == [("end", ident(1), None)]
    # its manager starts another
    world.engines[ident(1, pid=5000)] = 2
    world.alive = {ident(0), ident(1, pid=5000)}
    world.run(30)
    assert len(world.did) == 2
    assert world.watchdog.status()["repairs"] == {"zombie": 1, "ghost": 1}
    assert world.watchdog.status()["state"] == "whole"


def test_an_engine_that_the_hub_takes_back_is_no_ghost(world):
    world.start(0, 1)
    world.run(10)
    number = world.engines.pop(ident(1))
    world.run(GHOST_GRACE - 2)
    world.engines[ident(1)] = number
    world.run(30)
    assert world.did == []
    assert world.watchdog.status()["state"] == "whole"


def test_a_hiccup_costs_nothing(world):
    world.start(0, 1)
    world.run(10)
    world.alive.clear()
    world.works = lambda way, number: ""
    world.run(12)
    world.alive = set(world.engines)
    world.works = lambda way, number: "done"
    world.run(60)
    assert (world.did, world.ended) == ([], [])


def test_a_ghost_is_found_by_the_next_watchdog(world, settings, monkeypatch):
    world.start(0, 1)
    world.run(10)
    del world.engines[ident(1)]
    second = World(settings, monkeypatch)
    second.start(0)
    second.alive.add(ident(1))
    second.run(GHOST_GRACE + 5)
    assert second.did == [("end", ident(1), None)]


def test_a_full_disk_ends_no_watchdog_and_is_a_problem(world, tmp_path, full_disk):
    world.start(0, 1)
    with full_disk():
        world.run(5)
        assert any("cannot write" in problem for problem in world.watchdog.status()["problems"])
    world.run(5)
    assert world.watchdog.status()["state"] == "whole"
    assert set(json.loads((tmp_path / "health/seen.json").read_text())) == {ident(0), ident(1)}


def test_expected_engines_that_are_missing_are_named_once(world):
    world.start(0)
    world.run(28)
    assert world.watchdog.status()["state"] == "degraded"
    assert world.watchdog.status()["problems"] == []
    world.run(300)
    assert [text for text in world.said if "missing" in text] == [
        "problem: 1 of 2 engines are missing: far default/1",
    ]
    world.start(1)
    world.run(5)
    assert world.said[-2].startswith("solved after ")


def test_an_unreadable_state_is_written_of_once_and_read_again(world, tmp_path):
    world.start(0, 1)
    world.run(5)
    (tmp_path / "cluster.json").write_text("{")
    world.run(60)
    assert len([text for text in world.said if "cannot read which engines" in text]) == 1
    (tmp_path / "cluster.json").write_text(json.dumps({"engines": {"far": {"default": 3}}}))
    world.run(5)
    assert world.watchdog.status()["engines"] == {"registered": 2, "expected": 3}


def test_without_a_hub_it_waits_and_comes_back(world):
    world.hub = False
    world.controller = 0
    world.run(60)
    assert world.watchdog.status()["state"] == "down"
    assert len(world.said) <= 1
    world.hub, world.controller = True, os.getpid()
    world.start(0, 1)
    world.run(5)
    assert world.watchdog.status()["state"] == "whole"


def test_another_client_half_is_taken_into_use(world, tmp_path):
    world.start(0, 1)
    world.run(5)
    (tmp_path / "client.json").write_text("{}")
    world.run(5)
    assert world.clients == 1
    assert len([text for text in world.said if text == "connected to the hub"]) == 2


def test_a_client_that_raises_is_replaced(world, monkeypatch):
    world.start(0, 1)
    world.run(5)

    def registered(_client):
        monkeypatch.setattr(service.hub, "registered", world.registered)
        raise IndexError("No such engine")

    monkeypatch.setattr(service.hub, "registered", registered)
    world.run(5)
    assert world.clients == 1
    assert "looking again with a new client: IndexError: No such engine" in world.said
    assert world.watchdog.status()["state"] == "whole"


@pytest.mark.parametrize("way", ["direct", "broadcast", "scheduler"])
def test_a_way_of_work_that_is_dead_for_all_ends_the_controller(world, monkeypatch, way):
    monkeypatch.setattr(service, "process_stat", lambda pid: service.ProcessStat("S", 0.0, 3600.0))
    world.start(0, 1)
    world.run(20)
    world.works = lambda found, number: "" if found == way else "done"
    world.run(50)
    assert world.ended[:1] == [os.getpid()]
    name = "load-balanced" if way == "scheduler" else way
    assert any(f"{name} work has come to no engine" in text for text in world.said)


def test_a_dead_control_channel_ends_the_controller_and_no_engine_is_forgotten(world, monkeypatch):
    monkeypatch.setattr(service, "process_stat", lambda pid: service.ProcessStat("S", 0.0, 3600.0))
    world.start(0, 1)
    world.run(20)
    world.alive.clear()
    world.run(12)
    assert world.did == []
    assert world.ended == [os.getpid()]


@pytest.mark.parametrize(("works", "after"), [(0.0, 10), (0.9, 120)])
def test_a_hub_that_hangs_is_ended_later_when_it_works(world, monkeypatch, works, after):
    began = world.now
    monkeypatch.setattr(
        service, "process_stat", lambda pid: service.ProcessStat("S", works * (world.now - began), 3600.0)
    )
    world.start(0, 1)
    world.run(20)
    world.hub = False
    world.run(after - 3)
    assert world.ended == []
    world.run(8)
    assert world.ended == [os.getpid()]


class Queues:
    """An engine with load-balanced work, and how it takes no-ops."""

    def __init__(self, world, monkeypatch, direct, balanced):
        monkeypatch.setattr(service, "process_stat", lambda pid: service.ProcessStat("S", 0.0, 3600.0))
        world.start(0, 1)
        world.run(20)
        ways = {"direct": direct, "load-balanced": balanced}
        world.works = lambda way, number: ways.get(way, "done") if number == 1 else "done"


def test_a_busy_engine_is_left_alone_however_long_its_task_takes(world, monkeypatch):
    Queues(world, monkeypatch, direct="", balanced="TaskTimeout")
    world.busy = {1: {"tasks": 1, "queue": 1}}
    world.run(900)
    assert (world.did, world.ended) == ([], [])
    assert world.watchdog.status()["problems"] == []


def test_an_engine_with_many_tasks_is_left_alone(world, monkeypatch):
    Queues(world, monkeypatch, direct="done", balanced="TaskTimeout")
    for done in range(300):
        # it does one task in 3 seconds, and the no-ops of the watchdog in between
        world.busy = {1: {"tasks": 1, "completed": done + world.watchdog.own_done[1]}}
        world.run(3)
    assert (world.did, world.ended) == ([], [])


def test_what_the_hub_wrongly_believes_to_be_on_an_engine_is_no_work(world, monkeypatch):
    Queues(world, monkeypatch, direct="done", balanced="done")
    world.busy = {0: {"queue": 1}, 1: {"tasks": 3}}
    world.run(60)
    assert world.watchdog.stale == {ident(0): (1, 0), ident(1): (0, 3)}
    # so that they are no less looked at
    world.works = lambda way, number: "" if way == "broadcast" else "done"
    world.run(50)
    assert (world.did, world.ended[:1]) == ([], [os.getpid()])


@pytest.mark.parametrize("balanced", ["TaskTimeout", ""])
def test_a_wedged_engine_is_told_to_end(world, monkeypatch, balanced):
    Queues(world, monkeypatch, direct="done", balanced=balanced)

    def counts():
        return {1: {"tasks": 1, "completed": world.watchdog.own_done[1]}}

    for _number in range(400):
        world.busy = counts()
        world.run(0.5)
    assert world.did[:1] == [("end", ident(1), "SIGTERM")]
    assert any("its variables are lost" in text for text in world.said)
    assert world.ended == []


# ---- this host


def test_a_stopped_process_is_seen(python, eventually):
    process = python()
    found = service.process_stat(process.pid)
    assert found.state in "SR"
    assert 0 <= found.age < 60
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: service.process_stat(process.pid).state == "T", "it is stopped")
    process.kill()
    # gone, although its parent has not asked yet
    eventually(lambda: service.process_stat(process.pid) is None, "it is gone")


def test_children_in_order(python):
    child = "subprocess.Popen([sys.executable, '-ISc', 'input()'], stdin=-1)"
    process = python(f"import subprocess\nchildren = [{child} for _number in range(3)]")
    found = service.children_of(process.pid)
    assert len(found) == 3
    assert found == sorted(found)
    assert service.children_of(2**22 + 1) == []


def test_open_files():
    used, most = service.open_files(os.getpid())
    assert 3 <= used <= most


def test_an_engine_of_this_host_that_ended_is_forgotten_at_once(world, python):
    process = python(environment={"IPYPARALLEL_CLUSTER": "alpha"})
    who = ident(0, process.pid, "here")
    # one that cannot be seen from here is none that ended
    world.engines = {who: 0, ident(1, 2**22 + 1, "here"): 1}
    world.alive = set(world.engines)
    world.run(5)
    process.kill()
    process.wait()
    world.run(3)
    assert world.did == [("forget", 0)]


# ---- answers


def test_it_answers_on_loopback(world, free_port):
    prometheus = pytest.importorskip("prometheus_client.parser")
    world.start(0, 1)
    world.run(10)
    server = service.serve(world.watchdog, free_port)
    try:
        assert server.server_address[0] == "127.0.0.1"

        def get(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{free_port}{path}", timeout=10) as found:
                return found.read().decode()

        assert json.loads(get("/status"))["engines"] == {"registered": 2, "expected": 2}
        families = {family.name: family for family in prometheus.text_string_to_metric_families(get("/metrics"))}
        assert all(name.startswith("ipyparallel_") and family.documentation for name, family in families.items())
        assert families["ipyparallel_engines_registered"].samples[0].value == 2
        assert {s.labels["kind"] for s in families["ipyparallel_repairs"].samples} >= {"zombie", "ghost", "wedged"}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/")
    finally:
        server.shutdown()
        server.server_close()


def test_the_role_brings_what_it_imports():
    """The library that the role lays down is enough, and no more than is used."""
    import subprocess
    from pathlib import Path

    role = Path(__file__).parents[4] / "roles/health/vars/main.yml"
    laid_down = {line.split("/")[-1].strip('"\n') for line in role.read_text().splitlines() if "_library }}/" in line}
    code = (
        "import sys, ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog_service\n"
        "names = [name.split('.') for name in sys.modules if name.startswith('ansible_collections.ipyparallel.')]\n"
        "print(*(name[-1] + '.py' for name in names if 'module_utils' in name[:-1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert laid_down == set(done.stdout.split())


# ---- after a cut


def test_an_engine_that_came_back_has_as_long_again_until_its_connections_go_on(world):
    world.start(0, 1)
    world.run(30)
    tried = []
    world.works = lambda way, number: tried.append(number) or "done"
    # its host is cut off; the hub forgets it, and takes it back when its heart beats again
    world.alive.discard(ident(1))
    world.run(40)
    assert world.did == [("forget", 1)]
    world.did.clear()
    world.engines[ident(1)] = 1
    tried.clear()
    # what it is asked stands still in the network
    world.run(30)
    assert world.did == []
    assert 1 not in tried
    assert any("is back, 4" in line for line in world.said)
    world.alive.add(ident(1))
    world.run(30)
    assert world.did == []
    assert 1 in tried


def test_an_engine_that_came_back_and_never_answers_is_forgotten(world):
    world.start(0, 1)
    world.run(30)
    world.alive.discard(ident(1))
    world.run(40)
    world.engines[ident(1)] = 1
    world.did.clear()
    world.run(60)
    assert world.did == [("forget", 1)]


def test_when_all_come_back_no_way_of_work_counts_as_dead(world):
    world.start(0)
    world.run(30)
    world.alive.clear()
    world.works = lambda way, number: "done" if way == "scheduler" else ""
    world.run(40)
    assert world.did == [("forget", 0)]
    # it answers, and direct work stands still in the network
    world.start(0)
    world.works = lambda way, number: "" if way == "direct" else "done"
    world.run(40)
    assert not any("direct work has come to no engine" in line for line in world.said)
    world.run(40)
    assert any("direct work has come to no engine" in line for line in world.said)
