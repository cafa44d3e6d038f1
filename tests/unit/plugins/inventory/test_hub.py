# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory of a running cluster; nothing but the hub is made up, and a real one answers in scenario local."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins import inventory as inventory_plugins
from ansible.plugins.loader import fragment_loader
from ansible.template import is_trusted_as_template
from ansible.utils.plugin_docs import add_fragments
from ansible_collections.ipyparallel.cluster.plugins.inventory import hub as plugin_file
from ansible_collections.ipyparallel.cluster.plugins.inventory.hub import InventoryModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub, hub_inventory
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError

NAME = InventoryModule.NAME
IDENTITY = Identity(
    "alpha", "127.0.0.1", 10100, "json", "none", "leastload", "0" * 64, curve_publickey="", curve_secretkey=""
)


def engine(number, host="node1", pool="default", queued=0):
    place = {"id": number, "uuid": f"{number}", "host": host, "pool": pool, "core": 0, "pid": host and 4711}
    return {**place, "state": "busy" if queued else "idle", "queued": queued, "completed": 1}


ENGINES = [engine(0), engine(1, "node2"), engine(2, "node2", "big", queued=4), engine(3, None, None)]
QUEUE = {"queued": 4, "unassigned": 2, "completed": 4}


@pytest.fixture(autouse=True)
def profiles(tmp_path, monkeypatch):
    """IPython's directory, with the profiles of two clusters."""
    for cluster in ("ipyparallel", "alpha"):
        security = tmp_path / f"ipython/profile_{cluster}/security"
        security.mkdir(parents=True)
        (security / "ipcontroller-client.json").write_text(IDENTITY.text("client"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path / "ipython"


class Client:
    def close(self):
        pass


@pytest.fixture
def asked(monkeypatch):
    """Let a hub with ENGINES answer, in this process, and remember which connectors it was asked with."""
    found = []

    def connect(connector, timeout):
        found.append((connector, timeout))
        return Client()

    monkeypatch.setattr(hub, "connect", connect)
    monkeypatch.setattr(hub, "described", lambda client: (ENGINES, QUEUE))

    def ask_apart(python, connector, timeout):
        assert python == sys.executable
        return json.loads(json.dumps(hub_inventory.answer(connector, timeout)))

    monkeypatch.setattr(hub_inventory, "ask_apart", ask_apart)
    return found


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Run the plugin, with the options that its documentation gives it, as Ansible's loader does."""
    documentation = yaml.safe_load(plugin_file.DOCUMENTATION)
    add_fragments(documentation, plugin_file.__file__, fragment_loader, is_module=False)
    constants.config.initialize_plugin_configuration_definitions("inventory", NAME, documentation["options"])
    path = tmp_path / "my.hub.yml"

    def run(inventory=None, *, flush=False, extra_vars=None, **options):
        monkeypatch.setattr(inventory_plugins, "load_extra_vars", lambda loader: extra_vars or {})
        path.write_text(yaml.safe_dump({"plugin": NAME, **options}))
        plugin = InventoryModule()
        plugin._load_name = plugin.ansible_name = NAME
        plugin._redirected_names = [NAME]
        found = inventory or InventoryData()
        assert plugin.verify_file(str(path))
        plugin.parse(found, DataLoader(), str(path), not flush)
        if options.get("cache"):
            plugin.update_cache_if_changed()
        # what Ansible does after the last source
        found.reconcile_inventory()
        return found

    return run


def groups(inventory):
    return {name: hosts for name, hosts in inventory.get_groups_dict().items() if name not in ("all", "ungrouped")}


@pytest.mark.usefixtures("asked")
def test_groups(parse):
    inventory = parse()
    assert groups(inventory) == {
        "ipyparallel": ["node1", "node2"],
        "ipyparallel_engines": ["node1", "node2"],
        "ipyparallel_pool_default": ["node1", "node2"],
        "ipyparallel_pool_big": ["node2"],
    }
    children = {group.name for group in inventory.groups["ipyparallel"].child_groups}
    assert children == {"ipyparallel_engines", "ipyparallel_pool_default", "ipyparallel_pool_big"}


@pytest.mark.usefixtures("asked")
def test_variables(parse):
    inventory = parse()
    found = inventory.get_host("node2").vars
    engines = found["ipyparallel_engines"]
    assert [(one["id"], one["pool"], one["state"], one["queued"]) for one in engines] == [
        (1, "default", "idle", 0),
        (2, "big", "busy", 4),
    ]
    assert all("uuid" not in one for one in engines)
    assert found["ipyparallel_engine_ids"] == [1, 2]
    assert found["ipyparallel_pools"] == {"big": 1, "default": 1}
    assert found["ipyparallel_load"] == 2.0
    assert inventory.groups["ipyparallel"].vars == {"ipyparallel_queue": QUEUE, "ipyparallel_other_engines": [3]}


@pytest.mark.usefixtures("asked")
def test_a_cluster_without_engines(parse, monkeypatch):
    monkeypatch.setattr(hub, "described", lambda client: ([], QUEUE))
    inventory = parse()
    assert groups(inventory) == {"ipyparallel": [], "ipyparallel_engines": []}
    assert not inventory.hosts


@pytest.mark.usefixtures("asked")
def test_what_users_construct_knows_the_inventories_before_this_one(parse):
    before = InventoryData()
    before.add_group("ipyparallel_controller")
    before.add_host("node2", group="ipyparallel_controller")
    before.set_variable("node2", "ansible_host", "10.0.0.2")
    inventory = parse(
        before,
        strict=True,
        groups={"idle": "ipyparallel_busy_engines == 0", "big": "ipyparallel_engines | length > 1"},
        keyed_groups=[{"key": "ipyparallel_pools.keys() | list", "prefix": "with"}],
        compose={"place": "ansible_host | default(inventory_hostname) ~ '/' ~ (ipyparallel_engine_ids | min)"},
    )
    found = groups(inventory)
    assert found["idle"] == ["node1"]
    assert found["big"] == ["node2"]
    assert (found["with_default"], found["with_big"]) == (["node1", "node2"], ["node2"])
    assert {name: host.vars["place"] for name, host in inventory.hosts.items()} == {
        "node1": "node1/0",
        "node2": "10.0.0.2/1",
    }
    assert found["ipyparallel_controller"] == ["node2"]


@pytest.mark.usefixtures("asked")
def test_an_error_in_what_users_construct(parse):
    assert groups(parse(groups={"wrong": "nowhere"}))["ipyparallel"]
    with pytest.raises(AnsibleError, match="nowhere"):
        parse(strict=True, groups={"wrong": "nowhere"})


@pytest.mark.usefixtures("asked")
def test_what_the_hub_tells_is_no_template(parse, monkeypatch):
    host = "{{ lookup('pipe', 'id') }}"
    monkeypatch.setattr(hub, "described", lambda client: ([engine(0, host)], QUEUE))
    variables = parse(compose={"name": "inventory_hostname"}).get_host(host).vars
    assert variables["name"] == host
    texts = [variables["name"], *variables["ipyparallel_pools"]]
    texts += [value for value in variables["ipyparallel_engines"][0].values() if isinstance(value, str)]
    assert not any(is_trusted_as_template(text) for text in texts)
    assert not InventoryModule.trusted_by_default


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("host", ["all", "ipyparallel", "ipyparallel_engines", "databases"])
def test_an_engine_whose_host_is_called_as_a_group(parse, monkeypatch, host):
    monkeypatch.setattr(hub, "described", lambda client: ([engine(0), engine(1, host)], QUEUE))
    before = InventoryData()
    before.add_group("databases")
    inventory = parse(before)
    assert list(inventory.hosts) == ["node1"]
    assert inventory.groups["ipyparallel"].vars["ipyparallel_other_engines"] == [1]


# ---- which cluster


@pytest.mark.parametrize(
    ("options", "extra_vars", "cluster"),
    [
        ({}, {}, "ipyparallel"),
        ({}, {"cluster": "alpha"}, "alpha"),
        ({"cluster": "alpha"}, {}, "alpha"),
        ({"cluster": "alpha"}, {"cluster": "ipyparallel"}, "alpha"),
    ],
)
def test_the_connector_is_that_of_the_profile(parse, asked, profiles, options, extra_vars, cluster):
    assert f"{cluster}_engines" in parse(extra_vars=extra_vars, **options).groups
    assert asked == [(f"{profiles}/profile_{cluster}/security/ipcontroller-client.json", 5.0)]


def test_another_connector(parse, asked, tmp_path):
    path = tmp_path / "client.json"
    path.write_text(IDENTITY.text("client"))
    parse(connector=str(path), timeout=1.5)
    assert asked == [(str(path), 1.5)]


@pytest.mark.usefixtures("asked")
def test_profiles_elsewhere(parse, tmp_path):
    with pytest.raises(AnsibleParserError, match=f"there is no connector {tmp_path}/other/profile_alpha/security"):
        parse(cluster="alpha", ipython_directory=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub.yml", True),
        ("hub.yaml", True),
        ("genomics.hub.yml", True),
        ("github.yml", False),
        ("hub.yml.bak", False),
        ("hub.ini", False),
        ("hosts.yml", False),
    ],
)
def test_names_of_files(tmp_path, name, expected):
    (tmp_path / name).touch()
    assert InventoryModule().verify_file(str(tmp_path / name)) is expected
    assert not InventoryModule().verify_file(str(tmp_path / "absent" / name))


# ---- errors


def test_a_hub_that_does_not_answer(parse, asked, profiles, monkeypatch, tmp_path):
    def silent(connector, timeout):
        raise HubError("it did not answer")

    monkeypatch.setattr(hub, "connect", silent)
    inventory = InventoryData()
    with pytest.raises(AnsibleParserError) as caught:
        parse(inventory, timeout=2)
    for part in (f"{tmp_path}/my.hub.yml", f"{profiles}/profile_ipyparallel", "127.0.0.1:", "within 2 s"):
        assert part in str(caught.value)
    assert groups(inventory) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"cluster": "No-Name"}, "No-Name"), ({"timeout": "soon"}, "soon"), ({"plugin": "other"}, "Incorrect plugin")],
)
def test_options_that_are_none(parse, asked, options, reason):
    with pytest.raises(AnsibleError, match=reason):
        parse(**options)
    assert asked == []


# ---- cache


@pytest.fixture
def cache(tmp_path):
    directory = str(tmp_path / "cache")
    return {"cache": True, "cache_plugin": "jsonfile", "cache_connection": directory}


def test_from_the_cache_nothing_is_read_or_asked(parse, asked, cache, profiles, monkeypatch):
    first = parse(**cache)
    profiles.rename(profiles.with_name("away"))
    monkeypatch.setattr(hub, "described", lambda client: ([], QUEUE))
    second = parse(**cache)
    assert len(asked) == 1
    assert groups(second) == groups(first)
    assert {name: host.vars for name, host in second.hosts.items()} == {
        name: host.vars for name, host in first.hosts.items()
    }
    with pytest.raises(AnsibleParserError, match="there is no connector"):
        parse(flush=True, **cache)


def test_the_cache_is_of_one_connector(parse, asked, cache):
    for cluster in ("alpha", "ipyparallel", "alpha", "ipyparallel"):
        assert f"{cluster}_engines" in parse(extra_vars={"cluster": cluster}, **cache).groups
    assert len(asked) == 2


def test_without_a_cache_it_is_live(parse, asked, monkeypatch):
    assert parse().hosts
    monkeypatch.setattr(hub, "described", lambda client: ([], QUEUE))
    assert not parse().hosts
    assert len(asked) == 2


# ---- Ansible itself

PACKAGE = """\
print("noise on standard output")

class Client:
    _engines = {0: "node1__default__0__4711__0a1b", 1: "node2__default__0__4711__0a1b"}

    def __init__(self, connector, timeout):
        pass

    def queue_status(self):
        return {"unassigned": 0}

    def close(self):
        pass
"""
STATIC = {
    "ipyparallel": {
        "children": {
            "ipyparallel_controller": {"hosts": {"node1": None}},
            "ipyparallel_engines": {"hosts": {"node1": {"ansible_host": "10.0.0.1"}, "node3": None}},
        }
    }
}


def test_ansible_inventory_merges_it_with_another(tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/ipyparallel.py").write_text(PACKAGE)
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "static.yml").write_text(yaml.safe_dump(STATIC))
    (tmp_path / "hub.yml").write_text(yaml.safe_dump({"plugin": NAME}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "static.yml", "-i", "hub.yml", "--list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages"), "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["ipyparallel_engines"]["hosts"] == ["node1", "node3", "node2"]
    assert found["ipyparallel_controller"]["hosts"] == ["node1"]
    assert found["ipyparallel_pool_default"]["hosts"] == ["node1", "node2"]
    variables = found["_meta"]["hostvars"]
    assert (variables["node1"]["ansible_host"], variables["node1"]["ipyparallel_engine_ids"]) == ("10.0.0.1", [0])
    assert "ipyparallel_engine_ids" not in variables["node3"]
