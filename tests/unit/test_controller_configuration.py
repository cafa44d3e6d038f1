# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration files of controller and engines, which are no modules: heartbeat and database."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.controller.dictdb import DictDB
from ipyparallel.controller.heartmonitor import HeartMonitor
from ipyparallel.engine.app import IPEngine
from traitlets.config import Config

ROLES = Path(__file__).parents[2] / "roles"


def functions(path):
    """Return the functions of a configuration file, without what it does when it is read."""
    found = {}
    exec((ROLES / path).read_text(encoding="utf-8").partition("\ntry:\n")[0], found)
    return SimpleNamespace(**found)


CONTROLLER = functions("controller/files/ipcontroller_config.py")
ENGINES = functions("engines/files/ipengine_config.py")


@pytest.fixture
def monitor(monkeypatch):
    """A heart monitor whose beat reaches nobody."""
    monkeypatch.setattr(HeartMonitor, "beat", lambda self: self.log.debug("beat"))

    def made(c):
        CONTROLLER.let_heartbeat_fit(c)
        one = HeartMonitor(parent=None, config=c)
        one.caller = SimpleNamespace(callback_time=one.period)
        return one

    return made


# ---- the heartbeat


@given(st.integers(0, 10**6))
def test_the_interval_is_between_the_shortest_and_the_longest(engines):
    assert 500 <= CONTROLLER.beat_for(engines) <= 3000
    assert CONTROLLER.beat_for(engines) <= CONTROLLER.beat_for(engines + 1)


@pytest.mark.parametrize(("engines", "period"), [(0, 500), (250, 500), (400, 800), (1500, 3000), (5000, 3000)])
def test_the_interval_by_engines(engines, period):
    assert CONTROLLER.beat_for(engines) == period


def test_the_interval_follows_the_engines_while_the_controller_runs(monitor):
    one = monitor(Config())
    for engines, period in ((23, 500), (1000, 2000), (23, 500)):
        one.hearts = {str(number) for number in range(engines)}
        one.beat()
        assert one.period == one.caller.callback_time == period
        assert one.max_heartmonitor_misses * period == pytest.approx(30_000, abs=period)


def test_a_given_interval_stays(monitor):
    one = monitor(Config({"HeartMonitor": {"period": 150}}))
    one.hearts = {str(number) for number in range(1000)}
    one.beat()
    assert one.period == one.caller.callback_time == 150
    assert one.max_heartmonitor_misses == 200


def test_given_misses_stay(monitor):
    one = monitor(Config({"HeartMonitor": {"max_heartmonitor_misses": 7}}))
    one.hearts = {str(number) for number in range(1000)}
    one.beat()
    assert (one.period, one.max_heartmonitor_misses) == (2000, 7)


@pytest.mark.parametrize("hb_period", [50, 500, 3000, 20_000])
def test_an_engine_gives_up_after_the_controller_has(monkeypatch, hb_period):
    looked = []
    monkeypatch.setattr(
        IPEngine, "start_heartbeat", lambda _self, _ping, _pong, period, _ident: looked.append(period + 500)
    )
    ENGINES.let_heartbeat_fit(Config())
    engine = SimpleNamespace(max_heartbeat_misses=50)
    IPEngine.start_heartbeat(engine, "", "", hb_period, b"")
    (check,) = looked
    assert check > CONTROLLER.beat_for(10**6), "it would look between two beats"
    beats = math.ceil(CONTROLLER.GONE_AFTER / hb_period)
    assert engine.max_heartbeat_misses * check > beats * hb_period
    assert engine.max_heartbeat_misses * check < 50_000 + check


def test_given_misses_of_an_engine_stay(monkeypatch):
    monkeypatch.setattr(IPEngine, "start_heartbeat", lambda *_: None)
    ENGINES.let_heartbeat_fit(Config({"IPEngine": {"max_heartbeat_misses": 7}}))
    engine = SimpleNamespace(max_heartbeat_misses=7)
    IPEngine.start_heartbeat(engine, "", "", 500, b"")
    assert engine.max_heartbeat_misses == 7


# ---- the database


@pytest.fixture
def database(monkeypatch):
    for name in ("_cull_oldest", "update_record"):
        monkeypatch.setattr(DictDB, name, getattr(DictDB, name))
    CONTROLLER.forget_quickly_and_quietly()
    monkeypatch.setattr(DictDB, "_culled_ids", set())
    return DictDB(record_limit=10, size_limit=1000)


def record(number, size=0):
    return {"msg_id": str(number), "submitted": datetime.now(timezone.utc), "buffers": [b"x" * size]}


def test_the_oldest_records_go(database):
    for number in range(11):
        database.add_record(str(number), record(number))
    assert database.get_history() == [str(number) for number in range(1, 11)]


def test_the_oldest_data_goes(database):
    for number in range(4):
        database.add_record(str(number), record(number, 300))
    assert database.get_history() == ["1", "2", "3"]
    assert database._buffer_bytes == 900


def test_a_result_for_a_forgotten_task_is_no_error(database):
    for number in range(11):
        database.add_record(str(number), record(number))
    database.update_record("0", {"result_buffers": [b"x"]})
    assert "0" not in database.get_history()
    database.update_record("5", {"result_buffers": [b"x" * 7]})
    assert database.get_record("5")["result_buffers"] == [b"x" * 7]
    with pytest.raises(KeyError):
        database.update_record("unknown", {})
