# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service manager where there is one: systemd, of the system or of an account with lingering.

A process is unit ``ipyparallel-<cluster>-<process>.service``. One with instances is a template, ``...@.service``, and a
target of the same name, which wants the instances: a pool grows by an instance, and is stopped by its target. All of a
cluster is in slice ``ipyparallel-<cluster>.slice``. What the processes write goes to the journal.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import tempfile
import typing as t
from collections.abc import Iterable

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import (
    MANAGED,
    PREFIX,
    SEARCH_PATH,
    Definition,
    ManagedFile,
    Plan,
    ProcessError,
    Unit,
    process_environ,
)

SYSTEM_UNITS = "/etc/systemd/system"
OPEN_FILES = 65536
"""The heartbeat needs about two descriptors for each engine; too few show as a busy loop and missing engines."""
RESTART_MS = 100
"""How long a process is away at least. One that fails at once costs, ten times a second, less than a start takes."""
LOG_BURST = 2000
"""Lines that a process may write in 30 s, enough for a traceback from each engine and too few to fill a disk."""
ALSO_WITHOUT_ROOT = frozenset(
    {
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "NoNewPrivileges",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "SystemCallArchitectures",
        "SystemCallErrorNumber",
        "SystemCallFilter",
    }
)
"""Directives that the manager of an account can apply: seccomp filters, which need no privilege. The others are mounts,
capabilities and devices."""
END_LEFTOVERS = '''\
# {managed}
"""Ends what an engine has left behind, after its main process.

Its nanny tells the hub that the engine is gone, and ends by itself. What user code has started is ended then. systemd
gives all that belongs to one run of a unit the same INVOCATION_ID.
"""

import os
import signal
import time

MARK = f"INVOCATION_ID={{os.environ['INVOCATION_ID']}}".encode()


def left():
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{{entry}}/environ", "rb") as environ:
                    if MARK in environ.read().split(b"\\0"):
                        found.append(int(entry))
            except OSError:
                pass
    return found


for number, seconds in ((None, 2), (signal.SIGTERM, 1), (signal.SIGKILL, 1)):
    for pid in left() if number else ():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
'''
STATES = {
    ("active", "running"): "running",
    ("active", "exited"): "exited",
    ("activating", "auto-restart"): "backoff",
    ("inactive", "dead"): "stopped",
}


def quote(word: str) -> str:
    """Return *word* as a quoted word of a unit file: no escapes, specifiers or quotes of its own are left."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def command_line(command: Iterable[str]) -> str:
    """Return *command* as the value of ``ExecStart``."""
    program, *arguments = command
    return " ".join([quote(program), *(quote(word).replace("$", "$$") for word in arguments)])


def text_value(text: str) -> str:
    """Return *text* as the value of a directive that takes the rest of the line as it is, but for specifiers."""
    escaped = text.replace("%", "%%")
    # a backslash at the end would join the next line
    return f"{escaped} " if escaped.endswith("\\") else escaped


def path_value(path: str) -> str:
    """Return *path* as the value of a directive that takes the rest of the line."""
    # what would be lost at the end of the line, or join the next one, is followed by a slash
    return path.replace("%", "%%") + ("/" if path.endswith(("\\", " ", "\t")) else "")


def directive_lines(name: str, value: t.Any) -> list[str]:
    """Return a directive of hardening as lines: a list is one line each, a boolean is yes or no, None is none."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    words = {True: "yes", False: "no"}
    return [f"{name}={words[one] if isinstance(one, bool) else one}" for one in values]


class Systemd:
    """The units of one cluster on this host."""

    def __init__(self, cluster: str, config: str, run: str, environment: str, of_account: bool = False) -> None:
        """Describe the units of *cluster*.

        Args:
            cluster: its name.
            config: directory of its definitions; in scope user, the units' directory is found from it.
            run: what tells it from clusters of the same name; see ``process.running_processes``.
            environment: its Python environment; a link is resolved.
            of_account: use the manager of this account, which needs lingering, in place of the system's.
        """
        self.cluster = cluster
        self.config = config
        self.run = run
        self.environment = os.path.realpath(environment)
        self.of_account = of_account
        # <XDG_CONFIG_HOME>/ipyparallel/<cluster> has it two directories above
        above = os.path.dirname(os.path.dirname(config))
        self.unit_directory = os.path.join(above, "systemd", "user") if of_account else SYSTEM_UNITS
        self.base = f"ipyparallel-{cluster}-"
        self.boot_target = "default.target" if of_account else "multi-user.target"

    @property
    def directories(self) -> list[str]:
        """The directory of definitions, and that of units."""
        return [self.config, self.unit_directory]

    # Names and files

    def unit(self, single: str) -> str:
        """Return the unit of a single process, such as ``engines-default-0``."""
        instance = re.fullmatch(r"(.+)-(\d+)", single)
        return f"{self.base}{instance[1]}@{instance[2]}.service" if instance else f"{self.base}{single}.service"

    def handle(self, name: str) -> str:
        """Return the unit that stands for process *name* at boot: its target, where it has instances."""
        return f"{self.base}{name}.{'target' if self._is_template(name) else 'service'}"

    def paths(self, name: str) -> list[str]:
        """Return the manager's own files of process *name*."""
        files = [f"{self.base}{name}{ending}" for ending in ("@.service", ".target", ".service")]
        links = [os.path.join(f"{target}.wants", file) for target in (self.boot_target,) for file in files]
        return [os.path.join(self.unit_directory, path) for path in (*files, *links)]

    def defined(self) -> list[str]:
        """Return the names of the processes that are laid down."""
        found = glob.glob(os.path.join(glob.escape(self.unit_directory), f"{glob.escape(self.base)}*.service"))
        mark = re.compile(rf'^Environment="{PREFIX}PROCESS=(.+)"$', re.MULTILINE)
        return sorted(name for path in found for name in mark.findall(read_text(path) or ""))

    def laid_down(self, name: str) -> dict[str, str]:
        """Return the single processes that the units on disk name, each with its digest."""
        template = self._is_template(name)
        text = read_text(self._path(f"{name}@.service" if template else f"{name}.service")) or ""
        digest = "".join(re.findall(rf'^Environment="{PREFIX}DEFINITION=([0-9a-f]+)"$', text, re.MULTILINE))
        if not digest:
            return {}
        if not template:
            return {name: digest}
        wanted = read_text(self._path(f"{name}.target")) or ""
        instances = re.findall(rf"{re.escape(self.base + name)}@(\d+)\.service", wanted)
        return {f"{name}-{instance}": digest for instance in instances}

    def render(self, definition: Definition) -> list[ManagedFile]:
        """Return the unit files of *definition*, and the clean-up that runs after an engine."""
        name = definition.name
        files = []
        if definition.ends == "main":
            text = END_LEFTOVERS.format(managed=MANAGED)
            files.append(ManagedFile(os.path.join(self.config, "end_leftovers.py"), text, 0o644))
        if definition.instances is None:
            return [*files, ManagedFile(self._path(f"{name}.service"), self._service(definition), 0o644)]
        return [
            *files,
            ManagedFile(self._path(f"{name}@.service"), self._service(definition), 0o644),
            ManagedFile(self._path(f"{name}.target"), self._target(definition), 0o644),
        ]

    def validate(self, definition: Definition) -> None:
        """Let systemd's own parser read the rendered units, before anything is written.

        Raises:
            ProcessError: it refuses one, or does not know a directive.
        """
        with tempfile.TemporaryDirectory() as directory:
            units = []
            for file in self.render(definition):
                if not file.path.startswith(self.unit_directory):
                    continue
                name = os.path.basename(file.path).replace("@.", "@0.")
                # the clean-up is not there yet
                text = re.sub(r"^ExecStopPost=.*\n", "", file.content, flags=re.MULTILINE)
                text = re.sub(r"^(Wants|PartOf)=ipyparallel.*\n", "", text, flags=re.MULTILINE)
                write_text(os.path.join(directory, name), text, 0o644)
                units.append(os.path.join(directory, name))
            manager = "--user" if self.of_account else "--system"
            done = self._call("systemd-analyze", manager, "verify", "--man=no", "--recursive-errors=no", *units)
        complaints = [line.replace(directory, "") for line in done.stderr.splitlines() if self.base in line]
        if done.returncode or complaints:
            reason = "; ".join(complaints) or done.stderr.strip() or "no message"
            raise ProcessError(f"systemd refuses the definition of {definition.name}: {reason}")

    # What runs

    def units(self, name: str) -> list[Unit]:
        """Return the single processes of *name* that systemd knows."""
        patterns = [f"{self.base}{name}@*.service", f"{self.base}{name}.service"]
        wanted = "Id,LoadState,ActiveState,SubState,MainPID,ExecMainStartTimestamp"
        done = self._systemctl("show", "--timestamp=unix", f"--property={wanted}", *patterns)
        if done.returncode:
            raise ProcessError(f"cannot ask systemd for {name} of cluster {self.cluster}: {done.stderr.strip()}")
        found = []
        for block in done.stdout.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            unit = values.get("Id", "")
            # a unit that is only asked for has no instance, or is not loaded
            if values.get("LoadState") not in {"loaded", "error", "bad-setting"} or "@." in unit:
                continue
            pid = int(values.get("MainPID") or 0) or None
            since = values.get("ExecMainStartTimestamp", "").removeprefix("@")
            found.append(
                Unit(
                    name=unit.removeprefix(self.base).removesuffix(".service").replace("@", "-"),
                    state=self._state(values),
                    pid=pid,
                    since=int(since) if since.isdigit() and pid else None,
                    digest=process_environ(pid).get(f"{PREFIX}DEFINITION", "") if pid else "",
                    log=f"journalctl {'--user ' if self.of_account else ''}--unit={unit}",
                )
            )
        return found

    def tail(self, unit: Unit, lines: int) -> list[str]:
        """Return the last *lines* of the journal of a single process."""
        return self._journal(unit.name, f"--lines={lines}", "--output=cat").stdout.splitlines()

    def history(self, single: str, lines: int, since: str) -> list[str]:
        """Return the last *lines* of the journal of a single process, each with its time.

        Args:
            single: its name, such as ``engines-default-0``; it need not run.
            lines: how many.
            since: not those before this time, in the words of ``journalctl --since``; empty for any.

        Raises:
            ProcessError: journalctl refuses, such as a time that it does not understand.
        """
        begin = [f"--since={since}"] if since else []
        done = self._journal(single, f"--lines={lines}", "--output=short-iso", *begin)
        if done.returncode:
            raise ProcessError(f"journalctl cannot show the log of {single}: {done.stderr.strip() or 'no message'}")
        return done.stdout.splitlines()

    def _journal(self, single: str, *options: str) -> subprocess.CompletedProcess[str]:
        which = "--user-unit" if self.of_account else "--unit"
        return self._call("journalctl", f"{which}={self.unit(single)}", *options, "--no-pager", "--quiet")

    def enabled(self, name: str, state: str) -> bool:
        """Return whether a reboot leads to *state*."""
        link = os.path.join(self.unit_directory, f"{self.boot_target}.wants", self.handle(name))
        return os.path.islink(link) == (state == "started")

    def apply(self, name: str, plan: Plan, state: str) -> None:
        """Let systemd read the units, carry out *plan*, and enable or disable what is laid down.

        Raises:
            ProcessError: a unit does not start or stop; has systemd's reason and the last lines of its log.
        """
        self._must(name, "stop", [self.unit(single) for single in plan.stop])
        self._must(name, "daemon-reload")
        if not self.enabled(name, state):
            self._must(name, "enable" if state == "started" else "disable", ["--quiet", self.handle(name)])
        if state != "started":
            # a pattern matches what is loaded, though its file may be gone, and nothing where there is nothing
            self._must(name, "stop", [f"{self.base}{name}.targe[t]"])
            return
        self._must(name, "restart", [self.unit(single) for single in plan.restart])
        target = [self.handle(name)] if self._is_template(name) else []
        self._must(name, "start", [*(self.unit(single) for single in plan.start), *target])

    def release(self) -> None:
        """End the slices, which have no file: the cluster's when nothing of it is laid down, theirs with the last."""
        if self.defined():
            return
        self._systemctl("stop", f"ipyparallel-{self.cluster}.slice")
        others = self._systemctl("list-units", "--plain", "--no-legend", "ipyparallel-*.slice")
        if not others.returncode and not others.stdout.strip():
            self._systemctl("stop", "ipyparallel.slice")

    # How it is said

    def _path(self, file: str) -> str:
        return os.path.join(self.unit_directory, f"{self.base}{file}")

    def _is_template(self, name: str) -> bool:
        return os.path.exists(self._path(f"{name}@.service"))

    def _state(self, values: dict[str, str]) -> str:
        active, sub = values.get("ActiveState", ""), values.get("SubState", "")
        return STATES.get((active, sub)) or {
            "activating": "starting",
            "deactivating": "stopping",
            "failed": "failed",
        }.get(active, active)

    def _target(self, definition: Definition) -> str:
        wants = [f"{self.base}{definition.name}@{instance}.service" for instance in definition.instances or ()]
        lines = [
            f"# {MANAGED}",
            "[Unit]",
            f"Description={text_value(definition.description)}: all of them",
            *(f"Wants={unit}" for unit in wants),
            "",
            "[Install]",
            f"WantedBy={self.boot_target}",
        ]
        return "\n".join(lines) + "\n"

    def _service(self, definition: Definition) -> str:
        template = definition.instances is not None
        # the specifier of systemd, so that all instances share one file
        variables = {
            "PATH": f"{self.environment}/bin:{SEARCH_PATH}",
            **definition.marked_environment(""),
            f"{PREFIX}RUN": self.run,
        }
        if template:
            del variables[f"{PREFIX}INSTANCE"]
        environment = [f"Environment={quote(f'{name}={value}')}" for name, value in sorted(variables.items())]
        if template:
            environment.append(f'Environment="{PREFIX}INSTANCE=%i"')
        unit = [
            f"Description={text_value(definition.description)}{' %i' if template else ''}",
            # a process that cannot start yet is tried again for ever
            "StartLimitIntervalSec=0",
        ]
        if template:
            unit.append(f"PartOf={self.base}{definition.name}.target")
        if not self.of_account:
            unit += ["Wants=network-online.target", "After=network-online.target"]
        service = [
            "Type=exec",
            f"Slice=ipyparallel-{self.cluster}.slice",
            *([f"User={definition.account}"] if definition.account and not self.of_account else []),
            *([f"Group={definition.group}"] if definition.group and not self.of_account else []),
            f"WorkingDirectory={path_value(definition.directory)}",
            *environment,
            f"ExecStart={command_line(definition.command)}",
            "Restart=always",
            f"RestartSec={RESTART_MS}ms",
            f"UMask=0{definition.umask.lstrip('0') or '0'}",
            f"TimeoutStopSec={definition.stop_timeout}",
            *(f"SuccessExitStatus={status}" for status in definition.success_status),
            *self._limits(),
            "LogRateLimitIntervalSec=30s",
            f"LogRateLimitBurst={LOG_BURST}",
        ]
        if definition.ends == "main":
            python = os.path.join(self.environment, "bin", "python")
            clean_up = command_line([python, "-IS", os.path.join(self.config, "end_leftovers.py")])
            # user code that runs out of memory is no reason to end the engine
            service += ["KillMode=process", f"ExecStopPost=-{clean_up}", "OOMPolicy=continue"]
        else:
            service.append("KillMode=control-group")
        if definition.cpus:
            service.append(f"CPUQuota={definition.cpus * 100:g}%")
        if definition.memory:
            # without swap, which would only make it slow
            service += [f"MemoryMax={definition.memory}", "MemorySwapMax=0"]
        for name, value in definition.hardening.items():
            if not self.of_account or name in ALSO_WITHOUT_ROOT:
                service += directive_lines(name, value)
        if not self.of_account:
            # a directory that is made later, by its user, is no reason not to start
            service += [f"ReadWritePaths={quote(f'-{path}')}" for path in definition.writable]
        install = [] if template else ["", "[Install]", f"WantedBy={self.boot_target}"]
        return "\n".join([f"# {MANAGED}", "[Unit]", *unit, "", "[Service]", *service, *install]) + "\n"

    def _limits(self) -> list[str]:
        done = self._systemctl("show", "--property=DefaultLimitNOFILE")
        hard = done.stdout.strip().partition("=")[2]
        # a limit above the manager's own cannot be set in a container without the capability
        return [f"LimitNOFILE={min(OPEN_FILES, int(hard)) if hard.isdigit() else OPEN_FILES}"]

    def _must(self, name: str, verb: str, units: list[str] | None = None) -> None:
        if units is not None and not units:
            return
        done = self._systemctl(verb, *(units or []))
        if not done.returncode:
            return
        reason = done.stderr.strip() or done.stdout.strip() or "no message"
        logs = [line for unit in self.units(name) if not unit.runs for line in self.tail(unit, 5)][-10:]
        raise ProcessError(f"systemctl {verb} failed for {name} of cluster {self.cluster}: {reason}; {'; '.join(logs)}")

    def _systemctl(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._call("systemctl", *(["--user"] if self.of_account else []), verb, *arguments)

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        if self.of_account:
            # a connection that is no session of logind does not have it
            environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
            )
        except FileNotFoundError:
            raise ProcessError(
                f"there is no {command[0]} on {os.uname().nodename}: set ipyparallel_scope=user and "
                "ipyparallel_service_manager=supervisor, which need no systemd"
            ) from None
