# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The account that has the local cluster, and what is done as this account."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

PORT_BASE = 21100
NOTEBOOK_PORT = 21888
HOME = Path(f"/tmp/ipp-local-{os.getuid()}")
PROJECT = Path(__file__).parents[3]
ACCOUNT = "ipp-local" if os.getuid() == 0 else ""


class Account:
    """The account that has the cluster; everything a user does is done as this account."""

    home = HOME
    state = HOME / ".local/state/ipyparallel/ipyparallel"
    config = HOME / ".config/ipyparallel/ipyparallel"
    prefix = HOME / ".local/share/ipyparallel/ipyparallel"
    connector = HOME / ".ipython/profile_ipyparallel/security/ipcontroller-client.json"

    def run(self, command: str, seconds: float = 180, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in the project, as the account with nothing of this process's environment."""
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in environ.items())
        line = f"cd ~/cluster && {exports}{command}"
        start = ["runuser", "--login", ACCOUNT, "--command"] if ACCOUNT else ["env", f"HOME={HOME}", "sh", "-c"]
        return subprocess.run(
            [*start, line], capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )

    def ok(self, command: str, seconds: float = 180, **environ: str) -> str:
        """Run a line of shell that has to succeed; return its output."""
        done = self.run(command, seconds, **environ)
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def play(self, playbook: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection."""
        words = " ".join(shlex.quote(argument) for argument in arguments)
        return self.run(f".venv/bin/ansible-playbook playbooks/{playbook}.yml {words}", **environ)

    def refused(self, playbook: str, *arguments: str) -> str:
        """Run a playbook that has to be refused before it changes anything; return what it says."""
        done = self.play(playbook, *arguments)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0, said
        assert "changed=0 " in said or "PLAY RECAP" not in said, said
        assert "Traceback" not in said, said
        return said

    def python(self, code: str, seconds: float = 60) -> str:
        """Run Python code with the operator's interpreter; return its output."""
        return self.ok(f".venv/bin/python -c {shlex.quote(code)}", seconds).strip()

    def status(self, cluster: str = "ipyparallel") -> dict[str, Any]:
        """Return the status as JSON, whether the cluster is well or not."""
        done = self.run(f"make --silent status FORMAT=json CLUSTER={cluster}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def processes(self, cluster: str = "ipyparallel") -> dict[str, int]:
        """Return the main processes of a cluster as their manager sees them: name to pid."""
        config = HOME / f".config/ipyparallel/{cluster}/supervisord.conf"
        program = HOME / f".local/share/ipyparallel/{cluster}/current/bin/supervisorctl"
        done = self.run(f"{program} -c {config} status")
        rows = (line.split() for line in done.stdout.splitlines())
        return {row[0]: int(row[3].rstrip(",")) for row in rows if len(row) > 3 and row[1] == "RUNNING"}

    def marked(self, **marks: str) -> dict[int, int]:
        """Return the running processes whose environment has these IPYPARALLEL_* marks: pid to parent."""
        wanted = [f"IPYPARALLEL_{name.upper()}={value}".encode() for name, value in marks.items()]
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if all(mark in environ for mark in wanted) and f"HOME={HOME}".encode() in environ and fields[0] != "Z":
                found[int(entry.name)] = int(fields[1])
        return found

    def files_of(self, cluster: str) -> list[Path]:
        """Return the directories of a cluster, and all that is named after it where clusters keep their files."""
        places = (".local/share/ipyparallel", ".local/state/ipyparallel", ".config/ipyparallel", ".ipython")
        found = [path for place in places for path in self.home.glob(f"{place}/**/*{cluster}*")]
        return [path for path in found if "/env/" not in str(path)]
