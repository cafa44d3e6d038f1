# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of JupyterLab in a browser: the cluster's address here, its login, and the browser."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from figures import of_scenario
from lab import TREE, Lab
from playwright.sync_api import BrowserContext, Page, sync_playwright
from remote import Operator
from waiting import wait_until

figures, pytest_terminal_summary = of_scenario(TREE / "build/notebook.json")
NODES = ["node1", "node2"]
HOME = "/var/lib/ipyparallel/ipyparallel/notebook"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab("notebook")


@pytest.fixture(scope="session")
def operator(lab: Lab) -> Operator:
    return Operator(lab)


@pytest.fixture(scope="session")
def authority(operator: Operator) -> Path:
    """Return the certificate of the cluster's authority, which `connect` brings."""
    operator.ok("connect")
    return operator.home / ".ipython/profile_ipyparallel/security/authority.pem"


@pytest.fixture(scope="session")
def password(operator: Operator) -> str:
    """Return the password, as the command in the summary shows it."""
    return operator.shell("node1", f"cat {HOME}/password").strip()


@pytest.fixture(scope="session")
def port(lab: Lab) -> Iterator[int]:
    """Return the port here that leads to JupyterLab, through the tunnel of the summary."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    argv = ["ssh", "-F", str(lab.directory / "ssh_config"), "-N", "-L", f"{number}:127.0.0.1:8888", "node1"]
    with subprocess.Popen(argv) as tunnel:

        def is_open() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 1):
                return True
            return False

        wait_until(is_open, 20, "the tunnel")
        yield number
        tunnel.kill()


@pytest.fixture(scope="session")
def url(port: int) -> str:
    return f"https://localhost:{port}"


Browse = Callable[..., contextlib.AbstractContextManager[BrowserContext]]


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Start a browser of its own, which trusts the given authority only."""

    @contextlib.contextmanager
    def start(authority: Path | None = None) -> Iterator[BrowserContext]:
        home = tmp_path_factory.mktemp("browser")
        store = home / ".pki/nssdb"
        store.mkdir(parents=True)
        subprocess.run(["certutil", "-d", f"sql:{store}", "-N", "--empty-password"], check=True)
        if authority:
            argv = ["certutil", "-d", f"sql:{store}", "-A", "-t", "C,,", "-n", "cluster", "-i", str(authority)]
            subprocess.run(argv, check=True)
        with sync_playwright() as playwright:
            context = playwright.chromium.launch_persistent_context(
                str(home / "profile"),
                executable_path=shutil.which("chromium"),
                args=list(FLAGS),
                env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
                viewport={"width": 1280, "height": 800},
            )
            try:
                yield context
            finally:
                context.close()

    return start


def log_in(page: Page, url: str, password: str) -> None:
    """Log in as a person does."""
    # a workspace of its own, without what an earlier one has left open
    page.goto(f"{url}/lab/workspaces/{secrets.token_hex(4)}")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
