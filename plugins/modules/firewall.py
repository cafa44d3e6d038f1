#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guard the ports of a cluster on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Let only the hosts of an ipyparallel cluster connect to its ports
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Keeps one table of nftables for the cluster, C(inet ipyparallel_<cluster>). It speaks about the cluster's own ports
    on this host and about nothing else, flushes no other table, and cannot cut SSH.
  - The engine ports are open to the hosts with engines, the client ports to the hosts with a notebook and to
    O(allowed_cidrs), a notebook port to O(allowed_cidrs), all of them to this host itself. All others get a reset, as
    from a closed port.
  - The rules look at addresses only. A host that leaves the cluster is cut off at once, open connections included.
  - The table is checked by C(nft --check), then replaced in one transaction. What someone else has changed or flushed
    is found and repaired.
  - A table only ever restricts. Where another firewall of the host refuses a connection, it stays refused.
  - A unit of systemd loads the table at boot, before the network is up, and a drop-in lets C(nftables.service) load it
    again whenever that flushes all tables. C(/etc/nftables.conf) is left alone.
  - Needs root, and C(nft).
options:
  cluster:
    description: Name of the cluster, of the form C([a-z][a-z0-9_]{0,31}).
    type: str
    required: true
  state:
    description: V(absent) removes table, unit and files.
    type: str
    choices: [present, absent]
    default: present
  config:
    description: Directory for C(firewall.nft), the table, and C(firewall.json), the hosts of the cluster.
    type: path
    required: true
  state_directory:
    description:
      - Directory with the identity of the cluster, whose ports are guarded.
      - Without it, the controller is on another host, and only this host's notebook is guarded.
    type: path
  host:
    description: Name of this host in O(members). Needed with O(state=present).
    type: str
  hosts:
    description:
      - The hosts of this run, as a dictionary of name to a dictionary with C(address), C(roles) (controller, engines,
        notebook) and C(notebook_port), the last where the notebook listens on more than loopback.
      - Other O(members) are as the last run left them.
    type: dict
    default: {}
  members:
    description: Names of all hosts of the cluster. What is remembered of others is dropped.
    type: list
    elements: str
    default: []
  partial:
    description:
      - This run leaves members out on purpose. Then it fails where nothing is remembered of them, instead of cutting
        them off.
    type: bool
    default: false
  allowed_cidrs:
    description: Addresses and CIDRs, IPv4 and IPv6, from which clients and browsers may come directly.
    type: list
    elements: str
    default: []
  port_base:
    description: In check mode, the first of the 20 ports that the identity would have; otherwise the identity says it.
    type: int
  persistent:
    description: Whether systemd loads the table at boot.
    type: bool
    default: true
  require_nft:
    description: Whether it fails where C(nft) is missing. Otherwise it returns so in RV(missing), and changes nothing.
    type: bool
    default: true
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Let the cluster's hosts in, and nobody else
  ipyparallel.cluster.firewall:
    cluster: ipyparallel
    config: /etc/ipyparallel/ipyparallel
    state_directory: /var/lib/ipyparallel/ipyparallel
    host: node1
    hosts:
      node1: {address: 10.0.0.1, roles: [controller, notebook]}
      node2: {address: 10.0.0.2, roles: [engines]}
    members: [node1, node2]
    allowed_cidrs: [10.0.8.0/24]

- name: Remove it
  ipyparallel.cluster.firewall:
    cluster: ipyparallel
    config: /etc/ipyparallel/ipyparallel
    state: absent
"""

RETURN = r"""
missing:
  description: OS packages that have to be installed first.
  type: list
  elements: str
  returned: success
  sample: []
ports:
  description: The ports that the table speaks about, as nft writes them.
  type: str
  returned: success, with O(state=present)
  sample: 10100-10119
table:
  description: Name of the table.
  type: str
  returned: success
  sample: ipyparallel_ipyparallel
unknown:
  description: Members of which no address is known yet. They cannot connect.
  type: list
  elements: str
  returned: success, with O(state=present)
  sample: []
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    DEFAULTS,
    ConnectorError,
    Ports,
    check_cluster_name,
    identity_path,
    load_identity,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import make_directory, read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.nftables import (
    FAMILY,
    SWITCH_OFF,
    Blocks,
    FirewallError,
    Member,
    body,
    client_ports,
    drop_in_path,
    drop_in_text,
    file_text,
    guarded_ports,
    memory_text,
    merge,
    parse_cidrs,
    parse_listing,
    parse_members,
    parse_memory,
    ports_text,
    removal,
    shared_addresses,
    table_name,
    unit_name,
    unit_text,
    wanted_blocks,
)

UNITS = "/etc/systemd/system"
SYSTEMD_RUNS = "/run/systemd/system"
EPHEMERAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"


class Host:
    """The programs of this host: nft and systemctl."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.cluster: str = module.params["cluster"]
        self.nft: str | None = module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"])
        self.persistent: bool = module.params["persistent"]

    def require_nft(self) -> str:
        """Return the path of nft."""
        if not self.nft:
            raise FirewallError(f"there is no program nft: install it (Debian package nftables), or {SWITCH_OFF}")
        return self.nft

    def run_nft(self, arguments: list[str], data: str | None = None) -> tuple[int, str, str]:
        """Run nft; return its status, what it says, and its complaint."""
        status, output, complaint = self.module.run_command(
            [self.require_nft(), *arguments], data=data, environ_update={"LC_ALL": "C"}
        )
        if status and "Operation not permitted" in complaint:
            raise FirewallError(
                "this account may not look at or change the firewall: it needs root and, in a container, the "
                f"capability NET_ADMIN. Give it that, or {SWITCH_OFF}"
            )
        return status, output, complaint

    def loaded(self) -> Blocks:
        """Return the table as it is in the kernel; without blocks where there is none."""
        status, output, complaint = self.run_nft(["-j", "list", "table", FAMILY, table_name(self.cluster)])
        if status == 0:
            return parse_listing(output) or {"empty": []}
        if "No such file or directory" in complaint or "does not exist" in complaint:
            return {}
        raise FirewallError(f"nft cannot list table {table_name(self.cluster)}: {complaint.strip()}")

    def check(self, text: str) -> None:
        """Let nft judge a file before it is written."""
        status, _output, complaint = self.run_nft(["--check", "-f", "-"], data=text)
        if status:
            raise FirewallError(f"nft does not take the table, and nothing was changed: {complaint.strip()}")

    def load(self, path: str) -> None:
        """Replace the table by that of a file, in one transaction."""
        status, _output, complaint = self.run_nft(["-f", path])
        if status:
            raise FirewallError(f"nft cannot load {path}, and the table is as before: {complaint.strip()}")

    def remove(self) -> None:
        """Remove the table."""
        status, _output, complaint = self.run_nft([removal(self.cluster)])
        if status:
            raise FirewallError(f"nft cannot remove table {table_name(self.cluster)}: {complaint.strip()}")

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl; return what it says."""
        program = self.module.get_bin_path("systemctl", required=True)
        status, output, complaint = self.module.run_command([program, *arguments])
        if status:
            raise FirewallError(
                f"systemctl {' '.join(arguments)} has failed: {complaint.strip()}: see journalctl -u "
                f"{unit_name(self.cluster)}"
            )
        return str(output)

    def unit(self) -> dict[str, str]:
        """Return what systemd knows about the unit."""
        names = "ActiveState,UnitFileState,NeedDaemonReload"
        output = self.systemctl("show", unit_name(self.cluster), f"--property={names}")
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def file_paths(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return where the files are: table, memory, unit, drop-in."""
    return {
        "table": os.path.join(params["config"], "firewall.nft"),
        "memory": os.path.join(params["config"], "firewall.json"),
        "unit": os.path.join(UNITS, unit_name(params["cluster"])),
        "drop_in": drop_in_path(UNITS, params["cluster"]),
    }


def cluster_ports(module: AnsibleModule) -> Ports | None:
    """Return the ports of the controller on this host, or None where it is on another."""
    params = module.params
    directory = params["state_directory"]
    if not directory:
        return None
    if module.check_mode and params["port_base"] is not None:
        return Ports(params["port_base"])  # the identity would have them by now
    identity = load_identity(directory)
    if identity:
        return identity.ports
    if module.check_mode:
        return Ports(DEFAULTS["port_base"])
    raise FirewallError(
        f"there is no identity of cluster {params['cluster']} in {identity_path(directory)} yet, so its ports are not "
        "known: run playbook ipyparallel.cluster.deploy without --tags"
    )


def warn_about(
    module: AnsibleModule,
    ports: Ports | None,
    members: t.Mapping[str, Member],
    notebook_port: int | None,
    unknown: list[str],
) -> None:
    """Say what is allowed, and perhaps not meant."""
    here = module.params["host"]
    for network in parse_cidrs(module.params["allowed_cidrs"]):
        if network.prefixlen == 0:
            module.warn(
                f"ipyparallel_allowed_cidrs lets EVERYONE ({network}) connect to ports "
                f"{ports_text(client_ports(ports, notebook_port))} of {here}: only the cluster's keys and the "
                "notebook's password are left to guard it. Leave it out, and come through SSH"
            )
    if unknown:
        module.warn(
            f"no address is known yet of {', '.join(unknown)}: engines and notebooks there cannot connect until a run "
            "has reached them"
        )
    for names in shared_addresses(members):
        module.warn(
            f"hosts {', '.join(names)} have the same address, {members[names[0]].address}: unless they are behind one "
            "router, set ipyparallel_address of each to its own"
        )
    try:
        first, last = (int(number) for number in (read_text(EPHEMERAL_PORTS) or "").split())
    except ValueError:
        return
    if shared := [port for port in guarded_ports(ports, notebook_port) if first <= port <= last]:
        module.warn(
            f"port {ports_text(shared)} of the cluster is among those of {here}'s own outgoing connections "
            f"({first}-{last}), whose answers the firewall would refuse: set ipyparallel_controller_port_base and "
            "ipyparallel_notebook_port to others"
        )


def present(module: AnsibleModule) -> dict[str, t.Any]:
    """Bring the table into the wanted state."""
    params = module.params
    check_cluster_name(params["cluster"])
    paths = file_paths(params)
    given = parse_members(params["hosts"], "hosts")
    allowed = parse_cidrs(params["allowed_cidrs"])
    text = read_text(paths["memory"])
    remembered = None if text is None else parse_memory(text, paths["memory"])
    members, unknown = merge(remembered, given, params["members"], params["partial"])
    this = members.get(params["host"])
    ports, notebook_port = cluster_ports(module), this.notebook_port if this else None
    blocks = wanted_blocks(ports, members, allowed, notebook_port)
    if not blocks:
        return {**absent(module), "ports": "", "unknown": unknown}

    result: dict[str, t.Any] = {
        "changed": False,
        "missing": [],
        "ports": ports_text(guarded_ports(ports, notebook_port)),
        "table": table_name(params["cluster"]),
        "unknown": unknown,
    }
    host = Host(module)
    if host.persistent and not os.path.isdir(SYSTEMD_RUNS):
        raise FirewallError(f"systemd does not run here, and nothing would load the table at boot: {SWITCH_OFF}")
    if not host.nft and not params["require_nft"]:
        return {**result, "missing": ["nftables"]}
    if not module.check_mode:
        host.require_nft()
    warn_about(module, ports, members, notebook_port, unknown)

    nft = host.nft or "/usr/sbin/nft"
    files = {paths["memory"]: memory_text(members), paths["table"]: file_text(params["cluster"], blocks)}
    if host.persistent:
        files[paths["unit"]] = unit_text(params["cluster"], nft, paths["table"])
        files[paths["drop_in"]] = drop_in_text(nft, paths["table"])
    before = {path: read_text(path) for path in files}
    loaded = host.loaded() if host.nft else {}
    unit = host.unit() if host.persistent else {"ActiveState": "active", "UnitFileState": "enabled"}
    differing = [path for path in files if before[path] != files[path]]
    reload_units = any(path.startswith(UNITS) for path in differing) or unit.get("NeedDaemonReload") == "yes"
    enable, start = unit["UnitFileState"] != "enabled", unit["ActiveState"] != "active"
    result["changed"] = bool(differing) or loaded != blocks or reload_units or enable or start
    if module._diff:
        pairs = {path: (before[path], files[path]) for path in differing}
        result["diff"] = make_diff(params["cluster"], loaded, blocks, pairs)
    if host.nft and (loaded != blocks or paths["table"] in differing):
        host.check(files[paths["table"]])
    if module.check_mode:
        return result

    for path in differing:
        if not os.path.isdir(os.path.dirname(path)):
            make_directory(os.path.dirname(path), 0o755)
        write_text(path, files[path], mode=0o644)
    if loaded != blocks:
        host.load(paths["table"])
    if reload_units:
        host.systemctl("daemon-reload")
    if enable:
        host.systemctl("enable", "--quiet", unit_name(params["cluster"]))
    if start:
        host.systemctl("start", unit_name(params["cluster"]))
    return result


def absent(module: AnsibleModule) -> dict[str, t.Any]:
    """Remove table, unit and files."""
    params = module.params
    check_cluster_name(params["cluster"])
    paths = file_paths(params)
    host = Host(module)
    before = {path: text for path in paths.values() if (text := read_text(path)) is not None}
    try:
        loaded = host.loaded() if host.nft else {}
    except FirewallError:
        if before:
            raise
        loaded = {}  # an account that may not even look has never made a table
    result: dict[str, t.Any] = {
        "changed": bool(before) or bool(loaded),
        "missing": [],
        "table": table_name(params["cluster"]),
    }
    if module._diff:
        result["diff"] = make_diff(params["cluster"], loaded, {}, {path: (text, None) for path, text in before.items()})
    if module.check_mode:
        return result
    units = [path for path in (paths["unit"], paths["drop_in"]) if path in before]
    if paths["unit"] in units and os.path.isdir(SYSTEMD_RUNS):
        host.systemctl("disable", "--quiet", "--now", unit_name(params["cluster"]))
    # the table last of the files: an interrupted run leaves something that tells the next one
    for path in sorted(before, key=lambda path: path == paths["table"]):
        os.unlink(path)
    if paths["drop_in"] in before and not os.listdir(os.path.dirname(paths["drop_in"])):
        os.rmdir(os.path.dirname(paths["drop_in"]))
    if units and os.path.isdir(SYSTEMD_RUNS):
        host.systemctl("daemon-reload")
    if loaded:
        host.remove()
    return result


def make_diff(
    cluster: str, loaded: Blocks, wanted: Blocks, files: t.Mapping[str, tuple[str | None, str | None]]
) -> list[dict[str, str]]:
    """Return what differs: the table, and each file but the one that holds the same table."""
    found = []
    if loaded != wanted:
        name = f"nft table {FAMILY} {table_name(cluster)}"
        found.append(
            {
                "before_header": name,
                "after_header": name,
                "before": body(cluster, loaded),
                "after": body(cluster, wanted),
            }
        )
    for path, (before, after) in files.items():
        if not (found and path.endswith(".nft")):
            found.append({"before_header": path, "after_header": path, "before": before or "", "after": after or ""})
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "config": {"type": "path", "required": True},
            "state_directory": {"type": "path"},
            "host": {"type": "str"},
            "hosts": {"type": "dict", "default": {}},
            "members": {"type": "list", "elements": "str", "default": []},
            "partial": {"type": "bool", "default": False},
            "allowed_cidrs": {"type": "list", "elements": "str", "default": []},
            "port_base": {"type": "int"},
            "persistent": {"type": "bool", "default": True},
            "require_nft": {"type": "bool", "default": True},
        },
        required_if=[("state", "present", ("host",))],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**(absent if module.params["state"] == "absent" else present)(module))
    except (ConnectorError, FirewallError) as error:
        module.fail_json(msg=f"firewall of cluster {module.params['cluster']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"cannot keep the firewall of cluster {module.params['cluster']}: {error}")


if __name__ == "__main__":
    main()
