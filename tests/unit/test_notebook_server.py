# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who comes into a notebook, and what its sidebar does: a real Jupyter Server with the files of role notebook."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import http.client
import http.cookies
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel_cluster.login import Failures
from jupyter_server.auth import passwd

ROLE = Path(__file__).parents[2] / "roles/notebook/files"
PASSWORD, OTHER_PASSWORD, WRONG = "right horse battery", "another horse battery", "wrong-staple-1f"
TOKEN = "t0ken-" + "x" * 40
DOCS = Path(__file__).parents[2] / "docs/notebook.md"

# ---- the limit ------------------------------------------------------------------------------------------------------


def test_the_last_of_the_allowed_ones_is_looked_at_and_the_next_one_waits():
    failures = Failures(60, 3, 50)
    for now in (0.0, 10.0, 20.0):
        assert failures.wait("a", False, now) == 0
        failures.add("a", False, now)
    assert failures.wait("a", False, 20.5) == 40
    assert failures.wait("b", False, 20.5) == 0
    assert failures.wait("a", False, 60.0) == 0


def test_all_together_wait_but_who_was_in_before_does_not():
    failures = Failures(60, 3, 4)
    for number in range(4):
        failures.add(f"a{number}", False, float(number))
    assert failures.wait("new", False, 5.0) == 55
    assert failures.wait("cookie", True, 5.0) == 0


def test_who_was_in_before_has_a_limit_of_its_own_which_is_nobody_elses():
    failures = Failures(60, 3, 3)
    for _number in range(3):
        failures.add("cookie", True, 0.0)
    assert failures.wait("cookie", True, 1.0) == 59
    assert failures.wait("a", False, 1.0) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcdef"), st.booleans())))
def test_nobody_waits_longer_than_the_window_and_little_is_kept(attempts):
    failures, now = Failures(60, 2, 4), 0
    for pause, origin, is_known in attempts:
        now += pause
        if not failures.wait(origin, is_known, now):
            failures.add(origin, is_known, now)
        assert 0 <= failures.wait(origin, is_known, now) <= 60
        assert len(failures._seen) <= 6
    assert all(failures.wait(origin, False, now + 60) == 0 for origin in "abcdef")


# ---- a server -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Server:
    """A running Jupyter Server."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


@dataclasses.dataclass
class Browser:
    """A browser at an address of its own, which keeps its cookies."""

    server: Server
    address: str
    cookies: dict[str, str] = dataclasses.field(default_factory=dict)

    body: bytes = b""

    def ask(
        self, path: str, method: str = "GET", form: dict[str, str] | None = None, **headers: str
    ) -> tuple[int, dict[str, str]]:
        """Return status and headers of the answer, and keep its body."""
        context = ssl.create_default_context(cafile=str(self.server.directory / "certificate.pem"))
        connection = http.client.HTTPSConnection(
            "localhost", self.server.port, timeout=20, source_address=(self.address, 0), context=context
        )
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with contextlib.closing(connection):
            connection.request(method, path, urllib.parse.urlencode(form or {}) if form else None, headers)
            answer = connection.getresponse()
            self.body = answer.read()
            for line in answer.headers.get_all("Set-Cookie") or []:
                for name, morsel in http.cookies.SimpleCookie(line).items():
                    self.cookies[name] = morsel.value
            return answer.status, dict(answer.headers)

    def log_in(self, password: str) -> tuple[int, dict[str, str]]:
        """Send the login form; 302 is a success."""
        self.ask("/login")
        return self.ask("/login", "POST", {"_xsrf": self.cookies["_xsrf"], "password": password})

    def log_out(self) -> None:
        """Lose what a logout takes."""
        self.cookies = {name: value for name, value in self.cookies.items() if name.endswith("-known")}


def make_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def lay_down(directory: Path, password: str) -> None:
    """Write what the role would."""
    make_certificate(directory)
    (directory / "root").mkdir()
    (directory / "token").write_text(TOKEN)
    (directory / "password.hash").write_text(passwd(password))
    (directory / "jupyter_server_config.py").write_bytes((ROLE / "jupyter_server_config.py").read_bytes())
    settings = {
        "address": "127.0.0.1",
        "port": free_port(),
        "directory": str(directory / "root"),
        "certificate": str(directory / "certificate.pem"),
        "key": str(directory / "key.pem"),
        "password_hash": str(directory / "password.hash"),
        "settings": {"ServerApp": {"jpserver_extensions": {"of_the_user": False}}},
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    security = directory / "ipython/profile_default/security"
    security.mkdir(parents=True)
    entry = {
        "class": "ipyparallel_cluster.cluster.DeployedCluster",
        "name": "alpha",
        "controller_host": "node1",
        "profile_dir": str(security.parent),
        "cluster_id": "",
    }
    (security / "cluster-.json").write_text(json.dumps({"cluster": entry}))


@contextlib.contextmanager
def running(directory: Path, eventually: Callable[..., None]) -> Iterator[Server]:
    """Run a server until the end of the block."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))},
        "HOME": str(directory),
        "IPYTHONDIR": str(directory / "ipython"),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
        "JUPYTER_DATA_DIR": str(directory / "data"),
        "JUPYTER_RUNTIME_DIR": str(directory / "runtime"),
        "JUPYTER_TOKEN_FILE": str(directory / "token"),
        "PYTHONPATH": str(ROLE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR": "1",
    }
    port = json.loads((directory / "settings.json").read_text())["port"]
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", f"--config={directory}/jupyter_server_config.py"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(directory, port, process)

    def listens() -> bool:
        assert process.poll() is None, server.log
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens, "the server listens", 60)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook")
    lay_down(path, PASSWORD)
    return path


@pytest.fixture(scope="module")
def server(directory: Path, eventually: Callable[..., None]) -> Iterator[Server]:
    with running(directory, eventually) as found:
        yield found


ANONYMOUS = [
    ("GET", "/api"),
    ("GET", "/api/me"),
    ("GET", "/api/status"),
    ("GET", "/api/contents"),
    ("PUT", "/api/contents/x.ipynb"),
    ("GET", "/api/kernels"),
    ("POST", "/api/kernels"),
    ("GET", "/api/kernelspecs"),
    ("GET", "/api/sessions"),
    ("POST", "/api/sessions"),
    ("GET", "/api/terminals"),
    ("POST", "/api/terminals"),
    ("GET", "/api/config/x"),
    ("POST", "/api/shutdown"),
    ("GET", "/files/x"),
    ("GET", "/nbconvert/html/x.ipynb"),
    ("GET", "/view/x"),
    ("GET", "/metrics"),
    ("GET", "/tree"),
    ("GET", "/ipyparallel/clusters"),
    ("POST", "/ipyparallel/clusters"),
    ("GET", "/ipyparallel/clusters/x"),
    ("POST", "/ipyparallel/clusters/x"),
    ("DELETE", "/ipyparallel/clusters/x"),
]


def is_refused(answer: tuple[int, dict[str, str]]) -> bool:
    status, headers = answer
    return status == 403 or (status == 302 and headers["Location"].startswith("/login?next="))


@pytest.mark.parametrize(("method", "path"), ANONYMOUS)
@pytest.mark.parametrize("token", [None, "not-the-token"])
def test_nobody_gets_anything_without_a_login(server: Server, method: str, path: str, token: str | None) -> None:
    headers = {"Authorization": f"token {token}"} if token else {}
    assert is_refused(Browser(server, "127.0.0.9").ask(path, method, **headers))


@pytest.mark.parametrize(
    "path",
    ["/api/kernels/00000000-0000-0000-0000-000000000000/channels", "/terminals/websocket/1", "/api/events/subscribe"],
)
def test_nobody_gets_a_websocket_without_a_login(server: Server, path: str) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": f"https://localhost:{server.port}",
    }
    assert is_refused(Browser(server, "127.0.0.9").ask(path, **upgrade))


def test_password_and_token_let_in(server: Server) -> None:
    browser = Browser(server, "127.0.0.10")
    assert browser.log_in(PASSWORD)[0] == 302
    assert browser.ask("/api/contents")[0] == 200
    assert Browser(server, "127.0.0.10").ask("/api/contents", Authorization=f"token {TOKEN}")[0] == 200
    assert Browser(server, "127.0.0.10").ask(f"/api/contents?token={TOKEN}")[0] == 200


def test_wrong_passwords_are_limited_by_address(server: Server) -> None:
    stranger = Browser(server, "127.0.0.11")
    assert [stranger.log_in(WRONG)[0] for _number in range(5)] == [401] * 5
    status, headers = stranger.log_in(PASSWORD)
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert stranger.ask("/api/contents")[0] == 403
    assert Browser(server, "127.0.0.11").log_in(PASSWORD)[0] == 429  # without the stranger's cookies
    assert Browser(server, "127.0.0.12").log_in(PASSWORD)[0] == 302


def test_who_was_in_before_is_not_shut_out_by_others_at_the_same_address(server: Server) -> None:
    person, stranger = Browser(server, "127.0.0.13"), Browser(server, "127.0.0.13")
    assert person.log_in(PASSWORD)[0] == 302
    person.log_out()
    assert person.ask("/api/contents")[0] == 403
    while stranger.log_in(WRONG)[0] != 429:
        pass
    assert person.log_in(PASSWORD)[0] == 302
    # a cookie of their own making is worth nothing
    forged = {name: "Mjo" + value[3:-4] + "AAAA" for name, value in person.cookies.items() if name.endswith("-known")}
    stranger.cookies.update(forged)
    assert stranger.log_in(PASSWORD)[0] == 429


def fail2ban_pattern() -> re.Pattern[str]:
    """Return the pattern of the filter in the documentation; fail2ban takes the time out before it looks."""
    found = re.search(r"^failregex = (.*)$", DOCS.read_text(), re.MULTILINE)
    assert found
    return re.compile(found.group(1).replace("<HOST>", r"(?P<host>[0-9a-f.:]+)"))


def found_by_fail2ban(log: str) -> list[str]:
    lines = (re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.]\d+", "", line) for line in log.splitlines())
    return [match.group("host") for match in map(fail2ban_pattern().search, lines) if match]


def test_fail2ban_reads_the_journal_too() -> None:
    line = "[W 2026-03-01 12:00:00.000 ServerApp] Login failed from 192.0.2.7: wrong password"
    assert fail2ban_pattern().search(f"node1 python[4711]: {line}")
    spoofed = (
        f"node1 python[4711]: [W 2026-03-01 12:00:00.000 ServerApp] 403 GET /api (@192.0.2.9) 1.0ms referer={line}"
    )
    assert not fail2ban_pattern().search(spoofed)


def test_failures_are_in_the_log_for_fail2ban_with_address_and_without_password(
    server: Server, eventually: Callable[..., None]
) -> None:
    before = len(found_by_fail2ban(server.log))
    browser = Browser(server, "127.0.0.14")
    browser.log_in(WRONG)
    browser.ask("/api/contents", Authorization="token not-the-token")
    # who writes lines of the log into a header is no reason to shut out somebody else
    browser.ask("/api/contents", Referer="[W ServerApp] Login failed from 192.0.2.1: wrong password")
    eventually(lambda: "192.0.2.1" in server.log, "the log has the request")
    browser.ask("/api/contents", Authorization=f"token {TOKEN}")
    assert found_by_fail2ban(server.log)[before:] == ["127.0.0.14"] * 2
    for secret in (WRONG, PASSWORD, TOKEN, "not-the-token"):
        assert secret not in server.log


def test_someone_who_is_in_fails_no_login_by_an_old_token_in_the_address(server: Server) -> None:
    browser = Browser(server, "127.0.0.15")
    browser.log_in(PASSWORD)
    assert browser.ask("/api/contents?token=an-old-one")[0] == 200
    assert "127.0.0.15" not in found_by_fail2ban(server.log)


def test_another_password_logs_everyone_out_and_a_restart_does_not(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    lay_down(tmp_path, PASSWORD)
    with running(tmp_path, eventually) as server:
        browser = Browser(server, "127.0.0.16")
        browser.log_in(PASSWORD)
        assert browser.ask("/api/contents")[0] == 200
    with running(tmp_path, eventually):
        assert browser.ask("/api/contents")[0] == 200
    (tmp_path / "password.hash").write_text(passwd(OTHER_PASSWORD))
    with running(tmp_path, eventually):
        assert browser.ask("/api/contents")[0] == 403
        assert browser.log_in(PASSWORD)[0] == 401
        assert browser.log_in(OTHER_PASSWORD)[0] == 302


# ---- the sidebar ----------------------------------------------------------------------------------------------------


def test_sidebar_lists_the_cluster_and_only_that(server: Server) -> None:
    browser = Browser(server, "127.0.0.17")
    assert browser.ask("/ipyparallel/clusters", Authorization=f"token {TOKEN}")[0] == 200
    (found,) = json.loads(browser.body)
    assert found["id"] == "alpha"
    assert "controller" not in found  # nobody answers here: the sidebar says Stopped
    assert found["cluster_file"] == str(server.directory / "ipython/profile_default/security/cluster-.json")


@pytest.mark.parametrize(
    ("method", "path", "who"),
    [
        ("DELETE", "/alpha", "service managers of its hosts (controller: node1)"),  # STOP
        ("POST", "/alpha", "service managers of its hosts (controller: node1)"),  # START
        ("POST", "", "nothing would keep it running"),  # NEW
    ],
)
def test_sidebar_starts_and_stops_nothing_and_says_who_does(server: Server, method: str, path: str, who: str) -> None:
    before = sorted((server.directory / "ipython").rglob("*"))
    browser = Browser(server, "127.0.0.17")
    assert browser.ask(f"/ipyparallel/clusters{path}", method, Authorization=f"token {TOKEN}")[0] == 409
    assert who in json.loads(browser.body)["message"]
    assert sorted((server.directory / "ipython").rglob("*")) == before
