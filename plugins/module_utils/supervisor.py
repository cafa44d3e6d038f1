# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service manager for hosts without systemd or without root: one supervisord per cluster.

supervisord reads ``<config>/supervisord.conf``, which includes ``<config>/supervisor.d/<process>.conf``. Each single
process is a program of its own, so that a pool grows without a restart of what runs.
"""

from __future__ import annotations

import configparser
import contextlib
import glob
import hashlib
import http.client
import os
import pwd
import re
import resource
import socket
import subprocess
import tempfile
import typing as t
from collections.abc import Iterable
from xmlrpc.client import Fault, ServerProxy, Transport

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
    end_processes,
    is_alive,
    is_one_line,
    last_lines,
    process_environ,
    running_processes,
    shell_line,
    tail,
    wait_until,
)

OPEN_FILES = 65536
START_SECONDS = 1
"""A process that lives this long has started; one that ends before is tried again, later each time."""
RETRIES = 1_000_000
"""supervisor gives up for good after ``startretries``; a cluster's processes never do."""


class SocketTransport(Transport):
    """XML-RPC over the socket *path*.

    supervisor has one too (``supervisor.xmlrpc``), but to import it a module has to start a second Python, which takes
    longer than all that is asked.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: t.Any) -> http.client.HTTPConnection:
        """Return the connection; *host* is what the Host header says."""
        connection = self._connection[1]
        if connection is None:
            connection = http.client.HTTPConnection(host)
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(self.path)
            self._connection = host, connection
        return connection


def escape(text: str) -> str:
    """Escape what supervisor would expand: more than half of all CURVE keys, and many paths, hold a ``%``."""
    return text.replace("%", "%%")


def is_plain(text: str) -> bool:
    """Return whether an option can hold *text* as it is.

    supervisor takes what follows a space and ``;`` or ``#`` for a comment, quoted or not, and expands ``%(here)s`` even
    where its ``%`` is escaped.
    """
    return text == text.strip() and not re.search(r"\s[;#]|%\(here\)s", text)


def quote(value: str) -> str | None:
    """Return *value* as a quoted text of supervisor's ``environment`` option, or None where the option cannot hold it.

    The option knows no escapes: a quoted text ends at the next such quote, and loses all quotes at both of its ends.
    """
    if not is_plain(f".{value}.") or value != value.strip("'\""):
        return None
    mark = "'" if '"' in value else '"'
    return None if mark in value else f"{mark}{escape(value)}{mark}"


def command_text(command: Iterable[str]) -> str:
    """Return *command* as the text of supervisor's option of this name."""
    # in between quotes, where a quote that ends and begins again makes no difference to the words
    text = re.sub(r"(\s)([;#])", r"\1''\2", shell_line(command)).replace("%(here)s", "%(he''re)s")
    return escape(text)


def path_text(path: str) -> str:
    """Return *path* as the text of an option.

    Raises:
        ProcessError: an option cannot hold it.
    """
    if not is_plain(path) or not is_one_line(path):
        raise ProcessError(
            f"supervisor cannot use the path {path!r}: choose one without a space before ';' or '#', without spaces at "
            "its end, line breaks and '%(here)s'"
        )
    return escape(path)


def limited(definition: Definition) -> list[str]:
    """Return the command of *definition* with its limit of memory, which the kernel enforces for each process.

    It has no limit of CPUs, for which supervisor would need root.
    """
    if not definition.memory:
        return list(definition.command)
    return ["/usr/bin/prlimit", f"--data={definition.memory}", "--", *definition.command]


def program(definition: Definition, unit: str, instance: str, log: str) -> str:
    """Return the section of supervisor's configuration for a single process."""
    variables = dict(sorted(definition.marked_environment(instance).items()))
    quoted = {name: quote(value) for name, value in variables.items()}
    # env puts the others into the environment, and becomes the program
    others = [f"{name}={variables[name]}" for name, value in quoted.items() if value is None]
    options = {
        "command": command_text([*(["/usr/bin/env", *others] if others else []), *limited(definition)]),
        "directory": path_text(definition.directory),
        "environment": ",".join(f"{name}={value}" for name, value in quoted.items() if value is not None),
        "umask": definition.umask,
        # the first to start, and the last to stop, so that engines can say goodbye
        "priority": 100 if definition.name == "controller" else 200,
        "autostart": "true",
        "autorestart": "true",
        "startsecs": START_SECONDS,
        "startretries": RETRIES,
        "stopsignal": "TERM",
        "stopwaitsecs": definition.stop_timeout,
        "killasgroup": "true",
        "redirect_stderr": "true",
        # supervisor expands this option twice
        "stdout_logfile": escape(path_text(log)),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 3,
    }
    lines = [f"[program:{unit}]", *(f"{name}={value}" for name, value in options.items())]
    return "\n".join(lines) + "\n"


class Supervisor:
    """One supervisord, for one cluster of one account."""

    def __init__(self, cluster: str, config: str, log: str, run: str, environment: str) -> None:
        """Describe the supervisord of *cluster*.

        Args:
            cluster: its name.
            config: directory of the definitions.
            log: directory of the logs.
            run: directory of the socket and the process id.
            environment: the Python environment that holds supervisor; a link is resolved.
        """
        self.cluster = cluster
        self.config = config
        self.log = log
        self.run = run
        self.environment = os.path.realpath(environment)
        self.socket = os.path.join(run, "supervisor.sock")
        self.main_path = os.path.join(config, "supervisord.conf")

    @property
    def directories(self) -> list[str]:
        """The directories of definitions, logs and sockets."""
        return [self.config, self.log, self.run]

    # What is laid down

    def path(self, name: str) -> str:
        """Return the file that defines process *name*."""
        return os.path.join(self.config, "supervisor.d", f"{name}.conf")

    def log_path(self, unit: str) -> str:
        """Return the log of a single process."""
        return os.path.join(self.log, f"{unit}.log")

    def paths(self, name: str) -> list[str]:
        """Return the manager's own files of process *name*."""
        return [self.path(name)]

    def defined(self) -> list[str]:
        """Return the names of the processes that are laid down."""
        found = glob.glob(os.path.join(glob.escape(self.config), "supervisor.d", "*.conf"))
        return sorted(os.path.basename(path).removesuffix(".conf") for path in found)

    def laid_down(self, name: str) -> dict[str, str]:
        """Return the single processes that the definition on disk names, each with its digest."""
        parser = configparser.RawConfigParser(comment_prefixes=(";",))
        parser.read(self.path(name), encoding="utf-8")
        mark = re.compile(PREFIX + r'DEFINITION="([0-9a-f]+)"')
        return {
            section.removeprefix("program:"): "".join(mark.findall(parser.get(section, "environment")))
            for section in parser.sections()
        }

    def main_text(self) -> str:
        """Return ``supervisord.conf``."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        # what is laid down stays, as long as this session's limit allows it
        laid_down = re.search(r"^minfds=(\d+)$", read_text(self.main_path) or "", flags=re.MULTILINE)
        if laid_down and int(laid_down.group(1)) <= files:
            files = int(laid_down.group(1))
        return f"""\
; {MANAGED}
[unix_http_server]
file={path_text(self.socket)}
chmod=0600

[supervisord]
identifier=ipyparallel-{self.cluster}
logfile={path_text(os.path.join(self.log, "supervisord.log"))}
logfile_maxbytes=1MB
logfile_backups=3
pidfile={path_text(os.path.join(self.run, "supervisord.pid"))}
minfds={files}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{path_text(self.socket)}

[include]
files = supervisor.d/*.conf
"""

    def render(self, definition: Definition) -> list[ManagedFile]:
        """Return ``supervisord.conf`` and the file of the process.

        Raises:
            ProcessError: supervisor cannot use one of the paths.
        """
        if re.search(r"[*?[]", self.config):
            # the files to include are a pattern, whose beginning is this directory
            raise ProcessError(f"supervisor cannot use the path {self.config!r}: choose one without '*', '?' and '['")
        programs = [
            program(definition, unit, instance, self.log_path(unit)) for unit, instance in definition.units.items()
        ]
        text = "\n".join([f"; {MANAGED}\n", *programs])
        return [ManagedFile(self.main_path, self.main_text()), ManagedFile(self.path(definition.name), text)]

    def validate(self, definition: Definition) -> None:
        """Let supervisor's own parser read the definition, in a directory of its own.

        Raises:
            ProcessError: supervisor refuses it.
        """
        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(os.path.join(directory, "supervisor.d"))
            for file in self.render(definition):
                write_text(os.path.join(directory, os.path.relpath(file.path, self.config)), file.content)
            script = "import sys; from supervisor.options import ServerOptions; ServerOptions().realize(sys.argv[1:])"
            python = os.path.join(self.environment, "bin", "python")
            main = os.path.join(directory, "supervisord.conf")
            done = subprocess.run(
                [python, "-c", script, "-c", main], capture_output=True, text=True, check=False, cwd=directory
            )
        if done.returncode:
            # the last line only tells how to get help
            lines = [line for line in done.stderr.splitlines() if line and not line.startswith("For help,")]
            reason = lines[-1].removeprefix("Error: ").replace(directory, self.config) if lines else "no message"
            raise ProcessError(f"supervisor refuses the definition of {definition.name}: {reason}")

    # What runs

    @property
    def digest(self) -> str:
        """Changes when a running supervisord would have to be restarted to be as described."""
        text = re.sub(
            r"^minfds=.*$", "", self.main_text(), flags=re.MULTILINE
        )  # differs between sessions of one account
        return hashlib.sha256((self.environment + text).encode()).hexdigest()[:16]

    def rpc(self) -> t.Any:
        """Return supervisor's interface over its socket (``supervisor.*`` of its XML-RPC API)."""
        server: t.Any = ServerProxy("http://127.0.0.1", transport=SocketTransport(self.socket))
        return server.supervisor

    def pid(self) -> int | None:
        """Return the process id of the supervisord that answers, or None."""
        if not os.path.exists(self.socket):
            return None
        try:
            return int(self.rpc().getPID())
        except (OSError, ValueError):
            return None
        except Fault:
            # it is shutting down, and lets its processes finish: wait for its end
            pid = int(read_text(os.path.join(self.run, "supervisord.pid")) or 0)
            if not wait_until(lambda: not is_alive(pid), seconds=600):
                raise ProcessError(f"supervisord of cluster {self.cluster} (pid {pid}) does not end") from None
            return None

    def units(self, name: str) -> list[Unit]:
        """Return the single processes of *name* that supervisord knows, or those it left behind."""
        if self.pid() is None:
            return self._orphans(name)
        found = []
        for info in self.rpc().getAllProcessInfo():
            if not self._is_ours(name, info["name"]):
                continue
            # a program between two starts has no process
            pid = info["pid"] or None
            marks = self._marks(pid) if pid else {}
            found.append(
                Unit(
                    name=info["name"],
                    state=info["statename"].lower(),
                    pid=pid,
                    since=info["start"] or None,
                    digest=marks.get(f"{PREFIX}DEFINITION", ""),
                    log=self.log_path(info["name"]),
                )
            )
        return found

    def ensure(self) -> None:
        """Start supervisord where it does not run; restart it where it runs as something else.

        Processes of the cluster that nobody supervises, because their supervisord was killed, are ended first: they
        would hold the ports of those that are to be started.
        """
        pid = self.pid()
        if pid is not None and process_environ(pid).get(f"{PREFIX}DEFINITION") != self.digest:
            self.shutdown()
            pid = None
        if pid is not None:
            return
        self._end_orphans()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        account = pwd.getpwuid(os.getuid())
        command = [os.path.join(self.environment, "bin", "supervisord"), "-c", self.main_path]
        environment = {
            "HOME": os.environ.get("HOME") or account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            "LANG": "C.UTF-8",
            "PATH": f"{self.environment}/bin:{SEARCH_PATH}",
            f"{PREFIX}CLUSTER": self.cluster,
            f"{PREFIX}RUN": self.run,  # its children inherit this
            f"{PREFIX}PROCESS": "supervisord",
            f"{PREFIX}DEFINITION": self.digest,
        }
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode or not wait_until(lambda: self.pid() is not None, seconds=15):
            log = tail(os.path.join(self.log, "supervisord.log"), 5)
            raise ProcessError(
                f"supervisord of cluster {self.cluster} does not start ({shell_line(command)}): "
                f"{(done.stdout + done.stderr).strip() or '; '.join(log) or 'no message'}"
            )

    def shutdown(self) -> None:
        """Stop supervisord and all it runs.

        Raises:
            ProcessError: it is still there after the longest stop time-out.
        """
        pid = self.pid()
        if pid is None:
            return
        self.rpc().shutdown()
        if not wait_until(lambda: not is_alive(pid), seconds=600):
            raise ProcessError(f"supervisord of cluster {self.cluster} (pid {pid}) does not end")

    def tail(self, unit: Unit, lines: int) -> list[str]:
        """Return the last *lines* of the log of a single process."""
        return tail(unit.log, lines)

    def history(self, single: str, lines: int, since: str) -> list[str]:
        """Return the last *lines* of the log of a single process, or of supervisord.

        Raises:
            ProcessError: *since* is given, and the lines of these logs have no times.
        """
        if since:
            raise ProcessError(
                f"the logs of supervisor have no times, so that they cannot begin at {since!r}: give a number of lines "
                "(ipyparallel_logs_lines)"
            )
        return last_lines(self.log_path(single), lines)

    def enabled(self, name: str, state: str) -> bool:  # noqa: ARG002 - of the protocol
        """Return that a reboot changes nothing: supervisord is not started by it."""
        return True

    def apply(self, name: str, plan: Plan, state: str) -> None:  # noqa: ARG002 - of the protocol
        """Load the definition from disk and carry out *plan*; starts happen together, stops too.

        Raises:
            ProcessError: supervisord refuses or does not answer.
        """
        if self.pid() is not None:
            # what is to be started may still be on its way out
            self._stop(plan.stop + plan.restart + plan.start)
        elif not plan.start:
            self._end_orphans(name)
            return
        try:
            if plan.start or plan.restart:
                self.ensure()
            if self.pid() is None:
                return
            rpc = self.rpc()
            added, changed, removed = rpc.reloadConfig()[0]
            # reloadConfig only tells; what is not ours here is left to its own call
            for group in {*changed, *removed}:
                if self._is_ours(name, group):
                    self._stop([group])
                    rpc.removeProcessGroup(group)
            for group in {*changed, *added}:
                if self._is_ours(name, group):
                    rpc.addProcessGroup(group)
            known = {info["name"]: info["statename"] for info in rpc.getAllProcessInfo()}
            for unit in plan.start + plan.restart:
                if known.get(unit) in {"STOPPED", "EXITED", "FATAL"}:
                    # a program that was only just added is started by supervisord itself, a moment later
                    with contextlib.suppress(Fault):
                        rpc.startProcess(unit, False)
        except (OSError, Fault) as error:
            raise ProcessError(
                f"supervisord of cluster {self.cluster} did not do as told for {name}: {error}"
            ) from error

    def release(self) -> None:
        """Stop supervisord when nothing runs under it, and remove its file when nothing is defined."""
        if self.pid() is not None:
            running = [info["name"] for info in self.rpc().getAllProcessInfo() if info["pid"]]
            if not running:
                self.shutdown()
        if not self.defined():
            for path in (self.main_path, os.path.join(self.log, "supervisord.log")):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _is_ours(self, name: str, unit: str) -> bool:
        return unit == name or unit.startswith(f"{name}-")

    def _marks(self, pid: int) -> dict[str, str]:
        def is_itself() -> bool:
            return process_environ(pid).get(f"{PREFIX}PROCESS") != "supervisord"

        # a process that was only just started is for a moment a copy of supervisord
        wait_until(is_itself, seconds=5)
        return process_environ(pid)

    def _orphans(self, name: str) -> list[Unit]:
        found = [process for process in running_processes(self.cluster, run=self.run) if process.name == name]
        names = [f"{name}-{process.instance}" if process.instance else name for process in found]
        return [
            Unit(name=unit, state="orphaned", pid=process.pid, digest=process.digest, log=self.log_path(unit))
            for unit, process in zip(names, found, strict=True)
        ]

    def _end_orphans(self, name: str | None = None) -> None:
        # a supervisord that runs without its socket goes first, or it would start again what is ended
        for names in ({"supervisord"}, None if name is None else {name}):
            found = running_processes(self.cluster, main_only=False, run=self.run)
            end_processes([process.pid for process in found if names is None or process.name in names], seconds=10)

    def _stop(self, units: list[str]) -> None:
        from xmlrpc.client import Fault

        rpc = self.rpc()
        for unit in units:
            with contextlib.suppress(Fault):
                rpc.stopProcess(unit, False)

        def stopped() -> bool:
            return not any(info["pid"] for info in rpc.getAllProcessInfo() if info["name"] in units)

        if not wait_until(stopped, seconds=3600):
            raise ProcessError(f"{', '.join(units)} of cluster {self.cluster} do not stop")

        # Nannies end by themselves, when they have told the hub; what user code has left behind does not.
        def left() -> list[int]:
            found = running_processes(self.cluster, main_only=False, run=self.run)
            names = ((f"{p.name}-{p.instance}" if p.instance else p.name, p.pid) for p in found)
            return [pid for name, pid in names if name in units]

        if not wait_until(lambda: not left(), seconds=3):
            end_processes(left(), seconds=2)
