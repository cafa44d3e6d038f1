# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import stat
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import read_state, write_state
from ansible_collections.ipyparallel.cluster.plugins.modules import remember_packages


@pytest.fixture
def run(run_module, tmp_path):
    def _run(packages, **arguments):
        return run_module(remember_packages, state_directory=str(tmp_path), packages=packages, **arguments)

    return _run


def test_fours(run, tmp_path):
    write_state(str(tmp_path), {"engines": {"node1": {"default": 2}}, "packages": ["pandas<2", "six"]})
    before = (tmp_path / "cluster.json").read_text()
    result = run(["scipy", "pandas>=2"], check=True, diff=True)
    assert result["changed"]
    assert result["diff"]["before"] == {"packages": ["pandas<2", "six"]}
    assert (tmp_path / "cluster.json").read_text() == before

    result = run(["scipy", "pandas>=2"])
    assert (result["changed"], result["packages"]) == (True, ["pandas>=2", "scipy", "six"])
    assert read_state(str(tmp_path))["packages"] == ["pandas>=2", "scipy", "six"]
    assert read_state(str(tmp_path))["engines"] == {"node1": {"default": 2}}
    assert stat.S_IMODE(os.stat(tmp_path / "cluster.json").st_mode) == 0o600
    for check in (True, False):
        assert not run(["scipy", "pandas>=2"], check=check)["changed"]


def test_a_broken_state_is_named_and_stays(run, tmp_path):
    (tmp_path / "cluster.json").write_text('{"packages": "six"}')
    result = run(["scipy"])
    assert result["failed"]
    assert f"{tmp_path}/cluster.json is broken" in result["msg"]
    assert json.loads((tmp_path / "cluster.json").read_text()) == {"packages": "six"}


def test_a_full_disk_leaves_what_was_remembered(run, tmp_path, full_disk):
    run(["scipy"])
    with full_disk():
        result = run(["pandas"])
    assert "cannot remember the packages" in result["msg"]
    assert read_state(str(tmp_path))["packages"] == ["scipy"]


def test_an_account_that_is_not_there(run):
    if os.geteuid() == 0:
        assert "no-such-account" in run(["scipy"], owner="no-such-account")["msg"]
    # in check mode it is one that is to be made
    assert run(["scipy"], check=True, owner="no-such-account")["changed"]


def test_the_lease_of_this_run_ends_with_it(run, tmp_path):
    ours = {"holder": "ada@desk", "run": 12, "runs": [12], "takeover": False}
    lease = {"holder": "ada@desk", "run": 12, "since": 1, "renewed": time.time()}
    write_state(str(tmp_path), {"packages": ["six"], "lease": lease})
    assert not run([], check=True, lease=ours)["changed"]
    assert read_state(str(tmp_path))["lease"] == lease
    assert not run([], lease=ours)["changed"]
    assert read_state(str(tmp_path))["lease"] == {}


def test_another_operator_is_not_disturbed(run, tmp_path):
    lease = {"holder": "eve@desk", "run": 3, "since": 1, "renewed": time.time()}
    write_state(str(tmp_path), {"packages": ["six"], "lease": lease})
    result = run(["scipy"], lease={"holder": "ada@desk", "run": 12, "runs": [12], "takeover": False})
    assert result["failed"]
    assert "eve@desk is at work" in result["msg"]
    assert read_state(str(tmp_path))["packages"] == ["six"]
