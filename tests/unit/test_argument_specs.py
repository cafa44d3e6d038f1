# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each role's defaults/main.yml and meta/argument_specs.yml say the same, both ways."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).parents[2] / "roles"
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "raw": (object,),
    "str": (str,),
}

Option = dict[str, t.Any]


def entry_points(role: str) -> dict[str, t.Any]:
    path = ROLES / role / "meta" / "argument_specs.yml"
    specs: dict[str, t.Any] = yaml.safe_load(path.read_text())["argument_specs"] if path.exists() else {}
    return specs


def options(role: str) -> dict[str, Option]:
    """Return the options of all entry points."""
    found: dict[str, Option] = {}
    for spec in entry_points(role).values():
        found.update(spec.get("options") or {})
    return found


def defaults_text(role: str) -> str:
    path = ROLES / role / "defaults" / "main.yml"
    return path.read_text() if path.exists() else ""


def defaults(role: str) -> dict[str, t.Any]:
    return yaml.safe_load(defaults_text(role)) or {}


def commented(role: str) -> set[str]:
    """Return the variables that defaults/main.yml names in a comment, as those without a default are."""
    return set(re.findall(r"^# ?(ipyparallel_\w+):", defaults_text(role), flags=re.MULTILINE))


def is_computed(value: object) -> bool:
    return "{{" in str(value)


roles = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
each_role = pytest.mark.parametrize("role", roles)
each_option = pytest.mark.parametrize(
    ("role", "name"), [(role, name) for role in roles for name in options(role)], ids=lambda value: value
)
each_default = pytest.mark.parametrize(
    ("role", "name"), [(role, name) for role in roles for name in defaults(role)], ids=lambda value: value
)


def test_there_are_roles() -> None:
    assert "common" in roles


@each_role
def test_entry_points_are_described(role: str) -> None:
    # as a dependency, common has variables and no task
    first = "check" if role == "common" else "main"
    assert first in entry_points(role), f"role {role} has no meta/argument_specs.yml, or no entry point {first} there"
    for name, spec in entry_points(role).items():
        assert spec.get("short_description"), f"entry point {name} has no short_description"


@each_role
def test_entry_points_agree(role: str) -> None:
    for entry_point, spec in entry_points(role).items():
        for name, option in (spec.get("options") or {}).items():
            assert options(role)[name] == option, f"{name} differs in entry point {entry_point}"


@each_default
def test_default_is_an_option(role: str, name: str) -> None:
    assert name in options(role), f"{name} has a default, but meta/argument_specs.yml does not have it"
    assert name.startswith("ipyparallel_")


@each_default
def test_defaults_are_the_same(role: str, name: str) -> None:
    value = defaults(role)[name]
    option = options(role).get(name, {})
    if is_computed(value) and "default" not in option:
        return  # its description says how it is computed
    assert option.get("default") == value
    assert type(option.get("default")) is type(value)


@each_option
def test_option_is_in_defaults(role: str, name: str) -> None:
    option = options(role)[name]
    if option.get("required"):
        assert "default" not in option
        assert name not in defaults(role)
    if name not in defaults(role):
        assert "default" not in option, f"{name} has a default in meta/argument_specs.yml only"
        assert name in commented(role), f"defaults/main.yml has neither {name} nor a line '# {name}:'"


@each_option
def test_option_is_typed_and_described(role: str, name: str) -> None:
    def check(name: str, option: Option) -> None:
        assert option.get("description"), f"{name} has no description"
        assert option.get("type") in TYPES, f"{name} has no known type"
        assert option["type"] != "list" or "elements" in option, f"the list {name} does not say of what"
        value = option.get("default")
        if value is not None and not is_computed(value):
            assert isinstance(value, TYPES[option["type"]])
            assert option["type"] != "int" or not isinstance(value, bool)
            values = value if isinstance(value, list) else [value]
            assert "choices" not in option or set(values) <= set(option["choices"])
        for suboption, described in (option.get("options") or {}).items():
            check(f"{name}.{suboption}", described)

    check(name, options(role)[name])
