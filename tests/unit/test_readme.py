# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The README's commands are those that the tests run, and what it points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
TESTS = "".join(
    path.read_text(encoding="utf-8")
    for path in sorted(PROJECT.glob("molecule/local/**/*.*"))
    if path.suffix in {".py", ".yml"}
)
COMMANDS = re.findall(r"^\$ (.+)$", README, flags=re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_there_are_commands() -> None:
    assert COMMANDS[:2] == ["make up", "make test"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z]+)", README))))
def test_targets_are_in_the_makefile(target: str) -> None:
    assert target in TARGETS


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make ")])
def test_python_of_the_readme_is_what_the_tests_run(command: str) -> None:
    code = re.search(r"""-c (["'])(.+)\1$""", command)
    assert code
    assert code.group(2) in TESTS


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_what_it_points_to_is_there(path: str) -> None:
    assert (PROJECT / path).exists()


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"ipyparallel_[a-z_]+[a-z]", README))))
def test_variables_are_inputs(variable: str) -> None:
    specs = (PROJECT / "roles/common/meta/argument_specs.yml").read_text(encoding="utf-8")
    assert f"{variable}:" in specs
