# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A running cluster as an inventory: what its hub tells an operator, and what hosts that makes.

The hub is asked by a process of its own, which ends before Ansible goes on: a client leaves threads of ZeroMQ behind,
and Ansible forks. So the interpreter that asks may also be another one than Ansible's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import typing as t
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, parse_half
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import HubError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import POOL_NAME
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import TUNNEL_FILE

ENGINE_KEYS = ("id", "pool", "core", "pid", "state", "queued", "completed")
# An engine says where it is, and Ansible makes paths and arguments of names: host_vars/<name>, ssh <name>.
HOST_NAME = re.compile(r"(?![-.])[^/]+")
COLLECTIONS = os.path.normpath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))
# Another interpreter has packages of its own, and is not to find Ansible's beside the collections. The working
# directory, which Python has as an empty path, is none to import from.
PROGRAM = f"""\
import sys, types
collections = types.ModuleType("ansible_collections")
collections.__path__ = [sys.argv.pop(1)]
sys.modules["ansible_collections"] = collections
sys.path[:] = filter(None, sys.path)
from {__name__} import main
main()
"""
START_SECONDS = 30
PROBE_SECONDS = 2
MOST_SECONDS = 3600


# ---- the process that asks


def answer(connector: str, timeout: float) -> dict[str, t.Any]:
    """Return what the hub tells: ``engines`` and ``queue``, as ``hub.described`` has them.

    Or why it does not: ``missing`` (a package that this interpreter lacks), ``silent`` (no hub answered in time), or
    ``error``.

    Args:
        connector: path of the client half.
        timeout: seconds to wait for the hub's answer.
    """
    try:
        import ipyparallel  # noqa: F401 - only whether it is there
    except ImportError as error:
        return {"missing": "ipyparallel", "error": str(error)}
    with open(connector, encoding="utf-8") as stream:
        packer = json.load(stream)["pack"]
    # the session of a client would take another in its place, or say less
    if packer not in ("json", "pickle") and importlib.util.find_spec(packer) is None:
        return {"missing": packer, "error": f"the cluster's messages are in {packer}"}
    try:
        client = hub.connect(connector, timeout)
    except HubError as error:
        return {"silent": str(error)}
    try:
        engines, queue = hub.described(client)
    finally:
        client.close()
    return {"engines": engines, "queue": queue}


def main() -> None:
    """Write the answer as JSON to standard output, and what packages say to standard error.

    Its arguments are those of `answer`.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        connector, timeout = sys.argv[1:]
        try:
            said = answer(connector, float(timeout))
        except Exception as error:  # noqa: BLE001 - a hub that dies while it answers raises whatever its client raises
            said = {"error": f"{type(error).__name__}: {error}"}
        json.dump(said, output)


# ---- the operator's side


def ask(connector: str, cluster: str, python: str, timeout: float) -> dict[str, t.Any]:
    """Return what the hub tells, from a process of interpreter *python*; no engine is asked.

    Args:
        connector: path of the client half on this machine.
        cluster: name of the cluster, for messages.
        python: path of an interpreter that has ipyparallel.
        timeout: seconds to wait for the hub's answer.

    Returns:
        ``engines``, each with ``host`` and what `ENGINE_KEYS` names, and ``queue``.

    Raises:
        HubError: the connector is missing or broken, the interpreter cannot ask, or no hub answered in time.
    """
    if not 0 < timeout <= MOST_SECONDS:
        raise HubError(f"{timeout:g} is no time to wait: set option timeout to at most {MOST_SECONDS} seconds, above 0")
    half = read_connector(connector, cluster)
    said = ask_apart(python, connector, timeout)
    if "missing" in said:
        raise HubError(
            f"{python} cannot ask the hub, because it cannot import {said['missing']} ({said['error']}): install it "
            f"there ({python} -m pip install --upgrade {said['missing']}), or name another interpreter in option python"
        )
    if "silent" in said:
        raise HubError(silence(connector, half, cluster, timeout))
    if "error" in said:
        raise HubError(f"the hub of {connector} could not be asked by {python}: {said['error']}")
    engines = [{key: engine[key] for key in ("host", *ENGINE_KEYS)} for engine in said["engines"]]
    return {"engines": engines, "queue": said["queue"]}


def read_connector(connector: str, cluster: str) -> dict[str, t.Any]:
    """Return the client half.

    Raises:
        HubError: the file is missing or broken.
    """
    fetch = f"playbook ipyparallel.cluster.connect -e cluster={cluster}"
    try:
        text = read_text(connector)
    except OSError as error:
        raise HubError(f"cannot read the connector {connector}: {error.strerror}") from None
    if text is None:
        raise HubError(
            f"there is no connector {connector}: {fetch} brings that of cluster {cluster} to this machine; or name "
            "another file in option connector, or another cluster in option cluster"
        )
    try:
        return parse_half(text, "client", connector)
    except ConnectorError as error:
        raise HubError(f"{error}, and {fetch} brings it to this machine") from None


def ask_apart(python: str, connector: str, timeout: float) -> dict[str, t.Any]:
    """Return the `answer` of another process.

    Raises:
        HubError: the interpreter does not start, or fails.
    """
    try:
        done = subprocess.run(
            [python, "-c", PROGRAM, COLLECTIONS, connector, str(timeout)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            # connecting, and a question
            timeout=2 * timeout + START_SECONDS,
            check=False,
            # without a terminal, at which ipyparallel could ask for a password
            start_new_session=True,
        )
    except OSError as error:
        raise HubError(f"cannot start {python}: {error.strerror}: name an interpreter in option python") from None
    except subprocess.TimeoutExpired:
        return {"silent": "a question"}
    try:
        said: dict[str, t.Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}, and no message"]
        return {"error": lines[-1]}
    return said


def silence(connector: str, half: Mapping[str, t.Any], cluster: str, timeout: float) -> str:
    """Return what to tell an operator of a hub that did not answer: where it was looked for, why, and the remedy."""
    address = urlsplit(half["interface"]).hostname or ""
    if address in ("", "*", "0.0.0.0"):  # noqa: S104 - what a connector says, nothing is bound
        address = half["location"]
    place = f"{address}:{half['registration']}"
    again = f"playbook ipyparallel.cluster.connect -e cluster={cluster}"
    started = f"is the cluster started (playbook ipyparallel.cluster.status -e cluster={cluster})?"
    login = login_of_tunnel(connector, half)
    way = (
        f"open the client ports to this machine (ipyparallel_allowed_cidrs), or come through SSH with {again} "
        "-e ipyparallel_connect_through=ssh"
    )
    try:
        socket.create_connection((address, half["registration"]), timeout=PROBE_SECONDS).close()
    except ConnectionRefusedError:
        if login:
            reason = f"the SSH tunnel to {login} is closed: run {again} again"
        elif address == "127.0.0.1":
            reason = f"nothing listens there: {started}"
        else:
            # which the firewall of this collection says too
            reason = f"the connection is refused: {started} If it is, {way}"
    except OSError as error:
        reason = f"this machine does not reach it ({error.strerror or error}): {way}"
    else:
        through = f"the SSH tunnel to {login} is open, but " if login else ""
        reason = (
            f"{through}no hub answers behind that port: {started} If it is, it may have another identity by now: "
            f"{again} brings its connector"
        )
    return f"the hub of {connector} at {place} did not answer within {timeout:g} s; {reason}"


def login_of_tunnel(connector: str, half: Mapping[str, t.Any]) -> str:
    """Return the login of the SSH tunnel that the connector of a profile leads through; empty if through none."""
    directory = os.path.dirname(os.path.dirname(connector))
    try:
        link = json.loads(read_text(os.path.join(directory, TUNNEL_FILE)) or "{}")
        return str(link["login"]) if link["ports"]["registration"] == half["registration"] else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


# ---- hosts


def by_host(
    engines: Iterable[Mapping[str, t.Any]], taken: Iterable[str] = ()
) -> tuple[dict[str, list[dict[str, t.Any]]], list[int]]:
    """Return the engines of each host, and the ids of those that have no place in an inventory.

    These are engines which this collection did not start, and those whose host or pool has no name for an inventory.

    Args:
        engines: as `ask` returns them.
        taken: names that no host can have, because groups have them.
    """
    reserved = set(taken)
    hosts: dict[str, list[dict[str, t.Any]]] = {}
    others = []
    for engine in engines:
        host, pool = engine["host"], engine["pool"]
        if host is None or not is_host_name(host) or host in reserved or not POOL_NAME.fullmatch(pool):
            others.append(engine["id"])
        else:
            hosts.setdefault(host, []).append({key: engine[key] for key in ENGINE_KEYS})
    return hosts, others


def is_host_name(name: str) -> bool:
    """Return whether *name*, which an engine gave, can be that of a host in an inventory."""
    return HOST_NAME.fullmatch(name) is not None and name.isprintable() and name == name.strip()


def host_variables(engines: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    """Return the variables of a host with these *engines*, at least one."""
    pools = [engine["pool"] for engine in engines]
    queued = sum(engine["queued"] for engine in engines)
    return {
        "ipyparallel_engines": engines,
        "ipyparallel_engine_ids": [engine["id"] for engine in engines],
        "ipyparallel_pools": {pool: pools.count(pool) for pool in sorted(set(pools))},
        "ipyparallel_busy_engines": sum(engine["state"] == "busy" for engine in engines),
        "ipyparallel_queued": queued,
        "ipyparallel_completed": sum(engine["completed"] for engine in engines),
        "ipyparallel_load": round(queued / len(engines), 2),
    }
