#!/usr/bin/python
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell what a running cluster is, as its hub sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Tell what a running ipyparallel cluster is, as its hub sees it
version_added: 0.1.0
author: The ipyparallel.cluster authors (@ipyparallel)
description:
  - Runs on the controller host, with nothing but the client half. No engine is asked, so that busy ones do not delay
    the answer.
  - The controller host is described too, as by M(ipyparallel.cluster.host_info).
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  scope:
    description: Whose the cluster is; from that follows where it is on the host.
    type: str
    choices: [system, user]
    required: true
  timeout:
    description:
      - How long to wait for the hub to answer, in seconds.
    type: float
    default: 30.0
  account:
    description:
      - Account of the cluster. Where root runs the module, it goes on as this account, because it unpickles what
        engines send.
    type: str
  limit:
    description:
      - How long to wait for the host, in seconds, V(0) for as long as Ansible does. The O(timeout) of the hub is given
        on top. A host that does not answer is unreachable.
    type: float
    default: 0.0
extends_documentation_fragment:
  - ipyparallel.cluster.attributes
  - ipyparallel.cluster.attributes.info
seealso:
  - module: ipyparallel.cluster.host_info
"""

EXAMPLES = r"""
- name: Look at the cluster
  ipyparallel.cluster.cluster_info:
    cluster: ipyparallel
    scope: system
    account: ipyparallel
  register: cluster
"""

RETURN = r"""
cluster:
  description: What there is to know. When the hub does not answer, what it would tell is missing or empty.
  type: dict
  returned: success
  contains:
    deployed:
      description: Whether the cluster has an identity on this host.
      type: bool
      sample: true
    running:
      description: Whether the hub answers.
      type: bool
      sample: true
    problem:
      description: Why not, or which engines are missing. Empty when all is well.
      type: str
      sample: ""
    name:
      description: Name of the cluster.
      type: str
      sample: ipyparallel
    controller:
      description: The controller, with C(host), C(address), and C(ports) in three pools.
      type: dict
      sample:
        host: node1
        address: 10.0.0.5
        ports: {engine: "10100-10108", client: "10109-10114", internal: "10115-10117"}
    packer:
      description: Serialiser of messages.
      type: str
      sample: json
    encryption:
      description: V(curve) or V(none).
      type: str
      sample: curve
    scheduler:
      description: Scheme of the load-balancing scheduler.
      type: str
      sample: leastload
    fingerprint:
      description: Fingerprint of the identity.
      type: str
      sample: 0d5f1f4bb8a0c1e2
    versions:
      description: Versions of the cluster's Python and its main packages.
      type: dict
      sample: {python: 3.11.2, ipyparallel: 9.2.0}
    engines:
      description:
        - The registered engines. C(core) is the number of the engine on its host within its pool; C(state) is V(idle)
          or V(busy); C(queued) and C(completed) count tasks, without those that the watchdog has had done.
      type: list
      elements: dict
      sample:
        - {id: 0, host: node1, pool: default, core: 0, pid: 4711, uuid: "x", state: idle, queued: 0, completed: 12}
    expected:
      description: How many engines the cluster should have.
      type: int
      sample: 1
    expected_by_host:
      description: The same by host and pool.
      type: dict
      sample: {node1: {default: 1}}
    missing:
      description: The expected engines that are not registered.
      type: list
      elements: str
      sample: []
    notebooks:
      description: The notebooks by host, each with its URL, its directory and the command that shows its password.
      type: dict
      sample: {node1: {url: "https://127.0.0.1:8888", directory: /home/ada/notebooks}}
    health:
      description:
        - What the watchdog says. C(state) is V(whole), V(degraded), V(down), or V(absent) when no watchdog answers;
          C(since) when that began; C(problems) in words; C(repairs) are the last ones.
      type: dict
      sample: {state: whole, since: "2026-01-02T03:04:05+0000", problems: [], repairs: []}
    workers:
      description:
        - The launched workers, each with C(id), C(engine) (its ident), C(status) (V(idle), V(busy) or V(missing)),
          C(pool), C(host), C(core), C(pid), C(cpus), C(memory) in bytes and C(origin), who launched it.
      type: list
      elements: dict
      sample: []
    queue:
      description: Tasks that wait on engines (C(queued)) and for an engine (C(unassigned)), and those done
        (C(completed)).
      type: dict
      sample: {queued: 0, unassigned: 0, completed: 12}
host:
  description: How the controller host is used, as module M(ipyparallel.cluster.host_info) returns it.
  type: dict
  returned: success
  sample: {cores: 8, load_average: [0.52, 0.61, 0.44], uptime_seconds: 86400}
"""

import errno
import http.client
import json
import os
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyparallel.cluster.plugins.module_utils.changes import places, workers
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    ConnectorError,
    Identity,
    load_identity,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import read_record
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import (
    HUB_ARGUMENT_SPEC,
    HubError,
    act_as,
    connect,
    described,
    respawn,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import NOTHING_KNOWN
from ansible_collections.ipyparallel.cluster.plugins.module_utils.paths import SCOPES, own_paths
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, expected_engines, numbers_of
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import StateError, read_state
from ansible_collections.ipyparallel.cluster.plugins.module_utils.usage import usage

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "scope": {"type": "str", "choices": list(SCOPES), "required": True},
    "timeout": HUB_ARGUMENT_SPEC["timeout"],
    "account": HUB_ARGUMENT_SPEC["account"],
    # of the action, which waits
    "limit": {"type": "float", "default": 0.0},
}


def span(ports: list[int]) -> str:
    """Return a run of ports as a text."""
    return f"{ports[0]}-{ports[-1]}"


def facts_of(identity: Identity, environment: str) -> dict[str, t.Any]:
    """Return what is known without the hub."""
    ports = {name: span(getattr(identity.ports, name)) for name in ("engine", "client", "internal")}
    return {
        "name": identity.cluster,
        "controller": {"host": os.uname().nodename, "address": identity.address, "ports": ports},
        "packer": identity.packer,
        "encryption": identity.encryption,
        "scheduler": identity.scheduler,
        "fingerprint": identity.fingerprint,
        "versions": read_record(environment).get("versions", {}),
    }


def why_no_hub(identity: Identity) -> str:
    """Return in words that nobody listens where the hub would; an empty text where somebody does, or may.

    A client of IPython Parallel waits for its whole time limit all the same.
    """
    address, port = identity.address, identity.ports.engine[0]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            code = probe.connect_ex((address, port))
        except OSError:
            return ""
    if code != errno.ECONNREFUSED:
        return ""
    return (
        f"the hub is down: nobody listens at {address}:{port} of the controller host; start the cluster (playbook "
        "ipyparallel.cluster.start), or look at its logs (playbook ipyparallel.cluster.logs)"
    )


def ask_watchdog(identity: Identity) -> dict[str, t.Any]:
    """Return what the watchdog on this host says."""
    connection = http.client.HTTPConnection("127.0.0.1", identity.ports.metrics, timeout=2)
    try:
        connection.request("GET", "/status")
        said = json.loads(connection.getresponse().read())
        repairs = [event for event in said["events"] if event["text"].startswith("repair: ")]
        own = {int(number): int(count) for number, count in said.get("own_completed", {}).items()}
        told = {name: said[name] for name in ("state", "since", "problems")}
        return {**told, "repairs": repairs[-5:], "own_completed": own}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException):
        return {"state": "absent", "since": "", "problems": [], "repairs": [], "own_completed": {}}
    finally:
        connection.close()


def ask(params: dict[str, t.Any], connector: str, expected: set[Engine]) -> dict[str, t.Any]:
    """Return what the hub tells."""
    try:
        act_as(params["account"])
        client = connect(connector, params["timeout"])
    except HubError as error:
        return {"running": False, "problem": str(error)}
    try:
        engines, queue = described(client)
    except Exception as error:  # noqa: BLE001 - a hub that dies while it answers raises whatever its client raises
        return {"running": False, "problem": f"the hub did not answer a question: {type(error).__name__}: {error}"}
    finally:
        client.close()
    missing = [str(engine) for engine in sorted(expected - places(engines))]
    problem = f"{len(missing)} of {len(expected)} engines are missing: {', '.join(missing[:20])}" if missing else ""
    return {"running": True, "problem": problem, "engines": engines, "queue": queue, "missing": missing}


def take_off(cluster: dict[str, t.Any], own: dict[int, int]) -> None:
    """Take what the watchdog has had done, by id of the engine, off what engines and queue of *cluster* count."""
    for engine in cluster["engines"]:
        count = min(own.get(engine["id"], 0), engine["completed"])
        engine["completed"] -= count
        cluster["queue"]["completed"] -= count


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    places = own_paths(params["scope"], params["cluster"])
    try:
        host = usage(params["cluster"], params["scope"])
        identity = load_identity(places["state"])
        state = read_state(places["state"])
    except (ConnectorError, StateError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot read the state of the cluster, or of this host: {error}")
    cluster = {**NOTHING_KNOWN, "deployed": False, "expected": 0}
    if identity is None or not os.path.isdir(places["environment"]):
        cluster["problem"] = f"there is no cluster in {places['state']}: deploy it (playbook deploy)"
        module.exit_json(changed=False, cluster=cluster, host=host)
        return
    problem = why_no_hub(identity)
    if not problem:
        respawn(module, places["python"], in_place=True)
    expected = expected_engines(state["engines"])
    counts = {
        name: {pool: len(numbers_of(count)) for pool, count in of_host.items()}
        for name, of_host in state["engines"].items()
    }
    cluster.update(deployed=True, expected=len(expected), expected_by_host=counts)
    cluster.update(notebooks=state["notebooks"])
    cluster.update(facts_of(identity, places["environment"]))
    health = ask_watchdog(identity)
    if health["state"] == "down":
        # it has waited already
        params["timeout"] = min(params["timeout"], 1.0)
    cluster.update({"running": False, "problem": problem} if problem else ask(params, places["client"], expected))
    cluster["workers"] = workers(state, cluster["engines"])
    cluster["health"] = health
    take_off(cluster, cluster["health"].pop("own_completed"))
    module.exit_json(changed=False, cluster=cluster, host=host)


if __name__ == "__main__":
    main()
