# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's side; what the host says is in the tests of modules."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.ipyparallel.cluster.plugins.action.fetch_logs import ActionModule

LOGS = [
    {"name": "controller", "state": "running", "text": ["one", "zwei ä"]},
    {"name": "engines-default-0", "state": "stopped", "text": []},
]


@pytest.fixture
def fetch(run_action, tmp_path):
    def run(answer=None, check=False, directory=tmp_path / "logs", **further):
        def execute_module(**_given):
            if isinstance(answer, Exception):
                raise answer
            return answer or {"changed": False, "logs": LOGS}

        variables = {"inventory_hostname": "node1"}
        arguments = {"cluster": "alpha", "scope": "system", "manager": "systemd", "directory": str(directory)}
        return run_action(ActionModule, execute_module, check=check, variables=variables, **{**arguments, **further})

    return run


def test_fours(fetch, tmp_path):
    assert fetch(check=True)["changed"]
    assert list(tmp_path.iterdir()) == []

    result = fetch()
    path = tmp_path / "logs" / "node1" / "controller.log"
    assert result["changed"]
    assert result["logs"] == [
        {"name": "controller", "state": "running", "lines": 2, "path": str(path)},
        {
            "name": "engines-default-0",
            "state": "stopped",
            "lines": 0,
            "path": str(path.parent / "engines-default-0.log"),
        },
    ]
    assert path.read_text() == "one\nzwei ä\n"
    assert [oct(one.stat().st_mode & 0o777) for one in (path, path.parent, path.parent.parent)] == [
        "0o600",
        "0o700",
        "0o700",
    ]
    # what was read is in the files only
    assert "zwei" not in str(result)

    for check in (True, False):
        assert not fetch(check=check)["changed"]


def test_a_directory_of_the_operator_s_keeps_its_mode(fetch, tmp_path):
    (tmp_path / "logs").mkdir(mode=0o755)
    fetch()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o755


def test_a_host_that_is_away(fetch, tmp_path):
    result = fetch(AnsibleConnectionFailure("Failed to connect to the host via ssh: no route"))
    assert (result["logs"], result["problem"]) == ([], "unreachable: no route")
    assert not result.get("failed")
    assert list(tmp_path.iterdir()) == []


def test_a_host_without_the_cluster_makes_no_directory(fetch, tmp_path):
    assert fetch({"changed": False, "logs": []})["logs"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/x", "..", ".x", "", "a/b", "a\n", "-x", ["a"]])
def test_a_host_does_not_say_where_its_logs_are_written(fetch, tmp_path, name):
    result = fetch({"changed": False, "logs": [*LOGS, {"name": name, "state": "", "text": ["x"]}]})
    assert result["logs"] == []
    assert f"it names a log {str(name)!r}" in result["problem"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"limit": "abc"}, {"lines": "abc"}, {"scope": "nix"}])
def test_a_wrong_value_is_named_before_the_host_is_asked(fetch, wrong):
    with pytest.raises(AnsibleActionFail, match=next(iter(wrong))):
        fetch(AssertionError("it was asked"), **wrong)


def test_a_module_that_fails_does_so(fetch):
    result = fetch({"failed": True, "msg": "journalctl cannot show the log"})
    assert (result["failed"], result["msg"]) == (True, "journalctl cannot show the log")


def test_a_directory_that_cannot_be_made(fetch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        AnsibleActionFail, match=r"cannot write the logs of node1 into .*set ipyparallel_logs_directory"
    ):
        fetch(directory=tmp_path / "file" / "logs")
