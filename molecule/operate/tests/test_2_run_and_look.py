# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a cluster, run commands on it, bring files there and back, and give it packages and keys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import OLD
from figures import Figures
from lab import TREE
from remote import Operator
from waiting import wait_until

STATE = "/var/lib/ipyparallel/ipyparallel/cluster.json"
CONTROLLER = "ipyparallel-ipyparallel-controller.service"


def play_as_json(operator: Operator, playbook: str, variable: str, path: Path, *arguments: str) -> Any:
    """Run a playbook that writes what it found to a file; return that."""
    operator.ok(playbook, "-e", f"{variable}={path}", *arguments)
    return json.loads(path.read_text())


def test_status_tells_hosts_engines_versions_and_days(operator: Operator, figures: Figures) -> None:
    runs = [operator.ok("status") for _turn in range(3)]
    figures.watch("status: the fastest of 3", min(run.seconds for run in runs), 3)
    for part in ("engines       6 of 6", "days left", *OLD):
        assert part in runs[0].stdout
    found = operator.status()
    assert sorted(found["hosts"]) == OLD
    assert {one["state"] for one in found["engines"]} == {"idle"}


def test_status_of_a_hub_that_is_down_says_so_with_exit_code_2(operator: Operator, figures: Figures) -> None:
    operator.ok("stop")
    run = operator.play("status")
    assert run.status == 2, run.said
    figures.watch("status of a hub that is down", run.seconds, 3)
    assert "NOT RUNNING" in run.stdout
    assert all(host in run.stdout for host in OLD)


def test_logs_of_all_processes_come_to_the_operator(operator: Operator, tmp_path: Path) -> None:
    # of a cluster that is stopped
    directory = tmp_path / "logs"
    operator.ok("logs", "-e", f"ipyparallel_logs_directory={directory}", "-e", "ipyparallel_logs_lines=5")
    names = {str(path.relative_to(directory)) for path in directory.rglob("*.log")}
    assert {"node1/controller.log", "node1/health.log", "node1/notebook.log"} <= names
    assert {f"{host}/engines-default-{core}.log" for host in OLD for core in range(2)} <= names
    for name in names:
        assert 0 < len((directory / name).read_text().splitlines()) <= 5, name
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    operator.ok("start")
    assert len(operator.status()["engines"]) == 6


def test_files_go_to_hosts_and_come_back(operator: Operator, tmp_path: Path) -> None:
    job = tmp_path / "job"
    (job / "deep").mkdir(parents=True)
    (job / "run.py").write_text("print('é')\n")
    (job / "deep/data.csv").write_bytes(bytes(range(256)))
    (job / "run.py").chmod(0o755)
    given = ["-e", f"ipyparallel_put_source={job}", "-e", "ipyparallel_put_hosts=engines"]
    operator.ok("put", *given, "--check", "--diff")
    home = operator.shell("node2", "getent passwd ipyparallel | cut -d: -f6").strip()
    assert operator.shell("node2", f"ls -A {home}/job 2>&1 || true").startswith("ls: cannot access")
    operator.ok("put", *given)
    assert operator.shells(OLD, f"stat -c '%U %a' {home}/job/run.py") == dict.fromkeys(OLD, "ipyparallel 755\n")
    assert not any(operator.ok("put", *given).changed.values())
    # a link that engine code has put there leads root nowhere
    operator.shell("node2", f"mv {home}/job {home}/kept && ln -s /etc/profile.d {home}/job")
    before = operator.shell("node2", "ls -lR /etc/profile.d")
    assert f"cannot write {home}/job/" in operator.refused("put", *given)
    assert operator.shell("node2", "ls -lR /etc/profile.d") == before
    operator.shell("node2", f"rm {home}/job && mv {home}/kept {home}/job")
    # and an engine finds it, below its account's home
    code = "from pathlib import Path; size = (Path.home() / 'job/deep/data.csv').stat().st_size"
    assert (
        operator.client(f"c[:].execute({code!r}, block=True)\nprint(json.dumps(c[:].pull('size', block=True)))")
        == [256] * 6
    )
    results = tmp_path / "results"
    wanted = ["-e", "ipyparallel_get_source=job/*", "-e", f"ipyparallel_get_directory={results}"]
    operator.ok("get", *wanted, "--check", "--diff")
    assert not results.exists()
    operator.ok("get", *wanted)
    for host in OLD:
        assert (results / host / "deep/data.csv").read_bytes() == bytes(range(256))
        assert (results / host / "run.py").read_text() == "print('é')\n"
    assert not any(operator.ok("get", *wanted).changed.values())


def test_openssh_reaches_each_host_by_its_name(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "cluster.conf"
    given = ["-e", f"ipyparallel_ssh_config_path={path}"]
    operator.ok("ssh_config", *given, "--check", "--diff")
    assert not path.exists()
    operator.ok("ssh_config", *given)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(operator.ok("ssh_config", *given).changed.values())
    for name, host in (("ipyparallel-node2", "node2"), ("ipyparallel-controller", "node1")):
        done = subprocess.run(
            ["ssh", "-F", str(path), "-o", "BatchMode=yes", name, "hostname"],
            capture_output=True,
            text=True,
            check=False,
            env=operator.environ(),
            timeout=30,
        )
        assert done.stdout == f"{host}\n", done.stderr


def test_code_and_commands_run_on_chosen_engines(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    found = play_as_json(
        operator,
        "execute",
        "ipyparallel_execute_file",
        path,
        "-e",
        "ipyparallel_execute_hosts=node2",
        "-e",
        "ipyparallel_execute_shell='echo out; echo err >&2; hostname'",
    )
    assert [one["host"] for one in found] == ["node2"] * 2
    assert [one["stdout"] for one in found] == ["out\nnode2\n"] * 2
    assert [one["stderr"] for one in found] == ["err\n"] * 2
    variables = {"ipyparallel_execute_code": "def f():\n    return 1 / 0\nf()"}
    run = operator.play("execute", "-e", json.dumps(variables))
    assert run.status != 0
    assert "ZeroDivisionError: division by zero" in run.said
    assert "line 2, in f" in run.said


def test_the_hub_is_an_inventory(operator: Operator) -> None:
    operator.ok("connect")
    address = operator.lab.known(["node1"])[0].address
    program = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def inventory() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), "-i", str(TREE / "inventory/hub"), "--list"],
            capture_output=True,
            text=True,
            check=False,
            env=operator.environ(),
            cwd=TREE,
            timeout=60,
        )

    found = json.loads(inventory().stdout)
    assert sorted(found["ipyparallel_pool_default"]["hosts"]) == OLD
    ids = {number for host in OLD for number in found["_meta"]["hostvars"][host]["ipyparallel_engine_ids"]}
    assert ids == {one["id"] for one in operator.status()["engines"]}
    operator.shell("node1", f"systemctl stop {CONTROLLER}")
    away = inventory()
    said = " ".join(away.stderr.split())
    assert address in said
    assert "did not answer within" in said
    assert "Traceback" not in said
    operator.shell("node1", f"systemctl start {CONTROLLER}")
    wait_until(lambda: len(operator.status()["engines"]) == 6, 60, "the engines are back")


def test_packages_are_there_at_once_and_remembered(operator: Operator) -> None:
    pids = operator.pids("ipyparallel", OLD)
    imported = "print(json.dumps(c[:].apply_sync(lambda: __import__('humanize').__version__)))"
    given = ["-e", "ipyparallel_install=humanize==4.9.0"]
    operator.ok("install_packages", *given, "--check", "--diff")
    assert "humanize" not in operator.shell("node1", f"cat {STATE}")
    operator.ok("install_packages", *given)
    assert operator.client(imported) == ["4.9.0"] * 6
    assert operator.pids("ipyparallel", OLD) == pids
    assert not any(operator.ok("install_packages", *given).changed.values())
    assert not any(operator.ok("deploy").changed.values())
    said = operator.refused("install_packages", "-e", "ipyparallel_install=humanize==4.9.0,ipyparallel==8.8.0")
    assert "ipyparallel" in said
    assert operator.client(imported) == ["4.9.0"] * 6


def test_the_old_connector_opens_nothing_after_a_rotation(operator: Operator) -> None:
    old = operator.shell("node1", "cat /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json")
    operator.ok("rotate_connector", "--check", "--diff")
    assert operator.shell("node1", "cat /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json") == old
    run = operator.ok("rotate_connector")
    assert "ports refuse its key" in run.said
    new = operator.shell("node1", "cat /var/lib/ipyparallel/ipyparallel/connector/ipcontroller-client.json")
    for part in ("key", "curve_serverkey"):
        assert json.loads(old)[part] != json.loads(new)[part]
        assert json.loads(old)[part] not in run.stdout + run.stderr
    profile = operator.home / ".ipython/profile_ipyparallel/security/ipcontroller-client.json"
    assert json.loads(profile.read_text())["key"] == json.loads(new)["key"]
    assert len(operator.client("print(json.dumps(c[:].apply_sync(int)))")) == 6
    assert not any(operator.ok("deploy").changed.values())
