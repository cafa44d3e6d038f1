# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Python environment of a cluster on a host, made by uv from a lock.

``<prefix>/env/<hash of lock and interpreter>`` is the environment, ``<prefix>/current`` the link to the one in use. A
new
lock is a new directory and a switch of the link; processes name the resolved path, so they never see half an
environment.
Extra packages go into the current one. What was installed is recorded in the environment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import typing as t
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.packages import Flags, changes_in

RECORD = "ipyparallel-cluster.json"
LOCK = "ipyparallel-cluster.lock"
"""The lock that an environment was made from, which extra packages must leave as it is."""
SHOWN_VERSIONS = (
    "ipyparallel",
    "ipykernel",
    "ipython",
    "jupyterlab",
    "pyzmq",
    "msgpack",
    "orjson",
    "numpy",
    "supervisor",
)
UV_VARIABLES = {
    "UV_SYSTEM_CERTS": "true",
    "UV_NO_PROGRESS": "true",
    "UV_PYTHON_DOWNLOADS": "never",
    # a host without network is named soon: the others of the run wait for it; pip's own 5 take minutes
    "PIP_RETRIES": "2",
}
"""uv trusts the host's certificate authorities, asks nobody, and brings no Python of its own."""
PACKAGES_GIVEN_IN = "ipyparallel_packages or ipyparallel_requirements"
OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 13)

PROBE = """
import json, os, platform, sys, sysconfig
try:
    import ensurepip, venv
    complete = True
except ImportError:
    complete = False
print(json.dumps({"executable": os.path.realpath(sys.executable), "version": list(sys.version_info[:3]),
                  "machine": platform.machine(), "venv": complete}))
"""


class InstallError(RuntimeError):
    """The environment cannot be made; the message names what is missing and the remedy. What there was is as it was."""


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """The Python that an environment is made from."""

    executable: str
    version: tuple[int, int, int]
    machine: str
    venv: bool

    @property
    def minor(self) -> str:
        """Such as ``3.11``: client and engines must have the same."""
        return f"{self.version[0]}.{self.version[1]}"


def probe(python: str) -> Interpreter:
    """Ask interpreter *python* what it is.

    Raises:
        InstallError: it cannot be run, or is too old or too new for the lock.
    """
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60)
        values = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InstallError(
            f"{python} cannot be run as a Python interpreter ({error}): set ipyparallel_python to one of 3.10 to 3.13"
        ) from None
    interpreter = Interpreter(values["executable"], tuple(values["version"]), values["machine"], values["venv"])
    if not OLDEST_PYTHON <= interpreter.version[:2] <= NEWEST_PYTHON:
        raise InstallError(
            f"{python} is Python {interpreter.minor}, but the cluster's environment needs 3.10 to 3.13: set "
            "ipyparallel_python to such an interpreter"
        )
    return interpreter


def environment_name(lock: str, interpreter: Interpreter) -> str:
    """Return the name of the environment that *lock* and *interpreter* make: 16 hexadecimal digits."""
    text = json.dumps([lock, interpreter.executable, interpreter.minor, interpreter.machine])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(environment: str) -> dict[str, t.Any]:
    """Return what is recorded in *environment*; empty where there is none, or it was not finished."""
    text = read_text(os.path.join(environment, RECORD))
    try:
        record = json.loads(text) if text else {}
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def explain(output: str, given_in: str = PACKAGES_GIVEN_IN) -> str:
    """Return the reason in uv's output as one line: the package that does not exist, the network that is not there.

    Args:
        output: what uv wrote.
        given_in: the variable that names packages.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Using Python ")]
    text = " ".join(lines)
    if "No space left" in text:
        return "the disk is full: make room"
    refused = re.search(r"401 Unauthorized|403 Forbidden", text)
    if refused:
        return (
            f"the package index refuses this host ({refused.group()}): check index and credentials in "
            "ipyparallel_install_environment"
        )
    missing = re.search(r"[Bb]ecause ([\w.\-\[\]]+) was not found in the (package registry|cache)", text)
    if missing and missing.group(2) == "cache":
        return (
            f"package {missing.group(1)!r} is not in uv's cache, and uv may not use the network: take UV_OFFLINE out "
            "of ipyparallel_install_environment"
        )
    if missing:
        return f"there is no package {missing.group(1)!r} in the package index: correct {given_in}"
    # what follows is told after "error sending request", and so is its reason
    if re.search(r"invalid peer certificate|UnknownIssuer", text):
        return (
            "the package index has a certificate that this host does not trust: give SSL_CERT_FILE in "
            "ipyparallel_install_environment"
        )
    unreachable = re.findall(r"(?i)dns error|connection refused|timed out|unreachable|error sending request", text)
    if unreachable:
        return (
            f"the package index cannot be reached ({unreachable[-1].lower()}): check the network, or give proxies and "
            "index in ipyparallel_install_environment"
        )
    return re.sub(r"^(error|\u00d7)[: ]*", "", text)[-1500:] or "no message"


class Environment:
    """The environments of one cluster below *prefix*."""

    def __init__(
        self,
        prefix: str,
        uv: str | None,
        uv_lock: str,
        variables: Mapping[str, t.Any] | None = None,
        given_in: str = PACKAGES_GIVEN_IN,
    ) -> None:
        """Describe the environments.

        Args:
            prefix: directory of the cluster's software.
            uv: path of a uv to use; None makes one below *prefix*.
            uv_lock: pinned and hashed requirement of uv, to make one.
            variables: environment variables for installations.
            given_in: the variable that names packages, for messages.
        """
        self.prefix = prefix
        self.given_in = given_in
        self.link = os.path.join(prefix, "current")
        self.given_uv = uv
        self.uv_lock = uv_lock
        self.variables = {name: str(value) for name, value in (variables or {}).items()}

    def path(self, name: str) -> str:
        """Return the directory of the environment *name*."""
        return os.path.join(self.prefix, "env", name)

    @property
    def current(self) -> str:
        """The resolved directory of the environment in use; an empty text where there is none."""
        return os.path.realpath(self.link) if os.path.isdir(self.link) else ""

    def uv(self, interpreter: Interpreter, any_version: bool = False) -> str:
        """Return the path of uv; makes it in a small environment of its own where none was given.

        Args:
            interpreter: makes the environment.
            any_version: whether one that is there will do, whatever the lock of uv says.

        Raises:
            InstallError: the interpreter has no venv module, or uv cannot be installed.
        """
        if self.given_uv:
            return self.given_uv
        own = os.path.join(self.prefix, "uv")
        program = os.path.join(own, "bin", "uv")
        mark = os.path.join(own, "lock")
        if (any_version or read_text(mark) == self.uv_lock) and os.access(program, os.X_OK):
            return program
        if not interpreter.venv:
            raise InstallError(
                f"{interpreter.executable} has no venv module: install it (Debian package python3-venv), or name a uv "
                "in ipyparallel_environment_uv"
            )
        shutil.rmtree(own, ignore_errors=True)
        self._run([interpreter.executable, "-m", "venv", own])
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lock:
            lock.write(self.uv_lock)
            lock.flush()
            pip = [os.path.join(own, "bin", "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            self._run([*pip, "--only-binary", ":all:", "-r", lock.name])
        write_text(mark, self.uv_lock, 0o644)
        return program

    def create(self, name: str, lock: str, interpreter: Interpreter) -> None:
        """Make the environment *name* from *lock*. What is left of an interrupted attempt is removed first.

        Raises:
            InstallError: it cannot be made; nothing of it is left.
        """
        path = self.path(name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        uv = self.uv(interpreter)
        try:
            self._run([uv, "venv", "--quiet", "--no-project", "--python", interpreter.executable, path])
            with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
                file.write(lock)
                file.flush()
                python = os.path.join(path, "bin", "python")
                options = ["--quiet", "--require-hashes", "--compile-bytecode"]
                self._run([uv, "pip", "sync", *options, "--python", python, file.name])
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.keep_lock(path, lock)
        self.record(path, lock, interpreter, [])

    def keep_lock(self, path: str, lock: str) -> None:
        """Keep *lock* with the environment at *path* that was made from it."""
        if read_text(os.path.join(path, LOCK)) != lock:
            write_text(os.path.join(path, LOCK), lock)

    def lock_of(self, path: str) -> str:
        """Return the lock that the environment at *path* was made from.

        Raises:
            InstallError: it is not known.
        """
        lock = read_text(os.path.join(path, LOCK))
        if lock is None:
            raise InstallError(f"{path} does not tell its lock: run playbook ipyparallel.cluster.deploy first")
        return lock

    def install(
        self,
        path: str,
        lock: str,
        interpreter: Interpreter,
        packages: list[str],
        *,
        flags: Flags | None = None,
        dry_run: bool = False,
    ) -> list[str]:
        """Install *packages*, requirement specifiers or lines of a requirements file, into the environment at *path*.

        The lock is the constraint: extra packages never change what the cluster itself needs. uv resolves before it
        writes, so a package that does not exist leaves the environment as it was. `record` is for the caller.

        Args:
            path: the environment.
            lock: the one that it was made from.
            interpreter: the one that it was made from.
            packages: what is to be there.
            flags: options of the operator's.
            dry_run: only resolve, and write nothing.

        Returns:
            What it does, or would do, such as ``+ scipy==1.16.0``.

        Raises:
            InstallError: naming the package.
        """
        uv = self.uv(interpreter, any_version=dry_run)
        flags = flags or Flags()
        with tempfile.TemporaryDirectory() as directory:
            wanted, constraints = os.path.join(directory, "packages.txt"), os.path.join(directory, "lock.txt")
            write_text(wanted, "\n".join(packages) + "\n")
            write_text(constraints, lock)
            python = os.path.join(path, "bin", "python")
            options = ["--compile-bytecode", "--constraints", constraints, *flags.arguments]
            options += ["--dry-run"] if dry_run else []
            command = [uv, "pip", "install", "--color", "never", *options, "--python", python, "--requirements", wanted]
            return changes_in(self._call(command, dict(flags.variables)).stderr)

    def record(self, path: str, lock: str, interpreter: Interpreter, packages: list[str]) -> None:
        """Write down what is installed at *path*; this is the last step, which makes the environment whole."""
        script = (
            "import importlib.metadata as m, json, sys\n"
            "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
        )
        versions = json.loads(self._run([os.path.join(path, "bin", "python"), "-c", script]))
        shown = {name: versions[name] for name in SHOWN_VERSIONS if name in versions}
        record = {
            "lock": hashlib.sha256(lock.encode()).hexdigest(),
            "interpreter": interpreter.executable,
            "packages": packages,
            "versions": {"python": ".".join(str(part) for part in interpreter.version), **shown},
        }
        if os.path.exists(lock_file := os.path.join(path, ".lock")):
            os.chmod(lock_file, 0o644)  # uv lets everybody write it, and so hold up the next installation
        # requirements may hold credentials, which the account that runs from here need not know
        write_text(os.path.join(path, RECORD), json.dumps(record, indent=2) + "\n")

    def switch(self, path: str) -> None:
        """Let ``current`` point to *path*, in one step."""
        temporary = f"{self.link}.new"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.relpath(path, self.prefix), temporary)
        os.replace(temporary, self.link)

    def idle(self) -> list[str]:
        """Return the directories of environments that are not current and that nothing runs from."""
        base = os.path.join(self.prefix, "env")
        used: set[str] = set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                used.update(_paths_in_command_line(entry, base))
        return [path for path in self.others() if os.path.realpath(path) not in used]

    def others(self) -> list[str]:
        """Return the directories of environments that are not current."""
        base = os.path.join(self.prefix, "env")
        found = (os.path.join(base, name) for name in sorted(os.listdir(base) if os.path.isdir(base) else []))
        return [path for path in found if os.path.realpath(path) != self.current]

    def _run(self, command: list[str]) -> str:
        return self._call(command, {}).stdout

    def _call(self, command: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **UV_VARIABLES, **self.variables, **variables},
            )
        except OSError as error:
            raise InstallError(f"cannot run {command[0]}: {error}") from None
        if done.returncode:
            raise InstallError(explain(done.stderr + done.stdout, self.given_in))
        return done


def _paths_in_command_line(pid: str, base: str) -> set[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().decode("utf-8", "replace").split("\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return set()
    start = os.path.realpath(base) + os.sep
    return {start + word[len(start) :].split(os.sep)[0] for word in words if word.startswith(start)}
