# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.ipyparallel.cluster.plugins.action.definition import ActionModule

GROUPS = {
    "all": ["node1", "node2"],
    "alpha": ["node1", "node2"],
    "alpha_controller": ["node1"],
    "alpha_engines": ["node1", "node2"],
}


@pytest.mark.parametrize("check", [False, True])
def test_the_hosts_are_returned_and_nothing_changes(run_action, check):
    before = time.time()
    result = run_action(ActionModule, check=check, variables={"groups": GROUPS}, cluster="alpha")
    assert before <= result.pop("started") <= time.time()
    lease = result.pop("lease")
    assert lease["run"] in lease["runs"]
    assert (bool(lease["holder"].partition("@")[2]), lease["takeover"]) == (True, False)
    assert result == {
        "changed": False,
        "cluster": "alpha",
        "controller": "node1",
        "engines": ["node1", "node2"],
        "notebook": [],
    }


def test_the_start_of_the_run_is_kept(run_action):
    result = run_action(ActionModule, variables={"groups": GROUPS}, cluster="alpha", started=1780000000.5)
    assert result["started"] == 1780000000.5


@pytest.mark.parametrize(
    ("cluster", "names"),
    [("two words", ["'two words'", "variable 'cluster'"]), ("beta", ["'beta'", "it has alpha", "-e cluster=NAME"])],
)
def test_what_is_not_defined_fails_with_the_remedy(run_action, cluster, names):
    with pytest.raises(AnsibleActionFail) as caught:
        run_action(ActionModule, variables={"groups": GROUPS}, cluster=cluster)
    assert [part for part in names if part not in str(caught.value)] == []


@pytest.mark.parametrize("arguments", [{}, {"cluster": "alpha", "started": "noon"}, {"cluster": "alpha", "hosts": 1}])
def test_options_are_checked(run_action, arguments):
    with pytest.raises(AnsibleError):
        run_action(ActionModule, variables={"groups": GROUPS}, **arguments)
