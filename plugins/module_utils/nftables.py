# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may connect to a cluster's ports, as one table of nftables: rendered, read back and compared.

A table is a set of blocks, each a heading (``set engines4``, ``chain input``) with its lines. The same blocks are made
from what is wanted and from what ``nft -j list table`` says, so that comparing them finds every difference.

The rules look at addresses only, and not at the state of connections: a host that leaves the cluster is cut off at
once, connections included, and the kernel tracks no connection for us.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Ports
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import MANAGED

Address: t.TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: t.TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Blocks: t.TypeAlias = dict[str, list[str]]

FAMILY = "inet"
ROLES = ("controller", "engines", "notebook")
NFTABLES_SERVICE = "nftables.service"
COMMENT_LIMIT = 120
SWITCH_OFF = "set ipyparallel_firewall_enabled to false where another firewall guards the ports"


class FirewallError(ValueError):
    """The firewall cannot be as wanted; the message names the thing, the value and the remedy."""


# ---- what is given --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Member:
    """A host of the cluster, as far as its firewall is concerned."""

    address: str
    roles: tuple[str, ...] = ()
    notebook_port: int | None = None
    """Port of its notebook, where that listens on more than loopback."""

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as it is remembered."""
        return {"address": self.address, "roles": list(self.roles), "notebook_port": self.notebook_port}


def table_name(cluster: str) -> str:
    """Return the name of a cluster's table."""
    return f"ipyparallel_{cluster}"


def parse_address(text: str, host: str) -> Address:
    """Return the address of a host.

    Raises:
        FirewallError: it is none; names the host, the value and the variable.
    """
    remedy = f"set ipyparallel_address of {host} to the IP address from which it reaches the controller"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise FirewallError(f"{text!r}, the address of host {host}, is not an IP address: {remedy}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise FirewallError(f"{text!r}, the address of host {host}, has a zone: {remedy}")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise FirewallError(f"{text!r}, the address of host {host}, is not the address of one host: {remedy}")
    return address


def parse_cidr(text: str) -> Network:
    """Return the network of an address or CIDR.

    Raises:
        FirewallError: it is none; names it and, where only its host bits are wrong, what was meant.
    """
    variable = "ipyparallel_allowed_cidrs"
    text = text.strip()
    try:
        if "%" in text:
            raise ValueError("a zone")
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FirewallError(
            f"{text!r} in {variable} is neither an address nor a CIDR: write for example 192.0.2.0/24, 192.0.2.7 or "
            "2001:db8::/32"
        ) from None
    address = text.partition("/")[0]
    if ipaddress.ip_address(address) != network.network_address:
        raise FirewallError(
            f"{text!r} in {variable} has bits beyond its prefix: write {network} for the whole network, or {address} "
            "for the one address"
        )
    if network.is_multicast:
        raise FirewallError(f"{text!r} in {variable} is a multicast network, from which nobody connects: leave it out")
    return network


def parse_cidrs(texts: Iterable[str]) -> list[Network]:
    """Return the networks of *texts*, without those that others contain, since nft refuses intervals that overlap.

    Raises:
        FirewallError: one is not a CIDR.
    """
    networks = [parse_cidr(text) for text in texts]
    return collapse(networks)


def collapse(networks: Iterable[Network]) -> list[Network]:
    """Return the fewest networks that are the same as *networks*, in order."""
    found = list(networks)
    four = [network for network in found if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in found if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def parse_members(hosts: Mapping[str, t.Any], where: str) -> dict[str, Member]:
    """Return the hosts of ``{name: {address, roles, notebook_port}}``.

    Args:
        hosts: them.
        where: where they come from, for messages.

    Raises:
        FirewallError: one is not described like that.
    """
    found: dict[str, Member] = {}
    for name, values in hosts.items():
        if not isinstance(values, Mapping) or "address" not in values:
            raise FirewallError(f"{where}: host {name} has no address")
        roles = values.get("roles") or []
        if not isinstance(roles, (list, tuple)) or not set(roles) <= set(ROLES):
            raise FirewallError(f"{where}: {roles!r}, the roles of host {name}, are not a list of {', '.join(ROLES)}")
        port = values.get("notebook_port")
        try:
            number = None if port is None else int(port)
        except (TypeError, ValueError):
            number = 0
        if number is not None and not 1 <= number <= 65535:
            raise FirewallError(f"{where}: {port!r}, the notebook's port on host {name}, is not a port")
        address = parse_address(str(values["address"]), name)
        found[name] = Member(str(address), tuple(role for role in ROLES if role in roles), number)
    return found


# ---- what is remembered ---------------------------------------------------------------------------------------------


def parse_memory(text: str, path: str) -> dict[str, Member]:
    """Return the hosts that ``firewall.json`` remembers.

    Raises:
        FirewallError: the file is broken.
    """
    remedy = "remove it, and run playbook ipyparallel.cluster.deploy for all hosts"
    try:
        values = json.loads(text)
    except ValueError:
        raise FirewallError(f"{path} is broken: {remedy}") from None
    if not isinstance(values, dict) or not isinstance(values.get("hosts"), dict):
        raise FirewallError(f"{path} is broken: {remedy}")
    try:
        return parse_members(values["hosts"], path)
    except FirewallError as error:
        raise FirewallError(f"{error}; {path} is broken: {remedy}") from None


def memory_text(members: Mapping[str, Member]) -> str:
    """Return the text of ``firewall.json``."""
    hosts = {name: member.as_dict() for name, member in sorted(members.items())}
    return json.dumps({"hosts": hosts}, indent=2, sort_keys=True) + "\n"


def merge(
    remembered: Mapping[str, Member] | None, given: Mapping[str, Member], names: Iterable[str], partial: bool
) -> tuple[dict[str, Member], list[str]]:
    """Return the hosts of the cluster, and the names of those of which no address is known yet.

    Args:
        remembered: as the last run left them, or None where there was none.
        given: those of this run.
        names: all hosts of the cluster; others are dropped.
        partial: whether this run leaves hosts out on purpose.

    Raises:
        FirewallError: a host is not one of the cluster's, or a partial run would cut off hosts that nobody remembers.
    """
    wanted = list(dict.fromkeys(names))
    if strangers := sorted(set(given) - set(wanted)):
        raise FirewallError(f"host {strangers[0]} is not one of the cluster's: {', '.join(wanted) or 'it has none'}")
    members = {**(remembered or {}), **given}
    members = {name: members[name] for name in wanted if name in members}
    unknown = [name for name in wanted if name not in members]
    if unknown and partial and remembered is None:
        raise FirewallError(
            f"the addresses of {', '.join(unknown)} are not known yet, and would be cut off: run playbook "
            "ipyparallel.cluster.deploy once for all hosts, without --limit"
        )
    return members, unknown


def shared_addresses(members: Mapping[str, Member]) -> list[list[str]]:
    """Return the names of hosts that have one address, other than loopback, between them."""
    names: dict[str, list[str]] = {}
    for name, member in members.items():
        if not ipaddress.ip_address(member.address).is_loopback:
            names.setdefault(member.address, []).append(name)
    return [found for found in names.values() if len(found) > 1]


# ---- what is wanted -------------------------------------------------------------------------------------------------


def ranges(ports: Iterable[int]) -> list[tuple[int, int]]:
    """Return *ports* as ranges, first and last included, as few as possible."""
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and port == found[-1][1] + 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found


def ports_text(ports: Iterable[int]) -> str:
    """Return *ports* as nft writes them."""
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in ranges(ports)]
    return spans[0] if len(spans) == 1 else f"{{ {', '.join(spans)} }}"


def element(network: Network) -> str:
    """Return *network* as an element of a set."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def comment(names: Iterable[str]) -> str:
    """Return the names of hosts as a comment that nft takes."""
    return re.sub(r"[^A-Za-z0-9_.:, -]", "?", ", ".join(sorted(names)))[:COMMENT_LIMIT]


def _set_lines(version: int, elements: Mapping[Network, str], interval: bool) -> list[str]:
    lines = [f"type ipv{version}_addr", *(["flags interval"] if interval else []), "elements = {"]
    for network in sorted(elements, key=lambda network: (network.network_address.packed, network.prefixlen)):
        note = f' comment "{elements[network]}"' if elements[network] else ""
        # the comma after the last one makes a further host a change of one line
        lines.append(f"\t{element(network)}{note},")
    return [*lines, "}"]


def _hosts_with(role: str, members: Mapping[str, Member], version: int) -> dict[Network, str]:
    names: dict[Network, list[str]] = {}
    for name, member in members.items():
        address = ipaddress.ip_address(member.address)
        # whoever comes from loopback is let in anyway, and an address of it can come from nowhere else
        if role in member.roles and address.version == version and not address.is_loopback:
            names.setdefault(ipaddress.ip_network(address), []).append(name)
    return {network: comment(found) for network, found in names.items()}


def guarded_ports(ports: Ports | None, notebook_port: int | None) -> list[int]:
    """Return all ports that the table speaks about."""
    return sorted({*(ports.reserved if ports else ()), *([notebook_port] if notebook_port else ())})


def client_ports(ports: Ports | None, notebook_port: int | None) -> list[int]:
    """Return the ports that are open to ``ipyparallel_allowed_cidrs``."""
    cluster = [ports.engine[0], *ports.client] if ports else []
    return sorted({*cluster, *([notebook_port] if notebook_port else ())})


def wanted_blocks(
    ports: Ports | None, members: Mapping[str, Member], allowed: Iterable[Network], notebook_port: int | None
) -> Blocks:
    """Return the table of a host; without blocks where it has no port to guard.

    Args:
        ports: the cluster's, where the controller runs on this host.
        members: the hosts of the cluster.
        allowed: from where clients and browsers may come besides.
        notebook_port: where this host's notebook listens on more than loopback.
    """
    guarded = guarded_ports(ports, notebook_port)
    if not guarded:
        return {}
    networks = list(allowed)
    blocks: Blocks = {}
    rules = ['iif "lo" accept']
    for version, protocol in ((4, "ip"), (6, "ip6")):
        audiences: list[tuple[str, dict[Network, str], list[int]]] = [
            ("engines", _hosts_with("engines", members, version), list(ports.engine) if ports else []),
            ("notebooks", _hosts_with("notebook", members, version), client_ports(ports, None)),
            (
                "allowed",
                {network: "" for network in networks if network.version == version},
                client_ports(ports, notebook_port),
            ),
        ]
        for name, elements, open_ports in audiences:
            if elements and open_ports:
                blocks[f"set {name}{version}"] = _set_lines(version, elements, interval=name == "allowed")
                rules.append(f"tcp dport {ports_text(open_ports)} {protocol} saddr @{name}{version} accept")
    # a reset tells a misconfigured host at once what is wrong, and is what a closed port answers
    rules.append("meta l4proto tcp counter reject with tcp reset")
    blocks["chain input"] = [
        "type filter hook input priority 0; policy accept;",
        f"tcp dport {ports_text(guarded)} jump guard",
    ]
    blocks["chain guard"] = rules
    return blocks


def body(cluster: str, blocks: Blocks) -> str:
    """Return the table as a text; empty where it has no blocks."""
    if not blocks:
        return ""
    lines = [f"table {FAMILY} {table_name(cluster)} {{"]
    # sets first: rules name them, and chains that jump come after what they jump to, as far as nft cares
    for heading in sorted(blocks, key=lambda heading: not heading.startswith("set ")):
        lines += [f"\t{heading} {{", *(f"\t\t{line}" for line in blocks[heading]), "\t}"]
    return "\n".join([*lines, "}"]) + "\n"


def removal(cluster: str) -> str:
    """Return the commands that remove the table, whether it is there or not."""
    name = f"{FAMILY} {table_name(cluster)}"
    return f"add table {name}; delete table {name}"


def file_text(cluster: str, blocks: Blocks) -> str:
    """Return the file that replaces the whole table in one transaction: no packet meets a half of it."""
    return (
        f"# {MANAGED}\n"
        f"# Who may connect to the ports of cluster {cluster}. All other ports are left alone.\n"
        f"{removal(cluster)}\n{body(cluster, blocks)}"
    )


# ---- what is loaded -------------------------------------------------------------------------------------------------


def parse_listing(text: str) -> Blocks:
    """Return the blocks of what ``nft -j list table`` says.

    What this collection never writes is kept as JSON, so that it counts as a difference.

    Raises:
        FirewallError: it is no such listing.
    """
    try:
        objects = [dict(entry) for entry in json.loads(text)["nftables"]]
    except (ValueError, KeyError, TypeError):
        raise FirewallError("nft has not answered with JSON: it needs nftables 0.9.3 or later") from None
    blocks: Blocks = {}
    for entry in objects:
        for kind, values in entry.items():
            if kind in ("metainfo", "table"):
                continue
            if kind == "rule":
                statements = [_statement(expression) for expression in values["expr"]]
                blocks.setdefault(f"chain {values['chain']}", []).append(" ".join(statements))
            elif kind == "chain":
                blocks[f"chain {values['name']}"] = _chain_head(values) + blocks.get(f"chain {values['name']}", [])
            elif kind == "set":
                blocks[f"set {values['name']}"] = _listed_set(values)
            else:
                blocks[f"{kind} {values.get('name', '')}"] = [json.dumps(values, sort_keys=True)]
    return blocks


def _rest(values: Mapping[str, t.Any], known: Iterable[str]) -> list[str]:
    rest = {name: value for name, value in values.items() if name not in {"family", "table", "name", "handle", *known}}
    return [json.dumps(rest, sort_keys=True)] if rest else []


def _chain_head(values: Mapping[str, t.Any]) -> list[str]:
    if "hook" not in values:
        return _rest(values, ())
    head = f"type {values['type']} hook {values['hook']} priority {values['prio']}; policy {values.get('policy')};"
    return [head, *_rest(values, ("type", "hook", "prio", "policy"))]


def _listed_set(values: Mapping[str, t.Any]) -> list[str]:
    flags = values.get("flags", [])
    flags = [flags] if isinstance(flags, str) else flags  # as nft writes a single one, by its version
    interval = flags == ["interval"]
    try:
        elements: dict[Network, str] = {}
        for entry in values.get("elem", []):
            networks, note = _listed_element(entry)
            elements.update(dict.fromkeys(networks, note))
        if interval:
            # what is next to each other may be listed as one
            elements = dict.fromkeys(collapse(elements), "")
        version = {"ipv4_addr": 4, "ipv6_addr": 6}[values["type"]]
    except (KeyError, TypeError, ValueError):
        return [json.dumps(values, sort_keys=True)]
    extra = _rest(values, ("type", "elem", *(["flags"] if interval or not flags else [])))
    return [*_set_lines(version, elements, interval), *extra]


def _listed_element(entry: t.Any) -> tuple[list[Network], str]:
    if isinstance(entry, str):
        return [ipaddress.ip_network(entry)], ""
    if "elem" in entry:
        networks, _none = _listed_element(entry["elem"]["val"])
        return networks, str(entry["elem"].get("comment", ""))
    if "prefix" in entry:
        return [ipaddress.ip_network(f"{entry['prefix']['addr']}/{entry['prefix']['len']}")], ""
    first, last = (ipaddress.ip_address(address) for address in entry["range"])
    return list(ipaddress.summarize_address_range(t.cast("t.Any", first), t.cast("t.Any", last))), ""


def _listed_ports(right: t.Any) -> list[int]:
    if isinstance(right, int):
        return [right]
    if "set" in right:
        return [port for part in right["set"] for port in _listed_ports(part)]
    first, last = right["range"]
    return list(range(first, last + 1))


def _statement(expression: Mapping[str, t.Any]) -> str:
    """Return a statement of a rule as this collection writes it, and as JSON where it never does."""
    match expression:
        case {"accept": None}:
            return "accept"
        case {"counter": {"packets": _, "bytes": _}}:
            return "counter"
        case {"jump": {"target": target}}:
            return f"jump {target}"
        case {"reject": {"type": "tcp reset", **rest}} if not rest:
            return "reject with tcp reset"
        case {"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": str(name)}}:
            return f'iif "{name}"'
        case {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp" | 6}}:
            # by its number, where the host has no /etc/protocols
            return "meta l4proto tcp"
        case {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "saddr"}}, "right": str(name)}}:
            return f"{protocol} saddr {name}"
        case {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}}:
            try:
                return f"tcp dport {ports_text(_listed_ports(right))}"
            except (KeyError, TypeError, ValueError, IndexError):
                pass
    return json.dumps(expression, sort_keys=True)


# ---- across a reboot ------------------------------------------------------------------------------------------------


def unit_name(cluster: str) -> str:
    """Return the name of the unit that loads the table at boot."""
    return f"ipyparallel-{cluster}-firewall.service"


def drop_in_path(directory: str, cluster: str) -> str:
    """Return where nftables.service learns of the table, below the *directory* of units."""
    return f"{directory}/{NFTABLES_SERVICE}.d/ipyparallel-{cluster}.conf"


def unit_text(cluster: str, nft: str, file: str) -> str:
    """Return the unit that loads the table at boot.

    Args:
        cluster: its name.
        nft: path of the program.
        file: path of the file with the table.
    """
    services = " ".join(f"ipyparallel-{cluster}-{name}.service" for name in ("controller", "notebook"))
    return f"""# {MANAGED}
[Unit]
Description=Who may connect to ipyparallel cluster {cluster}
# as nftables.service does: the table is there before the first interface is up, and before anything listens
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target {services}
Conflicts=shutdown.target
After={NFTABLES_SERVICE}

[Service]
Type=oneshot
RemainAfterExit=yes
StandardInput=null
ExecStart={nft} -f {file}
ExecReload={nft} -f {file}
ExecStop={nft} "{removal(cluster)}"
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def drop_in_text(nft: str, file: str) -> str:
    """Return the drop-in by which nftables.service loads the table again.

    Each of its own commands begins with, or is, ``flush ruleset``. A unit that is merely bound to it would miss a
    start, and be stopped with it; a further command in the same service misses nothing.
    """
    load = f"-{nft} -f {file}"
    return f"""# {MANAGED}
# {NFTABLES_SERVICE} flushes all tables whenever it starts, reloads or stops; this one comes back at once.
[Service]
ExecStartPost={load}
ExecReload={load}
ExecStop={load}
"""
