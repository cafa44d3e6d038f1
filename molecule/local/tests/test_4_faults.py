# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes that are killed come back, and what the engines hold stays."""

from __future__ import annotations

import json
import shlex
import time

import pytest
from account import Account
from figures import Figures
from waiting import wait_until

CHILDREN = ["iopub", "mux", "control", "task", "broadcast 0", "broadcast 00", "broadcast 01", "heartbeat"]

# Every engine has its variable, in direct and in load-balanced work, and its id.
PROBE = """
import sys, time, ipyparallel as p
ids, limit = eval(sys.argv[1]), time.monotonic() + float(sys.argv[2])
why = 'not tried'
while time.monotonic() < limit:
    try:
        client = p.Client(profile='ipyparallel', timeout=3)
        assert client.ids == ids, client.ids
        assert client[:].apply_async(lambda: kept).get(timeout=2) == [42] * len(ids)
        for number in ids:
            assert client.load_balanced_view([number]).apply_async(lambda: kept).get(timeout=2) == 42
        print('whole')
        break
    except BaseException as error:
        why = f'{type(error).__name__}: {error}'
    finally:
        if 'client' in vars():
            client.close()
else:
    print(why)
"""
PUSH = "import ipyparallel as p; c = p.Client(profile='ipyparallel'); c[:].push({'kept': 42}, block=True); print(c.ids)"


def controller(account: Account) -> tuple[int, list[int]]:
    """Return the main process of the controller, and its children in the order in which they started."""
    found = account.marked(process="controller")
    mains = [pid for pid, parent in found.items() if parent not in found]
    return (mains[0], sorted(found.keys() - set(mains))) if len(mains) == 1 else (0, [])


@pytest.mark.parametrize("number", range(-1, 8), ids=["main", *CHILDREN])
def test_controller_or_one_of_its_children_killed(account: Account, figures: Figures, number: int) -> None:
    main, children = wait_until(
        lambda: (found := controller(account))[0] and len(found[1]) == 8 and found, 20, "a controller with 8 children"
    )
    ids = account.python(PUSH)
    victim = main if number < 0 else children[number]
    account.ok(f"kill -KILL {victim}")
    killed = time.monotonic()
    wait_until(lambda: controller(account)[0] not in (0, main), 15, "another main process")
    said = account.ok(f".venv/bin/python -c {shlex.quote(PROBE)} '{ids}' 25").strip()
    what = "main" if number < 0 else CHILDREN[number]
    assert said == "whole", f"{what}: {said}"
    figures.add(f"controller's {what} killed: whole again, variables kept", time.monotonic() - killed, "s", 15)


def test_an_engine_killed_comes_back(account: Account, figures: Figures) -> None:
    before = account.status()["engines"]
    pid = before[-1]["pid"]
    account.ok(f"kill -KILL {pid}")
    killed = time.monotonic()
    code = f"""
import time, ipyparallel as p
client = p.Client(profile='ipyparallel')
while len(client.ids) < {len(before)} or any('__{pid}__' in ident for ident in client._engines.values()):
    time.sleep(0.02)
print(client[:].apply_async(lambda: 6 * 7).get(20))
"""
    assert account.python(code) == str([42] * len(before))
    figures.add("engine killed: another in its place", time.monotonic() - killed, "s", 5)


def test_engines_that_do_not_come_are_named_with_their_log(account: Account) -> None:
    """The one wait at the end names them; `stop` ends them too, although they are not defined any more."""
    broken = {"name": "broken", "count": 1, "environment": {"PYTHONHOME": "/nowhere"}}
    pools = {"ipyparallel_engines_pools": [{"name": "default"}, broken], "ipyparallel_engines_wait": 4}
    done = account.play("site", "-e", json.dumps(pools))
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "missing: localhost broken/0" in said
    assert "engines-broken-0" in said
    assert "No module named 'encodings'" in said
    account.ok("make down")
    assert account.marked(cluster="ipyparallel") == {}
    none = {"ipyparallel_engines_pools": [{"name": "default"}, {**broken, "count": 0}]}
    assert account.play("site", "-e", json.dumps(none)).returncode == 0
    assert account.status()["expected"] == len(account.status()["engines"])
