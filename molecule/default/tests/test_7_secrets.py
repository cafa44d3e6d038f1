# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets are seen by nobody: not while they are made and handed out, and not afterwards."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NODES, connected, secrets_of
from remote import Operator

# What any account sees of others' processes, until standard input ends; argument lists and environments, as one text.
WATCH = r"""
import glob, json, os, select, sys

seen = set()
while True:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                seen.add(file.read())
        except OSError:
            pass
    if select.select([sys.stdin], [], [], 0.02)[0] and not os.read(0, 1):
        break
print(json.dumps([text.decode("utf-8", "replace") for text in seen]))
"""


def found_in(secrets: dict[str, str], texts: dict[str, str]) -> list[str]:
    return [f"{name} in {where}" for where, text in texts.items() for name, secret in secrets.items() if secret in text]


@contextlib.contextmanager
def watching(operator: Operator) -> Iterator[dict[str, str]]:
    """Keep what an account without rights sees of the processes of all nodes; it is there when this ends."""
    command = shlex.join(["python3", "-c", WATCH])
    started = {node: operator.start(node, command, "plain") for node in NODES}
    seen: dict[str, str] = {}
    try:
        yield seen
    finally:
        for node, process in started.items():
            stdout, stderr = process.communicate("", timeout=60)
            assert process.returncode == 0, stderr
            seen[node] = "\n".join(json.loads(stdout))


@pytest.fixture(scope="module")
def secrets(operator: Operator) -> dict[str, str]:
    """Return the secrets before and after new ones are made, each under a name of its own."""
    return {}


def test_the_operator_connects_through_the_tunnel(operator: Operator) -> None:
    assert connected(operator) == f"{[42] * 5}\n"


def test_new_keys_reach_everybody_and_are_not_said(operator: Operator, secrets: dict[str, str], tmp_path: Path) -> None:
    """The keys are made anew, and handed out, by the run that says most."""
    before = secrets_of(operator)
    facts = tmp_path / "facts"
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts)}
    with watching(operator) as processes:
        run = operator.ok("site", "-vvv", "--diff", "-e", "ipyparallel_controller_identity=rotated", **cache)
    after = secrets_of(operator)
    assert {name for name in before if before[name] != after[name]} == {"key", "curve_secretkey", "curve_publickey"}
    secrets |= {f"old {name}": secret for name, secret in before.items()}
    secrets |= after

    assert not list(facts.rglob("*")), "scope system gathers no facts"
    assert "ipcontroller" in processes["node1"]
    said = {"what the run says": run.stdout, "its warnings": run.stderr, **processes}
    assert found_in(secrets, said) == []
    # as it was before
    assert connected(operator) == f"{[42] * 5}\n"


def test_no_secret_is_in_a_journal(operator: Operator, secrets: dict[str, str]) -> None:
    logs = "journalctl --all --output=verbose; cat /var/log/*.log /var/log/*/* 2>/dev/null; true"
    said = operator.shells(NODES, logs)
    # a process wrote what ansible-playbook asked of the host
    assert all("Invoked with" in text for text in said.values())
    assert found_in(secrets, said) == []


def test_no_secret_is_in_a_file_that_others_can_read(operator: Operator, secrets: dict[str, str]) -> None:
    wanted = "\n".join(sorted(set(secrets.values()))) + "\n"
    command = (
        "LC_ALL=C grep --recursive --files-with-matches --no-messages --fixed-strings --file=/dev/stdin"
        " /boot /etc /home /opt /root /run /srv /tmp /usr /var; true"
    )
    # what is looked for is found where it may be
    assert "/identity.json" in operator.shell("node1", command.replace("/boot /etc", "/etc"), data=wanted)
    assert operator.shells(NODES, command, "plain", wanted) == dict.fromkeys(NODES, "")


def test_at_the_operators_secrets_are_the_operators_alone(operator: Operator, secrets: dict[str, str]) -> None:
    files = [path for path in operator.home.rglob("*") if path.is_file()]
    holders = [path for path in files if any(secret in path.read_text(errors="replace") for secret in secrets.values())]
    assert [path.name for path in holders] == ["ipcontroller-client.json"]
    assert [oct(path.stat().st_mode & 0o777) for path in holders] == ["0o600"]
