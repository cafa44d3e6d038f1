# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of a cluster that is operated while it is in use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import of_scenario
from lab import TREE, Lab
from remote import Operator
from waiting import wait_until

figures, pytest_terminal_summary = of_scenario(TREE / "build/operate.json")
OLD = ["node1", "node2", "node3"]
LEAST_TASKS = 3000
RATE = 20.0  # tasks a second, each of up to 0.1 s

# A client submits at a steady rate, whatever happens, until a file says that it is enough.
LOAD = """
import json, pathlib, sys, time
import ipyparallel

stop, said, least, rate = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
client = ipyparallel.Client(profile="ipyparallel", timeout=20)
view = client.load_balanced_view()
view.retries = 0

def square(number):
    import pathlib, random, time
    with open("/tmp/done", "a") as stream:
        stream.write(f"{number}\\n")
    time.sleep(random.choice([0.005, 0.02, 0.1]))
    return number * number

sent, began = [], time.time()
print("began", flush=True)
while len(sent) < least or not stop.exists():
    time.sleep(max(0.0, began + len(sent) / rate - time.time()))
    sent.append(view.apply_async(square, len(sent)))
wrong, deadline = {}, time.time() + 60
for number, result in enumerate(sent):
    try:
        found = result.get(max(1.0, deadline - time.time()))
        if found != number * number:
            wrong[number] = f"returned {found}"
    except Exception as error:
        wrong[number] = f"{type(error).__name__}: {error}"[:200]
said.write_text(json.dumps({"sent": len(sent), "wrong": wrong, "seconds": time.time() - began}))
"""


class Load:
    """A client that submits load-balanced tasks all the time."""

    def __init__(self, operator: Operator, directory: Path) -> None:
        self.stop, self.said = directory / "stop", directory / "said.json"
        arguments = [str(self.stop), str(self.said), str(LEAST_TASKS), str(RATE)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOAD, *arguments], env=operator.environ(), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "began\n"

    def finish(self) -> dict[str, Any]:
        """Let it end; return how many tasks it sent, and what was wrong."""
        self.stop.touch()
        wait_until(lambda: self.process.poll() is not None, 400, "the client ends")
        found: dict[str, Any] = json.loads(self.said.read_text())
        return found


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab("operate")


@pytest.fixture(scope="session")
def operator(lab: Lab) -> Operator:
    return Operator(lab)


@pytest.fixture(scope="session")
def load(operator: Operator, lab: Lab) -> Iterator[Load]:
    """Return the client, which works from its first use until a test ends it."""
    operator.ok("connect")
    one = Load(operator, lab.directory)
    yield one
    one.process.kill()
    one.process.communicate()


@pytest.fixture(scope="session")
def more(lab: Lab) -> list[str]:
    """Return the arguments that make the fourth host an engine host of the cluster."""
    path = lab.directory / "more.yml"
    path.write_text("ipyparallel_engines: {hosts: {node4: }}\n")
    return ["--inventory", str(path)]


def places(operator: Operator, pool: str = "default") -> list[str]:
    """Return where the registered engines of a pool are."""
    found = [one for one in operator.status()["engines"] if one["pool"] == pool]
    return sorted(f"{one['host']}/{one['core']}" for one in found)
