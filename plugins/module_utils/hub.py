# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything that is said to a running hub, from a client that holds nothing but the client half of the connector.

The modules that use this run in the Python of the cluster's own environment (``respawn``), because client and
engines must have the same minor version of Python.
"""

from __future__ import annotations

import concurrent.futures
import os
import pwd
import re
import sys
import time
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, parse_half
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, parse_ident

if t.TYPE_CHECKING:
    import ipyparallel
    from ansible.module_utils.basic import AnsibleModule

HUB_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "connector": {"type": "path", "required": True},
    "python": {"type": "path", "required": True},
    "timeout": {"type": "float", "default": 30.0},
    "account": {"type": "str"},
}
"""The options shared by every module that talks to a hub (documentation fragment ``hub``)."""
ARCHIVE = re.compile(r"ansible_.+_payload\.zip")
"""How Ansible calls the archive of a module."""


class HubError(Exception):
    """The hub cannot be reached or did not answer; the message says where and what to do."""


def respawn(module: AnsibleModule, python: str) -> bool:
    """Continue *module* in the interpreter *python*, unless it runs there already.

    Does not return when it respawns.

    Returns:
        True when the module runs in *python*; False in check mode on a host that has no such interpreter yet.
    """
    from ansible.module_utils.common.respawn import has_respawned, respawn_module

    if has_respawned():
        return True
    if not os.access(python, os.X_OK):
        if module.check_mode:
            return False
        module.fail_json(
            msg=f"the cluster's Python {python} does not exist on this host: deploy the cluster first "
            "(playbook ipyparallel.cluster.deploy)"
        )
    if "ansible_mitogen.runner" in sys.modules:
        # it runs modules in its own process, which Ansible cannot respawn
        use_packages_of(module, python)
        return True
    respawn_module(python)
    return True


def use_packages_of(module: AnsibleModule, python: str) -> None:
    """Let this process import what the environment of *python* has; it must be of the same minor version."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.path.join(os.path.dirname(os.path.dirname(python)), "lib", minor, "site-packages")
    if not os.path.isdir(packages):
        module.fail_json(
            msg=f"this module runs in {sys.executable} ({minor}), for which {python} has no packages, and mitogen cannot "
            "respawn it: set ansible_python_interpreter to a Python of the same minor version, or run without mitogen"
        )
    if packages not in sys.path:
        sys.path.insert(0, packages)
    # what the module starts runs there too
    sys.executable = python


def act_as(account: str | None) -> None:
    """Let root go on as *account*, for good, before it speaks to a hub: what engines send is unpickled.

    Args:
        account: that of the cluster; None where the module runs as this account anyway.

    Raises:
        HubError: there is no such account.
    """
    if account is None or os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise HubError(
            f"there is no account {account} on {os.uname().nodename}: deploy the cluster first (playbook "
            "ipyparallel.cluster.deploy), or set ipyparallel_user to the one it was deployed with"
        ) from None
    # Python goes on to import from Ansible's archive of the module, which lies in a directory for root only
    for archive in (path for path in sys.path if ARCHIVE.fullmatch(os.path.basename(path)) and os.path.isfile(path)):
        os.chown(os.path.dirname(archive), entry.pw_uid, -1)
        os.chown(archive, entry.pw_uid, -1)
    os.initgroups(account, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ.update(HOME=entry.pw_dir, USER=account, LOGNAME=account)
    os.chdir("/")


def connect(connector: str, timeout: float) -> ipyparallel.Client:
    """Return a client of the hub that the client half *connector* names.

    Args:
        connector: path of the client half, a JSON file.
        timeout: seconds to wait for the hub's answer.

    Raises:
        HubError: the file is missing or broken, or no hub answered in time.
    """
    import ipyparallel

    try:
        text = read_text(connector)
        if text is None:
            raise HubError(f"there is no connector {connector}: deploy the cluster first")
        parse_half(text, "client", connector)
    except ConnectorError as error:
        raise HubError(str(error)) from None
    except OSError as error:
        raise HubError(f"cannot read the connector {connector}: {error.strerror}") from None
    try:
        return ipyparallel.Client(connector, timeout=timeout)
    except (TimeoutError, ipyparallel.error.TimeoutError) as error:
        raise HubError(
            f"the hub of {connector} did not answer within {timeout:g} s ({error}): "
            "is the cluster started (playbook ipyparallel.cluster.status)?"
        ) from error


def registered(client: ipyparallel.Client) -> list[dict[str, t.Any]]:
    """Return the engines that the hub has registered, by id.

    Each has ``id``, ``uuid`` and what its ident tells: ``host``, ``pool``, ``core``, ``pid``. No engine is asked, so
    a busy
    one does not delay the answer.
    """
    # the only place that reads the client's private map of ids to idents; there is no public one
    idents = dict(client._engines)
    return [{"id": number, "uuid": ident, **parse_ident(ident)} for number, ident in sorted(idents.items())]


def described(client: ipyparallel.Client) -> tuple[list[dict[str, t.Any]], dict[str, int]]:
    """Return the registered engines with their state, and the queue.

    Each engine has, besides what `registered` tells, ``state`` (``idle`` or ``busy``), ``queued`` and ``completed``
    (tasks).
    The queue has ``queued`` (waiting on engines), ``unassigned`` (waiting for an engine) and ``completed``.
    """
    status = client.queue_status()
    engines = []
    for engine in registered(client):
        counts = status.get(engine["id"], {})
        # the hub counts load-balanced work as tasks, and direct work in the queue
        waiting = counts.get("queue", 0) + counts.get("tasks", 0)
        state = "busy" if waiting else "idle"
        engines.append({**engine, "state": state, "queued": waiting, "completed": counts.get("completed", 0)})
    queue = {
        "queued": sum(engine["queued"] for engine in engines),
        "unassigned": status.get("unassigned", 0),
        "completed": sum(engine["completed"] for engine in engines),
    }
    return engines, queue


def silent(client: ipyparallel.Client, ids: list[int], seconds: float) -> list[int]:
    """Return those of *ids* whose engine does not answer within *seconds*.

    The nanny of an engine answers, so a busy engine is not silent; one that is gone, and still registered, is.
    """
    waiting = {number: client.send_signal(0, targets=[number], block=False) for number in ids}
    concurrent.futures.wait(waiting.values(), timeout=seconds)
    return [number for number, answer in waiting.items() if not answer.done()]


def forget(client: ipyparallel.Client, number: int) -> None:
    """Let the hub forget engine *number*, which is gone, but on which every task for all engines hangs."""
    # engines and nannies send the same request when they end; a client has no public call for it
    client.session.send(client._query_socket, "unregistration_request", content={"id": number})


class Waiting(t.NamedTuple):
    """How far a cluster is from the engines that are expected."""

    missing: list[Engine]
    doubled: list[Engine]
    silent: list[int]
    registered: int

    @property
    def whole(self) -> bool:
        """Whether every expected engine is registered once and answers."""
        return not (self.missing or self.doubled or self.silent)


def wait_for(client: ipyparallel.Client, expected: set[Engine], seconds: float) -> Waiting:
    """Wait until every engine of *expected* is registered, once, and answers.

    An engine that died without notice and was replaced is registered twice; the id that does not answer is forgotten.

    Args:
        client: of the cluster's hub.
        expected: the engines.
        seconds: how long to wait at most; 0 looks once.

    Returns:
        What was found last.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = registered(client)
        places = [Engine(engine["host"], engine["pool"], engine["core"]) for engine in found]
        missing = sorted(expected - set(places))
        doubled = sorted({place for place in places if places.count(place) > 1} & expected)
        mute: list[int] = []
        if not missing:
            ids = [engine["id"] for engine, place in zip(found, places, strict=True) if place in expected]
            mute = silent(client, ids, min(3.0, max(0.5, deadline - time.monotonic())))
        for engine, place in zip(found, places, strict=True):
            if place in doubled and engine["id"] in mute:
                forget(client, engine["id"])
        result = Waiting(missing, doubled, mute, len(found))
        if result.whole or time.monotonic() > deadline:
            return result
        time.sleep(0.05)
