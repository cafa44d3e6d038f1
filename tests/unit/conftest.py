# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the unit tests share: modules run as Ansible runs them, processes that end with their test, full disks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import _internal, basic
from ansible.module_utils.common import respawn, warnings
from ansible.module_utils.testing import patch_module_args


class Result(dict[str, Any]):
    """What a module returned."""

    text: str
    """The same as it was written, to look for secrets in."""
    status: int
    """With what the process of the module would have ended."""


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``main()`` of a module; the interpreter of the tests is the one that it would continue in."""
    monkeypatch.setattr(respawn, "has_respawned", lambda: True)

    def run(module: ModuleType, *, check: bool = False, diff: bool = False, **arguments: Any) -> Result:
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", None, raising=False)
        # a test of an action or filter has made this process an operator's, and another module may have warned in it
        monkeypatch.setattr(_internal, "is_controller", False)
        monkeypatch.setattr(warnings, "_global_warnings", {})
        internal = {"_ansible_check_mode": check, "_ansible_diff": diff}
        output = io.StringIO()
        redirected = contextlib.redirect_stdout(output)
        with patch_module_args({**arguments, **internal}), redirected, pytest.raises(SystemExit) as ended:
            module.main()
        result = Result(json.loads(output.getvalue()))
        result.text, result.status = output.getvalue(), int(ended.value.code or 0)
        return result

    return run


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Wait until a condition holds, or fail with what was waited for."""

    def wait(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"after {seconds:g} s: {what}"
            time.sleep(0.01)

    return wait


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process that says when it is ready, and end it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        code: str = "", environment: dict[str, str] | None = None, program: str = sys.executable
    ) -> subprocess.Popen[str]:
        script = f"import signal, sys\n{code}\nprint('ready', flush=True)\nsignal.pause()"
        process = subprocess.Popen(
            [program, "-ISc", script],
            env=environment or {},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        # with its children, which would outlive it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture
def full_disk() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Let every write to a file fail that goes beyond its first bytes, for root too."""

    @contextlib.contextmanager
    def limited(size: int = 8) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def account() -> pwd.struct_passwd:
    """An account without rights, for what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another account")
    # not nobody: systemd refuses to run anything as that
    return pwd.getpwnam("daemon")


@pytest.fixture
def common_path() -> Iterator[Path]:
    """A directory that other accounts can reach, unlike tmp_path."""
    directory = Path(tempfile.mkdtemp(prefix="ipp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
