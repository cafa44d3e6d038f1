# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import re

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import comparison
from ansible_collections.ipyparallel.cluster.plugins.module_utils.comparison import ComparisonError


def host(number, **changes):
    """Return what the preflight of a host returns."""
    found = {
        "python_version": "3.11.2",
        "architecture": "x86_64",
        "account": {"exists": True},
        "software": True,
        "machine": f"machine{number}",
        "known_as": [],
        "clock": [-0.5, 0.1],
    }
    return {**found, **changes}


def refused(function, *arguments):
    with pytest.raises(ComparisonError) as caught:
        function(*arguments)
    return str(caught.value)


def without(said, parts):
    return [part for part in parts if part not in said]


# ---- the controller host


@pytest.mark.parametrize(
    ("begun", "left"), [(["a", "b"], ["a", "b"]), (["a", "b"], ["a"]), (["b"], ["b"]), (["b"], [])]
)
def test_a_controller_host_that_is_there_or_left_out(begun, left):
    comparison.check_controller_is_there("a", begun, left, {})


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({"a": {"msg": "port 8888 on a is in use"}}, ["port 8888 on a is in use"]),
        ({}, ["message is above", "run again"]),
    ],
)
def test_a_controller_host_that_dropped_out_ends_the_run(found, names):
    said = refused(comparison.check_controller_is_there, "a", ["a", "b"], ["b"], found)
    assert without(said, ["controller host a has failed", "no other host was changed", *names]) == []


# ---- phases

READY, BARE = host(1), host(2, account={"exists": False}, software=False)
INSTALLED_BY_OTHERS = host(2, account={"exists": False})


@pytest.mark.parametrize(
    ("tags", "skipped"),
    [
        (["all"], []),
        (["always"], []),
        (["tagged"], []),
        (["environment"], []),
        (["environment_account"], []),
        (["environment_install"], []),
        (["environment", "engines"], []),
        (["environment_account", "environment_install", "engines_service"], []),
        (["all"], ["notebook"]),
    ],
)
def test_what_a_run_makes_need_not_be_there(tags, skipped):
    comparison.check_phases({"a": READY, "b": BARE}, tags, skipped)


@pytest.mark.parametrize(
    ("tags", "skipped", "what"),
    [
        (["engines_service"], [], "the account"),
        (["controller_identity", "notebook"], [], "the account"),
        (["engines", "environment_account"], [], "the software"),
        (["engines", "environment_install"], [], "the account"),
        (["all"], ["environment"], "the account"),
        (["all"], ["environment_install"], "the software"),
        (["environment", "engines"], ["environment_account"], "the account"),
    ],
)
def test_an_earlier_phase_that_is_missing_is_named(tags, skipped, what):
    said = refused(comparison.check_phases, {"a": READY, "b": BARE, "c": BARE}, tags, skipped)
    assert without(said, [f"{what} of the cluster is missing on b, c,", "--tags environment first"]) == []
    comparison.check_phases({"a": READY}, tags, skipped)


# ---- Pythons


@pytest.mark.parametrize(
    ("versions", "remembered"),
    [
        (["3.11.2", "3.11.9"], None),
        (["3.11.2", "3.11.9"], "3.11.4"),
        # a run for all hosts moves them to another
        (["3.13.1", "3.13.5"], None),
        ([], "3.11.4"),
    ],
)
def test_pythons_that_fit(versions, remembered):
    found = {f"node{i}": host(i, python_version=version) for i, version in enumerate(versions)}
    comparison.check_pythons(found, "node0", remembered)


def test_pythons_that_differ_are_named_with_their_hosts():
    found = {
        name: host(name, python_version=version)
        for name, version in zip("abc", ["3.11.2", "3.9.1", "3.11.4"], strict=True)
    }
    said = refused(comparison.check_pythons, found, "a", None)
    assert without(said, ["3.11 on a, c; 3.9 on b", "ipyparallel_python", "the same minor version"]) == []
    # 3.1 is not 3.11
    found = {"a": host(1, python_version="3.11.2"), "b": host(2, python_version="3.1.1")}
    assert "3.1 on b" in refused(comparison.check_pythons, found, "a", None)


def test_a_host_that_is_added_has_the_python_of_those_that_are_there():
    found = {"b": host(2, python_version="3.13.5")}
    said = refused(comparison.check_pythons, found, "a", "3.11.2")
    assert without(said, ["runs with 3.11 (controller host a)", "3.13 on b", "without --limit"]) == []


# ---- machines


def test_machines_that_are_listed_once():
    found = {"a": host(1), "b": host(2, known_as=["b"])}
    comparison.check_machines(found, ["a", "b", "c"])
    # a host that was renamed: its processes still have the old name
    comparison.check_machines({"new": host(1, known_as=["old"])}, ["new"])
    # the processes of a and b are told apart by what their preflights found
    comparison.check_machines({"a": host(1, known_as=["b"]), "b": host(2)}, ["a", "b"])


@pytest.mark.parametrize(
    ("found", "defined", "names"),
    [
        ({"a": host(1), "b": host(2), "again": host(1)}, ["a", "b", "again"], ["a and again are one machine"]),
        # with --limit
        ({"again": host(1, known_as=["a"])}, ["a", "again"], ["a and again are one machine", "processes of a run"]),
        ({"new": host(1, known_as=["b", "new", "old"])}, ["b", "new"], ["b and new are one machine"]),
    ],
)
def test_a_machine_that_is_listed_twice(found, defined, names):
    said = refused(comparison.check_machines, found, defined)
    assert without(said, [*names, "leave one of them", "ipyparallel_engines_per_host"]) == []


# ---- what is warned of


@pytest.mark.parametrize(
    ("clocks", "difference"),
    [
        ({}, (0.0, "", "")),
        ({"a": [-0.5, 0.1]}, (0.0, "a", "a")),
        # intervals that overlap may be one and the same time
        ({"a": [-3.0, 0.1], "b": [0.0, 2.0]}, (0.0, "a", "b")),
        ({"a": [-0.5, 0.0], "b": [59.5, 60.25]}, (59.5, "a", "b")),
        ({"a": [-90.0, -89.0], "b": [-0.5, 0.25], "c": [30.0, 31.0]}, (119.0, "a", "c")),
    ],
)
def test_how_much_clocks_differ_at_least(clocks, difference):
    found = {name: host(name, clock=clock) for name, clock in clocks.items()}
    assert comparison.clock_difference({**found, "silent": host(9, clock=None)}) == difference


@pytest.mark.parametrize(("ahead", "names"), [(30.0, []), (31.0, ["a is at least 31 s behind that of b", "chrony"])])
def test_clocks_that_differ_are_a_remark(ahead, names):
    said = comparison.remarks({"a": host(1, clock=[-0.1, 0.0]), "b": host(2, clock=[ahead, ahead + 1])})
    assert without(" ".join(said), names) == []
    assert len(said) == bool(names)


def test_architectures_that_differ_are_a_remark():
    (said,) = comparison.remarks({"a": host(1), "b": host(2, architecture="aarch64"), "c": host(3)})
    assert without(said, ["aarch64 on b; x86_64 on a, c", "wheel"]) == []


# ---- where the controller is looked for


def test_the_place_of_the_controller():
    found = comparison.controller_place("a", ["a", "b"], {"address": "10.0.0.5", "port_base": 10100}, "10.0.0.5")
    assert (found["address"], found["port_base"]) == ("10.0.0.5", 10100)
    assert found["ports"]["engines"] == list(range(10100, 10109))
    # clients ask the hub by the port that engines register at, too
    assert found["ports"]["notebook"] == [10100, *range(10109, 10115)]


def test_no_place_is_known_yet():
    found = comparison.controller_place("a", ["a", "b"], {}, None)
    assert found == {"address": "", "port_base": 0, "ports": {"engines": [], "notebook": []}}


LOOPBACK = {"address": "127.0.0.1", "port_base": 10100}


def test_one_host_may_listen_on_loopback():
    assert comparison.controller_place("a", ["a"], LOOPBACK, "10.0.0.5")["address"] == "127.0.0.1"


@pytest.mark.parametrize(("own", "hint"), [("10.0.0.5", ", such as 10.0.0.5"), ("127.0.0.1", ""), ("", ""), (None, "")])
def test_others_would_look_for_it_on_themselves(own, hint):
    said = refused(comparison.controller_place, "a", ["a", "b", "c"], LOOPBACK, own)
    assert without(said, ["controller on a listens on 127.0.0.1", "b, c cannot", "ipyparallel_address of a"]) == []
    assert re.search(r"of the cluster(.*)$", said).group(1) == hint
