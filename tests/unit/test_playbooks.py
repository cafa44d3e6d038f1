# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an operator gives to a playbook reaches its module; an answer that is left empty, as AWX passes it, is none."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible._internal._templating._utils import Omit
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ipyparallel.cluster.plugins.filter.cluster import FilterModule

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
MODULES = ("execute", "change_engines", "restart_engines", "definition", "ssh_config")
REQUIRED = {"ipyparallel_scale_count": 0, "ipyparallel_workers": 3}
OPERATOR = re.compile(
    r"\bipyparallel_(?:drain_limit|force|takeover|(?:execute|remove|restart|scale|ssh_config|workers)_\w+)"
)


def arguments(path: Path) -> dict[str, t.Any]:
    """Return the arguments that a playbook gives to its module, for those playbooks that have one of MODULES."""
    tasks = [task for play in yaml.safe_load(path.read_text()) for task in play.get("tasks", [])]
    found = (task.get(f"ipyparallel.cluster.{module}") for task in tasks for module in MODULES)
    return next((given for given in found if given), {})


def given(name: str, **variables: t.Any) -> dict[str, t.Any]:
    """Return those of them that have a variable of the operator's, with its value."""
    templar = Templar(DataLoader(), variables={**REQUIRED, "omit": Omit, **variables})
    # Ansible finds the filters of collections only in a process that has not imported any before
    for found, function in FilterModule().filters().items():
        templar._engine.environment.filters[f"ipyparallel.cluster.{found}"] = function
    theirs = arguments(PLAYBOOKS / f"{name}.yml").items()
    made = {option: trust_as_template(value) for option, value in theirs if OPERATOR.search(str(value))}
    return dict(templar.template(made))


NAMES = [path.stem for path in sorted(PLAYBOOKS.glob("*.yml")) if OPERATOR.search(str(arguments(path)))]


def test_playbooks_are_found() -> None:
    assert {"execute", "scale", "remove_engines", "restart_engines", "launch_workers", "stop_workers"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_left_empty_is_none(name: str) -> None:
    variables = set(OPERATOR.findall(str(arguments(PLAYBOOKS / f"{name}.yml")))) - set(REQUIRED)
    assert given(name, **dict.fromkeys(variables, "")) == given(name)


@pytest.mark.parametrize("name", NAMES)
def test_lists_may_have_blanks(name: str) -> None:
    variables = OPERATOR.findall(str(arguments(PLAYBOOKS / f"{name}.yml")))
    lists = {variable for variable in variables if variable.endswith(("_ids", "_hosts", "_pools"))}
    found = given(name, **dict.fromkeys(lists, "3, 4"))
    assert [found[variable.rpartition("_")[2]] for variable in lists] == [["3", "4"]] * len(lists)


@pytest.mark.parametrize("zero", [0, "0"])
def test_a_number_may_be_0(zero: t.Any) -> None:
    found = given("restart_engines", ipyparallel_restart_serial=zero, ipyparallel_drain_limit=zero)
    assert (found["serial"], found["limit"]) == ("0", "0")
    assert given("scale", ipyparallel_scale_count=zero)["count"] == zero
    assert given("remove_engines", ipyparallel_remove_ids=zero)["ids"] == ["0"]


@pytest.mark.parametrize(
    ("name", "prefix"), [("execute", "ipyparallel_execute"), ("launch_workers", "ipyparallel_workers")]
)
def test_the_script_wins_over_the_code(name: str, prefix: str, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("a = 5\n")
    found = given(name, **{f"{prefix}_script": str(script), f"{prefix}_code": "b"})
    assert (found["code"], found["name"]) == ("a = 5\n", str(script))
    assert given(name, **{f"{prefix}_script": "", f"{prefix}_code": "b"})["code"] == "b"
