# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Actions that call their module in turns; what the module answers is made up."""

from __future__ import annotations

import importlib

import pytest
from ansible_collections.ipyparallel.cluster.plugins.action.wait_for_engines import ActionModule
from ansible_collections.ipyparallel.cluster.plugins.plugin_utils import turns

PAUSE = {"changed": False, "progress": "5 of 8 engines are registered", "resume": {"started": 1.0}}
DONE = {"changed": False, "registered": 8, "problem": ""}


@pytest.fixture
def world(run_action, monkeypatch):
    class World:
        asked = []  # noqa: RUF012
        now = 0.0

        @staticmethod
        def run(*answers, takes=8.0, **given):
            coming = [dict(answer) for answer in answers]

            def execute_module(module_args, task_vars):
                World.now += takes
                World.asked.append(module_args)
                return coming.pop(0)

            result = run_action(ActionModule, execute_module, variables={"inventory_hostname": "node1"}, **given)
            assert not coming
            return result

    World.asked = []
    monkeypatch.setattr(turns.time, "monotonic", lambda: World.now)
    return World


def test_what_is_done_in_one_turn_is_one_call_and_says_nothing(world, capsys):
    result = world.run({**DONE, "changed": True}, limit=60)
    assert (result["registered"], result["changed"]) == (8, True)
    assert world.asked == [{"limit": 60, "turn": turns.FIRST}]
    assert capsys.readouterr() == ("", "")


def test_each_further_turn_says_how_far_it_is_on_standard_error(world, capsys):
    result = world.run(PAUSE, {**PAUSE, "progress": "7 of 8"}, DONE, limit=60)
    assert [one.get("resume") for one in world.asked] == [None, {"started": 1.0}, {"started": 1.0}]
    assert not {"progress", "resume"} & set(result)
    output, said = capsys.readouterr()
    assert output == ""
    assert said.splitlines() == [
        "node1: 5 of 8 engines are registered (8 s)",
        "node1: 7 of 8 (16 s)",
        "node1: done (24 s)",
    ]


def test_what_takes_long_has_few_lines(world, capsys):
    world.run(*[PAUSE] * 5, DONE, takes=100.0)
    assert [one["turn"] for one in world.asked] == [turns.FIRST, 25, 50, 75, 100, 125]


def test_what_the_first_turn_has_changed_counts(world):
    first = {**PAUSE, "changed": True, "diff": {"before": {}, "after": {"engines": 8}}}
    result = world.run(first, {**DONE, "diff": {"before": {}, "after": {}}})
    assert result["changed"]
    assert result["diff"] == first["diff"]


@pytest.mark.parametrize(
    "end",
    [{"failed": True, "msg": "no"}, {"unreachable": True, "msg": "away"}, {**DONE, "problem": "7 of 8"}],
)
def test_what_does_not_end_well_is_not_said_to_be_done(world, capsys, end):
    result = world.run(PAUSE, end)
    assert {name: result[name] for name in end} == end
    assert "done" not in capsys.readouterr().err


def test_check_mode_goes_to_the_module(world):
    assert world.run({"changed": True}, check=True)["changed"]


@pytest.mark.parametrize("name", ["change_engines", "python_environment", "restart_engines"])
def test_others_work_in_turns_too(name):
    place = "ansible_collections.ipyparallel.cluster.plugins"
    assert issubclass(importlib.import_module(f"{place}.action.{name}").ActionModule, turns.TurnsAction)
    options = importlib.import_module(f"{place}.modules.{name}").DOCUMENTATION
    assert "ipyparallel.cluster.turns" in options
