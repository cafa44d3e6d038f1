# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the action asks of whom; each single comparison is tested with module_utils."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.utils.display import Display
from ansible_collections.ipyparallel.cluster.plugins.action.compare_hosts import ActionModule


def host(number, **changes):
    found = {
        "python_version": "3.11.2",
        "architecture": "x86_64",
        "account": {"exists": True},
        "software": True,
        "machine": f"machine{number}",
        "known_as": [],
        "clock": [-0.5, 0.1],
        "controller": {},
        "versions": {},
        "outward_address": f"10.0.0.{number}",
    }
    return {**found, **changes}


CONTROLLER = host(1, controller={"address": "10.0.0.1", "port_base": 10100}, versions={"python": "3.11.2"})


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *_arguments, **_options: found.append(msg))
    return found


@pytest.fixture
def compare(run_action, warnings):
    def run(found, **arguments):
        hosts = ["a", "b"]
        given = {"controller": "a", "defined": hosts, "begun": hosts, "left": hosts, "found": found, **arguments}
        return run_action(ActionModule, check=True, **given)

    return run


def test_hosts_that_fit(compare, warnings):
    result = compare({"a": CONTROLLER, "b": host(2)})
    assert not result["changed"]
    assert result["address"] == "10.0.0.1"
    assert result["ports"]["engines"] == list(range(10100, 10109))
    assert (result["remarks"], result["clocks_differ"], warnings) == ([], 0.0, [])


@pytest.mark.parametrize(
    ("found", "arguments", "names"),
    [
        (
            {"a": CONTROLLER, "b": host(2, certificate_problem="/x/cert.pem is no certificate: give one")},
            {},
            ["notebook of b: /x/cert.pem is no certificate: give one. Nothing was changed"],
        ),
        ({"a": {"msg": "no room"}, "b": host(2)}, {"left": ["b"]}, ["host a has failed", "no room"]),
        ({"a": CONTROLLER, "b": host(1)}, {}, ["a and b are one machine"]),
        ({"a": CONTROLLER, "b": host(2, software=False)}, {"tags": ["engines"]}, ["software", "missing on b"]),
        ({"a": CONTROLLER, "b": host(2, software=False)}, {"skipped_tags": ["environment"]}, ["missing on b"]),
        ({"a": CONTROLLER, "b": host(2, python_version="3.13.5")}, {}, ["3.13 on b"]),
        (
            {"a": host(1, controller={"address": "127.0.0.1", "port_base": 10100}), "b": host(2)},
            {},
            ["listens on 127.0.0.1", "such as 10.0.0.1"],
        ),
    ],
)
def test_hosts_that_do_not_fit(compare, found, arguments, names):
    with pytest.raises(AnsibleActionFail) as caught:
        compare(found, **arguments)
    assert [part for part in names if part not in str(caught.value)] == []


def test_a_host_that_failed_is_not_compared(compare):
    # nor is one that was not reached, of which nothing was found
    assert compare({"a": CONTROLLER, "b": {"msg": "no room"}}, left=["a"])["address"] == "10.0.0.1"
    assert compare({"a": CONTROLLER}, left=["a"])["address"] == "10.0.0.1"


LIMITED = {"begun": ["b"], "left": ["b"]}
REMEMBERED = {"identity": {"address": "10.0.0.9", "port_base": 10200}, "versions": {"python": "3.11.4"}}


def test_a_limited_run_has_to_fit_what_the_controller_host_remembers(compare):
    result = compare({"b": host(2)}, remembered=REMEMBERED, **LIMITED)
    assert (result["address"], result["ports"]["engines"][0]) == ("10.0.0.9", 10200)
    with pytest.raises(AnsibleActionFail, match=r"runs with 3\.11"):
        compare({"b": host(2, python_version="3.13.5")}, remembered=REMEMBERED, **LIMITED)


def test_a_run_for_all_hosts_may_move_them_to_another_python(compare):
    found = {"a": {**CONTROLLER, "python_version": "3.13.5"}, "b": host(2, python_version="3.13.5")}
    assert not compare(found)["changed"]
    with pytest.raises(AnsibleActionFail, match=r"runs with 3\.11"):
        compare(found, defined=["a", "b", "c"])


def test_what_differs_without_harm_is_warned_of(compare, warnings):
    result = compare({"a": CONTROLLER, "b": host(2, clock=[100.0, 101.0], architecture="aarch64")})
    assert result["remarks"] == warnings
    assert [part for part in ("clock of a", "aarch64 on b") if part not in " ".join(warnings)] == []
    assert result["clocks_differ"] == 99.9


@pytest.mark.parametrize("arguments", [{"defined": {}}, {"remembered": "none"}, {"host": 1}])
def test_options_are_checked(compare, arguments):
    with pytest.raises(AnsibleError):
        compare({"a": CONTROLLER, "b": host(2)}, **arguments)
