# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's side; what the controller host answers is the real module connector_info, on this machine."""

from __future__ import annotations

import json
import os
import platform

import ipyparallel
import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.utils.display import Display
from ansible_collections.ipyparallel.cluster.plugins.action import fetch_connector
from ansible_collections.ipyparallel.cluster.plugins.action.fetch_connector import ActionModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    Identity,
    half_path,
    identity_path,
    identity_text,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import RECORD
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import TUNNEL_FILE, Login
from ansible_collections.ipyparallel.cluster.plugins.modules import connector_info

IDENTITY = Identity("alpha", "10.0.0.5", 10100, "json", "curve", "leastload", "0" * 64, "p" * 40, "s" * 40)
CONNECTOR = "security/ipcontroller-client.json"


@pytest.fixture
def state(tmp_path):
    """The state of a deployed cluster, on the controller host."""
    (tmp_path / "state" / "connector").mkdir(parents=True)
    lay_down(tmp_path / "state", IDENTITY)
    return tmp_path / "state"


def lay_down(state, identity):
    with open(identity_path(str(state)), "w") as stream:
        stream.write(identity_text(identity))
    with open(half_path(str(state), "client"), "w") as stream:
        stream.write(identity.text("client"))


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(Display, "warning", lambda self, msg, *_arguments, **_options: found.append(msg))
    return found


@pytest.fixture
def profile(tmp_path):
    return tmp_path / "ipython" / "profile_alpha"


@pytest.fixture
def fetch(run_action, run_module, tmp_path, warnings):
    asked = []

    def _fetch(check=False, **arguments):
        def execute_module(module_name, module_args, task_vars):
            assert module_name == "ipyparallel.cluster.connector_info"
            asked.append(module_args)
            plugin = run_action.plugin
            _fetch.censored = [context.no_log for context in (plugin._play_context, plugin._connection._play_context)]
            given = {name: value for name, value in module_args.items() if value is not None}
            return dict(run_module(connector_info, check=check, **given))

        arguments = {"cluster": "alpha", "ipython_directory": str(tmp_path / "ipython"), **arguments}
        if arguments.get("state") != "absent":
            arguments.setdefault("state_directory", str(tmp_path / "state"))
        return run_action(ActionModule, execute_module, check=check, **arguments)

    _fetch.asked = asked
    return _fetch


def files(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


# ---- in fours


def test_fours(fetch, state, profile):
    result = fetch(check=True)
    assert result["changed"]
    assert not profile.exists()

    result = fetch()
    assert result["changed"]
    assert result["profile_directory"] == str(profile)
    assert result["path"] == str(profile / CONNECTOR)
    assert (profile / CONNECTOR).read_text() == IDENTITY.text("client")
    assert [path for path in profile.rglob("*") if path.stat().st_mode & 0o077] == []
    assert [asked["half"] for asked in fetch.asked] == ["client", "client"]

    for check in (True, False):
        result = fetch(check=check)
        assert not result["changed"]
        assert result["diff"] == []


def test_fours_of_absent(fetch, state, profile):
    fetch()
    before = files(profile)
    assert fetch(check=True, state="absent")["changed"]
    assert files(profile) == before
    assert fetch(state="absent")["changed"]
    assert not profile.exists()
    for check in (True, False):
        assert not fetch(check=check, state="absent")["changed"]
    assert len(fetch.asked) == 1


def test_another_identity_is_another_connector(fetch, state, profile):
    fetch()
    other = Identity("alpha", "10.0.0.6", 10200, "json", "curve", "leastload", "1" * 64, "q" * 40, "t" * 40)
    lay_down(state, other)
    result = fetch()
    assert result["changed"]
    assert [entry["after_header"] for entry in result["diff"]] == [CONNECTOR]
    assert (profile / CONNECTOR).read_text() == other.text("client")
    assert not fetch()["changed"]


def test_what_is_known_of_a_tunnel_goes_with_it(fetch, state, profile):
    fetch()
    (profile / TUNNEL_FILE).write_text("{}")
    fetch(check=True)
    assert (profile / TUNNEL_FILE).exists()
    fetch()
    assert not (profile / TUNNEL_FILE).exists()


def test_keys_are_in_no_result(fetch, state):
    outputs = [json.dumps(fetch()), json.dumps(fetch(check=True)), json.dumps(fetch(state="absent"))]
    lay_down(state, Identity("alpha", "10.0.0.5", 10100, "json", "curve", "leastload", "1" * 64, "q" * 40, "t" * 40))
    outputs.append(json.dumps(fetch()))
    for secret in ("0" * 64, "1" * 64, "p" * 40, "q" * 40, "s" * 40):
        assert [output for output in outputs if secret in output] == []


def test_the_connection_does_not_show_the_answer_which_holds_the_keys(fetch, state, run_action):
    fetch()
    assert fetch.censored == [True, True]
    plugin = run_action.plugin
    assert [context.no_log for context in (plugin._play_context, plugin._connection._play_context)] == [False, False]


def test_the_directory_is_ipythons_own_unless_one_is_given(fetch, state, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "elsewhere"))
    assert fetch(ipython_directory=None)["profile_directory"] == str(tmp_path / "elsewhere" / "profile_alpha")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(check=True, ipython_directory="~/third")["profile_directory"] == str(tmp_path / "third/profile_alpha")


# ---- the authority of the notebook's certificate


def test_the_authority_comes_goes_and_changes_with_the_clusters(fetch, state, profile):
    ours = profile / "security" / "authority.pem"
    assert fetch()["authority"] == ""
    for text in ("one", "another"):
        (state / "authority.pem").write_text(text)
        assert fetch(check=True)["changed"]
        result = fetch()
        assert result["changed"]
        assert result["authority"] == str(ours)
        assert [entry["after_header"] for entry in result["diff"]] == ["security/authority.pem"]
        assert ours.read_text() == text
        assert not ours.stat().st_mode & 0o077
        assert not fetch()["changed"]
    (state / "authority.pem").unlink()
    assert fetch(check=True)["changed"]
    assert ours.exists()
    assert fetch()["changed"]
    assert not ours.exists()
    assert not fetch()["changed"]


def test_the_authority_goes_from_a_profile_that_was_there(fetch, state, profile):
    profile.mkdir(parents=True)
    (state / "authority.pem").write_text("one")
    fetch()
    fetch(state="absent")
    assert files(profile) == {}


# ---- versions


def test_versions_that_differ_are_warned_of(fetch, state, tmp_path, warnings):
    (tmp_path / "env").mkdir()
    record = tmp_path / "env" / RECORD
    same = {"python": platform.python_version(), "ipyparallel": ipyparallel.__version__}
    record.write_text(json.dumps({"versions": same}))
    fetch(environment=str(tmp_path / "env"))
    assert warnings == []
    record.write_text(json.dumps({"versions": {"python": "3.99.1", "ipyparallel": "99.1"}}))
    assert not fetch(environment=str(tmp_path / "env"))["changed"]
    assert [part for part in ("3.99.1", "use a Python 3.99") if part not in warnings[0]] == []
    assert "install ipyparallel==99.1" in warnings[1]


# ---- the tunnel


def test_a_tunnel_has_what_ansible_gives_to_ssh(run_action, monkeypatch, tmp_path):
    logins = []
    monkeypatch.setattr(fetch_connector, "Tunnel", lambda _directory, login: logins.append(login))
    made = ActionModule.__init__

    def attach(self, *arguments, **options):
        made(self, *arguments, **options)
        known = {"host": "10.0.0.5", "remote_user": "ada", "ssh_args": "-J bastion"}
        self._connection.transport = "ssh"
        self._connection.get_option = known.get

    monkeypatch.setattr(ActionModule, "__init__", attach)
    run_action(ActionModule, cluster="alpha", state="absent", ipython_directory=str(tmp_path))
    assert logins == [Login("10.0.0.5", "ada", ("-J", "bastion", "-l", "ada"))]


# ---- bad input


@pytest.mark.parametrize("cluster", ["two words", "../up", "", "Capital"])
@pytest.mark.parametrize("absent", [True, False])
def test_a_name_that_is_none_writes_and_removes_nothing(fetch, state, tmp_path, cluster, absent):
    with pytest.raises(AnsibleActionFail, match="is not a name for a cluster"):
        fetch(cluster=cluster, **({"state": "absent"} if absent else {}))
    assert not (tmp_path / "ipython").exists()


def test_options_are_checked(run_action):
    with pytest.raises(AnsibleError, match="state_directory"):
        run_action(ActionModule, cluster="alpha")
    with pytest.raises(AnsibleError, match="state"):
        run_action(ActionModule, cluster="alpha", state="there")


def test_before_a_deployment(fetch, tmp_path, profile):
    with pytest.raises(AnsibleActionFail, match="deploy the cluster first"):
        fetch()
    assert fetch(check=True)["changed"]
    assert not profile.exists()


@pytest.mark.parametrize("content", ["{", "{}", "", IDENTITY.text("engine"), IDENTITY.text("client")[:-20]])
def test_a_broken_half_is_named_and_the_old_connector_stays(fetch, state, profile, content):
    fetch()
    before = files(profile)
    with open(half_path(str(state), "client"), "w") as stream:
        stream.write(content)
    with pytest.raises(AnsibleActionFail) as caught:
        fetch()
    for part in (half_path(str(state), "client"), "ipyparallel.cluster.deploy"):
        assert part in str(caught.value)
    assert files(profile) == before


def test_a_full_disk_names_directory_and_remedy_and_the_old_connector_stays(fetch, state, profile, full_disk):
    fetch()
    before = files(profile)
    lay_down(state, Identity("alpha", "10.0.0.5", 10100, "json", "curve", "leastload", "1" * 64, "q" * 40, "t" * 40))
    with full_disk(), pytest.raises(AnsibleActionFail) as caught:
        fetch()
    for part in (str(profile), "as it was", "IPYTHONDIR"):
        assert part in str(caught.value)
    assert files(profile) == before


@pytest.mark.parametrize("place", ["ipython", "ipython/profile_alpha", "ipython/profile_alpha/security"])
def test_a_file_in_the_place_of_a_directory_is_told(fetch, state, tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("mine")
    with pytest.raises(AnsibleActionFail, match="cannot be written"):
        fetch()
    assert (tmp_path / place).read_text() == "mine"


# ---- profiles of others


@pytest.mark.parametrize("arguments", [{}, {"state": "absent"}])
def test_a_profile_of_another_account_is_neither_written_nor_removed(fetch, state, profile, account, arguments):
    fetch()
    before = files(profile)
    os.chown(profile, account.pw_uid, -1)
    lay_down(state, Identity("alpha", "10.0.0.6", 10200, "json", "curve", "leastload", "1" * 64, "q" * 40, "t" * 40))
    with pytest.raises(AnsibleActionFail, match=f"{profile} belongs to {account.pw_name}"):
        fetch(**arguments)
    assert files(profile) == before


def test_a_profile_that_was_there_keeps_what_is_in_it(fetch, state, profile):
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("c = 1")
    assert fetch()["changed"]
    assert not fetch()["changed"]
    assert fetch(state="absent")["changed"]
    assert files(profile) == {"ipython_config.py": "c = 1"}


def test_a_profile_that_is_not_ours_is_not_removed(fetch, profile):
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("c = 1")
    assert not fetch(state="absent")["changed"]
    assert files(profile) == {"ipython_config.py": "c = 1"}
