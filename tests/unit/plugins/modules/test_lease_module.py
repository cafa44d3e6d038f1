# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module that takes and ends the lease where no other one does."""

from __future__ import annotations

import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state, state_path, write_state
from ansible_collections.ipyparallel.cluster.plugins.modules import lease

ADA = {"holder": "ada@laptop", "run": "1-1", "runs": ["1-1"], "sees": True, "takeover": False, "phase": "stop"}
BOB = {**ADA, "holder": "bob@desk", "run": "2-2"}


@pytest.fixture
def hold(run_module, tmp_path):
    return lambda who, **arguments: run_module(lease, state_directory=str(tmp_path), lease=who, **arguments)


def test_it_is_held_renewed_and_ended_and_that_is_no_change(hold, tmp_path):
    write_state(str(tmp_path), {"pools": {}})
    assert hold(ADA)["changed"] is False
    since = read_state(str(tmp_path))["lease"]["since"]
    assert abs(since - time.time()) < 60
    hold({**ADA, "phase": "later"})
    found = read_state(str(tmp_path))["lease"]
    assert (found["since"], found["phase"]) == (since, "later")
    assert hold(ADA, state="ended")["changed"] is False
    assert read_state(str(tmp_path))["lease"] == {}


def test_another_operator_is_told_and_nothing_is_written(hold, tmp_path):
    hold(ADA)
    before = read_state(str(tmp_path))
    for state in ("held", "ended"):
        assert "ada@laptop is at work on this cluster since" in hold(BOB, state=state)["msg"]
    assert read_state(str(tmp_path)) == before
    hold({**BOB, "takeover": True})
    assert read_state(str(tmp_path))["lease"]["holder"] == "bob@desk"


def test_check_mode_asks_only(hold, tmp_path):
    assert "failed" not in hold(ADA, check=True)
    assert not (tmp_path / "cluster.json").exists()
    hold(BOB)
    assert "bob@desk" in hold(ADA, check=True)["msg"]


def test_where_no_cluster_is_or_a_broken_one_nobody_is_at_work(run_module, hold, tmp_path):
    away = str(tmp_path / "away")
    assert "failed" not in run_module(lease, state_directory=away, lease=ADA)
    assert not (tmp_path / "away").exists()
    with open(state_path(str(tmp_path)), "w") as stream:
        stream.write("{")
    assert "failed" not in hold(ADA)
