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
import types
import typing as t
from collections.abc import Callable, Iterable

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
WATCHDOG = "watchdog-"
"""Begins the ids of what the watchdog sends."""
ARCHIVE = re.compile(r"ansible_.+_payload\.zip")
"""How Ansible calls the archive of a module."""


class HubError(Exception):
    """The hub cannot be reached or did not answer; the message says where and what to do."""


class HubAwayError(HubError):
    """The hub did not answer in time, which it may yet do."""


def has_environment(module: AnsibleModule, python: str) -> bool:
    """Return whether the cluster's interpreter *python* is there; fail where it has to be, unless in check mode."""
    if os.access(python, os.X_OK):
        return True
    if not module.check_mode:
        module.fail_json(
            msg=f"the cluster's Python {python} does not exist on this host: deploy the cluster first "
            "(playbook ipyparallel.cluster.deploy)"
        )
    return False


def respawn(module: AnsibleModule, python: str, in_place: bool = False) -> bool:
    """Continue *module* in the interpreter *python*, unless it runs there already.

    Does not return when it respawns.

    Args:
        module: the module.
        python: path of the interpreter.
        in_place: go on in this process, with the packages of *python*, where that is of the same minor version, which
            saves a quarter of a second. Not for what sends functions to engines.

    Returns:
        True when the module runs in *python*; False in check mode on a host that has no such interpreter yet.
    """
    from ansible.module_utils.common.respawn import has_respawned, respawn_module

    if has_respawned():
        return True
    if not has_environment(module, python):
        return False
    if "ansible_mitogen.runner" in sys.modules or (in_place and os.path.isdir(packages_of(python))):
        # mitogen runs modules in its own process, which Ansible cannot respawn
        use_packages_of(module, python)
        return True
    respawn_module(python)
    return True


def packages_of(python: str) -> str:
    """Return where the environment of *python* has packages for this minor version, if it is of that."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return os.path.join(os.path.dirname(os.path.dirname(python)), "lib", minor, "site-packages")


def use_packages_of(module: AnsibleModule, python: str) -> None:
    """Let this process import what the environment of *python* has; it must be of the same minor version."""
    packages = packages_of(python)
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not os.path.isdir(packages):
        module.fail_json(
            msg=f"this module runs in {sys.executable} ({minor}), for which {python} has no packages, and "
            "mitogen cannot respawn it: set ansible_python_interpreter to a Python of the same minor version, or run "
            "without mitogen"
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


def connect(connector: str, timeout: float, waited: float = 0.0) -> ipyparallel.Client:
    """Return a client of the hub that the client half *connector* names.

    Args:
        connector: path of the client half, a JSON file.
        timeout: seconds to wait for the hub's answer.
        waited: how long it was waited for before, for the message.

    Raises:
        HubAwayError: no hub answered in time.
        HubError: the file is missing or broken.
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
        raise HubAwayError(
            f"the hub of {connector} did not answer within {round(timeout + waited, 1):g} s ({error}): "
            "is the cluster started (playbook ipyparallel.cluster.status)?"
        ) from error


def registered(client: ipyparallel.Client) -> list[dict[str, t.Any]]:
    """Return the engines that the hub has registered, by id.

    Each has ``id``, ``uuid`` and what its ident tells: ``host``, ``pool``, ``core``, ``pid``. No engine is asked, so
    a busy one does not delay the answer.
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
    client._io_loop.add_callback(
        client.session.send, client._query_socket, "unregistration_request", content={"id": number}
    )


Function = t.TypeVar("Function", bound=Callable[..., t.Any])


def on_engine(function: Function) -> Function:
    """Make *function* look as if it had been typed by the user, so that engines can run it.

    A function of a module is sent by reference, and the engines do not have this module. The same as
    ``ipyparallel.interactive``, which cannot be imported where Ansible only reads this file.
    """
    copy = types.FunctionType(function.__code__, {}, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__ = "__main__"
    return t.cast("Function", copy)


# ---- what the watchdog asks: without waiting, and of engines by ident, because the hub may not know them (any more)

Answer: t.TypeAlias = "concurrent.futures.Future[t.Any]"


def _control(client: ipyparallel.Client, ident: str, request: str, content: dict[str, t.Any]) -> Answer:
    # the client's own calls take ids, hence registered engines only
    answer: Answer = client._send(client._control_stream, request, content=content, ident=ident.encode())
    return answer


def ask_engine(client: ipyparallel.Client, ident: str) -> Answer:
    """Ask engine *ident* for a sign of life, which nobody logs or keeps.

    The engine answers in a thread of its own while it runs a task, unless the task never lets go of the interpreter.
    """
    return _control(client, ident, "connect_request", {})


def ask_nanny(client: ipyparallel.Client, ident: str) -> Answer:
    """Ask the nanny of engine *ident* for a sign of life; it answers whatever the engine does, and logs it."""
    return _control(client, ident, "signal_request", {"sig": 0})


def tell_to_end(client: ipyparallel.Client, ident: str, signal: str | None = None) -> None:
    """Tell engine *ident* to end, so that its service manager starts another.

    Args:
        client: of the cluster's hub.
        ident: the engine.
        signal: sent by its nanny; with ``SIGTERM`` the engine finishes what it does. Without, it ends at once.
    """
    if signal:
        _control(client, ident, "signal_request", {"sig": signal})
    else:
        _control(client, ident, "shutdown_request", {"restart": False})


def ask_to_drain(client: ipyparallel.Client, idents: Iterable[str], seconds: float) -> Answer:
    """Ask the task scheduler to give engines nothing more but what no other may do (``task_scheduler.py``).

    Args:
        client: of the cluster's hub.
        idents: the engines.
        seconds: for how long, unless it is asked again; 0 lets them have work again.

    Returns:
        The answer to come, see `drained_of`.
    """

    def take(message: dict[str, t.Any]) -> None:
        client._futures[message["parent_header"]["msg_id"]].set_result(message)

    client._queue_handlers.setdefault("drain_reply", take)
    content = {"engines": list(idents), "seconds": seconds}
    answer: Answer = client._send(client._task_stream, "drain_request", content=content)
    return answer


def drained_of(message: dict[str, t.Any]) -> tuple[dict[str, list[dict[str, t.Any]]], list[str]]:
    """Return what the task scheduler answered: by ident the tasks that an engine has, and those that wait for it.

    Each of the former has ``task``, its id, and ``seconds``, since when the engine has it.
    """
    return message["content"]["running"], message["content"]["waiting"]


def ask_queue(client: ipyparallel.Client) -> Answer:
    """Ask the hub for its queue, see `queue_of`."""
    answer: Answer = client._send(client._query_stream, "queue_request", content={"targets": None, "verbose": False})
    return answer


def ask_calls(client: ipyparallel.Client, numbers: Iterable[int]) -> Answer:
    """Ask the hub which direct calls engines have, see `calls_of`."""
    content = {"targets": list(numbers), "verbose": True}
    answer: Answer = client._send(client._query_stream, "queue_request", content=content)
    return answer


def calls_of(message: dict[str, t.Any]) -> dict[int, list[str]]:
    """Return what the hub answered: the ids of the direct calls that each engine has, by its number."""
    return {int(key): found["queue"] for key, found in message["content"].items() if key.isdigit()}


def sign_as_watchdog(client: ipyparallel.Client) -> None:
    """Let the ids of all that *client* sends tell that it is the watchdog's, which nobody waits for."""
    client.session.session = f"{WATCHDOG}{client.session.session}"


def is_of_watchdog(task: str) -> bool:
    """Tell whether a task or call with this id is a no-op of the watchdog's."""
    return task.startswith(WATCHDOG)


def queue_of(message: dict[str, t.Any]) -> tuple[dict[int, dict[str, int]], int]:
    """Return what the hub answered: by id ``queue``, ``tasks`` and ``completed``; and the tasks without an engine.

    Engines that have left are counted too, so that what is completed never shrinks.
    """
    content = message["content"]
    return {int(key): counts for key, counts in content.items() if key.isdigit()}, content.get("unassigned", 0)


def listen(client: ipyparallel.Client, numbers: Iterable[int]) -> None:
    """Let the client hear what these engines publish, and nothing of the others.

    A client hears the output of all work of everybody, and has to read it to find its own.
    """
    topics = {f"engine.{number}.".encode() for number in numbers}
    heard: set[bytes] = client.__dict__.setdefault("heard_topics", {b""})

    def change() -> None:
        for topic in heard - topics:
            client._iopub_socket.unsubscribe(topic)
        for topic in topics - heard:
            client._iopub_socket.subscribe(topic)
        heard.symmetric_difference_update(heard ^ topics)

    client._io_loop.add_callback(change)


def no_op(client: ipyparallel.Client, way: str, number: int, limit: float) -> ipyparallel.AsyncResult:
    """Let an engine do nothing, and return the result that will come.

    Args:
        client: of the cluster's hub.
        way: ``direct``, ``broadcast``, ``load-balanced``, or ``scheduler``, which goes to the task scheduler and back,
            and comes back as ``InvalidDependency``, whether there are engines, idle ones, or none.
        number: id of the engine.
        limit: seconds after which load-balanced work that did not begin comes back as ``TaskTimeout``.
    """
    if way == "direct":
        return client.direct_view([number]).apply_async(os.getpid)
    if way == "broadcast":
        return client.broadcast_view([number]).apply_async(os.getpid)
    view = client.load_balanced_view(None if way == "scheduler" else [number])
    flags = {"after": ["never-submitted"]} if way == "scheduler" else {"timeout": limit}
    with view.temp_flags(retries=0, **flags):
        return view.apply_async(os.getpid)


def outcome(result: ipyparallel.AsyncResult) -> str:
    """Return how work ended: ``done``, the name of its error, or an empty text while it is under way."""
    if not result.ready():
        return ""
    try:
        result.get(0)
    except Exception as error:  # noqa: BLE001 - whatever the engine or a scheduler made of it
        return str(getattr(error, "ename", type(error).__name__))
    return "done"


def drop_records(client: ipyparallel.Client, results: Iterable[ipyparallel.AsyncResult]) -> None:
    """Let the hub drop the records of work that has ended; its database holds so many, and drops those of users."""
    ids = [number for result in results for number in result.msg_ids]
    if ids:
        client._send(client._query_stream, "purge_request", content={"msg_ids": ids, "engine_ids": []})


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
        places = [Engine.of(engine) for engine in found]
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
