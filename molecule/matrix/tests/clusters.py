# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Clusters on the nodes of a lab, as an inventory defines them, and what there is of them on the nodes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lab import Lab
from remote import Operator

PLACES = "/etc /home /opt /root /run /srv /tmp /usr /var"
# What logging in, sudo, systemd and installers leave by themselves wherever Ansible goes. Accounts stay, with notebooks
# and with the directories that all programs of an account share (XDG), which may be empty.
OTHERS = re.compile(
    r"/home/\w+(/(\.(ansible|bash|cache|ipython|profile|ssh).*|notebooks(/examples(/.*)?)?))?"
    r"|/home/\w+/\.(config(/systemd(/user(/default\.target\.wants)?)?)?|local(/(share|state))?)"
    r"|/root(/\.(ansible|cache).*)?|/run/(user|systemd|sudo|log|udev|lock|sshd)\b.*"
    r"|/run/(crond|dbus|motd|utmp|matrix-mark).*|/run|/tmp(/\.(X11|ICE|XIM|font)-unix|/systemd-private.*|/ansible.*)?"
    r"|/var/lib/(sudo|systemd|private)\b.*|/var/(log|cache|tmp)\b.*|/etc/resolv.conf|.*/__pycache__(/.*)?"
)


def node_of(host: str) -> str:
    """Return the node that a host of an inventory is: node1_second is node1."""
    return host.split("_", maxsplit=1)[0]


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster as the inventory defines it."""

    name: str
    controller: str
    engines: Sequence[str]
    notebook: Sequence[str] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    of_host: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def hosts(self) -> list[str]:
        """All of its hosts."""
        return list(dict.fromkeys([self.controller, *self.engines, *self.notebook]))

    @property
    def nodes(self) -> list[str]:
        """The nodes that they are."""
        return list(dict.fromkeys(map(node_of, self.hosts)))

    def group(self, addresses: Mapping[str, str]) -> dict[str, Any]:
        """Return its group in an inventory."""
        parts = {"controller": [self.controller], "engines": self.engines, "notebook": self.notebook}
        children: dict[str, Any] = {f"{self.name}_{part}": {"hosts": dict.fromkeys(parts[part])} for part in parts}
        hosts = {
            host: {"ansible_host": addresses[node_of(host)], **self.of_host.get(host, {})}
            for host in [*self.hosts, *self.of_host]
        }
        return {"hosts": hosts, "children": children, "vars": dict(self.settings)}


def write_inventory(lab: Lab, path: Path, clusters: Iterable[Cluster]) -> None:
    """Write an inventory with these clusters."""
    made = yaml.safe_load((lab.directory / "inventory.yml").read_text())
    login = made["all"]["children"]["lab_nodes"]["vars"]
    addresses = {node.name: node.address for node in lab.nodes()}
    children = {cluster.name: cluster.group(addresses) for cluster in clusters}
    path.write_text(json.dumps({"all": {"vars": login, "children": children}}, indent=2))


def listing(operator: Operator, nodes: Sequence[str]) -> dict[str, set[str]]:
    """Return all files on nodes that nobody else leaves there, by node."""
    said = operator.shells(nodes, f"find {PLACES} -xdev 2>/dev/null")
    return {node: {line for line in text.splitlines() if not OTHERS.fullmatch(line)} for node, text in said.items()}


def mark(operator: Operator, nodes: Sequence[str]) -> None:
    """Note the time on nodes."""
    operator.shells(nodes, "touch /run/matrix-mark")


def changes(operator: Operator, nodes: Sequence[str]) -> dict[str, list[str]]:
    """Return what has changed on nodes since the mark, by node; nothing of one without a change."""
    said = operator.shells(nodes, f"find {PLACES} -xdev -cnewer /run/matrix-mark 2>/dev/null")
    found = {node: [line for line in text.splitlines() if not OTHERS.fullmatch(line)] for node, text in said.items()}
    return {node: lines for node, lines in found.items() if lines}


def processes(operator: Operator, cluster: str, nodes: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return a cluster's processes under any service manager, by node and id."""
    said = operator.shells(nodes, f"ps -e -o pid=,args= | grep '[i]pyparallel/{cluster}/' || true")
    found = {}
    for node, text in said.items():
        rows = (line.split(maxsplit=1) for line in text.splitlines())
        found[node] = {int(pid): command for pid, command in rows}
    return found
