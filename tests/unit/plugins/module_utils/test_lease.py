# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state

ADA = {"holder": "ada@laptop", "run": "7-1", "runs": ["7-1", "8-1"], "sees": True, "takeover": False}
BOB = {"holder": "bob@desk", "run": "9-1", "runs": ["9-1"], "sees": True, "takeover": False}
NOW = 1_000_000.0


def test_the_first_one_takes_it_and_renews_it():
    first = lease.held({}, ADA, "deploy", NOW)
    assert first == {"holder": "ada@laptop", "run": "7-1", "since": NOW, "renewed": NOW, "phase": "deploy"}
    assert lease.held(first, ADA, "wait", NOW + 5) == {**first, "renewed": NOW + 5, "phase": "wait"}


@pytest.mark.parametrize("wanted", [BOB, {**ADA, "run": "8-1"}, {**ADA, "run": "8-1", "runs": ["8-1"], "sees": False}])
def test_another_run_is_told_who_holds_it_since_when_and_how_to_take_over(wanted):
    held = lease.held(lease.held({}, ADA, "deploy", NOW), ADA, "wait", NOW + 60)
    with pytest.raises(lease.LeaseError) as caught:
        lease.held(held, wanted, "deploy", NOW + 60 + lease.SECONDS - 1)
    for part in ("ada@laptop", "1970-01-12 13:46:40", "13:47:40", "(wait)", "10 minutes", "ipyparallel_takeover=true"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "later"),
    [
        (BOB, lease.SECONDS),
        ({**BOB, "takeover": True}, 1),
        # of the same operator, whose process has ended
        ({**ADA, "run": "8-1", "runs": ["8-1"]}, 1),
    ],
)
def test_it_is_taken_when_it_is_over_or_on_demand(wanted, later):
    held = lease.held({}, ADA, "deploy", NOW)
    after = lease.held(held, wanted, "deploy", NOW + later)
    assert (after["holder"], after["run"], after["since"]) == (wanted["holder"], wanted["run"], NOW + later)


def test_who_was_taken_over_from_is_told_so():
    held = lease.held(lease.held({}, ADA, "deploy", NOW), {**BOB, "takeover": True}, "deploy", NOW + 1)
    with pytest.raises(lease.LeaseError, match="bob@desk"):
        lease.held(held, ADA, "wait", NOW + 2)


def test_a_run_is_told_from_others_by_its_processes():
    asked = lease.asked(False)
    assert asked["run"] == lease.mark(os.getppid())
    assert asked["run"] in asked["runs"]
    assert asked["sees"]
    assert "@" in asked["holder"]
    assert lease.mark(os.getpid()) != lease.mark(os.getppid())


def test_another_run_on_this_machine_is_seen():
    argv = [sys.executable, "-c", "print(flush=True); input()", "ansible-playbook"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        mark = lease.mark(process.pid)
        assert mark in lease.asked(False)["runs"]
        process.communicate(b"\n")
    assert mark not in lease.asked(False)["runs"]


def test_it_is_kept_beside_what_the_cluster_remembers(tmp_path):
    state = {**read_state(str(tmp_path)), "packages": ["numpy"]}
    after = lease.take(str(tmp_path), state, {**ADA, "phase": "scale"}, NOW)
    assert read_state(str(tmp_path)) == after
    assert (after["lease"]["phase"], after["packages"]) == ("scale", ["numpy"])
    with pytest.raises(lease.LeaseError):
        lease.take(str(tmp_path), after, BOB, NOW)
    lease.end(str(tmp_path))
    assert read_state(str(tmp_path)) == state
