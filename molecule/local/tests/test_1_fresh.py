# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user has after `make up`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from account import NOTEBOOK_PORT, PORT_BASE, Account
from cryptography import x509
from figures import Figures
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect
from waiting import wait_until

AUTHORITY = Account.connector.with_name("authority.pem")
URL = f"https://127.0.0.1:{NOTEBOOK_PORT}"
CLIENT = f"openssl s_client -connect 127.0.0.1:{NOTEBOOK_PORT} </dev/null"
CORES = len(os.sched_getaffinity(0))
ENGINES = max(1, CORES - 1)
CHART = "application/vnd.vegalite.v5+json"


def kept(name: str) -> dict[str, Any]:
    """Return what converge kept of a run: its output, and how long it took."""
    found: dict[str, Any] = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / f"{name}.json").read_text())
    took = datetime.fromisoformat(found["end"]) - datetime.fromisoformat(found["start"])
    return {"stdout": found["stdout"], "seconds": took.total_seconds()}


def test_fresh_up_is_fast(figures: Figures) -> None:
    figures.add("make up on a fresh account", kept("first")["seconds"], "s", 90)


def test_second_up_is_fast(figures: Figures) -> None:
    figures.watch("make up again, nothing to do", kept("again")["seconds"], 12)


def test_summary(account: Account) -> None:
    said = kept("first")["stdout"]
    plural = "engine" if ENGINES == 1 else "engines"
    assert f"Cluster ipyparallel: {ENGINES} {plural} on 1 node, in " in said
    assert f"{URL}/lab" in said
    assert f"cat {account.state}/notebook/password" in said
    assert f"curl --cacert {AUTHORITY} {URL}/lab" in said
    assert 'ipp.Client(profile="ipyparallel")' in said
    assert (account.state / "notebook/password").read_text().strip() not in said


def test_one_engine_for_each_core_but_one(account: Account) -> None:
    status = account.status()
    assert [engine["core"] for engine in status["engines"]] == list(range(ENGINES))
    assert {(engine["host"], engine["pool"]) for engine in status["engines"]} == {("localhost", "default")}
    running = account.processes()
    assert [engine["pid"] for engine in status["engines"]] == [
        running[f"engines-default-{core}"] for core in range(ENGINES)
    ]


def test_status_as_json(account: Account) -> None:
    status = account.status()
    assert status["running"]
    assert not status["problem"]
    assert status["queue"].keys() == {"queued", "unassigned", "completed"}
    assert re.fullmatch(r"9\.2\.\d+", status["versions"]["ipyparallel"])
    assert status["packer"] == "json"
    assert status["encryption"] == "curve"
    assert status["notebooks"]["localhost"]["url"] == f"{URL}/lab"
    assert status["controller"]["address"] == "127.0.0.1"
    assert 0 < status["controller"]["uptime_seconds"] < 3600
    host = status["hosts"]["localhost"]
    assert host["reachable"]
    assert host["engines"] == {"default": {"expected": ENGINES, "registered": ENGINES, "busy": 0}}
    assert 0 < host["memory_used_bytes"] < host["memory_total_bytes"]
    assert len(host["load_average"]) == 3
    assert 820 < host["certificate_days"] < 826
    assert (status["health"]["state"], status["health"]["problems"]) == ("whole", [])


def test_status_as_table(account: Account) -> None:
    def idle() -> str:
        said = account.ok("make status")
        return said if "queue         0 queued" in said else ""

    said = wait_until(idle, 60, "the watchdog, which tries every new engine, is through")
    assert f"engines       {ENGINES} of {ENGINES}" in said
    assert "health        whole since " in said
    assert f"{URL}/lab" in said
    assert re.search(r"ipyparallel 9\.2", said)


def test_client_by_profile(account: Account) -> None:
    code = "import ipyparallel as p; c=p.Client(profile='ipyparallel'); print(c[:].apply_sync(lambda: 6*7))"
    assert account.python(code) == str([42] * ENGINES)


def test_starclusters_example_in_the_shell(account: Account) -> None:
    said = account.ok(".venv/bin/ipython --profile=ipyparallel -c 'print(ipview.map_sync(lambda x: x**30, range(8)))'")
    assert str([x**30 for x in range(8)]) in said


def test_a_shell_without_its_cluster_is_usable(account: Account) -> None:
    account.ok("make down")
    try:
        assert account.run("make verify").returncode != 0, "nothing was verified"
        said = account.ok(".venv/bin/ipython --profile=ipyparallel -c 'print(ipview, 6 * 7)'")
        assert "None 42" in said
        assert "cluster ipyparallel cannot be reached" in said
    finally:
        account.ok("make start")


def test_code_on_engines_by_playbook(account: Account) -> None:
    ids = [engine["id"] for engine in account.status()["engines"]]
    (account.home / "job.py").write_text("import sys\nfrom_job = 40\nprint('hello')\nfrom_job + 2\n")
    done = account.play(
        "execute", "-e", "ipyparallel_execute_script=~/job.py", "-e", "ipyparallel_execute_file=~/results"
    )
    assert done.returncode == 0, done.stdout
    results = json.loads((account.home / "results").read_text())
    found = [(one["id"], one["status"], one["stdout"], one["result"]) for one in results]
    assert found == [(number, "ok", "hello\n", "42") for number in ids]
    assert f"engine{'s' if ids[1:] else ''} {ids[0]} (" in done.stdout
    # clients find what it has set
    code = "import ipyparallel as p; c = p.Client(profile='ipyparallel'); print(c[:]['from_job'])"
    assert json.loads(account.python(code)) == [40] * len(ids)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"code": "a = ="}, ["the code, line 1 does not compile", "nothing was sent"]),
        ({"code": "a", "ids": "99"}, ["there is no engine 99", "engines that are registered are: "]),
        ({"script": "/nowhere.py"}, ["cannot read /nowhere.py on the operator's machine"]),
        ({"shell": "echo here; echo there >&2; exit 3"}, ["here", "there", "the command ended with 3"]),
        ({"code": "1 / 0", "balanced": 2}, ["ZeroDivisionError: division by zero", "2 of 2 did not end well"]),
        ({"code": "import time; time.sleep(3)", "limit": 1}, ["still under way after 1 s; it goes on"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_code_that_fails_or_is_not_sent(account: Account, given: dict[str, Any], names: list[str]) -> None:
    variables = {f"ipyparallel_execute_{name}": value for name, value in given.items()}
    done = account.play("execute", "-e", json.dumps(variables))
    said = " ".join(done.stdout.split())
    assert done.returncode == 2, said
    assert [name for name in names if name not in said] == [], said


def test_everything_of_features_30_to_34(account: Account) -> None:
    found = re.search(r"(\d+) of (\d+) checks passed", account.ok("make verify"))
    assert found
    assert found.group(1) == found.group(2)
    assert int(found.group(1)) > 80


class Browser:
    """A person at the notebook: cookies, and no trust but in the authority that `make up` brought."""

    def __init__(self) -> None:
        context = ssl.create_default_context(cafile=str(AUTHORITY))
        self.jar = CookieJar()
        handlers = [urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(self.jar)]
        self.opener = urllib.request.build_opener(*handlers)
        self.at, self.body = "", b""

    def get(self, path: str, data: dict[str, str] | None = None, method: str | None = None, **headers: str) -> int:
        encoded = urllib.parse.urlencode(data).encode() if data else None
        request = urllib.request.Request(f"{URL}{path}", encoded, headers, method=method)
        try:
            with self.opener.open(request, timeout=20) as answer:
                self.at, self.body = answer.url, answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            self.body = error.read()
            return error.code

    def log_in(self, password: str) -> None:
        self.get("/login")
        token = next(cookie.value for cookie in self.jar if cookie.name == "_xsrf")
        self.get("/login", {"_xsrf": token or "", "password": password})


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_curl_trusts_the_notebook_through_the_authority_alone(account: Account, name: str) -> None:
    address = f"https://{name}:{NOTEBOOK_PORT}/login"
    said = account.ok(
        f"curl --silent --show-error --output /dev/null --write-out '%{{http_code}}' --cacert {AUTHORITY} {address}"
    )
    assert said == "200"
    assert account.run(f"curl --silent {address}").returncode == 60, "curl's own authorities do not know it"


@pytest.mark.parametrize("check", ["-verify_ip 127.0.0.1", "-verify_ip ::1", "-verify_hostname localhost", "$HOST"])
def test_openssl_verifies_every_name_and_address(account: Account, check: str) -> None:
    told = check.replace("$HOST", f"-verify_hostname {socket.gethostname().partition('.')[0]}")
    said = account.ok(f"{CLIENT} -CAfile {AUTHORITY} -verify_return_error {told}")
    assert "Verify return code: 0 (ok)" in said
    assert (
        account.run(f"{CLIENT} -CAfile {AUTHORITY} -verify_return_error -verify_hostname example.org").returncode != 0
    )


@pytest.mark.parametrize(("version", "works"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_nothing_older_than_tls_1_2(account: Account, version: str, works: bool) -> None:
    weakest = "" if works else "-cipher ALL:@SECLEVEL=0"
    done = account.run(f"{CLIENT} -{version} {weakest}")
    assert (done.returncode == 0) == works, done.stdout + done.stderr
    assert works or "alert" in done.stderr, "it is the notebook that refuses"


def test_the_authority_signs_for_this_host_and_nothing_else(account: Account) -> None:
    found = x509.load_pem_x509_certificate(AUTHORITY.read_bytes())
    assert AUTHORITY.read_bytes() == (account.state / "authority.pem").read_bytes()
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    names = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert x509.DNSName("localhost") in names.value.permitted_subtrees
    assert stat.S_IMODE((account.state / "authority.key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "path", ["/api", "/api/contents", "/lab", "/lab/api/settings", "/files/x", "/ipyparallel/clusters", "/terminals/1"]
)
def test_notebook_refuses_without_login(path: str) -> None:
    browser = Browser()
    # a redirect to the login form is followed
    assert browser.get(path) == 403 or browser.at.startswith(f"{URL}/login?next=")


def test_notebook_refuses_a_wrong_password() -> None:
    browser = Browser()
    browser.log_in("not the password")
    assert browser.get("/api/contents") == 403


def test_notebook_answers_after_login(account: Account) -> None:
    browser = Browser()
    browser.log_in((account.state / "notebook/password").read_text().strip())
    assert browser.get("/api/contents") == 200
    assert browser.get("/ipyparallel/clusters") == 200


def test_notebook_answers_to_the_token(account: Account) -> None:
    token = (account.state / "notebook/token").read_text().strip()
    assert Browser().get("/api/contents", Authorization=f"token {token}") == 200


async def run_cells(token: str, *cells: str) -> list[str]:
    """Run cells in a fresh kernel of the notebook; return what each printed."""
    login = {"Authorization": f"token {token}"}
    client, options = AsyncHTTPClient(), {"headers": login, "validate_cert": False, "request_timeout": 60}
    made = await client.fetch(HTTPRequest(f"{URL}/api/kernels", "POST", body="{}", **options))
    kernel = f"{URL}/api/kernels/{json.loads(made.body)['id']}"
    socket = await websocket_connect(HTTPRequest(f"{kernel.replace('https', 'wss')}/channels", **options))
    printed = []
    for number, cell in enumerate(cells):
        header = {
            "msg_id": str(number),
            "msg_type": "execute_request",
            "username": "",
            "session": "test",
            "version": "5.3",
        }
        content = {"code": cell, "silent": False, "allow_stdin": False, "stop_on_error": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}
        await socket.write_message(json.dumps(message))
        printed.append("")
        while True:
            text = await asyncio.wait_for(socket.read_message(), 60)
            assert text is not None
            said = json.loads(text)
            if said["parent_header"].get("msg_id") != str(number):
                continue
            part = said["content"]
            printed[-1] += part.get("text", "") + part.get("data", {}).get("text/plain", "")
            printed[-1] += "\n".join(part.get("traceback", []))
            if part.get("execution_state") == "idle":
                break
    socket.close()
    await client.fetch(HTTPRequest(kernel, "DELETE", **options))
    return printed


def test_a_fresh_kernel_has_the_cluster(account: Account) -> None:
    token = (account.state / "notebook/token").read_text().strip()
    entry = account.state / "notebook/ipython/profile_default/security/cluster-.json"
    px, local, client, injected, refused = asyncio.run(
        run_cells(
            token,
            "%px import sys; print(sys.executable)",
            "import sys; print(sys.executable)",
            "import ipyparallel as ipp; print(len(ipp.Client().ids))",
            # what the sidebar injects
            f'cluster = ipp.Cluster.from_file("{entry}")\nrc = cluster.connect_client_sync()\nprint(len(rc.ids))',
            "cluster.stop_cluster_sync()",
        )
    )
    assert re.findall(r"\[stdout:\d+\] (\S+)", px) == [local.strip()] * ENGINES, px
    assert int(client) == ENGINES
    assert int(injected) == ENGINES
    assert "kept running by the service managers" in refused
    assert entry.exists()


def test_the_sidebar_shows_the_cluster_and_cannot_end_it(account: Account) -> None:
    login = {"Authorization": f"token {(account.state / 'notebook/token').read_text().strip()}"}
    processes = account.processes()
    browser = Browser()
    assert browser.get("/ipyparallel/clusters", **login) == 200
    (found,) = json.loads(browser.body)
    assert (found["id"], found["engines"]["n"]) == ("ipyparallel", ENGINES)
    assert found["controller"]["state"]["state"] == "running"
    for method, path in (("DELETE", "/ipyparallel"), ("POST", "/ipyparallel"), ("POST", "")):
        assert browser.get(f"/ipyparallel/clusters{path}", method=method, **login) == 409
    assert account.processes() == processes
    assert browser.get("/ipyparallel/clusters", **login) == 200
    assert json.loads(browser.body) == [found]


def outputs_of(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_the_example_notebooks_run(account: Account, figures: Figures) -> None:
    """As in the Lab, in the same kernel; a cell that fails ends it."""
    begin = time.monotonic()
    account.ok(
        "rm -rf ~/executed && cp -r ~/notebooks/examples ~/executed && cd ~/executed && "
        f"IPYTHONDIR={account.state}/notebook/ipython {account.prefix}/current/bin/jupyter-execute --inplace *.ipynb"
    )
    figures.add("the five example notebooks", time.monotonic() - begin, "s", 60)
    found = {path.stem: outputs_of(path) for path in (account.home / "executed").iterdir()}
    assert len(found) == 5
    assert [output for outputs in found.values() for output in outputs if output.get("name") == "stderr"] == []
    for name in ("Prime numbers", "Random matrices"):
        said = "".join("".join(output.get("text", "")) for output in found[name])
        assert re.search(rf"speed-up over one core: \d+\.\d   engines: {ENGINES}\n", said), said
        assert "100%" in said, "its progress"
    for name in ("Prime numbers", "Random matrices", "Monte Carlo"):
        charts = [one["data"][CHART] for one in found[name] if CHART in one.get("data", {})]
        assert charts, name
        data = [part["data"]["values"] for part in (charts[-1], *charts[-1].get("layer", ())) if "data" in part]
        assert all(data), name
    tables = ["".join(one.get("data", {}).get("text/markdown", "")) for one in found["Welcome"]]
    assert any(f"| localhost | default | {ENGINES} |" in table for table in tables), tables


@pytest.mark.parametrize("port", [*range(PORT_BASE, PORT_BASE + 19), NOTEBOOK_PORT])
def test_listens_on_the_documented_ports_on_loopback(host: Any, port: int) -> None:
    assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening


def secrets_of(account: Account) -> dict[str, str]:
    identity = json.loads((account.state / "identity.json").read_text())
    names = ("key", "curve_secretkey", "curve_publickey")
    found = {name: identity[name] for name in names}
    found["password"] = (account.state / "notebook/password").read_text().strip()
    found["token"] = (account.state / "notebook/token").read_text().strip()
    for name in ("authority.key.pem", "notebook/key.pem"):
        found[name] = (account.state / name).read_text().splitlines()[1]
    return found


def test_no_secret_is_readable_by_others(account: Account) -> None:
    secrets = [secret.encode() for secret in secrets_of(account).values()]
    open_to_others = []
    for directory in (".local", ".config", ".ipython", ".ansible", ".cache", "notebooks"):
        for path in (account.home / directory).rglob("*"):
            if path.is_symlink() or not path.is_file() or "/env/" in str(path) or "/.cache/uv/" in str(path):
                continue
            content = path.read_bytes()
            if any(secret in content for secret in secrets) and stat.S_IMODE(path.stat().st_mode) & 0o077:
                open_to_others.append(path)
    assert open_to_others == []


def test_no_secret_in_logs_arguments_environments_or_verbose_output(account: Account) -> None:
    secrets = secrets_of(account)
    texts = {path: path.read_bytes() for path in (account.state / "log").iterdir()}
    texts |= {path: path.read_bytes() for path in account.config.rglob("*") if path.is_file()}
    for pid in account.marked(cluster="ipyparallel"):
        for name in ("cmdline", "environ"):
            try:
                texts[Path(f"/proc/{pid}/{name}")] = Path(f"/proc/{pid}/{name}").read_bytes()
            except FileNotFoundError:
                continue
    verbose = account.play("site", "-vvv", "--diff")
    assert verbose.returncode == 0
    texts[Path("-vvv")] = (verbose.stdout + verbose.stderr).encode()
    found = [
        (path, name) for path, text in texts.items() for name, secret in secrets.items() if secret.encode() in text
    ]
    assert found == []
    assert len(texts) > 20
