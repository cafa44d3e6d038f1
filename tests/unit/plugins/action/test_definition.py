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


WRONG = ({"started": "noon"}, {"hosts": 1}, {"needs": ["all"]})


@pytest.mark.parametrize("check", [False, True])
def test_the_hosts_are_returned_and_nothing_changes(run_action, check):
    before = time.time()
    variables = {"groups": GROUPS, "ansible_play_hosts_all": ["node1"]}
    result = run_action(ActionModule, check=check, variables=variables, cluster="alpha", needs=["controller"])
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
        "left_out": ["node2"],
    }


@pytest.mark.parametrize(("limit", "needs"), [(["node2"], ["controller"]), (["node1"], ["controller", "engines"])])
def test_a_run_without_a_host_that_it_needs_is_refused(run_action, limit, needs):
    variables = {"groups": GROUPS, "ansible_play_hosts_all": limit}
    with pytest.raises(AnsibleActionFail, match="left out of this run"):
        run_action(ActionModule, variables=variables, cluster="alpha", needs=needs)


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


@pytest.mark.parametrize("arguments", [{}, *({"cluster": "alpha", **one} for one in WRONG)])
def test_options_are_checked(run_action, arguments):
    with pytest.raises(AnsibleError):
        run_action(ActionModule, variables={"groups": GROUPS}, **arguments)
