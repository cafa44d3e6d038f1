# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab writes: inventory, ssh_config, containers.conf. Podman itself runs in the scenarios only."""

from __future__ import annotations

import importlib.util
import io
import ipaddress
import os
import re
import shlex
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomllib
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

PROJECT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab", PROJECT / "molecule/shared/lab.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


lab = load()
NODES = [lab.Node("node1", "10.93.0.11"), lab.Node("node2", "10.93.0.12", "trixie")]
CLUSTER = lab.Cluster("alpha", ("node1",), ("node1", "node2"), ())


def inventory(directory: str = "/srv/lab", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(lab.inventory_text(Path(directory), NODES, CLUSTER, **options))
    return found["all"]["children"]


# ---- containers.conf


def test_a_host_that_can_do_all_needs_nothing() -> None:
    assert lab.containers_conf(may_raise=True, unified=True, limits={"nofile": 1024, "nproc": 100}) == ""


def test_where_limits_cannot_be_raised_the_nodes_get_those_of_the_host() -> None:
    found = tomllib.loads(lab.containers_conf(may_raise=False, unified=True, limits={"nofile": 20000, "nproc": 32768}))
    assert found == {"containers": {"pids_limit": 0, "default_ulimits": ["nofile=20000:20000", "nproc=32768:32768"]}}


@pytest.mark.parametrize("limit", [-1, 1048576, 2**31])
def test_limits_that_podman_keeps_to_are_not_named(limit: int) -> None:
    found = tomllib.loads(lab.containers_conf(may_raise=False, unified=True, limits={"nofile": limit, "nproc": 7}))
    assert found["containers"]["default_ulimits"] == ["nproc=7:7"]


def test_cgroup_v1_needs_runc() -> None:
    assert tomllib.loads(lab.containers_conf(may_raise=True, unified=False, limits={})) == {
        "engine": {"runtime": "runc"}
    }


def test_an_operator_s_containers_conf_goes_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", "/etc/mine.conf")
    monkeypatch.setattr(lab, "host_containers_conf", lambda: "[engine]\n")
    lab.Lab("one", tmp_path).use_limits()
    assert os.environ["CONTAINERS_CONF"] == "/etc/mine.conf"


# ---- inventory and ssh_config


def test_nodes_are_reached_by_their_addresses() -> None:
    hosts = inventory()["lab_nodes"]["hosts"]
    assert hosts == {"node1": {"ansible_host": "10.93.0.11"}, "node2": {"ansible_host": "10.93.0.12"}}


def test_the_cluster_has_its_groups_and_no_others() -> None:
    assert inventory()["alpha"]["children"] == {
        "alpha_controller": {"hosts": {"node1": None}},
        "alpha_engines": {"hosts": {"node1": None, "node2": None}},
        "alpha_notebook": {"hosts": {}},
    }


@pytest.mark.parametrize("directory", ["/srv/lab", "/srv/my lab", "/srv/100%"])
def test_host_keys_are_checked_against_the_lab_s_own(directory: str) -> None:
    options = shlex.split(inventory(directory)["lab_nodes"]["vars"]["ansible_ssh_common_args"])[1::2]
    assert "StrictHostKeyChecking=yes" in options
    (known,) = [option.partition("=")[2] for option in options if option.startswith("UserKnownHostsFile=")]
    assert shlex.split(known) == [f"{directory}/known_hosts".replace("%", "%%")]


def test_labs_share_no_open_connections() -> None:
    nodes = [inventory(directory)["lab_nodes"]["vars"] for directory in ("/srv/a", "/srv/b")]
    assert nodes[0]["ansible_control_path_dir"] != nodes[1]["ansible_control_path_dir"]


@pytest.mark.parametrize(("account", "scope"), [("ansible", None), ("plain", "user")])
def test_an_account_without_sudo_is_of_scope_user(account: str, scope: str | None) -> None:
    values = inventory(account=account)["lab_nodes"]["vars"]
    assert (values["ansible_user"], values.get("ipyparallel_scope")) == (account, scope)


def test_the_operator_s_settings_are_read_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in lab.PASSED_ON:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org/simple")
    text = lab.inventory_text(Path("/srv/lab"), NODES, CLUSTER)
    assert "mirror.example.org" not in text
    values = inventory()["lab_nodes"]["vars"]
    init_plugin_loader([])
    template = trust_as_template(values["ipyparallel_install_environment"])
    templar = Templar(DataLoader(), variables={"lab_passed_on": values["lab_passed_on"]})
    assert templar.template(template) == {
        "PIP_INDEX_URL": "https://mirror.example.org/simple",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
    }


def test_ssh_config_names_every_node() -> None:
    text = lab.ssh_config_text(Path("/srv/lab"), NODES)
    assert re.findall(r"Host (\S+)\n    HostName (\S+)", text) == [("node1", "10.93.0.11"), ("node2", "10.93.0.12")]
    assert "StrictHostKeyChecking yes" in text


# ---- the rest


def test_addresses_go_on_where_others_are_taken() -> None:
    subnet = ipaddress.IPv4Network("10.93.7.0/24")
    assert lab.free_addresses(subnet, ["10.93.7.11", "10.93.7.13"], 2) == ["10.93.7.12", "10.93.7.14"]


def test_a_full_subnet_says_so() -> None:
    with pytest.raises(lab.LabError, match="no room for 5 more"):
        lab.free_addresses(ipaddress.IPv4Network("10.93.7.0/28"), [], 5)


@pytest.mark.parametrize("text", ["a,a", "Node1", "node_1", "-node", "a b"])
def test_names_that_no_host_can_have(text: str) -> None:
    with pytest.raises(lab.LabError, match=re.escape(text.split(",", maxsplit=1)[0])):
        lab.names(text)


def test_images_differ_by_what_they_are_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {lab.image_key("bookworm"), lab.image_key("trixie"), lab.image_key("bookworm", "http://mirror.example.org")}
    monkeypatch.setattr(lab, "NODE_PACKAGES", ("systemd",))
    assert len(keys | {lab.image_key("bookworm")}) == 4


def test_two_trees_may_have_labs_of_one_name() -> None:
    assert lab.Lab("one", tree=Path("/a")).network != lab.Lab("one", tree=Path("/b")).network


def test_secrets_arrive_with_their_owners_and_modes(tmp_path: Path) -> None:
    made = lab.Lab("one", tmp_path)
    made.keys([NODES[0]])
    assert (tmp_path / "id_ed25519").stat().st_mode & 0o777 == 0o600
    with tarfile.open(fileobj=io.BytesIO(made.first_files(NODES[0]))) as tar:
        found = {entry.name: (entry.uid, entry.mode) for entry in tar}
    assert found["etc/ssh/ssh_host_ed25519_key"] == (0, 0o600)
    assert found["home/ansible/.ssh/authorized_keys"] == (1000, 0o600)
    assert found["home/plain/.ssh"] == (1001, 0o700)


def test_keys_are_made_once(tmp_path: Path) -> None:
    made = lab.Lab("one", tmp_path)
    assert made.keys(NODES[:1]) == {"node1"}
    assert made.keys(NODES) == {"node2"}
    assert made.keys(NODES) == set()
    assert [line.split()[0] for line in (tmp_path / "known_hosts").read_text().splitlines()] == [
        "10.93.0.11,node1",
        "10.93.0.12,node2",
    ]


@pytest.mark.parametrize(("nodes", "fits"), [(21, True), (22, False)])
def test_more_nodes_than_inotify_has_room_for_name_the_remedy(nodes: int, fits: bool) -> None:
    if fits:
        lab.check_inotify(nodes, 128)
    else:
        with pytest.raises(lab.LabError, match=r"sysctl fs\.inotify\.max_user_instances=512"):
            lab.check_inotify(nodes, 128)


def test_what_is_missing_is_named_as_debian_s_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.shutil, "which", lambda name, path=None: None)
    with pytest.raises(lab.LabError, match=r"install --no-install-recommends mmdebstrap openssh-client podman$"):
        lab.check_prerequisites(["podman", "ssh-keygen", "mmdebstrap"])


# ---- the inventory of SSH hosts


def test_variables_of_the_static_inventory_are_inputs() -> None:
    specs = (PROJECT / "roles/common/meta/argument_specs.yml").read_text(encoding="utf-8")
    text = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "inventory/static").rglob("*.yml"))
    found = set(re.findall(r"\b(ipyparallel_\w+):(?! *\n +hosts:)", text))
    groups = {"ipyparallel_controller", "ipyparallel_engines", "ipyparallel_notebook"}
    assert found - groups
    assert [name for name in sorted(found - groups) if f"      {name}:" not in specs] == []
