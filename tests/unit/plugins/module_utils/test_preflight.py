# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import types
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import machine, preflight
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, identity_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.preflight import Account, PreflightError

PROJECT = Path(__file__).parents[4]
CONTROLLER = "ipyparallel_controller_port_base"
NOTEBOOK = "ipyparallel_notebook_port"
LISTEN = "import socket\nlistening = socket.create_server(('127.0.0.1', {port}))"


def remember(state, port_base=None, notebook_port=None):
    """Lay down what a cluster remembers of its ports."""
    state.mkdir(parents=True, exist_ok=True)
    if port_base:
        identity = Identity(
            state.name, "127.0.0.1", port_base, "json", "curve", "leastload", "0" * 64, "p" * 40, "s" * 40
        )
        (state / "identity.json").write_text(identity_text(identity))
    if notebook_port:
        (state / "notebook").mkdir()
        (state / "notebook" / "settings.json").write_text(json.dumps({"port": notebook_port}))
    return str(state)


# ---- directories


def test_the_nearest_directory_that_exists(tmp_path):
    assert preflight.existing_parent(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert preflight.existing_parent("/nowhere/at/all") == "/"
    assert preflight.existing_parent("nowhere") == "/"


def test_directories_that_are_there_or_can_be_made(tmp_path):
    preflight.check_directory(str(tmp_path), "x")
    preflight.check_directory(str(tmp_path / "a" / "b"), "x")


@pytest.mark.parametrize("place", ["file", "file/below", "dangling", "dangling/below"])
def test_a_directory_that_cannot_be_made_names_what_is_in_the_way(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(PreflightError) as caught:
        preflight.check_directory(str(tmp_path / place), "ipyparallel_path_state")
    top = place.partition("/")[0]
    for part in (f"{tmp_path}/{place} (ipyparallel_path_state)", f"{tmp_path}/{top} is not", "move it away"):
        assert part in str(caught.value)


def test_a_directory_that_cannot_be_written_names_who_may(tmp_path, monkeypatch):
    # root may always: so the answer is given here
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (str(tmp_path), os.W_OK | os.X_OK))
    tmp_path.chmod(0o755)
    with pytest.raises(PreflightError) as caught:
        preflight.check_directory(str(tmp_path / "a"), "ipyparallel_path_prefix")
    for part in (
        f"{tmp_path}/a (ipyparallel_path_prefix)",
        f"{tmp_path} belongs to uid {os.geteuid()} (mode 0755)",
        f"this account is uid {os.geteuid()}",
        "let it write there",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(("free", "fits"), [(699_999_999, False), (700_000_000, True)])
def test_the_disk_has_room_for_an_environment(tmp_path, monkeypatch, free, fits):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or types.SimpleNamespace(free=free))
    if fits:
        preflight.check_space(str(tmp_path / "a"))
    else:
        with pytest.raises(PreflightError) as caught:
            preflight.check_space(str(tmp_path / "a"))
        for part in (f"{tmp_path}/a has 699 MB free", "700 MB", "make room"):
            assert part in str(caught.value)
    assert asked == [str(tmp_path)]


@pytest.mark.parametrize("directory", ["/" + "x" * 100, "/" + "\u00e4" * 50])
def test_the_path_of_a_socket_has_a_limit(directory):
    room = preflight.SOCKET_PATH_LIMIT - len(os.fsencode(directory))
    preflight.check_socket(directory + "s" * room)
    with pytest.raises(PreflightError) as caught:
        preflight.check_socket(directory + "s" * (room + 1))
    for part in (directory, "has 108 characters", "107 is the limit", "shorter name", "XDG_STATE_HOME"):
        assert part in str(caught.value)


def test_the_limit_is_the_systems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind("s" * preflight.SOCKET_PATH_LIMIT)
        with pytest.raises(OSError, match="too long"):
            other.bind("s" * (preflight.SOCKET_PATH_LIMIT + 2))


@pytest.mark.parametrize("directory", ["prefix", "prefix/env", "link/notebooks", "prefix/../prefix/a"])
def test_notebooks_are_not_where_a_removal_would_take_them(tmp_path, directory):
    (tmp_path / "prefix").mkdir()
    (tmp_path / "link").symlink_to("prefix")
    with pytest.raises(PreflightError) as caught:
        preflight.check_outside(str(tmp_path / directory), ["/nowhere", str(tmp_path / "prefix")])
    for part in (f"{tmp_path}/{directory}", f"{tmp_path}/prefix", "ipyparallel_notebook_directory"):
        assert part in str(caught.value)


@pytest.mark.parametrize("directory", ["prefix2", "notebooks", "."])
def test_notebooks_beside_are_fine(tmp_path, directory):
    preflight.check_outside(str(tmp_path / directory), [str(tmp_path / "prefix")])


def test_a_notebook_never_runs_as_root():
    preflight.check_notebook_account(Account("ada", 1000, "/home/ada"))
    preflight.check_notebook_account(Account("to-be-made", None, "/home/to-be-made"))
    with pytest.raises(PreflightError, match="not run as root: deploy as another account"):
        preflight.check_notebook_account(Account("root", 0, "/root"))


# ---- the account, its service manager, and the host's address


def test_without_a_name_the_account_is_this_one(monkeypatch):
    monkeypatch.setenv("HOME", "/elsewhere")
    found = pwd.getpwuid(os.geteuid())
    assert preflight.read_account(None) == Account(found.pw_name, found.pw_uid, "/elsewhere")
    monkeypatch.delenv("HOME")
    assert preflight.read_account(None).home == found.pw_dir


def test_an_account_that_only_has_a_number(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    monkeypatch.setenv("HOME", "/elsewhere")
    assert preflight.read_account(None) == Account(str(2**31 - 7), 2**31 - 7, "/elsewhere")
    monkeypatch.delenv("HOME")
    assert preflight.read_account(None).home == "/"


def test_another_account_needs_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PreflightError) as caught:
        preflight.read_account("ipyparallel")
    for part in ("needs root", "uid 1000", os.uname().nodename, "sudo", "ipyparallel_scope=user"):
        assert part in str(caught.value)


def test_an_account_that_is_there_and_one_that_is_to_be_made(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = pwd.getpwnam("nobody")
    assert preflight.read_account("nobody") == Account("nobody", found.pw_uid, found.pw_dir)
    name = "nobody-of-this-name"
    assert preflight.read_account(name) == Account(name, None, f"/home/{name}")


@pytest.mark.parametrize("name", ["", "Ada", "1ada", "-ada", "ada lovelace", "ada\n", "../ada", "a" * 33])
def test_what_is_no_name_for_an_account(monkeypatch, name):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PreflightError) as caught:
        preflight.read_account(name)
    for part in (repr(name), "ipyparallel_user", "lower-case letters"):
        assert part in str(caught.value)


ADA = Account("ada", 1000, "/home/ada")
BOOTED, LINGERS = "/run/systemd/system", "/var/lib/systemd/linger/ada"


@pytest.mark.parametrize(
    ("manager", "there", "names"),
    [
        ("supervisor", [], None),
        ("systemd", [BOOTED], None),
        ("systemd_user", [BOOTED, LINGERS], None),
        ("systemd", [LINGERS], ["not started by systemd", "ipyparallel_service_manager=supervisor"]),
        ("systemd_user", [LINGERS], ["not started by systemd", "ipyparallel_scope=user"]),
        ("systemd_user", [BOOTED], ["account ada", "loginctl enable-linger ada", "=supervisor"]),
    ],
)
def test_the_service_manager_is_there_and_lasts(monkeypatch, manager, there, names):
    monkeypatch.setattr(os.path, "isdir", lambda path: path in there)
    monkeypatch.setattr(os.path, "exists", lambda path: path in there)
    if names is None:
        preflight.check_manager(manager, ADA)
        return
    with pytest.raises(PreflightError) as caught:
        preflight.check_manager(manager, ADA)
    for part in (*names, os.uname().nodename):
        assert part in str(caught.value)


class Probe:
    """A socket on a host whose default route is by 192.0.2.7, or that has none."""

    routed = True

    def __init__(self, *kind):
        assert kind == (socket.AF_INET, socket.SOCK_DGRAM), "something would be sent"

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def connect(self, _address):
        if not self.routed:
            raise OSError(101, "Network is unreachable")

    def getsockname(self):
        return ("192.0.2.7", 40000)


def test_the_address_of_a_host(monkeypatch):
    monkeypatch.setattr(socket, "socket", Probe)
    assert preflight.default_address() == "192.0.2.7"
    monkeypatch.setattr(Probe, "routed", False)
    with pytest.raises(PreflightError, match=rf"{os.uname().nodename} has no default route.*set ipyparallel_address"):
        preflight.default_address()


def test_the_address_is_one_of_this_host():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        has_route = probe.connect_ex(("198.51.100.1", 9)) == 0
    if has_route:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind((preflight.default_address(), 0))
    else:
        with pytest.raises(PreflightError, match="no default route"):
            preflight.default_address()


def test_the_controller_listens_at_an_address_of_its_host():
    preflight.check_address("127.0.0.1")
    with pytest.raises(PreflightError) as caught:
        preflight.check_address("198.51.100.1")
    for part in ("198.51.100.1 is not an address of", os.uname().nodename, "set ipyparallel_address"):
        assert part in str(caught.value)


# ---- ports that are in use


def test_a_port_in_use_names_port_process_and_variable(python, free_port):
    preflight.check_ports("alpha", "127.0.0.1", [free_port], NOTEBOOK)
    child = python(LISTEN.format(port=free_port))
    with pytest.raises(PreflightError) as caught:
        preflight.check_ports("alpha", "127.0.0.1", [free_port], NOTEBOOK)
    for part in (f"port {free_port} on {os.uname().nodename}", f"pid {child.pid} (python", f"set {NOTEBOOK}"):
        assert part in str(caught.value)


def test_the_clusters_own_processes_may_hold_its_ports(python, free_port):
    child = python(LISTEN.format(port=free_port), environment={"IPYPARALLEL_CLUSTER": "alpha"})
    preflight.check_ports("alpha", "127.0.0.1", [free_port], CONTROLLER)
    with pytest.raises(PreflightError, match=rf"in use by cluster alpha, pid {child.pid} \(python.*set {CONTROLLER}"):
        preflight.check_ports("beta", "127.0.0.1", [free_port], CONTROLLER)


# ---- ports of other clusters, whether they run or not


def test_the_ports_that_a_cluster_remembers(tmp_path):
    assert preflight.remembered_ports(str(tmp_path / "none")) == {}
    state = remember(tmp_path / "alpha", 10200, 8890)
    assert preflight.remembered_ports(state) == {CONTROLLER: set(range(10200, 10220)), NOTEBOOK: {8890}}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"port": null}', '{"port": "x"}'])
def test_settings_of_a_notebook_that_are_broken_are_none(tmp_path, content):
    remember(tmp_path, None, 8890)
    (tmp_path / "notebook" / "settings.json").write_text(content)
    (tmp_path / "identity.json").write_text("{")
    assert preflight.remembered_notebook_port(str(tmp_path)) is None
    assert preflight.remembered_ports(str(tmp_path)) == {}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({CONTROLLER: set(range(10190, 10210))}, ["port 10200 to 10209", f"set {CONTROLLER}"]),
        ({CONTROLLER: set(range(10219, 10239))}, ["port 10219 of", f"set {CONTROLLER}"]),
        ({CONTROLLER: set(range(8880, 8900))}, ["port 8890 of", f"set {CONTROLLER}"]),
        ({NOTEBOOK: {8890}}, ["port 8890 of", f"set {NOTEBOOK}"]),
        ({NOTEBOOK: {10205}}, ["port 10205 of", f"set {NOTEBOOK}"]),
    ],
)
def test_a_port_of_two_clusters_names_both_and_the_variable(tmp_path, wanted, names):
    remember(tmp_path / "other", 10200, 8890)
    with pytest.raises(PreflightError) as caught:
        preflight.check_overlap("alpha", str(tmp_path / "alpha"), wanted)
    for part in (*names, "of cluster alpha", "belongs to cluster other", os.uname().nodename):
        assert part in str(caught.value)


def test_a_cluster_does_not_overlap_with_itself_nor_with_strangers(tmp_path):
    state = remember(tmp_path / "alpha", 10200, 8890)
    remember(tmp_path / "other", 10220, 8891)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "identity.json").write_text("{")
    preflight.check_overlap("alpha", state, {CONTROLLER: set(range(10200, 10220)), NOTEBOOK: {8890}})


def test_a_cluster_with_a_notebook_only_counts_too(tmp_path):
    remember(tmp_path / "other", None, 8890)
    with pytest.raises(PreflightError, match="belongs to cluster other"):
        preflight.check_overlap("alpha", str(tmp_path / "alpha"), {NOTEBOOK: {8890}})


def test_a_place_with_a_pattern_in_its_name(tmp_path):
    remember(tmp_path / "[a]*" / "other", 10200)
    with pytest.raises(PreflightError, match="belongs to cluster other"):
        preflight.check_overlap("alpha", str(tmp_path / "[a]*" / "alpha"), {CONTROLLER: {10200}})


# ---- the ports of this host's part


@pytest.mark.parametrize(
    ("roles", "given", "remembered", "wanted"),
    [
        ({"engines"}, None, None, {}),
        ({"controller", "engines"}, None, None, {CONTROLLER: set(range(10100, 10120))}),
        ({"notebook"}, None, None, {NOTEBOOK: {8888}}),
        ({"notebook"}, None, 8890, {NOTEBOOK: {8890}}),
        ({"notebook"}, 8891, 8890, {NOTEBOOK: {8891}}),
        ({"notebook"}, 10100, None, {NOTEBOOK: {10100}}),
        ({"controller", "notebook"}, 1024, None, {CONTROLLER: set(range(10100, 10120)), NOTEBOOK: {1024}}),
    ],
)
def test_the_ports_of_a_host(tmp_path, roles, given, remembered, wanted):
    remember(tmp_path, None, remembered)
    assert preflight.wanted_ports(str(tmp_path), 10100, given, roles) == wanted


@pytest.mark.parametrize("port", [-1, 0, 80, 1023, 65536])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(PreflightError, match=f"^{port} is not a port.*{NOTEBOOK} to a number from 1024 to 65535"):
        preflight.wanted_ports(str(tmp_path), 10100, port, {"notebook"})


@pytest.mark.parametrize("port", [10100, 10119])
def test_a_notebook_on_a_port_of_its_own_controller_is_refused(tmp_path, port):
    with pytest.raises(PreflightError) as caught:
        preflight.wanted_ports(str(tmp_path), 10100, port, {"controller", "notebook"})
    for part in (f"port {port} of the notebook", "10100 to 10119", NOTEBOOK, CONTROLLER):
        assert part in str(caught.value)


# ---- whether the controller is reached where the last run said that it is


def lay_down(state, role, address="198.51.100.7", port_base=10100):
    """Write a host's half of the connector as a deploy does."""
    which, path = preflight.HALVES[role]
    file = Path(state) / path
    file.parent.mkdir(parents=True)
    identity = Identity("alpha", address, port_base, "json", "curve", "lru", "0" * 64, "p" * 40, "s" * 40)
    file.write_text(identity.text(which))
    return file


@pytest.fixture
def network(monkeypatch):
    """What is asked for, and what cannot be reached."""
    asked: list[int] = []
    failed: dict[int, str] = {}

    def unreachable_ports(address, ports, seconds):
        asked.extend(ports)
        return {port: why for port, why in failed.items() if port in ports}

    monkeypatch.setattr(preflight, "unreachable_ports", unreachable_ports)
    monkeypatch.setattr(preflight, "is_own_address", lambda address: address == "198.51.100.8")
    return asked, failed


ENGINE, CLIENT = list(range(10100, 10109)), [10100, *range(10109, 10115)]


@pytest.mark.parametrize(
    ("roles", "ports"), [(["engines"], ENGINE), (["notebook"], CLIENT), (["notebook", "engines"], ENGINE + CLIENT)]
)
def test_a_controller_is_reached_by_all_ports_that_the_host_needs(tmp_path, network, roles, ports):
    asked, failed = network
    for role in roles:
        lay_down(tmp_path, role)
    assert preflight.reached_controller(str(tmp_path), roles) == {"address": "198.51.100.7", "port_base": 10100}
    assert asked == ports
    failed[ports[-1]] = "no route"
    assert preflight.reached_controller(str(tmp_path), roles) == {}


def test_where_a_controller_is_not_known_it_is_not_reached(tmp_path, network):
    assert preflight.reached_controller(str(tmp_path), ["engines"]) == {}
    file = lay_down(tmp_path, "engines")
    assert preflight.reached_controller(str(tmp_path), ["engines", "notebook"]) == {}
    assert preflight.reached_controller(str(tmp_path), []) == {}
    file.write_text("nonsense")
    assert preflight.reached_controller(str(tmp_path), ["engines"]) == {}


def test_a_controller_at_an_address_of_this_host_is_another_host(tmp_path, network):
    lay_down(tmp_path, "engines", address="198.51.100.8")
    assert preflight.reached_controller(str(tmp_path), ["engines"]) == {}
    assert network[0] == []


def test_an_address_that_is_none(tmp_path, network, monkeypatch):
    lay_down(tmp_path, "engines", address="node1")
    monkeypatch.setattr(preflight, "is_own_address", machine.is_own_address)
    assert preflight.reached_controller(str(tmp_path), ["engines"]) == {}


@pytest.mark.parametrize("port_base", [0, 1023, 65517, 70000])
def test_ports_that_are_none(tmp_path, network, port_base):
    lay_down(tmp_path, "engines", port_base=port_base)
    assert preflight.reached_controller(str(tmp_path), ["engines"]) == {}
    assert network[0] == []


def test_the_last_range_of_ports(tmp_path, network):
    lay_down(tmp_path, "engines", port_base=65516)
    assert preflight.reached_controller(str(tmp_path), ["engines"])["port_base"] == 65516


def test_halves_are_where_the_roles_lay_them_down():
    engines = (PROJECT / "roles/engines/tasks/service.yml").read_text()
    notebook = (PROJECT / "roles/notebook/vars/main.yml").read_text()
    assert f'"{{{{ ipyparallel_path_state }}}}/{preflight.HALVES["engines"][1]}"' in engines
    profile, _slash, path = preflight.HALVES["notebook"][1].removeprefix("notebook/").partition("/security/")
    assert f'__ipyparallel_notebook_default_profile: "{{{{ __ipyparallel_notebook_home }}}}/{profile}"' in notebook
    assert f'"{{{{ __ipyparallel_notebook_default_profile }}}}/security/{path}"' in notebook


def test_halves_that_do_not_agree(tmp_path, network):
    lay_down(tmp_path, "engines")
    lay_down(tmp_path, "notebook", port_base=10200)
    assert preflight.reached_controller(str(tmp_path), ["engines", "notebook"]) == {}
