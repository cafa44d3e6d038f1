# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state

ADA = {"holder": "ada@laptop", "run": "7-1", "runs": ["7-1", "8-1"], "sees": True, "takeover": False}
BOB = {"holder": "bob@desk", "run": "9-1", "runs": ["9-1"], "sees": True, "takeover": False}
NOW = 1_000_000.0


def test_the_first_one_takes_it_and_renews_it():
    first = lease.held({}, ADA, "deploy", NOW)
    assert first == {
        "holder": "ada@laptop",
        "run": "7-1",
        "since": NOW,
        "renewed": NOW,
        "phase": "deploy",
        "taken_from": [],
    }
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
    # also when it had taken over itself, and when the other one was not seen for long
    for wanted, later in ((ADA, 2), ({**ADA, "takeover": True}, 2), ({**ADA, "takeover": True}, 2 * lease.SECONDS)):
        with pytest.raises(lease.LeaseError, match="bob@desk took over from this run, and is at work"):
            lease.held(held, wanted, "wait", NOW + later)
    third = lease.held(held, {**BOB, "holder": "eve@pc", "takeover": True}, "deploy", NOW + 3)
    with pytest.raises(lease.LeaseError, match="eve@pc"):
        lease.held(third, {**ADA, "takeover": True}, "wait", NOW + 4)
    # a run of its own is another one
    assert lease.held(held, {**ADA, "run": "8-1", "takeover": True}, "deploy", NOW + 4)["holder"] == "ada@laptop"


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
    lease.end(str(tmp_path), BOB)
    assert read_state(str(tmp_path)) == after, "it is somebody else's"
    lease.end(str(tmp_path), ADA)
    assert read_state(str(tmp_path)) == state


def test_a_module_that_takes_its_time_keeps_it_and_sees_a_takeover(tmp_path, monkeypatch):
    keeper = lease.Keeper(str(tmp_path), ADA, "scale")
    keeper.take()
    first = read_state(str(tmp_path))["lease"]
    assert (first["holder"], first["phase"]) == ("ada@laptop", "scale")
    keeper.keep()
    assert read_state(str(tmp_path))["lease"] == first, "renewed now and then only"
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.0)
    keeper.keep()
    assert read_state(str(tmp_path))["lease"]["renewed"] > first["renewed"]
    lease.take(str(tmp_path), read_state(str(tmp_path)), {**BOB, "takeover": True}, time.time())
    with pytest.raises(lease.LeaseError, match="bob@desk took over"):
        keeper.keep()
    keeper.end()
    assert read_state(str(tmp_path))["lease"]["holder"] == "bob@desk"


def test_a_module_whose_run_was_interrupted_stops(tmp_path):
    code = (
        "import sys, time; from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease\n"
        f"keeper = lease.Keeper({str(tmp_path)!r}, {{}}, 'scale')\n"
        "keeper.keep(); print('keeps', flush=True); sys.stdin.readline()\n"
        "try: keeper.keep()\n"
        "except lease.LeaseError as error: print(error, file=sys.stderr)\n"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "keeps\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert "was interrupted" in process.stderr.read()
