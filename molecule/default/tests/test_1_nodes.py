# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nodes are hosts as people have them: reached by SSH, booted by systemd, each account with what it may do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab import Lab


def ssh(lab: Lab, host: str, command: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(config or lab.directory / "ssh_config"), host, command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture(params=["node1", "node2", "node3", "node4"])
def node(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_four_of_debian_12(lab: Lab) -> None:
    assert [(node.name, node.suite) for node in lab.nodes()] == [(f"node{i}", "bookworm") for i in (1, 2, 3, 4)]


def test_ansible_has_sudo_by_ssh(lab: Lab, node: str) -> None:
    done = ssh(lab, node, "sudo -n id -un; hostname")
    assert done.stdout.split() == ["root", node], done.stderr


def test_plain_has_none(lab: Lab, node: str) -> None:
    assert ssh(lab, f"plain@{node}", "id -un").stdout == "plain\n"
    assert ssh(lab, f"plain@{node}", "sudo -n id").returncode == 1


def test_a_stranger_has_no_way_in(lab: Lab, node: str, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id_ed25519"], check=True)
    config = (lab.directory / "ssh_config").read_text()
    (tmp_path / "ssh_config").write_text(config.replace(f"{lab.directory}/id_ed25519", f"{tmp_path}/id_ed25519"))
    done = ssh(lab, node, "true", config=tmp_path / "ssh_config")
    assert "Permission denied (publickey" in done.stderr


def test_a_false_node_is_found_out(lab: Lab, node: str, tmp_path: Path) -> None:
    config = (lab.directory / "ssh_config").read_text()
    (tmp_path / "known_hosts").write_text("")
    (tmp_path / "ssh_config").write_text(config.replace(f"{lab.directory}/known_hosts", f"{tmp_path}/known_hosts"))
    assert "Host key verification failed" in ssh(lab, node, "true", config=tmp_path / "ssh_config").stderr


def test_systemd_has_booted_it(lab: Lab, node: str) -> None:
    assert lab.execute(node, ["systemctl", "is-system-running"], check=False) == "running\n"


def test_sandboxes_of_units_are_real(lab: Lab, node: str) -> None:
    """Where they are not, systemd ignores them without a word, and every test of hardening would pass."""
    argv = [
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--property=ProtectSystem=strict",
        "--property=PrivateTmp=yes",
    ]
    seen = lab.execute(node, [*argv, "sh", "-c", "ls -A /tmp; touch /etc/written 2>&1 || true"])
    assert seen == "touch: cannot touch '/etc/written': Read-only file system\n"
