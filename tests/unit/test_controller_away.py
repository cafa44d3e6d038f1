# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Playbooks that look at a cluster, as a job template calls them, where the controller host is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
EMPTY = ["status_limit", "status_file", "logs_limit", "logs_lines", "logs_since", "logs_directory"]
"""Variables that a job template gives without a value."""


@pytest.fixture
def play(tmp_path):
    """Run a playbook in scope user: node1 is the controller host and does not answer, node2 is this machine."""
    away = tmp_path / "ssh"
    away.write_text("#!/bin/sh\necho no route >&2\nexit 255\n")
    away.chmod(0o755)
    hosts = {
        "alpha_controller": {"node1": {"ansible_connection": "ssh", "ansible_ssh_executable": str(away)}},
        "alpha_engines": {"node2": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
    }
    alpha = {
        "children": {name: {"hosts": members} for name, members in hosts.items()},
        "vars": {"ipyparallel_scope": "user"},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"alpha": alpha}}}))

    def run(name, **variables):
        given = {"cluster": "alpha", **{f"ipyparallel_{one}": "" for one in EMPTY}, **variables}
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                *("-i", str(tmp_path / "hosts.yml"), "-e", json.dumps(given), PROJECT / "playbooks" / name),
            ],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_status_reports_without_the_controller_host(play, tmp_path):
    done = play("status.yml", ipyparallel_status_file=str(tmp_path / "status.json"))
    assert done.returncode == 2, done.stdout
    assert "controller host node1: unreachable: no route" in done.stdout
    hosts = json.loads((tmp_path / "status.json").read_text())["hosts"]
    assert {host: one["reachable"] for host, one in hosts.items()} == {"node1": False, "node2": True}
    assert hosts["node2"]["cores"] > 0


def test_logs_come_without_the_controller_host(play, tmp_path):
    done = play("logs.yml")
    assert done.returncode == 0, done.stdout
    assert "no logs of node1: unreachable: no route" in done.stdout
    assert "no logs of node2: nothing of the cluster is laid down there" in done.stdout
