#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check a host before anything is changed there, and tell what follows from its properties."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check a host of an ipyparallel cluster before anything is changed there
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Checks, in one call and without changing anything, that the host can have its part of the cluster. Checked are the
    interpreter, directories and free space, the cluster's identity, its ports, and those of other clusters on the host.
  - Tells what follows from the host, which is its number of engines and what it remembers of an earlier run.
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  roles:
    description: What the host is in the cluster, any of V(controller), V(engines), V(notebook).
    type: list
    elements: str
    choices: [controller, engines, notebook]
    required: true
  python:
    description: The interpreter that the cluster's environment is made from.
    type: str
    default: python3
  uv:
    description: Path of a uv on the host. Without it the interpreter needs its venv module.
    type: path
  prefix:
    description: Directory of the cluster's software.
    type: path
    required: true
  config:
    description: Directory of the definitions.
    type: path
    required: true
  state_directory:
    description: Directory of the cluster's state.
    type: path
    required: true
  log:
    description: Directory of the logs.
    type: path
    required: true
  run:
    description: Directory of sockets and process ids.
    type: path
    required: true
  address:
    description: Address at which the controller listens. Without it, as remembered, else O(default_address).
    type: str
  default_address:
    description:
      - The address of a new identity when O(address) is not given.
      - Without it, the address from which this host reaches others, its default IPv4 address.
    type: str
  manager:
    description: The service manager, checked to be there.
    type: str
    choices: [systemd, systemd_user, supervisor]
    required: true
  account:
    description: The account of the cluster, which need not exist yet. Without it, the one that runs the module.
    type: str
  group:
    description: The group of the cluster's files, checked to be there if given.
    type: str
  port_base:
    description: First port of the cluster. Without it, as remembered, else 10100.
    type: int
  packer:
    description: Serialiser of messages, checked if given.
    type: str
  encryption:
    description: Encryption, checked if given.
    type: str
  scheduler:
    description: Scheme of the load-balancing scheduler, checked if given.
    type: str
  replace_identity:
    description: Whether a broken identity is about to be replaced, and so is no error.
    type: bool
    default: false
  notebook_address:
    description: Address at which the notebook listens.
    type: str
    default: 127.0.0.1
  notebook_port:
    description: Port of the notebook. Without it, as remembered, else 8888.
    type: int
  notebook_directory:
    description: Directory of the notebooks, absolute or relative to the account's home.
    type: str
    default: notebooks
  notebook_password:
    description: Password of the notebook, checked if given.
    type: str
  notebook_names:
    description: Further names and addresses by which browsers reach the notebook, checked.
    type: list
    elements: str
    default: []
  notebook_certificate:
    description:
      - Path of the user's own certificate for the notebook, on the operator's machine, where it is checked together
        with O(notebook_key).
    type: str
  notebook_key:
    description: Path of its private key, on the operator's machine. The file may be one of ansible-vault.
    type: str
  login_host:
    description: Name or address by which Ansible reaches the host.
    type: str
    default: ""
  engines_per_host:
    description: Number of engines of a pool that has no count. Without it, or with V(cores), the rule by cores.
    type: raw
  engines_environment:
    description: Environment variables of all engines, checked.
    type: dict
    default: {}
  engines_settings:
    description: Further settings of ipengine, of which those are refused that the collection cannot do with.
    type: dict
    default: {}
  heartbeat_ms:
    description: Interval of the hub's heartbeat in milliseconds, checked where one is given.
    type: int
  allowed_cidrs:
    description: Addresses and CIDRs from which clients may come directly, checked.
    type: list
    elements: str
    default: []
  pools:
    description:
      - The pools of engines, each with C(name), and optionally C(count), C(environment), C(hosts), C(size), and
        C(code), that of C(script) if this is given.
    type: list
    elements: dict
    default: [{name: default}]
  host:
    description: Name of the host in the inventory, for pools that are on some hosts only.
    type: str
    default: ""
extends_documentation_fragment:
  - ipyparallel.cluster.lease
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
"""

EXAMPLES = r"""
- name: Check the host
  ipyparallel.cluster.preflight:
    cluster: ipyparallel
    roles: [controller, engines]
    prefix: /opt/ipyparallel/ipyparallel
    config: /etc/ipyparallel/ipyparallel
    state_directory: /var/lib/ipyparallel/ipyparallel
    log: /var/log/ipyparallel/ipyparallel
    run: /run/ipyparallel/ipyparallel
    manager: systemd
    account: ipyparallel
    default_address: 10.0.0.5
"""

RETURN = r"""
address:
  description: The host's own address within the cluster.
  type: str
  returned: success
  sample: 10.0.0.5
account:
  description: The account of the cluster on this host, with C(name), C(home), and whether it C(exists).
  type: dict
  returned: success
  sample: {name: ipyparallel, home: /home/ipyparallel, exists: true}
packages:
  description: Packages of the operating system that are missing.
  type: list
  elements: str
  returned: success
  sample: [python3-venv]
cores:
  description: Cores that a process on this host may use.
  type: int
  returned: success
  sample: 8
pools:
  description: The pools of this host, with their counts as numbers; empty where it has no engines.
  type: list
  elements: dict
  returned: success
  sample: [{name: default, count: 7, environment: {}, cpus: null, memory: null, code: ""}]
memory:
  description: Memory of the host, in bytes.
  type: int
  returned: success
  sample: 8589934592
remembered:
  description: What operators have changed after the definition; empty where the host is not the controller's.
  type: dict
  returned: success
  sample: {pools: {}, scaled: {}, defined: {node1: {default: 7}}, packages: []}
notebook:
  description: Where the notebook listens and keeps its files; empty where the host has none.
  type: dict
  returned: success
  sample: {address: 127.0.0.1, port: 8888, url: "https://127.0.0.1:8888/lab", directory: /home/ada/notebooks}
certificate_names:
  description: What a certificate of the notebook has to be for; empty where the host has none.
  type: list
  elements: str
  returned: success
  sample: [DNS:localhost, DNS:node1, IP:10.0.0.5]
reached_at:
  description: Those of RV(certificate_names) at which browsers come to the notebook.
  type: list
  elements: str
  returned: success
  sample: [DNS:localhost, IP:127.0.0.1]
certificate_problem:
  description:
    - What is wrong with O(notebook_certificate) and O(notebook_key) on the operator's machine; empty if nothing.
  type: str
  returned: success
  sample: ""
python_version:
  description: Version of the interpreter.
  type: str
  returned: success
  sample: 3.11.2
architecture:
  description: Architecture that the interpreter is made for.
  type: str
  returned: success
  sample: x86_64
controller:
  description: Where the controller will listen, C(address) and C(port_base); empty where the host has none.
  type: dict
  returned: success
  sample: {address: 10.0.0.5, port_base: 10100}
versions:
  description: Versions of the environment that there is; empty where there is none, and where there is no controller.
  type: dict
  returned: success
  sample: {python: 3.11.2, ipyparallel: 9.2.0, pyzmq: 27.1.0}
reached:
  description:
    - Where the last run said that the controller is, if this host reaches all its ports there now. Empty where it does
      not, and on the controller host.
  type: dict
  returned: success
  sample: {address: 10.0.0.5, port_base: 10100}
outward_address:
  description: The address from which this host reaches others; empty where it has no default route.
  type: str
  returned: success
  sample: 10.0.0.5
software:
  description: Whether there is an environment.
  type: bool
  returned: success
  sample: true
machine:
  description: Tells this machine from others, and is the same under each of its names, until it boots again.
  type: str
  returned: success
  sample: 3f0c5ad9f0c1b2e4
known_as:
  description: Names of the hosts whose processes of the cluster run on this machine.
  type: list
  elements: str
  returned: success
  sample: [node1]
time:
  description: The host's clock, in seconds since the epoch.
  type: float
  returned: success
  sample: 1780000000.5
clock:
  description:
    - By how many seconds the host's clock is ahead of the operator's, at least and at most. The width is the time that
      the question took.
  type: list
  elements: float
  returned: success
  sample: [-0.61, 0.02]
"""

import dataclasses
import os
import socket
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils import lease
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import (
    HostNameError,
    is_loopback,
    names_of_notebook,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    ConnectorError,
    load_identity,
    merge,
    salvage,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import (
    InstallError,
    probe,
    read_record,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.execution import ExecutionError, check_startup
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership
from ansible_collections.ipyparallel.cluster.plugins.module_utils.machine import machine_digest, signs
from ansible_collections.ipyparallel.cluster.plugins.module_utils.managers import MANAGERS
from ansible_collections.ipyparallel.cluster.plugins.module_utils.nftables import FirewallError, parse_cidrs
from ansible_collections.ipyparallel.cluster.plugins.module_utils.passwords import PasswordError, check_password, take
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import PoolError, read_variables, resolve_pools
from ansible_collections.ipyparallel.cluster.plugins.module_utils.preflight import (
    Account,
    PreflightError,
    check_address,
    check_directory,
    check_group,
    check_manager,
    check_notebook_account,
    check_outside,
    check_overlap,
    check_ports,
    check_socket,
    check_space,
    check_tuning,
    default_address,
    reached_controller,
    read_account,
    wanted_ports,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import running_processes
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    changed_later,
    read_state,
)


def check_identity(params: dict[str, t.Any], address: str) -> dict[str, t.Any]:
    """Check the settings of the identity, together with what is remembered; return them."""
    before = load_identity(params["state_directory"], broken_is_none=params["replace_identity"])
    given = {name: params[name] for name in ("address", "port_base", "packer", "encryption", "scheduler")}
    remembered = dataclasses.asdict(before) if before else salvage(params["state_directory"])
    return merge(params["cluster"], given, remembered, address)


def properties(params: dict[str, t.Any], settings: dict[str, t.Any], roles: set[str]) -> dict[str, t.Any]:
    """Return what the operator compares with other hosts."""
    current = os.path.join(params["prefix"], "current")
    processes = running_processes(params["cluster"], main_only=False)
    try:
        outward = default_address()
    except PreflightError:
        outward = ""
    return {
        "controller": {name: settings[name] for name in ("address", "port_base")} if "controller" in roles else {},
        "versions": read_record(current).get("versions", {}) if "controller" in roles else {},
        "outward_address": outward,
        "software": os.path.isdir(current),
        "machine": machine_digest(signs()),
        "known_as": sorted({process.host for process in processes} - {""}),
        "time": time.time(),
    }


def notebook_of(params: dict[str, t.Any], account: Account, wanted: dict[str, set[int]]) -> dict[str, t.Any]:
    """Return where the notebook listens and keeps its files."""
    address, (port,) = params["notebook_address"], wanted["ipyparallel_notebook_port"]
    return {
        "address": address,
        "port": port,
        "url": f"https://{address}:{port}/lab",
        "directory": os.path.join(account.home, params["notebook_directory"]),
    }


def certificate_names(params: dict[str, t.Any], own_address: str) -> tuple[list[str], list[str]]:
    """Return what the certificate of the notebook has to be for, and at which of these browsers come to it.

    Where the notebook listens on loopback only, the addresses of the host, which may change, are none of its own.
    """
    host = [params["address"] or "", socket.gethostname().partition(".")[0], socket.getfqdn()]
    if not is_loopback(params["notebook_address"]):
        host += [own_address, params["login_host"]]
    return names_of_notebook(params["notebook_address"], host, params["notebook_names"])


def reached_from(params: dict[str, t.Any], roles: set[str]) -> dict[str, t.Any]:
    """Return where the controller is reached from here, as the account's own halves of the connector tell."""
    ownership = Ownership(params["account"], params["group"])
    return reached_controller(params["state_directory"], roles, ownership)


def check_host(module: AnsibleModule) -> dict[str, t.Any]:
    """Run all checks; return what follows from the host."""
    params = module.params
    roles = set(params["roles"])
    account = read_account(params["account"])
    if params["group"] is not None:
        check_group(params["group"])
    for name in ("prefix", "config", "state_directory", "log", "run"):
        check_directory(params[name], f"ipyparallel_path_{name.removesuffix('_directory')}")
    check_manager(params["manager"], account)
    own_address = params["default_address"] or default_address()
    settings = check_identity(params, own_address)
    if "controller" in roles:
        check_address(settings["address"])
    password = take(module, "notebook_password")
    if password is not None:
        check_password(password)
    check_tuning(params["heartbeat_ms"], params["uv"], params["engines_settings"])
    parse_cidrs(params["allowed_cidrs"])
    read_variables(params["engines_environment"], "ipyparallel_engines_environment")
    cores = len(os.sched_getaffinity(0))
    pools = resolve_pools(params["pools"], params["engines_per_host"], cores, "controller" in roles, params["host"])
    for pool in params["pools"]:
        check_startup(str(pool.get("code") or ""), str(pool.get("script") or f"code of pool {pool['name']}"))

    interpreter = probe(module.get_bin_path(params["python"]) or params["python"])
    packages = []
    if not params["uv"] and not interpreter.venv and os.geteuid() == 0:
        packages.append("python3-venv")
    elif not params["uv"] and not interpreter.venv:
        raise PreflightError(
            f"{interpreter.executable} has no venv module: install it (Debian package python3-venv), or name a uv in "
            "ipyparallel_environment_uv"
        )
    if not os.path.isdir(os.path.join(params["prefix"], "current")):
        check_space(params["prefix"])
    if params["manager"] == "supervisor":
        check_socket(os.path.join(params["run"], "supervisor.sock"))

    state = params["state_directory"]
    wanted = wanted_ports(state, settings["port_base"], params["notebook_port"], roles)
    notebook = notebook_of(params, account, wanted) if "notebook" in roles else {}
    if notebook:
        check_notebook_account(account)
        check_outside(notebook["directory"], [params[name] for name in ("prefix", "config", "state_directory")])
    names = certificate_names(params, own_address) if notebook else ([], [])
    check_overlap(params["cluster"], state, wanted)
    for variable, ports in wanted.items():
        listening = params["notebook_address"] if "notebook" in variable else settings["address"]
        check_ports(params["cluster"], listening, ports, variable)
    return {
        "address": params["address"] or own_address,
        "account": {"name": account.name, "home": account.home, "exists": account.uid is not None},
        "packages": packages,
        "cores": cores,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "pools": [dataclasses.asdict(pool) for pool in pools] if "engines" in roles else [],
        "notebook": notebook,
        "certificate_names": names[0],
        "reached_at": names[1],
        "python_version": ".".join(str(part) for part in interpreter.version),
        "architecture": interpreter.machine,
        "reached": {} if "controller" in roles or account.uid is None else reached_from(params, roles),
        **properties(params, settings, roles),
        # last: a run that is refused does not hold up others
        "remembered": remembered_of(module) if "controller" in roles else {},
    }


def remembered_of(module: AnsibleModule) -> dict[str, t.Any]:
    """Return what operators have changed after the definition; take the lease for this one."""
    directory = module.params["state_directory"]
    state = read_state(directory)
    if module.params["lease"] and os.path.isdir(directory) and not module.check_mode:
        state = lease.take(directory, state, module.params["lease"], time.time())
    return changed_later(state)


class Module(QuietModule):
    """A module that writes no code to the log of the host."""

    logged = ("cluster", "roles", "host")


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "roles": {
                "type": "list",
                "elements": "str",
                "choices": ["controller", "engines", "notebook"],
                "required": True,
            },
            "python": {"type": "str", "default": "python3"},
            "uv": {"type": "path"},
            "prefix": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "state_directory": {"type": "path", "required": True},
            "log": {"type": "path", "required": True},
            "run": {"type": "path", "required": True},
            "address": {"type": "str"},
            "default_address": {"type": "str"},
            "manager": {"type": "str", "choices": list(MANAGERS), "required": True},
            "account": {"type": "str"},
            "group": {"type": "str"},
            "port_base": {"type": "int"},
            "packer": {"type": "str"},
            "encryption": {"type": "str"},
            "scheduler": {"type": "str"},
            "replace_identity": {"type": "bool", "default": False},
            "notebook_address": {"type": "str", "default": "127.0.0.1"},
            "notebook_port": {"type": "int"},
            "notebook_directory": {"type": "str", "default": "notebooks"},
            "notebook_password": {"type": "str", "no_log": True},
            "notebook_names": {"type": "list", "elements": "str", "default": []},
            "notebook_certificate": {"type": "str"},
            "notebook_key": {"type": "str", "no_log": False},
            "login_host": {"type": "str", "default": ""},
            "engines_per_host": {"type": "raw"},
            "engines_environment": {"type": "dict", "default": {}},
            "engines_settings": {"type": "dict", "default": {}},
            "heartbeat_ms": {"type": "int"},
            "allowed_cidrs": {"type": "list", "elements": "str", "default": []},
            "pools": {"type": "list", "elements": "dict", "default": [{"name": "default"}]},
            "host": {"type": "str", "default": ""},
            **lease.LEASE_ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **check_host(module))
    except (
        ConnectorError,
        ExecutionError,
        FirewallError,
        InstallError,
        HostNameError,
        lease.LeaseError,
        PasswordError,
        PoolError,
        PreflightError,
        StateError,
    ) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot look at the state of cluster {module.params['cluster']}: {error}")


if __name__ == "__main__":
    main()
