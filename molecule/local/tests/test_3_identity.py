# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The identity: kept, changed with one ordered restart, rotated, and repaired; also when a run is interrupted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from account import PORT_BASE, Account

# A run is killed before each of these, hence after each task that changes anything
CHANGING = [
    "Identity | Make or keep the cluster's identity",
    "State | Start, stop or remove the engines",
    "Service | Run the controller",
    "Service | Run the engines of each pool",
    "Service | Run JupyterLab",
    "Wait | Wait until the hub has every engine",
    "Bring the connector to the operator",
]
KEYS = ("key", "curve_publickey", "curve_secretkey")


def identity(account: Account) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((account.state / "identity.json").read_text())
    return found


def starts(account: Account) -> dict[str, int]:
    """Return how often controller and engine have started, by their manager's log; each has started at least once."""
    log = (account.state / "log/supervisord.log").read_text()
    found = {name: log.count(f"spawned: '{name}' with pid") for name in ("controller", "engines-default-0")}
    assert all(found.values()), found
    return found


def is_whole(account: Account) -> None:
    """Every id is an engine that runs and answers, and the operator's connector is the cluster's."""
    status = account.status()
    assert not status["problem"], status
    running = account.processes()
    pids = sorted(pid for name, pid in running.items() if name.startswith("engines-"))
    assert sorted(engine["pid"] for engine in status["engines"]) == pids
    code = "import os, ipyparallel as p; c=p.Client(profile='ipyparallel')"
    assert account.python(f"{code}; print(sorted(c[:].apply_async(os.getpid).get(20)))") == str(pids)
    assert account.connector.read_text() == (account.state / "connector/ipcontroller-client.json").read_text()


@pytest.mark.parametrize("packer", ["pickle", "msgpack", "orjson", "json"])
def test_packers(account: Account, packer: str) -> None:
    keys = {name: identity(account)[name] for name in KEYS}
    before = starts(account)
    variable = f"-e ipyparallel_controller_packer={packer}"
    account.ok(f"make up ARGS='{variable}'")
    assert json.loads(account.connector.read_text())["pack"] == packer
    assert starts(account) == {name: count + 1 for name, count in before.items()}, "each restarts once"
    assert {name: identity(account)[name] for name in KEYS} == keys, "the keys are kept"
    is_whole(account)
    account.ok(f"make verify ARGS='{variable}'")


def test_a_setting_is_remembered(account: Account) -> None:
    account.ok("make up ARGS='-e ipyparallel_controller_packer=msgpack'")
    assert "changed=0 " in account.ok("make up")
    assert account.status()["packer"] == "msgpack"


def test_the_controllers_own_connectors_are_ours(account: Account) -> None:
    for half in ("client", "engine"):
        name = f"ipcontroller-{half}.json"
        written = (account.state / "controller/security" / name).read_bytes()
        assert written == (account.state / "connector" / name).read_bytes()


def test_another_port_base_and_another_address(account: Account) -> None:
    account.ok("make up PORT_BASE=21300")
    assert json.loads(account.connector.read_text())["registration"] == 21300
    is_whole(account)
    account.ok(f"make up PORT_BASE={PORT_BASE} ARGS='-e ipyparallel_address=127.0.0.2'")
    found = json.loads(account.connector.read_text())
    assert (found["interface"], found["registration"]) == ("tcp://127.0.0.2", PORT_BASE)
    is_whole(account)


def test_without_encryption_and_with_it_again(account: Account) -> None:
    key = identity(account)["curve_publickey"]
    account.ok("make up ARGS='-e ipyparallel_controller_encryption=none -e ipyparallel_address=127.0.0.1'")
    assert json.loads(account.connector.read_text())["curve_serverkey"] is None
    is_whole(account)
    account.ok("make up ARGS='-e ipyparallel_controller_encryption=curve'")
    assert json.loads(account.connector.read_text())["curve_serverkey"] == key
    is_whole(account)


@pytest.mark.parametrize("number", range(len(CHANGING)), ids=CHANGING)
def test_interrupted_after_any_task(account: Account, number: int) -> None:
    """A changed identity, and the run killed after each task that changes anything: the next run ends whole."""
    packer = ["orjson", "pickle"][number % 2]
    assert account.status()["packer"] != packer
    done = account.play(
        "site",
        "-e",
        f"ipyparallel_controller_packer={packer}",
        ANSIBLE_CALLBACK_PLUGINS=str(account.home / "cluster/molecule/shared/callback"),
        ANSIBLE_CALLBACKS_ENABLED="interrupt",
        INTERRUPT_BEFORE=CHANGING[number],
    )
    assert "INTERRUPTED" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    before = starts(account)
    account.ok(f"make up ARGS='-e ipyparallel_controller_packer={packer}'")
    assert account.status()["packer"] == packer
    is_whole(account)
    after = starts(account)
    assert all(after[name] - before[name] in (0, 1) for name in after), "nothing restarts twice"


def test_rotated_keys(account: Account) -> None:
    before = identity(account)
    old = account.connector.read_text()
    account.ok("make up ARGS='-e ipyparallel_controller_identity=rotated'")
    after = identity(account)
    assert all(after[name] != before[name] for name in KEYS)
    assert after["port_base"] == before["port_base"]
    assert after["packer"] == before["packer"]
    is_whole(account)
    stale = account.home / "stale.json"
    stale.write_text(old)
    code = f"""
import ipyparallel as p
try:
    p.Client({str(stale)!r}, timeout=3)
except Exception as error:
    print('refused', type(error).__name__)
"""
    assert account.python(code).startswith("refused")


@pytest.mark.parametrize("broken", ["", "{", '{"cluster": "ipyparallel"}', "[]"])
def test_a_broken_identity_is_named_and_rotated_repairs_it(account: Account, broken: str) -> None:
    path = account.state / "identity.json"
    whole = path.read_text()
    path.write_text(broken)
    said = account.refused("site")
    assert str(path) in said
    assert "ipyparallel_controller_identity=rotated" in said
    if broken.startswith('{"'):
        assert "'address'" in said
        account.ok(f"make up PORT_BASE={PORT_BASE} ARGS='-e ipyparallel_controller_identity=rotated'")
        is_whole(account)
    else:
        path.write_text(whole)


def test_a_half_written_connector_is_named_and_written_again(account: Account) -> None:
    path = account.state / "connector/ipcontroller-client.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    said = account.refused("connect")
    assert str(path) in said
    assert "half-written" in said
    values = json.loads(whole)
    del values["iopub"]
    path.write_text(json.dumps(values))
    assert "'iopub'" in account.refused("connect")
    account.ok("make up")
    assert path.read_text() == whole
    is_whole(account)
