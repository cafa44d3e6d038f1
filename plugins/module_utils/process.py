# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One description of a long-running process, rendered for each service manager.

A `Definition` says what runs; a `Manager` lays it down and keeps it running. The hash of the definition and the
fingerprint of the cluster's identity are in the environment of each process: that, and nothing kept beside it, tells
whether a running process is the wanted one, so that an interrupted run loses no restart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import time
import typing as t
from collections.abc import Callable, Iterable, Iterator, Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import acting_as

PREFIX = "IPYPARALLEL_"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MANAGED = "Managed by Ansible (collection ipyparallel.cluster): changes are overwritten."


class ProcessError(RuntimeError):
    """A process cannot be laid down, started or stopped; the message names it, what was tried and its log."""


@dataclasses.dataclass(frozen=True)
class ManagedFile:
    """A file that belongs to a process and is laid down with it."""

    path: str
    content: str
    mode: int = 0o600
    secret: bool = False


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a process is, whatever keeps it running.

    A manager that cannot do something leaves it out: only systemd knows `account`, `hardening` (its directives, by
    name) and `writable` (what the process may write in spite of them).

    `cpus` and `memory` (bytes) are what a single process may use, with all that it starts; None is all there is.

    `ends` tells what a stop signals first: ``together`` all that belongs to the process, ``main`` the main process
    only, so that an engine's nanny can still tell the hub. What is left then is ended too.
    """

    cluster: str
    name: str
    command: tuple[str, ...] = ()
    description: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    directory: str = "/"
    umask: str = "077"
    instances: tuple[str, ...] | None = None
    stop_timeout: int = 10
    files: tuple[ManagedFile, ...] = ()
    watched: dict[str, str] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    account: str = ""
    group: str = ""
    hardening: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    writable: tuple[str, ...] = ()
    ends: t.Literal["together", "main"] = "together"
    success_status: tuple[int, ...] = ()
    cpus: float | None = None
    memory: int | None = None

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change when a running process would have to be restarted to be as described.

        The number of instances is not part of it: a pool that grows does not restart what runs.
        """
        parts = {
            "command": self.command,
            "environment": self.environment,
            "directory": self.directory,
            "umask": self.umask,
            "stop_timeout": self.stop_timeout,
            "files": {file.path: file.content for file in self.files},
            "watched": self.watched,
            "fingerprint": self.fingerprint,
            "account": [self.account, self.group],
            "hardening": self.hardening,
            "writable": self.writable,
            "ends": [self.ends, self.success_status],
            # what is not limited has the digest that it had before there were limits
            **({"limits": [self.cpus, self.memory]} if self.cpus or self.memory else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def units(self) -> dict[str, str]:
        """Names of the single processes, each with its instance (an empty text where there is one process only)."""
        if self.instances is None:
            return {self.name: ""}
        return {f"{self.name}-{instance}": instance for instance in self.instances}

    def marked_environment(self, instance: str) -> dict[str, str]:
        """Return the environment of an instance, with what tells other parts of the collection what it is."""
        return {
            **self.environment,
            f"{PREFIX}CLUSTER": self.cluster,
            f"{PREFIX}PROCESS": self.name,
            f"{PREFIX}INSTANCE": instance,
            f"{PREFIX}FINGERPRINT": self.fingerprint,
            f"{PREFIX}DEFINITION": self.digest,
        }


@dataclasses.dataclass(frozen=True)
class Running:
    """A process of a cluster that runs on this host, read from ``/proc``."""

    pid: int
    parent: int
    name: str
    instance: str
    fingerprint: str
    digest: str
    host: str = ""


def resolve_command(command: Iterable[str]) -> tuple[str, ...]:
    """Return *command* without links in its directory, so that a unit names the environment it was made for."""
    program, *arguments = command
    return (os.path.join(os.path.realpath(os.path.dirname(program)), os.path.basename(program)), *arguments)


def parse_environ(data: bytes) -> dict[str, str]:
    """Return the environment in the form of ``/proc/<pid>/environ`` as a dictionary."""
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, _sign, value in pairs}


@contextlib.contextmanager
def as_owner_of(pid: int) -> Iterator[None]:
    """Let root look at process *pid* as its account: in many containers root may not look at what is another's."""
    found = os.stat(f"/proc/{pid}")
    with acting_as(found.st_uid, found.st_gid):
        yield


def process_environ(pid: int) -> dict[str, str]:
    """Return the environment that process *pid* was started with; empty where it is gone or another's."""
    try:
        with as_owner_of(pid), open(f"/proc/{pid}/environ", "rb") as stream:
            return parse_environ(stream.read())
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return {}


def stat_fields(pid: int) -> list[str]:
    """Return what ``/proc/<pid>/stat`` has after the name (proc(5), from ``state`` on), nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def age(fields: list[str]) -> float:
    """Return for how many seconds the process of these `stat_fields` runs."""
    # since boot, which no step of the clock changes
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def parent_of(pid: int) -> int:
    """Return the parent of process *pid*, 0 where it is gone."""
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def is_alive(pid: int) -> bool:
    """Return whether process *pid* exists and is no zombie."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def ancestors(pid: int) -> set[int]:
    """Return process *pid* and all processes above it."""
    chain: set[int] = set()
    while pid > 0 and pid not in chain:
        chain.add(pid)
        pid = parent_of(pid)
    return chain


def running_processes(cluster: str, main_only: bool = True, run: str | None = None) -> list[Running]:
    """Return the processes of *cluster* that run on this host, as far as this account may see them.

    Args:
        cluster: name of the cluster.
        run: its directory of sockets and process ids, which tells it from clusters of the same name that other
            accounts, or this account with another home, have; None for those of all.
        main_only: leave out the children (schedulers, nannies, kernels), which inherit the marks of their parents.
    """
    found: dict[int, Running] = {}
    # a playbook that is run in a terminal of the cluster's own JupyterLab inherits its marks
    own = ancestors(os.getpid())
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        marks = process_environ(int(entry)) if int(entry) not in own else {}
        if marks.get(f"{PREFIX}CLUSTER") != cluster or f"{PREFIX}PROCESS" not in marks:
            continue
        if run is not None and marks.get(f"{PREFIX}RUN") != run:
            continue
        found[int(entry)] = Running(
            pid=int(entry),
            parent=parent_of(int(entry)),
            name=marks[f"{PREFIX}PROCESS"],
            instance=marks.get(f"{PREFIX}INSTANCE", ""),
            fingerprint=marks.get(f"{PREFIX}FINGERPRINT", ""),
            digest=marks.get(f"{PREFIX}DEFINITION", ""),
            host=marks.get(f"{PREFIX}HOST", ""),
        )
    if not main_only:
        return list(found.values())

    def is_main(process: Running) -> bool:
        parent = found.get(process.parent)
        return parent is None or (parent.name, parent.instance) != (process.name, process.instance)

    return [process for process in found.values() if is_main(process)]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until *condition* holds, for *seconds* at most; return whether it does."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    return True


def end_processes(pids: Iterable[int], seconds: float) -> None:
    """End processes of this account: ask, wait *seconds*, then force."""
    remaining = set(pids)
    for number, limit in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + limit
        while remaining and time.monotonic() < deadline:
            remaining = {pid for pid in remaining if is_alive(pid)}
            time.sleep(0.02)


def check_file(file: ManagedFile) -> None:
    """Check the content of *file* by the ending of its name: Python is compiled, JSON is read.

    Raises:
        ProcessError: it is not well-formed.
    """
    try:
        if file.path.endswith(".py"):
            compile(file.content, file.path, "exec")
        elif file.path.endswith(".json"):
            json.loads(file.content)
    except (SyntaxError, ValueError) as error:
        raise ProcessError(f"the content for {file.path} is not well-formed: {error}") from None


def check_environment(environment: Mapping[str, str]) -> None:
    """Check that every service manager can carry the variables of *environment*.

    Raises:
        ProcessError: a name or a value is not fit; names the variable.
    """
    for name, value in environment.items():
        if not VARIABLE_NAME.fullmatch(name):
            raise ProcessError(
                f"{name!r} is not a name for an environment variable: use letters, digits and underscores, and no "
                "digit first"
            )
        if not is_one_line(value):
            raise ProcessError(
                f"the value of environment variable {name} has a line break or a null character: make it one line"
            )


def check_definition(definition: Definition) -> None:
    """Check what can be checked without a service manager, before anything is written.

    Raises:
        ProcessError: the definition cannot be laid down; names the file, variable or word.
    """
    for file in definition.files:
        check_file(file)
    check_environment(definition.environment)
    words = {
        "command": definition.command,
        "directory": [definition.directory],
        "description": [definition.description],
        "account": [definition.account],
        "group": [definition.group],
        "writable": definition.writable,
    }
    for name, value in definition.hardening.items():
        words[f"hardening {name}"] = [name, *(str(one) for one in (value if isinstance(value, list) else [value]))]
    for option, found in words.items():
        for word in found:
            if not is_one_line(word):
                raise ProcessError(
                    f"{word!r} ({option} of {definition.name}) has a line break or a null character: make it one line"
                )


def is_one_line(text: str) -> bool:
    """Return whether the definition of a process, which is lines, can hold *text*."""
    return not any(character in text for character in "\n\r\0")


def tail(path: str, lines: int = 15) -> list[str]:
    """Return the last *lines* of a log for a message, and no more than lines usually have; empty without one."""
    return _last_lines(path, lines, 200 * lines)


def last_lines(path: str, lines: int) -> list[str]:
    """Return the last *lines* of a log, however long they are; empty without a log."""
    much = 200 * lines
    while True:
        found = _last_lines(path, lines + 1, much)
        # the first one has lost its beginning, unless it is that of the log
        if len(found) > lines or much >= _size(path):
            return found[-lines:]
        much *= 8


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _last_lines(path: str, lines: int, most_bytes: int) -> list[str]:
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - most_bytes))
            return stream.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


@dataclasses.dataclass(frozen=True)
class Unit:
    """A single process as its manager sees it."""

    name: str
    state: str
    pid: int | None = None
    since: int | None = None
    digest: str = ""
    log: str = ""

    @property
    def runs(self) -> bool:
        """Whether the manager keeps it running; it may be between two starts, and what is being stopped does not."""
        return self.state in {"starting", "running", "backoff"}


@dataclasses.dataclass
class Plan:
    """What has to happen so that the processes are as described."""

    start: list[str] = dataclasses.field(default_factory=list)
    restart: list[str] = dataclasses.field(default_factory=list)
    stop: list[str] = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.start or self.restart or self.stop)

    @property
    def lines(self) -> list[str]:
        """The plan in words, for a diff."""
        return [f"{verb} {name}" for verb in ("stop", "restart", "start") for name in sorted(getattr(self, verb))]


def make_plan(wanted: dict[str, str], units: Iterable[Unit], state: str) -> Plan:
    """Compare what should run with what does.

    Args:
        wanted: names of the single processes, each with the digest it should run with; an empty digest accepts any.
        units: the single processes as their manager sees them.
        state: ``started``, ``stopped`` or ``absent``.
    """
    plan = Plan()
    seen = {unit.name: unit for unit in units}
    for name, unit in seen.items():
        if (unit.runs or unit.pid) and (state != "started" or name not in wanted):
            plan.stop.append(name)
    if state == "started":
        for name, digest in wanted.items():
            unit = seen.get(name, Unit(name, "absent"))
            if not unit.runs:
                plan.start.append(name)
            elif digest and unit.digest != digest:
                plan.restart.append(name)
    return plan


class Manager(t.Protocol):
    """What keeps processes running: systemd, supervisor."""

    @property
    def directories(self) -> list[str]:
        """The directories that the manager itself needs."""

    def render(self, definition: Definition) -> list[ManagedFile]:
        """Return the manager's own files for a definition."""

    def defined(self) -> list[str]:
        """Return the names of the processes that are laid down for this cluster on this host."""

    def paths(self, name: str) -> list[str]:
        """Return the manager's own files of process *name*."""

    def laid_down(self, name: str) -> dict[str, str]:
        """Return the single processes that the definition on disk names, each with its digest."""

    def units(self, name: str) -> list[Unit]:
        """Return the single processes of *name*, running or not."""

    def tail(self, unit: Unit, lines: int) -> list[str]:
        """Return the last *lines* of the log of a single process."""

    def history(self, single: str, lines: int, since: str) -> list[str]:
        """Return the last *lines* of the log of a single process, with their times where the log has them."""

    def validate(self, definition: Definition) -> None:
        """Check the rendered definition with the manager's own parser, before anything is written."""

    def enabled(self, name: str, state: str) -> bool:
        """Return whether process *name* will, or will not, run after a reboot, as its *state* demands."""

    def apply(self, name: str, plan: Plan, state: str) -> None:
        """Take the laid down definition into use, carry out the plan, and let a reboot lead to the same *state*."""

    def release(self) -> None:
        """End what the manager keeps for the cluster alone, if nothing of it runs any more."""


def shell_line(command: Iterable[str]) -> str:
    """Return *command* as one line that a shell, and supervisor, splits into the same words again."""
    return " ".join(shlex.quote(word) for word in command)
