# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lab: Debian nodes with systemd and sshd, for scenarios, benchmarks and people.

A node is a podman container that was booted as a machine is: /sbin/init, logind, sshd with host keys of its own. Its
image is made by mmdebstrap, so no image registry is needed, and kept by podman. It is an empty host: what a role needs
it installs.

    python3 molecule/shared/lab.py up --lab NAME --nodes node1,node2,node3
    ssh -F .cache/lab/NAME/ssh_config node1
    python3 molecule/shared/lab.py cut --lab NAME node2
    python3 molecule/shared/lab.py down --lab NAME

It needs Python's standard library only, root, and the Debian packages in PACKAGES_OF.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import ipaddress
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

TREE = Path(__file__).resolve().parents[2]
SUITES = ("bookworm", "trixie")
# by the administrator's key, with sudo and without
ACCOUNTS = ("ansible", "plain")
REPOSITORY = "localhost/ipyparallel-lab"

# command or file, and the Debian package that has it
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES_OF = {
    "podman": "podman",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "conmon": "conmon",
    "iptables": "iptables",  # netavark calls it
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    KEYRING: "debian-archive-keyring",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
ELSEWHERE = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/sbin", "/sbin")

# Part of the label of all that belongs to a lab; their values say whose it is.
LABEL = "ipyparallel.lab"  # the path of the tree that made it
LABEL_NAME = "ipyparallel.lab.name"
LABEL_NODE = "ipyparallel.lab.node"
LABEL_RUN = "ipyparallel.lab.run"  # of the test run that made it, from the environment
RUN_VARIABLE = "IPYPARALLEL_LAB_RUN"

# ---- the image ------------------------------------------------------------------------------------------------------

NODE_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "python3-venv",
    "sudo",
    "iproute2",
    "procps",
    "nftables",
    "ca-certificates",
)
# Nothing on a node may wake up by itself in the middle of a measurement.
TIMERS = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer"
IMAGE_HOOKS = (
    *(f'chroot "$1" useradd --create-home --shell /bin/bash {account}' for account in ACCOUNTS),
    'umask 0337; echo "ansible ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/ansible"',
    # each node gets its own
    'rm -f "$1"/etc/ssh/ssh_host_*',
    "for unit in " + TIMERS + '; do ln -s /dev/null "$1/etc/systemd/system/$unit"; done',
)


def image_key(suite: str, mirror: str = "") -> str:
    """Return the tag of an image: its suite, and a hash of all that it is made from."""
    parts = [suite, mirror, platform.machine(), NODE_PACKAGES, IMAGE_HOOKS]
    return f"{suite}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


# ---- limits ---------------------------------------------------------------------------------------------------------

CAP_SYS_RESOURCE = 24
PODMAN_LIMIT = 1048576  # what podman asks for, files and processes


def containers_conf(
    may_raise: bool, unified: bool, limits: Mapping[str, int], runtimes: Sequence[str] = ("runc",)
) -> str:
    """Return what podman must be told on this host; nothing where its own settings do.

    Args:
        may_raise: Whether this process may raise limits (CAP_SYS_RESOURCE). Hosts of continuous integration often may
            not: podman then fails with ``setrlimit RLIMIT_NOFILE: Operation not permitted``.
        unified: Whether the host has cgroup v2. In v1 and hybrid mode crun does not start systemd (``cgroups in hybrid
            mode not supported``), while runc does.
        limits: The hard limits, ``nofile`` and ``nproc``; -1 is none.
        runtimes: Which of the known runtimes are there.
    """
    containers = []
    if not may_raise:
        lowered = [f"{name}={limit}:{limit}" for name, limit in sorted(limits.items()) if -1 < limit < PODMAN_LIMIT]
        containers += ["pids_limit = 0", f"default_ulimits = {json.dumps(lowered)}"]
    engine = ['runtime = "runc"'] if not unified and "runc" in runtimes else []
    text = ""
    for section, lines in (("containers", containers), ("engine", engine)):
        if lines:
            text += "\n".join([f"[{section}]", *lines, ""])
    return text


def host_containers_conf() -> str:
    """Return the same for this host."""
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    nofile, nproc = (resource.getrlimit(number)[1] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    # podman lowers its own limit of processes to this, and cannot give more than it has
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    return containers_conf(
        may_raise=bool(effective >> CAP_SYS_RESOURCE & 1),
        unified=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        limits={"nofile": nofile, "nproc": most if nproc == resource.RLIM_INFINITY else min(nproc, most)},
        runtimes=[name for name in ("runc", "crun") if shutil.which(name)],
    )


INOTIFY_PER_NODE = 6  # of root: five of systemd, one of logind


def check_inotify(running: int, limit: int) -> None:
    """Fail where so many nodes would use up root's inotify instances, which shows as nodes that never come up."""
    if running * INOTIFY_PER_NODE > limit:
        raise LabError(
            f"{running} nodes on this machine need {running * INOTIFY_PER_NODE} inotify instances of root, "
            f"and it has {limit}: sysctl fs.inotify.max_user_instances={max(512, 2 * running * INOTIFY_PER_NODE)}"
        )


# ---- commands -------------------------------------------------------------------------------------------------------


# to nft, whether there is one or not
NO_CUT = "table inet lab_cut {}\ndelete table inet lab_cut"


class LabError(Exception):
    """Something that a person can put right; the message says how."""


def run(argv: Sequence[str], *, data: bytes | None = None, check: bool = True) -> str:
    """Run a command; return what it wrote, or fail with what it complained about."""
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    if check and done.returncode:
        complaint = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise LabError(f"{shlex.join(argv[:3])} ...: {complaint}")
    return done.stdout.decode(errors="replace")


def podman(*arguments: str, data: bytes | None = None, check: bool = True) -> str:
    """Run podman."""
    return run(["podman", *arguments], data=data, check=check)


Item = TypeVar("Item")
Value = TypeVar("Value")


def in_parallel(function: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """Call *function* for all items at once."""
    with ThreadPoolExecutor(max(1, min(len(items), 16))) as pool:
        return list(pool.map(function, items))


def wait_until(condition: Callable[[], str], what: str, seconds: float) -> None:
    """Wait until *condition* has no objection any more, or fail with the last one."""
    deadline = time.monotonic() + seconds
    while objection := condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not after {seconds:g} s: {objection}")
        time.sleep(0.1)


def check_prerequisites(needed: Sequence[str]) -> None:
    """Fail with all that is missing here of *needed*, keys of PACKAGES_OF."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *ELSEWHERE])

    def is_there(name: str) -> bool:
        return Path(name).exists() if name.startswith("/") else shutil.which(name, path=path) is not None

    missing = sorted({PACKAGES_OF[name] for name in needed if not is_there(name)})
    if missing:
        raise LabError(f"missing here: apt-get install --no-install-recommends {' '.join(missing)}")
    if "netavark" in needed and not Path("/sys/fs/cgroup/cgroup.controllers").exists() and not is_there("runc"):
        raise LabError("this host has cgroup v1, where crun starts no systemd: apt-get install runc")
    if os.geteuid() != 0:
        raise LabError("containers that boot systemd, and networks of their own, need root: run it with sudo")


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Hold a lock of this machine."""
    with open(f"/run/lock/ipyparallel-lab-{name}", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(suite: str, mirror: str = "", *, again: bool = False) -> str:
    """Return the image of a suite; make it where podman has none."""
    image = f"{REPOSITORY}:{image_key(suite, mirror)}"
    with one_at_a_time(f"image-{suite}"):
        if not again and image_exists(image):
            return image
        print(f"lab: making the image of {suite} (once on this machine)", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="ipyparallel-lab-", dir="/var/tmp") as directory:
            tar = f"{directory}/{suite}.tar"
            hooks = [f"--customize-hook={hook}" for hook in IMAGE_HOOKS]
            packages = f"--include={','.join(NODE_PACKAGES)}"
            sources = [mirror] if mirror else []
            run(["mmdebstrap", "--quiet", "--variant=minbase", packages, *hooks, suite, tar, *sources])
            podman("import", "--quiet", "--change", 'CMD ["/sbin/init"]', tar, image)
    return image


def image_exists(image: str) -> bool:
    """Say whether podman has an image."""
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


# ---- what a lab is --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of a lab."""

    name: str
    address: str
    suite: str = "bookworm"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Which nodes do what in the inventory's cluster."""

    name: str = "ipyparallel"
    controller: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    notebook: tuple[str, ...] = ()


# What installs of packages heed, and may be needed to reach a registry at all. Its values stay the operator's: the
# inventory reads them when it is used.
PASSED_ON = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INSECURE_HOST",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def ssh_option(name: str, path: Path) -> str:
    """Return an option of ssh with a path; ssh expands % and splits at blanks."""
    text = str(path).replace("%", "%%")
    return f'{name}="{text}"' if re.search(r"\s", text) else f"{name}={text}"


def inventory_text(directory: Path, nodes: Sequence[Node], cluster: Cluster, account: str = "ansible") -> str:
    """Return the inventory of a lab; its texts are JSON's, which YAML has too."""
    options = [
        "StrictHostKeyChecking=yes",
        "PreferredAuthentications=publickey",
        "IdentitiesOnly=yes",
        ssh_option("UserKnownHostsFile", directory / "known_hosts"),
    ]
    lines = [
        "---",
        "# Made by molecule/shared/lab.py. Each `up` writes it again.",
        "all:",
        "  children:",
        "    lab_nodes:",
        "      hosts:",
        *(f"        {node.name}: {{ ansible_host: {node.address} }}" for node in nodes),
        "      vars:",
        f"        ansible_user: {account}",
        f"        ansible_ssh_private_key_file: {json.dumps(str(directory / 'id_ed25519'))}",
        "        # addresses come back in other labs, and an open connection is not asked for its keys again",
        f"        ansible_control_path_dir: ~/.ansible/cp-{hashlib.sha256(str(directory).encode()).hexdigest()[:6]}",
        f"        ansible_ssh_common_args: {json.dumps(' '.join('-o ' + shlex.quote(option) for option in options))}",
        "        ansible_python_interpreter: /usr/bin/python3",
        *(["        ipyparallel_scope: user"] if account == "plain" else []),
        "        # the operator's settings where there are any, read when the inventory is used",
        f"        lab_passed_on: {json.dumps(list(PASSED_ON))}",
        "        ipyparallel_install_environment: >-",
        "          {{ dict(lab_passed_on | zip(query('ansible.builtin.env', *lab_passed_on)))",
        "          | dict2items | selectattr('value') | items2dict",
        f"          | combine({{'SSL_CERT_FILE': '{CERTIFICATES}', 'PIP_CERT': '{CERTIFICATES}'}}) }}}}",
        f"    {cluster.name}:",
        "      children:",
    ]
    for part in ("controller", "engines", "notebook"):
        lines += [f"        {cluster.name}_{part}:", "          hosts:"]
        lines += [f"            {name}:" for name in getattr(cluster, part)]
        if not getattr(cluster, part):
            lines[-1] += " {}"
    return "\n".join(lines) + "\n"


def ssh_config_text(directory: Path, nodes: Sequence[Node], account: str = "ansible") -> str:
    """Return a configuration of ssh for people: ssh -F ssh_config node1."""
    lines = ["# Made by molecule/shared/lab.py. Each `up` writes it again."]
    for node in nodes:
        lines += [f"Host {node.name}", f"    HostName {node.address}"]
    identity = ssh_option("IdentityFile", directory / "id_ed25519").replace("=", " ", 1)
    known = ssh_option("UserKnownHostsFile", directory / "known_hosts").replace("=", " ", 1)
    options = [
        f"User {account}",
        identity,
        "PreferredAuthentications publickey",
        "IdentitiesOnly yes",
        known,
        "StrictHostKeyChecking yes",
    ]
    return "\n".join([*lines, "Host *", *(f"    {option}" for option in options), ""])


def free_addresses(subnet: ipaddress.IPv4Network, taken: Sequence[str], count: int) -> list[str]:
    """Return so many addresses of a subnet, from its eleventh on: the ones before are left for others."""
    free = (str(address) for address in list(subnet.hosts())[10:] if str(address) not in taken)
    found = [address for address, _number in zip(free, range(count), strict=False)]
    if len(found) < count:
        raise LabError(f"{subnet} has no room for {count} more nodes")
    return found


def names(text: str) -> list[str]:
    """Return the names of a list with commas, each as a host may be called."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise LabError(f"{name} cannot be the name of a node: give [a-z][a-z0-9-]*")
    if len(set(found)) < len(found):
        raise LabError(f"{text}: a name is there twice")
    return found


class Lab:
    """The nodes of one name, made by one tree."""

    def __init__(self, name: str, directory: Path | None = None, tree: Path = TREE) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
            raise LabError(f"{name} cannot be the name of a lab: give [a-z][a-z0-9_-]*")
        self.name, self.tree = name, tree
        self.directory = (directory or tree / ".cache" / "lab" / name).absolute()
        # another tree has labs of the same name
        self.prefix = f"ipplab-{hashlib.sha256(str(tree).encode()).hexdigest()[:6]}-{name}"
        self.network = self.prefix

    # -- what is there

    def container(self, node: str) -> str:
        """Return the name that podman has for a node."""
        return f"{self.prefix}-{node}"

    def inspect(self) -> dict[str, dict[str, Any]]:
        """Return what podman knows of the nodes."""
        filters = ["--filter", f"label={LABEL}={self.tree}", "--filter", f"label={LABEL_NAME}={self.name}"]
        found = podman("ps", "--all", "--quiet", *filters).split()
        nodes = json.loads(podman("container", "inspect", *found)) if found else []
        return {node["Config"]["Labels"][LABEL_NODE]: node for node in sorted(nodes, key=lambda node: node["Name"])}

    def nodes(self) -> list[Node]:
        """Return the nodes, by their addresses."""
        found = [
            Node(name, node["Config"]["Labels"][f"{LABEL}.address"], node["Config"]["Labels"][f"{LABEL}.suite"])
            for name, node in self.inspect().items()
        ]
        return sorted(found, key=lambda node: ipaddress.ip_address(node.address))

    def known(self, wanted: Sequence[str] = ()) -> list[Node]:
        """Return the nodes of these names, all without names; fail for one that is not there."""
        nodes = {node.name: node for node in self.nodes()}
        if unknown := [name for name in wanted if name not in nodes]:
            there = ", ".join(nodes) or "none"
            raise LabError(f"lab {self.name} of {self.tree} has no node {', '.join(unknown)}; there are: {there}")
        return [nodes[name] for name in wanted] if wanted else list(nodes.values())

    # -- up and down

    def labels(self, **further: str) -> list[str]:
        """Return podman's arguments that say whose something is."""
        values = {LABEL: str(self.tree), LABEL_NAME: self.name}
        if os.environ.get(RUN_VARIABLE):
            values[LABEL_RUN] = os.environ[RUN_VARIABLE]
        values.update({f"{LABEL}.{name}": value for name, value in further.items()})
        return [f"--label={name}={value}" for name, value in values.items()]

    def make_network(self, subnet: str = "") -> ipaddress.IPv4Network:
        """Make the network of the lab where there is none; return its subnet."""
        with one_at_a_time("network"):
            found = podman("network", "inspect", self.network, check=False)
            if found.strip() not in ("", "[]"):
                there = ipaddress.IPv4Network(json.loads(found)[0]["subnets"][0]["subnet"])
                if subnet and there != ipaddress.IPv4Network(subnet):
                    raise LabError(f"lab {self.name} has the subnet {there}: take it down first to give it {subnet}")
                return there
            candidates = [subnet] if subnet else [f"10.93.{number}.0/24" for number in range(256)]
            complaint = ""
            for candidate in candidates:
                try:
                    podman("network", "create", *self.labels(), f"--subnet={candidate}", self.network)
                except LabError as error:
                    complaint = str(error)
                    if "subnet" not in complaint:
                        raise
                else:
                    return ipaddress.IPv4Network(candidate)
            raise LabError(f"no subnet for lab {self.name}: {complaint}")

    def keys(self, nodes: Sequence[Node]) -> set[str]:
        """Make the operator's key and the nodes' own where there are none; return the nodes that must get theirs."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        (self.directory / "host_keys").mkdir(exist_ok=True, mode=0o700)
        wanted = {self.directory / "id_ed25519": "lab"}
        wanted.update({self.directory / "host_keys" / node.name: node.name for node in nodes})

        def make(key: Path) -> None:
            key.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", wanted[key], "-f", str(key)])

        # ssh-keygen writes the public one last
        missing = [key for key in wanted if not key.with_suffix(".pub").exists()]
        in_parallel(make, missing)
        lines = []
        for node in nodes:
            kind, key, *_comment = (self.directory / "host_keys" / f"{node.name}.pub").read_text().split()
            lines.append(f"{node.address},{node.name} {kind} {key}\n")
        self.write("known_hosts", "".join(lines))
        return {
            node.name
            for node in nodes
            if self.directory / "id_ed25519" in missing or node.name in map(wanted.get, missing)
        }

    def write(self, name: str, text: str) -> None:
        """Write a file of the lab at once."""
        path = self.directory / name
        path.with_name(f".{name}").write_text(text)
        path.with_name(f".{name}").replace(path)

    def create(self, node: Node, image: str, volumes: Sequence[str] = ()) -> None:
        """Make the container of a node, with its keys in it; it is not started yet."""
        container = self.container(node.name)
        podman(
            "create",
            f"--name={container}",
            f"--hostname={node.name}",
            *self.labels(node=node.name, address=node.address, suite=node.suite),
            f"--network={self.network}:ip={node.address},alias={node.name}",
            "--systemd=always",
            # for the sandboxes of units, which would be ignored without a word, and for nftables
            "--cap-add=SYS_ADMIN,NET_ADMIN",
            # the host may have certificate authorities of its own
            "--volume=/etc/ssl/certs:/etc/ssl/certs:ro",
            *(f"--volume={volume}" for volume in volumes),
            image,
        )
        self.give_keys(node)

    def give_keys(self, node: Node) -> None:
        """Put its keys into a node."""
        podman("cp", "--archive=false", "-", f"{self.container(node.name)}:/", data=self.first_files(node))

    def first_files(self, node: Node) -> bytes:
        """Return the keys of a node as a tar: its own, and the operator's for its accounts."""
        own = self.directory / "host_keys" / node.name
        public = (self.directory / "id_ed25519.pub").read_bytes()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:

            def add(path: str, data: bytes | None, mode: int, account: str = "root") -> None:
                entry = tarfile.TarInfo(path)
                entry.type = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE
                entry.mode, entry.size, entry.mtime = mode, len(data or b""), int(time.time())
                # as useradd numbers them in a new system
                entry.uid = entry.gid = 0 if account == "root" else 1000 + ACCOUNTS.index(account)
                tar.addfile(entry, io.BytesIO(data or b""))

            add("etc/ssh/ssh_host_ed25519_key", own.read_bytes(), 0o600)
            add("etc/ssh/ssh_host_ed25519_key.pub", own.with_suffix(".pub").read_bytes(), 0o644)
            for account in ACCOUNTS:
                add(f"home/{account}/.ssh", None, 0o700, account)
                add(f"home/{account}/.ssh/authorized_keys", public, 0o600, account)
        return stream.getvalue()

    def use_limits(self) -> None:
        """Have podman heed what this host cannot do; an operator's own settings go before."""
        if text := host_containers_conf():
            self.directory.mkdir(parents=True, exist_ok=True)
            self.write("containers.conf", text)
            os.environ.setdefault("CONTAINERS_CONF", str(self.directory / "containers.conf"))

    def up(
        self,
        wanted: Sequence[str],
        *,
        suite: str = "bookworm",
        node_suites: Mapping[str, str] | None = None,
        subnet: str = "",
        cluster: Cluster | None = None,
        account: str = "ansible",
        mirror: str = "",
        volumes: Sequence[tuple[str, str]] = (),
        seconds: float = 120,
    ) -> list[Node]:
        """Make the nodes that are not there, start those that do not run, wait until all can be used."""
        suites = {name: (node_suites or {}).get(name, suite) for name in wanted}
        for name in {*(node_suites or {})} - {*wanted}:
            raise LabError(f"a suite is given for {name}, which is none of the nodes {', '.join(wanted)}")
        for name, given in suites.items():
            if given not in SUITES:
                raise LabError(f"{given}, the suite of {name}, is unknown: there are {', '.join(SUITES)}")
        cluster = cluster or Cluster(controller=tuple(wanted[:1]), engines=tuple(wanted), notebook=tuple(wanted[:1]))
        for name in {*cluster.controller, *cluster.engines, *cluster.notebook} - {*wanted}:
            raise LabError(f"{name} is in cluster {cluster.name}, but none of the nodes {', '.join(wanted)}")
        self.use_limits()
        used = sorted(set(suites.values()))
        images = dict(zip(used, in_parallel(lambda suite: build(suite, mirror), used), strict=True))
        there = self.inspect()
        if unfinished := [name for name, node in there.items() if node["State"]["Status"] == "created"]:
            # by an interrupted run; its keys may not be in it
            remove_containers([self.container(name) for name in unfinished])
            there = self.inspect()
        for name in wanted:
            if name in there and there[name]["ImageName"] != images[suites[name]]:
                raise LabError(f"{name} was made of another image: `down --lab {self.name} --nodes {name}` first")
        # of all trees: one kernel has them all
        others = [row for row in everything() if (row["tree"], row["name"]) != (str(self.tree), self.name)]
        running = len(wanted) + sum(row["state"] in ("running", "paused") for row in others)
        check_inotify(running, int(Path("/proc/sys/fs/inotify/max_user_instances").read_text()))
        network = self.make_network(subnet)
        known = {node.name: node for node in self.nodes()}
        new = [name for name in wanted if name not in known]
        addresses = free_addresses(network, [node.address for node in known.values()], len(new))
        known.update({name: Node(name, address, suites[name]) for name, address in zip(new, addresses, strict=True)})
        nodes = [known[name] for name in wanted]
        keyless = self.keys(list(known.values())) - set(new)
        self.write("inventory.yml", inventory_text(self.directory, nodes, cluster, account))
        self.write("ssh_config", ssh_config_text(self.directory, list(known.values()), account))
        self.give_to_operator()

        def make_ready(node: Node) -> None:
            if node.name in new:
                self.create(node, images[node.suite], [volume for name, volume in volumes if name == node.name])
            state = there[node.name]["State"]["Status"] if node.name in there else ""
            if state == "paused":
                podman("unpause", self.container(node.name))
            if state != "running":
                podman("start", self.container(node.name))
            self.wait(node, seconds)

        # the lab's files were removed, not the nodes
        for name in keyless:
            self.give_keys(known[name])
            if there[name]["State"]["Status"] == "running":
                self.execute(name, ["systemctl", "restart", "ssh"])
        in_parallel(make_ready, nodes)
        return nodes

    def give_to_operator(self) -> None:
        """Let the files belong to whoever called sudo."""
        if uid := os.environ.get("SUDO_UID"):
            gid = os.environ.get("SUDO_GID", uid)
            paths = [self.directory, *self.directory.rglob("*")]
            above = self.directory.parent
            while above.is_relative_to(self.tree) and above != self.tree:
                paths.append(above)
                above = above.parent
            for path in paths:
                os.chown(path, int(uid), int(gid), follow_symlinks=False)

    def wait(self, node: Node, seconds: float = 120) -> None:
        """Wait until a node has booted and its sshd answers."""

        def booted() -> str:
            # not --wait: asked too early in a boot, it answers after 25 s, D-Bus's time-out
            argv = ["podman", "exec", self.container(node.name), "timeout", "1", "systemctl", "is-system-running"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            state = done.stdout.strip()
            if not state and (ended := self.ended(node)):
                raise LabError(f"{node.name} ended while it booted: {ended}")
            return "" if state in ("running", "degraded") else state or done.stderr.strip() or "no answer"

        def answers() -> str:
            try:
                with socket.create_connection((node.address, 22), timeout=5) as connection:
                    return "" if connection.recv(256).startswith(b"SSH-") else "no banner"
            except OSError as error:
                return str(error)

        wait_until(booted, f"{node.name} is up", seconds)
        wait_until(answers, f"{node.name} answers on {node.address} port 22", seconds)

    def ended(self, node: Node) -> str:
        """Return the last thing that a node said which is off; nothing of one that is on."""
        container = self.container(node.name)
        if podman("inspect", "--format={{.State.Status}}", container).strip() != "exited":
            return ""
        done = subprocess.run(["podman", "logs", "--tail=1", container], capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip() or "without a word"

    def down(self, wanted: Sequence[str] = ()) -> list[str]:
        """Remove nodes; with the last one the network and the lab's files."""
        gone = [node.name for node in self.known(wanted)]
        if gone:
            remove_containers([self.container(name) for name in gone])
        if not self.inspect():
            if podman("network", "ls", "--quiet", "--filter", f"name=^{self.network}$").split():
                podman("network", "rm", "--force", self.network)
            for name in (
                "inventory.yml",
                "ssh_config",
                "known_hosts",
                "containers.conf",
                "id_ed25519",
                "id_ed25519.pub",
            ):
                (self.directory / name).unlink(missing_ok=True)
            shutil.rmtree(self.directory / "host_keys", ignore_errors=True)
            with contextlib.suppress(OSError):  # what others left there stays
                self.directory.rmdir()
        return gone

    # -- faults

    def execute(self, node: str, argv: Sequence[str], *, check: bool = True) -> str:
        """Run a command on a node as root, past sshd."""
        (found,) = self.known([node])
        return podman("exec", self.container(found.name), *argv, check=check)

    def port(self, node: str) -> str:
        """Return the host's end of a node's network cable."""
        (found,) = self.known([node])
        process = self.inspect()[found.name]["State"]["Pid"]
        if not process:
            raise LabError(f"{node} is off: start it first")
        # past podman, which runs nothing in a frozen node
        index = int(Path(f"/proc/{process}/root/sys/class/net/eth0/iflink").read_text())
        links = json.loads(run(["ip", "-json", "link"]))
        return next(str(link["ifname"]) for link in links if link["ifindex"] == index)

    def cut(self, node: str, *others: str) -> None:
        """Let all packets from and to a node vanish, or those between it and others: nobody is told of a partition."""
        if not others:
            run(["ip", "link", "set", self.port(node), "nomaster"])
            return
        addresses = ", ".join(found.address for found in self.known(others))
        chains = [
            f"chain {name} {{ type filter hook {name} priority -300; policy accept; ip {end} {{ {addresses} }} drop; }}"
            for name, end in (("input", "saddr"), ("output", "daddr"))
        ]
        table = "\n".join(["table inet lab_cut {", *chains, "}"])
        self.execute(node, ["nft", f"{NO_CUT}\n{table}"])

    def mend(self, node: str) -> None:
        """Undo a cut."""
        (found,) = self.known([node])
        if self.inspect()[found.name]["State"]["Status"] == "paused":
            raise LabError(f"{node} is frozen: thaw it first")
        bridge = json.loads(podman("network", "inspect", self.network))[0]["network_interface"]
        run(["ip", "link", "set", self.port(node), "master", bridge])
        self.execute(node, ["nft", NO_CUT])

    def freeze(self, *nodes: str) -> None:
        """Let all processes of nodes hang."""
        podman("pause", *(self.container(node.name) for node in self.known(nodes)))

    def thaw(self, *nodes: str) -> None:
        """Let them go on."""
        podman("unpause", *(self.container(node.name) for node in self.known(nodes)))

    def kill(self, *nodes: str) -> None:
        """Take the power from nodes."""
        podman("kill", "--signal=KILL", *(self.container(node.name) for node in self.known(nodes)))
        podman("wait", *(self.container(node.name) for node in self.known(nodes)))

    def start(self, *nodes: str) -> None:
        """Switch nodes on, and wait until they can be used."""
        self.boot(["start"], nodes)

    def reboot(self, *nodes: str) -> None:
        """Shut nodes down in order and start them again, all at once."""
        self.boot(["restart", "--time=90"], nodes)

    def boot(self, command: Sequence[str], nodes: Sequence[str]) -> None:
        """Have podman do something with each node, and wait until it can be used."""

        def one(node: Node) -> None:
            podman(*command, self.container(node.name))
            self.wait(node)

        in_parallel(one, self.known(nodes))


def remove_containers(containers: Sequence[str]) -> None:
    """Remove containers, whatever state they are in."""
    podman("rm", "--force", "--time=0", "--volumes", *containers)


def remove_run(run_name: str) -> list[str]:
    """Remove all that one test run made, and nothing else: what an interrupted run left."""
    label = f"label={LABEL_RUN}={run_name}"
    gone = []
    if containers := podman("ps", "--all", "--filter", label, "--format={{.Names}}").split():
        remove_containers(containers)
        gone += containers
    for network in podman("network", "ls", "--quiet", "--filter", label).split():
        podman("network", "rm", "--force", network)
        gone.append(network)
    return gone


def everything() -> list[dict[str, str]]:
    """Return all nodes of all labs on this machine."""
    found = podman("ps", "--all", "--quiet", "--filter", f"label={LABEL_NODE}").split()
    rows = []
    for node in json.loads(podman("container", "inspect", *found)) if found else []:
        labels = node["Config"]["Labels"]
        row = {key: labels[f"{LABEL}.{key}"] for key in ("name", "node", "suite", "address")}
        rows.append({**row, "state": node["State"]["Status"], "tree": labels[LABEL]})
    return sorted(rows, key=lambda row: (row["tree"], row["name"], ipaddress.ip_address(row["address"])))


# ---- the command line -----------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="lab.py", description="Debian nodes with systemd and sshd, in containers.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        if name not in ("list", "image", "clean"):
            made.add_argument("--lab", default="lab", help="name of the lab (lab)")
            made.add_argument("--directory", type=Path, help="where its files are (.cache/lab/NAME in the tree)")
        return made

    up = command("up", "Make nodes, start them, wait until they can be used")
    up.add_argument("--nodes", default="node1,node2,node3", help="names, with commas (node1,node2,node3)")
    up.add_argument("--suite", choices=SUITES, default="bookworm", help="Debian's release (bookworm)")
    up.add_argument("--node-suite", action="append", default=[], metavar="NODE=SUITE", help="of one node")
    up.add_argument("--subnet", default="", help="a.b.c.0/24 (the first free one of 10.93.0.0/16)")
    up.add_argument(
        "--volume", action="append", default=[], metavar="NODE=SOURCE:PATH", help="a directory of this machine"
    )
    up.add_argument("--mirror", default="", help="of Debian's packages, for the image (mmdebstrap's)")
    up.add_argument(
        "--account", choices=ACCOUNTS, default="ansible", help="of the inventory: ansible has sudo (ansible)"
    )
    up.add_argument("--cluster", default="ipyparallel", help="name of the inventory's cluster (ipyparallel)")
    up.add_argument("--controller", help="nodes of its group _controller (the first)")
    up.add_argument("--engines", help="of its group _engines (all)")
    up.add_argument("--notebook", help="of its group _notebook (the first)")
    down = command("down", "Remove nodes, or the lab and its network; images stay")
    down.add_argument("--nodes", default="", help="names, with commas (all)")
    cut = command("cut", "Let all packets of a node vanish")
    cut.add_argument("node")
    cut.add_argument("others", nargs="*", help="only those between it and these nodes")
    command("mend", "Undo a cut").add_argument("node")
    for name, text in (
        ("freeze", "Let nodes hang"),
        ("thaw", "Let them go on"),
        ("kill", "Take the power from nodes"),
        ("start", "Switch nodes on"),
        ("reboot", "Reboot nodes, all at once"),
    ):
        command(name, text).add_argument("nodes", nargs="+")
    execute = command("exec", "Run a command on a node, as root: exec NODE -- COMMAND")
    execute.add_argument("node")
    execute.add_argument("argv", nargs="+")
    command("list", "Show the nodes of all labs on this machine").add_argument("--json", action="store_true")
    image = command("image", "Make the image of a suite, and show its name")
    image.add_argument("suite", choices=SUITES, nargs="?", default="bookworm")
    image.add_argument("--mirror", default="")
    image.add_argument("--again", action="store_true", help="with today's packages")
    command("clean", f"Remove what a test run made: the value of {RUN_VARIABLE} there").add_argument("run")
    return top


def groups(options: argparse.Namespace, nodes: Sequence[str]) -> Cluster:
    """Return the cluster that the command line asks for."""
    controller = names(options.controller) if options.controller is not None else list(nodes[:1])
    engines = names(options.engines) if options.engines is not None else list(nodes)
    notebook = names(options.notebook) if options.notebook is not None else controller
    return Cluster(options.cluster, tuple(controller), tuple(engines), tuple(notebook))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    options = parser().parse_args(arguments)
    # so that what is half done is undone
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        check_prerequisites(list(PACKAGES_OF) if options.command in ("up", "image") else ["podman"])
        return do(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def do(options: argparse.Namespace) -> int:
    """Do it."""
    if options.command == "list":
        rows = everything()
        if options.json:
            print(json.dumps(rows, indent=2))
        for row in rows if not options.json else []:
            print(
                f"{row['name']:12} {row['node']:12} {row['suite']:9} {row['address']:15} {row['state']:9} {row['tree']}"
            )
        return 0
    if options.command == "image":
        print(build(options.suite, options.mirror, again=options.again))
        return 0
    if options.command == "clean":
        for name in remove_run(options.run):
            print(f"left behind, removed now: {name}", file=sys.stderr)
        return 0
    lab = Lab(options.lab, options.directory)
    if options.command == "up":
        wanted = names(options.nodes)
        if not wanted:
            raise LabError("there is no node in --nodes")
        if bad := [pair for pair in options.node_suite if "=" not in pair]:
            raise LabError(f"--node-suite {bad[0]}: give NODE=SUITE")
        if bad := [pair for pair in options.volume if not re.fullmatch(r"[^=]+=[^:]+:.+", pair)]:
            raise LabError(f"--volume {bad[0]}: give NODE=SOURCE:PATH")
        nodes = lab.up(
            wanted,
            suite=options.suite,
            node_suites=dict(pair.split("=", 1) for pair in options.node_suite),
            subnet=options.subnet,
            cluster=groups(options, wanted),
            account=options.account,
            mirror=options.mirror,
            volumes=[pair.partition("=")[::2] for pair in options.volume],
        )
        for node in nodes:
            print(f"{node.name} {node.address} {node.suite}")
        print(f"inventory: {lab.directory}/inventory.yml\nssh -F {lab.directory}/ssh_config {nodes[0].name}")
    elif options.command == "down":
        print(f"removed: {' '.join(lab.down(names(options.nodes))) or 'nothing'}")
    elif options.command == "exec":
        (node,) = lab.known([options.node])
        return subprocess.run(["podman", "exec", "-i", lab.container(node.name), *options.argv], check=False).returncode
    elif options.command == "cut":
        lab.cut(options.node, *options.others)
    elif options.command == "mend":
        lab.mend(options.node)
    else:
        getattr(lab, options.command)(*options.nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
