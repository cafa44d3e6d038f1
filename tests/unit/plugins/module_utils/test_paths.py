# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.paths import SCOPES, own_paths, paths

HOME = {"env": {"HOME": "/home/ada"}, "user_dir": "/home/other"}


@pytest.mark.parametrize("facts", [{}, HOME, {"env": {"XDG_STATE_HOME": "/x", "XDG_DATA_HOME": "/y"}}])
def test_the_systems_places_are_the_same_for_everyone(facts):
    assert paths("system", "alpha", facts) == {
        "prefix": "/opt/ipyparallel/alpha",
        "environment": "/opt/ipyparallel/alpha/current",
        "python": "/opt/ipyparallel/alpha/current/bin/python",
        "config": "/etc/ipyparallel/alpha",
        "state": "/var/lib/ipyparallel/alpha",
        "log": "/var/log/ipyparallel/alpha",
        "run": "/run/ipyparallel/alpha",
        "client": "/var/lib/ipyparallel/alpha/connector/ipcontroller-client.json",
    }


def test_an_accounts_places_are_in_its_home():
    assert paths("user", "alpha", HOME) == {
        "prefix": "/home/ada/.local/share/ipyparallel/alpha",
        "environment": "/home/ada/.local/share/ipyparallel/alpha/current",
        "python": "/home/ada/.local/share/ipyparallel/alpha/current/bin/python",
        "config": "/home/ada/.config/ipyparallel/alpha",
        "state": "/home/ada/.local/state/ipyparallel/alpha",
        "log": "/home/ada/.local/state/ipyparallel/alpha/log",
        "run": "/home/ada/.local/state/ipyparallel/alpha/run",
        "client": "/home/ada/.local/state/ipyparallel/alpha/connector/ipcontroller-client.json",
    }


@pytest.mark.parametrize(
    ("variable", "moved"),
    [
        ("XDG_DATA_HOME", {"prefix", "environment", "python"}),
        ("XDG_CONFIG_HOME", {"config"}),
        ("XDG_STATE_HOME", {"state", "log", "run", "client"}),
        ("XDG_CACHE_HOME", set()),
    ],
)
def test_a_variable_moves_what_is_its_own(variable, moved):
    usual = paths("user", "alpha", HOME)
    found = paths("user", "alpha", {"env": {**HOME["env"], variable: "/srv/x"}})
    assert {name for name in found if found[name] != usual[name]} == moved
    assert all(found[name].startswith("/srv/x/ipyparallel/alpha") for name in moved)
    # empty is as not set, says the specification
    assert paths("user", "alpha", {"env": {**HOME["env"], variable: ""}}) == usual


@pytest.mark.parametrize("env", [{}, None, {"HOME": ""}])
def test_without_a_variable_the_home_is_that_of_the_account(env):
    found = paths("user", "alpha", {"env": env, "user_dir": "/home/ada"})
    assert found["config"] == "/home/ada/.config/ipyparallel/alpha"


@pytest.mark.parametrize("scope", SCOPES)
def test_two_clusters_share_nothing(scope):
    one, other = (set(paths(scope, name, HOME).values()) for name in ("alpha", "alpha_2"))
    assert not one & other


def test_a_module_s_own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert own_paths("user", "alpha") == paths(
        "user", "alpha", {"env": {"HOME": str(tmp_path), "XDG_STATE_HOME": "/x"}}
    )
