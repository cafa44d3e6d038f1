# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator of clusters on a lab's nodes: an account with a home of its own, which runs playbooks over SSH.

    python3 molecule/shared/remote.py LAB PLAYBOOK [ARGUMENT...]

runs a playbook as the tests do, and keeps what it said and how long it took as `first.json`, later `again.json`;
`close` in place of a playbook removes the operator's home.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import TREE, Lab

CALLBACKS = Path(__file__).parent / "counting"
DOCUMENTED = {"engine": range(9), "client": range(9, 15), "internal": range(15, 18)}
METRICS = 18
HEALTH = (TREE / "roles/health").is_dir()
FIREWALL = (TREE / "roles/firewall").is_dir()


@dataclasses.dataclass
class Run:
    """A playbook that was run."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    tasks: dict[str, list[dict[str, Any]]]

    @property
    def said(self) -> str:
        """What it said, as one line."""
        return " ".join((self.stdout + self.stderr).split())

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        rows = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", self.stdout, re.MULTILINE)
        return {host: int(count) for host, count in rows}


class Operator:
    """The operator of clusters on the nodes of a lab."""

    def __init__(self, lab: Lab, inventory: Path | None = None) -> None:
        self.lab = lab
        self.inventory = inventory or lab.directory / "inventory.yml"
        # short: the paths of sockets are below it
        self.home = Path(f"/tmp/ipp-{lab.name}-{os.getuid()}")

    def environ(self, **further: str) -> dict[str, str]:
        """Return the environment of the operator's commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
        kept.update(HOME=str(self.home), ANSIBLE_CONFIG=str(TREE / "ansible.cfg"), ANSIBLE_NOCOLOR="1", **further)
        return kept

    def play(self, playbook: str, *arguments: str, seconds: float = 600, **environ: str) -> Run:
        """Run a playbook of the collection."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        program = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "tasks.json"
            counting = {
                "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
                "ANSIBLE_CALLBACKS_ENABLED": "tasks",
                "TASKS_FILE": str(file),
            }
            start = time.monotonic()
            done = subprocess.run(
                [str(program), "-i", str(self.inventory), str(TREE / f"playbooks/{playbook}.yml"), *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
                cwd=TREE,
                env=self.environ(**counting, **environ),
                stdin=subprocess.DEVNULL,
            )
            took = time.monotonic() - start
            tasks = json.loads(file.read_text()) if file.exists() else {}
        return Run(done.returncode, done.stdout, done.stderr, took, tasks)

    def ok(self, playbook: str, *arguments: str, **environ: str) -> Run:
        """Run a playbook that has to succeed."""
        run = self.play(playbook, *arguments, **environ)
        assert run.status == 0, f"{playbook} {arguments}\n{run.stdout[-6000:]}\n{run.stderr[-3000:]}"
        return run

    def refused(self, playbook: str, *arguments: str) -> str:
        """Run a playbook that has to be refused before it changes anything; return what it says."""
        run = self.play(playbook, *arguments)
        assert run.status != 0, run.said
        assert not any(run.changed.values()), run.said
        assert "Traceback" not in run.said, run.said
        return run.said

    def verify(self, *arguments: str) -> Run:
        """Run every check of `verify`, all of which have to pass."""
        run = self.ok("verify", *arguments)
        found = re.search(r"(\d+) of (\d+) checks passed", run.said)
        assert found, run.said
        assert found.group(1) == found.group(2)
        assert int(found.group(1)) >= 80
        return run

    def status(self, *arguments: str) -> dict[str, Any]:
        """Return the status as JSON, whether the cluster is well or not."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "status.json"
            run = self.play("status", *arguments, "-e", f"ipyparallel_status_file={file}")
            assert file.exists(), run.said
            found: dict[str, Any] = json.loads(file.read_text())
        return found

    def start(self, node: str, command: str, account: str = "") -> subprocess.Popen[str]:
        """Start a line of shell on a node over SSH: as root, or as an account without sudo."""
        if account in ("", "root"):
            command = f"sudo -n sh -c {shlex.quote(command)}"
        elif account not in ("plain", "ansible"):
            command = f"sudo -n runuser -u {account} -- sh -c {shlex.quote(command)}"
        host = f"plain@{node}" if account == "plain" else node
        multiplexed = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self.home}/%C"]
        return subprocess.Popen(
            ["ssh", "-F", str(self.lab.directory / "ssh_config"), *multiplexed, host, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def shell(self, node: str, command: str, account: str = "", data: str = "", check: bool = True) -> str:
        """Run a line of shell on a node over SSH; return what it wrote."""
        process = self.start(node, command, account)
        stdout, stderr = process.communicate(data, timeout=120)
        assert process.returncode == 0 or not check, f"{node}: {command}\n{stdout[-3000:]}\n{stderr[-3000:]}"
        return stdout

    def shells(self, nodes: Sequence[str], command: str, account: str = "", data: str = "") -> dict[str, str]:
        """Run a line of shell on nodes at once; return what each wrote, whatever its status."""
        started = {node: self.start(node, command, account) for node in nodes}
        return {node: process.communicate(data, timeout=120)[0] for node, process in started.items()}

    def python(self, node: str, code: str, *arguments: str, account: str = "", program: str = "python3") -> Any:
        """Run Python code on a node, as root or as an account; return the JSON that it prints."""
        return json.loads(self.shell(node, shlex.join([program, "-", *arguments]), account, code))

    def client(self, code: str, cluster: str = "ipyparallel", node: str = "node1") -> Any:
        """Run Python code with a client `c` on the controller host, as the cluster's account; return its JSON."""
        connector = f"/var/lib/ipyparallel/{cluster}/connector/ipcontroller-client.json"
        code = f"import json, ipyparallel as p\nconnector = {connector!r}\nc = p.Client(connector, timeout=20)\n{code}"
        return self.python(node, code, account="ipyparallel", program=f"/opt/ipyparallel/{cluster}/current/bin/python")

    def pids(self, cluster: str, nodes: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return the main processes of a cluster's units that run, by node and unit."""
        which = f"ipyparallel-{cluster}-*.service"
        said = self.shells(nodes, f"systemctl show --property=Id,MainPID,ActiveState,SubState '{which}'")
        found = {}
        for node, text in said.items():
            blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
            rows = [block for block in blocks if block.get("SubState") == "running"]
            prefix = f"ipyparallel-{cluster}-"
            found[node] = {row["Id"].removeprefix(prefix).removesuffix(".service"): int(row["MainPID"]) for row in rows}
        return found

    def close(self) -> None:
        """Remove the operator's home, and end the SSH connections that are kept open there."""
        for path in self.home.rglob("*"):
            if path.is_socket():
                subprocess.run(["ssh", "-S", str(path), "-O", "exit", "any"], capture_output=True, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


def kept(operator: Operator, name: str) -> Mapping[str, Any]:
    """Return what was kept of a run from the command line."""
    found: dict[str, Any] = json.loads((operator.home / f"{name}.json").read_text())
    return found


def main(arguments: Sequence[str]) -> int:
    """Run a playbook, as the command line says; return its status."""
    lab, playbook, *further = arguments
    operator = Operator(Lab(lab))
    if playbook == "close":
        operator.close()
        return 0
    run = operator.play(playbook, *further)
    print(run.stdout)
    print(run.stderr, file=sys.stderr)
    if "--check" not in further and not run.status:
        name = "again" if (operator.home / "first.json").exists() else "first"
        (operator.home / f"{name}.json").write_text(json.dumps(dataclasses.asdict(run)))
    return run.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
