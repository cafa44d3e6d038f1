# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must be right on a host before anything is changed there."""

from __future__ import annotations

import dataclasses
import glob
import grp
import json
import os
import pwd
import re
import shutil
import socket
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import (
    IDENTITY_FILE,
    ConnectorError,
    Half,
    Ports,
    is_port_base,
    load_identity,
    parse_half,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership, read_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.machine import is_own_address, unreachable_ports
from ansible_collections.ipyparallel.cluster.plugins.module_utils.ports import conflicts, listeners, owner_of

NEEDED_MEGABYTES = 700
"""The environment (about 300 MB), what uv keeps while it makes it, and logs."""
SOCKET_PATH_LIMIT = 107
SHORTEST_HEARTBEAT = 50
NOTEBOOK_SETTINGS = os.path.join("notebook", "settings.json")
NOTEBOOK_PORT = 8888
HALVES: dict[str, tuple[Half, str]] = {
    "engines": ("engine", "engines/security/ipcontroller-engine.json"),
    "notebook": ("client", "notebook/ipython/profile_default/security/ipcontroller-client.json"),
}
"""Where a host keeps its half of the connector, below the state directory, by what the host is."""
ACCOUNT_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class PreflightError(ValueError):
    """The host is not ready; the message names the thing, the value and the remedy."""


def existing_parent(path: str) -> str:
    """Return *path*, or the nearest directory above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path) or "/"
    return path


def check_directory(path: str, variable: str) -> None:
    """Check that *path* is a directory this account can write, or can be made.

    Raises:
        PreflightError: it is not; names the path and the variable.
    """
    parent = existing_parent(path)
    if not os.path.isdir(parent):
        raise PreflightError(f"{path} ({variable}) cannot be made, because {parent} is not a directory: move it away")
    if not os.access(parent, os.W_OK | os.X_OK):
        found = os.stat(parent)
        raise PreflightError(
            f"{path} ({variable}) cannot be written: {parent} belongs to uid {found.st_uid} (mode "
            f"{found.st_mode & 0o7777:04o}) and this account is uid {os.geteuid()}: let it write there, or deploy as "
            "an account that may"
        )


def check_tuning(heartbeat_ms: int | None, uv: str | None, engines_settings: t.Mapping[str, t.Any]) -> None:
    """Check what would only be found out when it is used.

    Raises:
        PreflightError: the heartbeat is too fast to be one, there is no such uv, or engines are to have no nannies.
    """
    ipengine = engines_settings.get("IPEngine")
    if isinstance(ipengine, dict) and not ipengine.get("enable_nanny", True):
        raise PreflightError(
            "ipyparallel_engines_settings has IPEngine.enable_nanny: false, but deploy and health ask the nannies, "
            "which answer when an engine is busy: leave it out"
        )
    if heartbeat_ms is not None and heartbeat_ms < SHORTEST_HEARTBEAT:
        raise PreflightError(
            f"{heartbeat_ms} ms is no interval for a heartbeat: set ipyparallel_controller_heartbeat_ms to "
            f"{SHORTEST_HEARTBEAT} or more"
        )
    if uv and not os.access(uv, os.X_OK):
        raise PreflightError(
            f"there is no program {uv}: set ipyparallel_environment_uv to the path of uv, or leave it out"
        )


@dataclasses.dataclass(frozen=True)
class Account:
    """The account that the cluster's processes run as; one that does not exist yet has no *uid*."""

    name: str
    uid: int | None
    home: str


def read_account(name: str | None) -> Account:
    """Return the account of the cluster on this host.

    Args:
        name: as given, for root; None for the account that runs this, whose home is ``$HOME``.

    Raises:
        PreflightError: an account is given without root, or its name cannot be one.
    """
    if name is None:
        try:
            entry = pwd.getpwuid(os.geteuid())
        except KeyError:  # as in containers with an arbitrary uid
            return Account(str(os.geteuid()), os.geteuid(), os.environ.get("HOME") or "/")
        return Account(entry.pw_name, entry.pw_uid, os.environ.get("HOME") or entry.pw_dir)
    if os.geteuid() != 0:
        raise PreflightError(
            f"scope system needs root, but this is uid {os.geteuid()} on {os.uname().nodename}: let the login become "
            "root (sudo), or set ipyparallel_scope=user, which needs no root"
        )
    if not ACCOUNT_NAME.fullmatch(name):
        raise PreflightError(
            f"{name!r} is not a name for an account: set ipyparallel_user to lower-case letters, digits, hyphens and "
            "underscores, a letter first, 32 at most"
        )
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return Account(name, None, f"/home/{name}")
    return Account(name, entry.pw_uid, entry.pw_dir)


def check_group(name: str) -> None:
    """Check that there is a group of this name.

    Raises:
        PreflightError: there is none.
    """
    try:
        grp.getgrnam(name)
    except KeyError:
        raise PreflightError(
            f"there is no group {name!r} on {os.uname().nodename}: make it there, set ipyparallel_group to one that "
            "there is, or leave it out"
        ) from None


def check_notebook_account(account: Account) -> None:
    """Check that the notebook would not run as root.

    Raises:
        PreflightError: it would.
    """
    if account.uid == 0:
        raise PreflightError(
            "JupyterLab runs what its users type, so it does not run as root: deploy as another account (in scope user "
            "the one that logs in, in scope system ipyparallel_user), or take this host out of the cluster's group for "
            "notebooks"
        )


def check_manager(manager: str, account: Account) -> None:
    """Check that the service manager is there, and lasts longer than a login.

    Raises:
        PreflightError: it does not; names the remedy.
    """
    node = os.uname().nodename
    if manager == "supervisor":
        return
    if not os.path.isdir("/run/systemd/system"):
        raise PreflightError(
            f"{node} was not started by systemd: set ipyparallel_scope=user and "
            "ipyparallel_service_manager=supervisor, which need no systemd"
        )
    if manager == "systemd_user" and not os.path.exists(f"/var/lib/systemd/linger/{account.name}"):
        raise PreflightError(
            f"the systemd of account {account.name} on {node} ends with its last login: let root run 'loginctl "
            f"enable-linger {account.name}' there once, or set ipyparallel_service_manager=supervisor"
        )


def default_address() -> str:
    """Return the IPv4 address from which this host reaches others. Nothing is sent.

    Raises:
        PreflightError: there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # an address that is nobody's (RFC 5737)
        except OSError:
            raise PreflightError(
                f"{os.uname().nodename} has no default route, so its address within the cluster is not known: set "
                "ipyparallel_address"
            ) from None
        return str(probe.getsockname()[0])


def check_address(address: str) -> None:
    """Check that the controller can listen on *address*.

    Raises:
        PreflightError: it is not an address of this host.
    """
    if not is_own_address(address):
        raise PreflightError(
            f"{address} is not an address of {os.uname().nodename}, so its controller cannot listen there: set "
            "ipyparallel_address to one that it has"
        )


def check_outside(directory: str, removed: t.Iterable[str]) -> None:
    """Check that *directory*, which is the users', is not in one that is removed with the cluster.

    Raises:
        PreflightError: it is; names both and the variable.
    """
    for parent in removed:
        if os.path.commonpath([os.path.realpath(directory), os.path.realpath(parent)]) == os.path.realpath(parent):
            raise PreflightError(
                f"{directory} is inside {parent}, which is removed with the cluster: set "
                "ipyparallel_notebook_directory to another directory"
            )


def check_space(path: str) -> None:
    """Check that the file system of *path* has room for an environment.

    Raises:
        PreflightError: it has not; names the figures.
    """
    free = shutil.disk_usage(existing_parent(path)).free // 1_000_000
    if free < NEEDED_MEGABYTES:
        raise PreflightError(
            f"{path} has {free} MB free, but the cluster's software needs {NEEDED_MEGABYTES} MB: make room"
        )


def check_socket(path: str) -> None:
    """Check that the path of a socket is not longer than the system allows.

    Raises:
        PreflightError: it is.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise PreflightError(
            f"the path of the socket {path} has {len(os.fsencode(path))} characters, but {SOCKET_PATH_LIMIT} is the "
            "limit: use a shorter name for the cluster, or set XDG_STATE_HOME to a shorter directory"
        )


def check_ports(cluster: str, address: str, ports: t.Iterable[int], variable: str) -> None:
    """Check that *ports* are free at *address*, or held by the cluster itself.

    Raises:
        PreflightError: one is not; names port, process and variable.
    """
    for listener in conflicts(address, set(ports), listeners()):
        owner = owner_of(listener)
        if owner.cluster == cluster:
            continue
        held = f"cluster {owner.cluster}, {owner}" if owner.cluster else str(owner)
        raise PreflightError(f"port {listener.port} on {os.uname().nodename} is in use by {held}: set {variable}")


def remembered_ports(state: str) -> dict[str, set[int]]:
    """Return the ports of the cluster whose state directory this is, by the variable that sets them."""
    found: dict[str, set[int]] = {}
    try:
        identity = load_identity(state, broken_is_none=True)
    except OSError:
        identity = None
    if identity:
        found["ipyparallel_controller_port_base"] = set(identity.ports.reserved)
    port = remembered_notebook_port(state)
    if port:
        found["ipyparallel_notebook_port"] = {port}
    return found


def remembered_notebook_port(state: str) -> int | None:
    """Return the port of the cluster's notebook as it was last laid down, or None."""
    try:
        values = json.loads(read_text(os.path.join(state, NOTEBOOK_SETTINGS)) or "{}")
        return int(values["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_overlap(cluster: str, state: str, wanted: dict[str, set[int]]) -> None:
    """Check that no other cluster whose state is beside *state* has one of the ports, whether it runs or not.

    Args:
        cluster: name of this cluster.
        state: its state directory; those of other clusters have the same parent.
        wanted: its ports by the variable that sets them.

    Raises:
        PreflightError: a port belongs to two clusters; names both and the variable.
    """
    parent = os.path.dirname(state)
    others = {os.path.dirname(path) for path in glob.glob(os.path.join(glob.escape(parent), "*", IDENTITY_FILE))}
    others |= {
        path.removesuffix(NOTEBOOK_SETTINGS).rstrip("/")
        for path in glob.glob(f"{glob.escape(parent)}/*/{NOTEBOOK_SETTINGS}")
    }
    for other in sorted(others - {state}):
        for theirs in remembered_ports(other).values():
            for variable, ports in wanted.items():
                if shared := sorted(ports & theirs):
                    span = f"{shared[0]} to {shared[-1]}" if len(shared) > 1 else str(shared[0])
                    raise PreflightError(
                        f"port {span} of cluster {cluster} belongs to cluster {os.path.basename(other)} on "
                        f"{os.uname().nodename} already: set {variable}"
                    )


def wanted_ports(state: str, port_base: int, notebook_port: int | None, roles: set[str]) -> dict[str, set[int]]:
    """Return the ports that this host's part of the cluster will listen on, by the variable that sets them.

    Args:
        state: the cluster's state directory.
        port_base: first port of the cluster.
        notebook_port: as given, or None.
        roles: what this host is: ``controller``, ``engines``, ``notebook``.

    Raises:
        PreflightError: the notebook's port is none, or one of the controller's.
    """
    wanted: dict[str, set[int]] = {}
    if notebook_port is not None and not 1024 <= notebook_port <= 65535:
        raise PreflightError(
            f"{notebook_port} is not a port for the notebook: set ipyparallel_notebook_port to a number from 1024 to "
            "65535"
        )
    if "controller" in roles:
        wanted["ipyparallel_controller_port_base"] = set(Ports(port_base).reserved)
    if "notebook" in roles:
        port = notebook_port or remembered_notebook_port(state) or NOTEBOOK_PORT
        wanted["ipyparallel_notebook_port"] = {port}
        if port in wanted.get("ipyparallel_controller_port_base", ()):
            raise PreflightError(
                f"port {port} of the notebook is one of the controller's, {port_base} to "
                f"{Ports(port_base).reserved[-1]}: set ipyparallel_notebook_port or ipyparallel_controller_port_base"
            )
    return wanted


def reached_controller(
    state: str, roles: t.Iterable[str], ownership: Ownership | None = None, seconds: float = 1.0
) -> dict[str, t.Any]:
    """Return where the last run said that the controller is, if this host reaches it there now.

    That saves the question of module ``reach``, which can only be asked when the controller's host has answered.

    Args:
        state: the cluster's state directory.
        roles: what this host is.
        ownership: the account whose halves they are.
        seconds: how long an answer may take.

    Returns:
        ``address`` and ``port_base``; empty where no half has been laid down yet, or a port is not reached.
    """
    found: dict[str, t.Any] = {}
    for role in sorted(set(HALVES) & set(roles)):
        which, path = HALVES[role]
        try:
            half = parse_half(read_text(os.path.join(state, path), ownership) or "", which, path)
            place = {"address": half["location"], "port_base": half["registration"]}
            if is_own_address(place["address"]) or not is_port_base(place["port_base"]):
                return {}
        except (OSError, ConnectorError, ValueError):
            return {}
        asked = Ports(place["port_base"]).asked[role]
        if place != (found or place) or unreachable_ports(place["address"], asked, seconds):
            return {}
        found = place
    return found
