# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory of a running cluster, as its hub sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hub
short_description: Hosts of a running ipyparallel cluster, as its hub sees it
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Asks the hub of a running cluster which engines are registered, where they are, and what they do. Nothing but a
    client half of the connector is needed, and no engine is asked, so that busy ones do not delay the answer.
  - A host is called as in the inventory that the cluster was deployed with, so that both can be given together, and
    merge. This one says nothing of how a host is reached, nor which is the controller's.
  - The file is called C(hub.yml), or ends in C(.hub.yml); C(.yaml) will do too.
  - "Groups, for a cluster called C(NAME): C(NAME); its children C(NAME_engines) with all hosts that have engines, and
    C(NAME_pool_POOL) with those that have engines of this pool."
  - "Variables of a host: C(ipyparallel_engines), a list with C(id), C(pool), C(core), C(pid), C(state) (V(idle) or
    V(busy)), C(queued) and C(completed) (tasks) of each; C(ipyparallel_engine_ids); C(ipyparallel_pools), the number of
    engines by pool; C(ipyparallel_busy_engines), a number; C(ipyparallel_queued) and C(ipyparallel_completed), tasks of
    all its engines; C(ipyparallel_load), C(ipyparallel_queued) for each of its engines. A task that runs counts as
    queued."
  - "Variables of group C(NAME): C(ipyparallel_queue), with C(queued), C(unassigned) (tasks that wait for an engine) and
    C(completed); C(ipyparallel_other_engines), the ids of engines whose host is not known, because they were not
    started by this collection."
notes:
  - When the hub does not answer, Ansible warns and goes on with the other inventories; with its setting
    C(any_unparsed_is_failed) it ends.
  - The hub believes what engines say of themselves. Whoever has the engine half can name hosts here.
  - What the hub tells is never a template.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks the file as one for this plugin.
    type: str
    required: true
    choices: [ipyparallel.cluster.hub]
  cluster:
    description: Name of the cluster. Where the file has none, C(-e cluster=NAME) gives it, as to playbooks.
    type: str
    default: ipyparallel
    vars:
      - name: cluster
  connector:
    description:
      - Path of the client half of the cluster's connector on this machine.
      - Default is that of the IPython profile of O(cluster), which playbook C(ipyparallel.cluster.connect) writes.
    type: path
  ipython_directory:
    description: Directory of IPython's profiles, C(~/.ipython) if not given.
    type: str
    env:
      - name: IPYTHONDIR
  python:
    description:
      - Path of a Python interpreter that has ipyparallel, and the cluster's packer. It need not have the cluster's
        version.
      - Default is the one that runs Ansible.
    type: path
  timeout:
    description: How long to wait for the hub to answer, in seconds.
    type: float
    default: 5.0
"""

EXAMPLES = r"""
---
# ipyparallel.hub.yml: cluster ipyparallel, or the one that -e cluster=NAME gives
plugin: ipyparallel.cluster.hub

---
# genomics.hub.yml: asked at most once a minute; groups of hosts by what they do, and by size
plugin: ipyparallel.cluster.hub
cluster: genomics
connector: ~/connectors/genomics-client.json
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
cache_timeout: 60
strict: true
groups:
  genomics_idle: ipyparallel_busy_engines == 0
  genomics_overloaded: ipyparallel_load > 4
keyed_groups:
  - key: ipyparallel_engines | length | string
    prefix: engines
compose:
  ipyparallel_first_engine: ipyparallel_engine_ids | min
"""

import os
import sys
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, check_cluster_name
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub_inventory import ask, by_host, host_variables
from ansible_collections.ipyparallel.cluster.plugins.module_utils.profile import client_half_of, ipython_directory

SUFFIXES = ("hub.yml", "hub.yaml")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Inventory ``ipyparallel.cluster.hub``."""

    NAME = "ipyparallel.cluster.hub"

    def verify_file(self, path: str) -> bool:
        """Return whether the file is called as one for this plugin."""
        # a dot before it, so that github.yml is none
        return bool(super().verify_file(path)) and f".{os.path.basename(path)}".endswith(
            tuple(f".{suffix}" for suffix in SUFFIXES)
        )

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Add the hosts of the cluster to the *inventory*; it is as it was when the hub does not answer."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        cluster = self.get_option("cluster")
        try:
            check_cluster_name(cluster)
            said = self._ask(path, cluster, cache)
        except (ConnectorError, HubError) as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        self._populate(cluster, said)

    def _ask(self, path: str, cluster: str, cache: bool) -> dict[str, t.Any]:
        """Return what the hub tells, or told; *cache* is false when Ansible wants it anew."""
        connector = self.get_option("connector")
        if not connector:
            profiles = ipython_directory({"IPYTHONDIR": self.get_option("ipython_directory") or ""})
            connector = client_half_of(cluster, profiles)
        keeps = self.get_option("cache")
        # one file may be for many clusters
        key = self.get_cache_key(f"{path}\n{connector}")
        said: dict[str, t.Any] | None = self._cache.get(key) if keeps and cache else None
        if said is None:
            said = ask(connector, cluster, self.get_option("python") or sys.executable, self.get_option("timeout"))
            if keeps:
                self._cache[key] = said
        return said

    def _populate(self, cluster: str, said: dict[str, t.Any]) -> None:
        everything, engine_hosts = cluster, f"{cluster}_engines"
        for group in (everything, engine_hosts):
            self.inventory.add_group(group)
        self.inventory.add_child(everything, engine_hosts)
        # a variable of a host that is called as a group would be one of the group
        hosts, others = by_host(said["engines"], taken=self.inventory.groups)
        self.inventory.set_variable(everything, "ipyparallel_queue", said["queue"])
        self.inventory.set_variable(everything, "ipyparallel_other_engines", others)
        for host, engines in hosts.items():
            self.inventory.add_host(host, group=engine_hosts)
            variables = host_variables(engines)
            for name, value in variables.items():
                self.inventory.set_variable(host, name, value)
            for pool in variables["ipyparallel_pools"]:
                group = self.inventory.add_group(f"{cluster}_pool_{pool}")
                self.inventory.add_child(everything, group)
                self.inventory.add_host(host, group=group)
            self._construct(host)

    def _construct(self, host: str) -> None:
        """Apply what the user composes, with what earlier inventories say of the *host*."""
        strict = self.get_option("strict")
        variables = self.inventory.get_host(host).get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
