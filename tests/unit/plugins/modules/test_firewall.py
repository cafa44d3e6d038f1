# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module with the system's nft, in network namespaces that need no root and end with their test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils import basic
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Identity, identity_text
from ansible_collections.ipyparallel.cluster.plugins.modules import firewall

os.environ["PATH"] += ":/usr/sbin:/sbin"
HOSTS = {
    "node1": {"address": "10.9.0.1", "roles": ["controller", "engines", "notebook"], "notebook_port": 8888},
    "node2": {"address": "10.9.0.2", "roles": ["engines"]},
}
MEMBERS = ["node1", "node2"]
TABLE = ["list", "table", "inet", "ipyparallel_alpha"]
SYSTEMCTL = """#!/bin/sh
# what systemd knows of a unit is in files here
for unit; do case "$unit" in *.service) break ;; esac; done
cd "$(dirname "$0")" || exit
test "$1" = show || echo "$*" >>calls
case "$1" in
show) echo "ActiveState=$(cat "$unit.active" 2>/dev/null || echo inactive)"
      echo "UnitFileState=$(cat "$unit.enabled" 2>/dev/null)"
      echo "NeedDaemonReload=$(cat reload 2>/dev/null || echo no)" ;;
start) echo active >"$unit.active" ;;
enable) echo enabled >"$unit.enabled" ;;
disable) rm -f "$unit.active" "$unit.enabled" ;;
daemon-reload) rm -f reload ;;
esac
"""


class Namespace:
    """A network namespace, held by a process; commands run in it as its root."""

    def __init__(self, inside=None):
        unshare = ["unshare", "--net"] if inside else ["unshare", "--user", "--map-root-user", "--net"]
        hold = [sys.executable, "-ISc", "import signal; print('ready', flush=True); signal.pause()"]
        self.process = subprocess.Popen(
            [*(inside.enter if inside else ()), *unshare, *hold],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout
        self.ready = self.process.stdout.readline() == "ready\n"
        pid = str(self.process.pid)
        self.enter = ["nsenter", "--target", pid, "--user", "--preserve-credentials", "--net"]

    def run(self, *command, check=True, data=None):
        done = subprocess.run([*self.enter, *command], input=data, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def make_namespace():
    if missing := [name for name in ("nft", "nsenter", "unshare", "ip") if not shutil.which(name)]:
        pytest.skip(
            f"the firewall is not tried: there is no {', '.join(missing)} (Debian: nftables util-linux iproute2)"
        )
    made = []

    def make(inside=None):
        made.append(Namespace(inside))
        if not made[-1].ready:
            pytest.skip("the firewall is not tried: this system gives no user namespaces")
        return made[-1]

    yield make
    for namespace in made:
        namespace.end()


@pytest.fixture
def namespace(make_namespace):
    """Where the module's nft works."""
    return make_namespace()


@pytest.fixture
def bin_path(monkeypatch, tmp_path, namespace):
    """The programs that the module finds: nft enters the namespace, systemctl is a stand-in."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "nft").write_text(f'#!/bin/sh\nexec {" ".join(namespace.enter)} nft "$@"\n')
    (directory / "systemctl").write_text(SYSTEMCTL)
    found = {}
    for name in ("nft", "systemctl"):
        (directory / name).chmod(0o755)
        found[name] = str(directory / name)

    def get_bin_path(self, name, required=False, opt_dirs=None):
        return found.get(name)

    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", get_bin_path)
    monkeypatch.setattr(firewall, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(firewall, "SYSTEMD_RUNS", str(tmp_path))
    monkeypatch.setattr(firewall, "EPHEMERAL_PORTS", str(tmp_path / "range"))
    (tmp_path / "range").write_text("32768\t60999\n")
    return found


@pytest.fixture
def state(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir()
    identity = Identity("alpha", "10.9.0.1", 10100, "json", "curve", "leastload", "k" * 64, "p" * 40, "s" * 40)
    (directory / "identity.json").write_text(identity_text(identity))
    return directory


@pytest.fixture
def run(run_module, tmp_path, bin_path, state):
    def _run(check=False, diff=False, **arguments):
        defaults = {
            "cluster": "alpha",
            "config": str(tmp_path / "config"),
            "state_directory": str(state),
            "host": "node1",
            "hosts": HOSTS,
            "members": MEMBERS,
        }
        return run_module(firewall, check=check, diff=diff, **{**defaults, **arguments})

    return _run


def files(tmp_path):
    return {
        str(path.relative_to(tmp_path)): (path.read_text(), oct(path.stat().st_mode & 0o777))
        for name in ("config", "units")
        for path in sorted((tmp_path / name).rglob("*"))
        if path.is_file()
    }


def calls(tmp_path):
    path = tmp_path / "bin" / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def elements(namespace, name):
    listing = json.loads(namespace.run("nft", "-j", *TABLE).stdout)
    part = next(entry["set"] for entry in listing["nftables"] if entry.get("set", {}).get("name") == name)
    return sorted(entry["elem"]["val"] if "elem" in entry else entry for entry in part["elem"])


# ---- check, do, check again, do again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{}, {"allowed_cidrs": ["10.9.8.0/24", "10.9.9.0/24", "192.0.2.7", "2001:db8::/32", "fd00::1"]}]
)
def test_fours(run, namespace, tmp_path, arguments):
    assert run(check=True, **arguments)["changed"]
    assert files(tmp_path) == {}
    assert namespace.run("nft", "list", "ruleset").stdout == ""
    assert calls(tmp_path) == []

    assert run(**arguments)["changed"]
    unit = "ipyparallel-alpha-firewall.service"
    assert calls(tmp_path) == ["daemon-reload", f"enable --quiet {unit}", f"start {unit}"]
    written = files(tmp_path)
    assert set(written) == {
        "config/firewall.json",
        "config/firewall.nft",
        f"units/{unit}",
        "units/nftables.service.d/ipyparallel-alpha.conf",
    }
    assert {mode for _text, mode in written.values()} == {"0o644"}

    for check in (True, False):
        again = run(check=check, diff=True, **arguments)
        assert not again["changed"]
        assert again["diff"] == []
    assert files(tmp_path) == written
    assert calls(tmp_path) == []


def test_absent_fours(run, namespace, tmp_path):
    run()
    namespace.run("nft", "add table inet other")
    before = files(tmp_path)
    calls(tmp_path)
    assert run(check=True, state="absent")["changed"]
    assert files(tmp_path) == before

    result = run(state="absent", diff=True)
    assert result["changed"]
    assert result["diff"][0]["after"] == ""
    assert files(tmp_path) == {}
    assert not (tmp_path / "units" / "nftables.service.d").exists()
    assert calls(tmp_path) == ["disable --quiet --now ipyparallel-alpha-firewall.service", "daemon-reload"]
    assert namespace.run("nft", "list", "tables").stdout == "table inet other\n"

    assert not run(check=True, state="absent")["changed"]
    assert not run(state="absent")["changed"]


def test_no_secret_is_returned_or_written(run, tmp_path):
    result = run(diff=True)
    written = "".join(text for text, _mode in files(tmp_path).values())
    for secret in ("k" * 64, "s" * 40):
        assert secret not in result.text + written


# ---- hosts come and go ----------------------------------------------------------------------------------------------


def test_a_run_over_a_new_host_lets_it_in_and_keeps_the_others(run, namespace):
    run()
    new = {"node3": {"address": "10.9.0.3", "roles": ["engines"]}}
    result = run(hosts=new, members=[*MEMBERS, "node3"], partial=True, diff=True)
    table = result["diff"][0]
    added = [line.strip() for line in table["after"].splitlines() if line not in table["before"].splitlines()]
    assert added == ['10.9.0.3 comment "node3",']
    assert elements(namespace, "engines4") == ["10.9.0.1", "10.9.0.2", "10.9.0.3"]
    # the notebook of the controller host, which this run left out
    assert "8888" in result["ports"]
    assert not run(hosts={}, members=[*MEMBERS, "node3"])["changed"]


def test_a_host_that_left_is_dropped(run, namespace):
    run()
    assert run(hosts={}, members=["node1"])["changed"]
    assert elements(namespace, "engines4") == ["10.9.0.1"]


def test_a_host_that_no_run_has_reached_is_named(run):
    result = run(members=[*MEMBERS, "node3"])
    assert result["unknown"] == ["node3"]
    assert "no address is known yet of node3" in str(result["warnings"])


def test_a_first_run_over_one_host_cuts_nobody_off(run, namespace):
    result = run(hosts={"node1": HOSTS["node1"]}, partial=True)
    assert result["failed"]
    assert "node2 are not known yet" in result["msg"]
    assert namespace.run("nft", "list", "tables").stdout == ""


# ---- others change things -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "flush ruleset",
        "flush chain inet ipyparallel_alpha guard",
        "insert rule inet ipyparallel_alpha guard accept",
        "add element inet ipyparallel_alpha engines4 { 203.0.113.5 }",
        "delete element inet ipyparallel_alpha engines4 { 10.9.0.2 }",
        "add chain inet ipyparallel_alpha more",
        "add set inet ipyparallel_alpha more { type ipv4_addr; }",
        "add chain inet ipyparallel_alpha input { policy drop; }",
    ],
)
def test_drift_is_found_and_repaired(run, namespace, command):
    run()
    before = namespace.run("nft", *TABLE).stdout
    namespace.run("nft", command)
    result = run(check=True, diff=True)
    assert result["changed"]
    assert result["diff"][0]["before"] != result["diff"][0]["after"]
    assert run()["changed"]
    assert namespace.run("nft", *TABLE).stdout == before
    assert not run()["changed"]


def test_counted_packets_are_no_drift(make_network, run):
    _hosts, connect = make_network()
    run()
    assert connect("node4", 10100) == "refused"
    assert not run()["changed"]


@pytest.mark.parametrize("file", ["active", "enabled"])
def test_a_unit_that_was_stopped_or_disabled_is_back(run, tmp_path, file):
    run()
    (tmp_path / "bin" / f"ipyparallel-alpha-firewall.service.{file}").unlink()
    assert run()["changed"]
    assert not run()["changed"]


def test_an_interrupted_run_is_finished_by_the_next(run, tmp_path):
    run()
    (tmp_path / "bin" / "reload").write_text("yes")
    calls(tmp_path)
    assert run()["changed"]
    assert calls(tmp_path) == ["daemon-reload"]


def test_other_tables_stay(run, namespace):
    namespace.run("nft", "-f", "-", data="table inet filter { chain input { type filter hook input priority 0; }; }")
    before = namespace.run("nft", "list", "table", "inet", "filter").stdout
    run()
    assert namespace.run("nft", "list", "table", "inet", "filter").stdout == before


def test_two_clusters_side_by_side(run, namespace, tmp_path):
    run()
    run(cluster="beta", config=str(tmp_path / "beta"))
    assert run(cluster="beta", config=str(tmp_path / "beta"), state="absent")["changed"]
    assert namespace.run("nft", "list", "tables").stdout == "table inet ipyparallel_alpha\n"
    assert not run()["changed"]


# ---- where it does not work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"allowed_cidrs": ["10.0.0.0/8", "office"]}, "'office' in ipyparallel_allowed_cidrs is neither"),
        ({"hosts": {**HOSTS, "node2": {"address": "node2.local"}}}, "'node2.local', the address of host node2"),
        ({"hosts": {"stranger": {"address": "10.9.0.9"}}}, "host stranger is not one of the cluster's: node1, node2"),
        ({"cluster": "No"}, "is not a name for a cluster"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_bad_input_changes_nothing(run, namespace, tmp_path, arguments, says, check):
    run()
    before = files(tmp_path), namespace.run("nft", "list", "ruleset").stdout
    result = run(check=check, **arguments)
    assert result["failed"]
    assert says in result["msg"]
    assert (files(tmp_path), namespace.run("nft", "list", "ruleset").stdout) == before


def test_broken_memory(run, tmp_path):
    run()
    (tmp_path / "config" / "firewall.json").write_text("{")
    assert "firewall.json is broken: remove it" in run()["msg"]


def test_everyone_is_let_in_loudly(run):
    result = run(allowed_cidrs=["0.0.0.0/1", "128.0.0.0/1"])
    assert result["changed"]
    assert "lets EVERYONE (0.0.0.0/0) connect to ports { 8888, 10100, 10109-10114 } of node1" in str(result["warnings"])


def test_ports_of_outgoing_connections(run, tmp_path):
    (tmp_path / "range").write_text("10110\t60999\n")
    assert "port 10110-10119 of the cluster is among those of node1's own outgoing" in str(run()["warnings"])


def test_one_address_of_two_hosts(run):
    result = run(hosts={**HOSTS, "node2": {"address": "10.9.0.1", "roles": ["engines"]}})
    assert "hosts node1, node2 have the same address, 10.9.0.1" in str(result["warnings"])


def test_without_nft(run, bin_path, tmp_path):
    del bin_path["nft"]
    assert "there is no program nft: install it (Debian package nftables)" in run()["msg"]
    result = run(require_nft=False)
    assert (result["missing"], result["changed"]) == (["nftables"], False)
    assert run(check=True)["changed"]
    assert not run(state="absent")["changed"]
    assert files(tmp_path) == {}


def test_without_permission(run, bin_path, tmp_path):
    Path(bin_path["nft"]).write_text("#!/bin/sh\necho 'Operation not permitted (you must be root)' >&2; exit 1\n")
    result = run()
    assert "capability NET_ADMIN" in result["msg"]
    assert "set ipyparallel_firewall_enabled to false" in result["msg"]
    assert files(tmp_path) == {}
    assert not run(state="absent")["changed"]


def test_a_table_that_nft_refuses_changes_nothing(run, namespace, monkeypatch, tmp_path):
    run()
    before = files(tmp_path), namespace.run("nft", "list", "ruleset").stdout
    monkeypatch.setattr(firewall, "file_text", lambda cluster, blocks: "table inet x { oops }\n")
    assert "nft does not take the table, and nothing was changed" in run()["msg"]
    assert (files(tmp_path), namespace.run("nft", "list", "ruleset").stdout) == before


def test_a_full_disk_changes_no_table(run, namespace, full_disk):
    run()
    before = namespace.run("nft", "list", "ruleset").stdout
    with full_disk():
        assert "cannot keep the firewall" in run(hosts={}, members=["node1"])["msg"]
    assert namespace.run("nft", "list", "ruleset").stdout == before
    assert run(hosts={}, members=["node1"])["changed"]


def test_without_an_identity(run, state, namespace):
    (state / "identity.json").unlink()
    assert "there is no identity of cluster alpha" in run()["msg"]
    assert "10200-10219" in run(check=True, port_base=10200)["ports"]
    assert "10100-10119" in run(check=True)["ports"]


def test_the_identity_says_the_ports(run):
    assert "10100-10119" in run(port_base=10200)["ports"]


def test_without_systemd(run, monkeypatch, tmp_path):
    monkeypatch.setattr(firewall, "SYSTEMD_RUNS", str(tmp_path / "nowhere"))
    assert "systemd does not run here" in run()["msg"]
    assert run(persistent=False)["changed"]
    assert not run(persistent=False)["changed"]
    assert set(files(tmp_path)) == {"config/firewall.json", "config/firewall.nft"}


def test_a_host_with_nothing_to_guard_has_no_table(run, namespace):
    alone = {"state_directory": None, "host": "node2", "members": ["node2"]}
    notebook = {"node2": {"address": "10.9.0.2", "roles": ["notebook"], "notebook_port": 8888}}
    assert run(hosts=notebook, **alone)["ports"] == "8888"
    assert run(hosts={"node2": {**notebook["node2"], "notebook_port": None}}, **alone)["changed"]
    assert namespace.run("nft", "list", "tables").stdout == ""


# ---- what packets meet ----------------------------------------------------------------------------------------------

EVERY = [22, 8888, *range(10100, 10120)]
LISTEN = f"""
import signal, socket
sockets = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in {EVERY}]
print("ready", flush=True)
signal.pause()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    print("open")
except ConnectionRefusedError:
    print("refused")
"""
TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("ready", flush=True)
for line in sys.stdin:
    try:
        connection.sendall(line.encode())
        print(connection.recv(100).decode().strip() or "closed", flush=True)
    except ConnectionError:
        print("reset", flush=True)
"""
ECHO = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
import threading
for port in (22, 10101):
    threading.Thread(target=Server(("0.0.0.0", port), Echo).serve_forever).start()
print("ready", flush=True)
"""
ADDRESSES = {"node1": 1, "node2": 2, "node3": 3, "node4": 4, "office": 5}


@pytest.fixture
def make_network(namespace, make_namespace):
    """The controller host node1 and others on its bridge; in node1 something listens."""
    processes = []

    def start(place, code, *arguments):
        command = [*place.enter, sys.executable, "-ISc", code, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    def make(code=LISTEN):
        hosts = {name: make_namespace(namespace) for name in ADDRESSES if name != "node1"}
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "link", "add", "fwt", "type", "bridge")
        for name, host in hosts.items():
            link = ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.process.pid)]
            namespace.run("ip", *link)
            namespace.run("ip", "link", "set", name, "master", "fwt", "up")
        for name, place, device in [("node1", namespace, "fwt"), *((name, hosts[name], "eth0") for name in hosts)]:
            place.run("ip", "address", "add", f"10.9.0.{ADDRESSES[name]}/24", "dev", device)
            place.run("ip", "address", "add", f"fd09::{ADDRESSES[name]}/64", "dev", device, "nodad")
            place.run("ip", "link", "set", device, "up")
        start(namespace, code)
        places = {"node1": namespace, **hosts}

        def connect(name, port, address="10.9.0.1"):
            done = places[name].run(sys.executable, "-ISc", CONNECT, address, str(port))
            return done.stdout.strip()

        make.talk = lambda name, port: start(places[name], TALK, "10.9.0.1", str(port))
        return hosts, connect

    yield make
    for process in processes:
        process.kill()
        process.communicate()


ENGINE, CLIENT = [*range(10100, 10109)], [10100, *range(10109, 10115)]


def test_who_gets_through(make_network, run):
    _hosts, connect = make_network()
    cluster = {
        **HOSTS,
        "node3": {"address": "10.9.0.3", "roles": ["notebook"]},
    }
    run(hosts=cluster, members=list(cluster), allowed_cidrs=["10.9.0.5", "fd09::5"])
    expected = {
        "node1": set(EVERY),
        "node2": {22, *ENGINE},
        "node3": {22, *CLIENT},
        "node4": {22},
        "office": {22, 8888, *CLIENT},
    }
    for name, ports in expected.items():
        found = {port for port in EVERY if connect(name, port) == "open"}
        assert found == ports, name
    assert {port for port in EVERY if connect("office", port, "fd09::1") == "open"} == expected["office"]
    assert {port for port in EVERY if connect("node2", port, "fd09::1") == "open"} == {22}
    assert connect("node1", 10115, "127.0.0.1") == "open"


def test_a_host_that_leaves_is_cut_off_and_ssh_is_not(make_network, run):
    make_network(ECHO)
    run()
    engine, ssh = make_network.talk("node2", 10101), make_network.talk("node2", 22)

    def say(process):
        process.stdin.write("hello\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    assert (say(engine), say(ssh)) == ("hello", "hello")
    # replaced again and again while connections are open: nobody notices
    for cidrs in (["192.0.2.1"], []):
        run(allowed_cidrs=cidrs)
        assert (say(engine), say(ssh)) == ("hello", "hello")
    run(hosts={}, members=["node1"])
    assert (say(engine), say(ssh)) == ("reset", "hello")
