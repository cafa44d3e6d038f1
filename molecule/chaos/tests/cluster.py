# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster that suffers: its processes as this machine sees them, and what its users see."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab import Lab
from waiting import wait_until

PROJECT = Path(__file__).resolve().parents[3]
STATE = "/var/lib/ipyparallel/ipyparallel"
PYTHON = "/opt/ipyparallel/ipyparallel/current/bin/python"
CLIENT = f"{STATE}/connector/ipcontroller-client.json"
ACCOUNT = "ipyparallel"
UNIT = "ipyparallel-ipyparallel-"
NODES = {"node1": 2, "node2": 3, "node3": 3}
EXPECTED = sorted((node, core) for node, count in NODES.items() for core in range(count))
CHILDREN = ["iopub", "mux", "control", "task", "broadcast 0", "broadcast 00", "broadcast 01", "heartbeat"]
METRICS = 10118
NAME = "kept"
RATE = 20.0  # load-balanced tasks a second; they take a tenth of the engines


def place(ident: str) -> tuple[str, int]:
    """Return host and core of an engine."""
    host, _pool, core, _pid, _random = ident.split("__")
    return host, int(core)


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of the cluster. *pid* is this machine's number, *own* the node's."""

    node: str
    pid: int
    own: int
    parent: int
    name: str
    instance: str

    def kill(self, number: int) -> None:
        """Send it a signal, from this machine: nothing on the node can see it come."""
        os.kill(self.pid, number)

    def is_alive(self) -> bool:
        """Return whether it runs, or could."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()[0] != "Z"
        except OSError:
            return False


class Agent:
    """The users' process on node1; see ``agent.py``."""

    def __init__(self, lab: Lab) -> None:
        data = Path(__file__).with_name("agent.py").read_bytes()
        argv = ["podman", "exec", "-i", lab.container("node1"), "tee", "/usr/local/lib/chaos.py"]
        subprocess.run(argv, input=data, stdout=subprocess.DEVNULL, check=True)
        argv = ["podman", "exec", "-i", f"--user={ACCOUNT}", "--workdir=/", "--env=HOME=/tmp", lab.container("node1")]
        # its messages are seen when a test fails
        self.process = subprocess.Popen(
            [*argv, PYTHON, "/usr/local/lib/chaos.py", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr.fileno() if hasattr(sys.stderr, "fileno") else None,
        )
        self.read(60)

    def read(self, limit: float) -> dict[str, Any]:
        assert self.process.stdout
        ready = select.select([self.process.stdout], [], [], limit)[0]
        assert ready, f"the clients on node1 have not answered in {limit:g} s"
        line = self.process.stdout.readline()
        assert line, "the clients on node1 have ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def __call__(self, do: str, *, within: float = 30, **arguments: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.read(within)
        assert "error" not in answer, f"{do}: {answer['error']}"
        return answer["answer"]

    def end(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


class Cluster:
    """The cluster and its users."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespaces: dict[str, str] = {}
        self.roots: dict[str, int] = {}
        self.why = ""
        self.expected = list(EXPECTED)
        self.look_at_nodes()
        self.start_agent()

    # -- processes

    def look_at_nodes(self) -> None:
        """Learn the namespaces of the nodes that run; they change with each start."""
        for node, found in self.lab.inspect().items():
            if pid := found["State"]["Pid"]:
                self.roots[node] = pid
                self.namespaces[os.readlink(f"/proc/{pid}/ns/pid")] = node

    def processes(self, name: str = "", node: str = "") -> list[Process]:
        """Return the cluster's processes, main ones and those below them, in the order of their numbers."""
        found = []
        for entry in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
            try:
                where = self.namespaces.get(os.readlink(f"/proc/{entry}/ns/pid"))
                if not where or (node and where != node):
                    continue
                environ = Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace").split("\0")
                marks = dict(line.partition("=")[::2] for line in environ if line.startswith("IPYPARALLEL_"))
                what = marks.get("IPYPARALLEL_PROCESS", "")
                if not what or (name and what != name):
                    continue
                status = dict(re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{entry}/status").read_text(), re.MULTILINE))
            except OSError:
                continue
            if status["State"][0] != "Z":
                own, parent = int(status["NSpid"].split()[-1]), int(status["PPid"])
                found.append(Process(where, entry, own, parent, what, marks.get("IPYPARALLEL_INSTANCE", "")))
        return found

    def mains(self, name: str, node: str = "") -> list[Process]:
        """Return the main processes of this name."""
        found = self.processes(name, node)
        pids = {process.pid for process in found}
        return [process for process in found if process.parent not in pids]

    def controller(self) -> tuple[Process, list[Process]] | None:
        """Return the controller's main process and its 8 children, None while it is not complete."""
        found = self.processes("controller", "node1")
        pids = {process.pid for process in found}
        mains = [process for process in found if process.parent not in pids]
        children = [process for process in found if process.parent in pids]
        return (mains[0], children) if len(mains) == 1 and len(children) == len(CHILDREN) else None

    def engine(self, node: str, core: int) -> Process | None:
        """Return the main process of an engine."""
        found = [process for process in self.mains("engines-default", node) if process.instance == str(core)]
        # its nanny is an orphan for a moment after its end
        return next((process for process in found if "nanny" not in self.command(process)), None)

    def nanny(self, engine: Process) -> Process:
        """Return the process that watches over an engine."""
        below = [process for process in self.processes(engine.name, engine.node) if process.parent == engine.pid]
        (found,) = [process for process in below if "resource_tracker" not in self.command(process)]
        return found

    def command(self, process: Process) -> str:
        """Return the command line of a process."""
        try:
            return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    # -- nodes

    def run(self, node: str, command: str, *, check: bool = True) -> str:
        """Run a shell's command on a node, as root."""
        return self.lab.execute(node, ["sh", "-c", command], check=check)

    def journal(self, since: float, node: str = "node1", unit: str = "*", lines: int = 30) -> str:
        """Return what the cluster's units have logged since a time of the clock."""
        command = f"journalctl --quiet --no-pager -o short-precise --since=@{since:.0f} -u '{UNIT}{unit}'"
        return self.run(node, f"{command} | tail -n {lines} | cut -c1-300", check=False)

    def play(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook; it says how that ended."""
        argv = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{name}.yml", "-i"]
        argv += [str(self.lab.directory / "inventory.yml"), *arguments]
        return subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)

    def mend(self) -> None:
        """Take away what would break the next test, too."""
        states = {node: found["State"]["Status"] for node, found in self.lab.inspect().items()}
        for node, state in states.items():
            if state == "paused":
                self.lab.thaw(node)
            elif state != "running":
                self.lab.start(node)
            self.lab.mend(node)
        self.look_at_nodes()
        self.run("node1", "rm -f /var/lib/ipyparallel/chaos-fill /tmp/chaos-fill", check=False)

    # -- users

    def start_agent(self) -> None:
        """Start the users; again, where node1 took them down."""
        for pid in self.roots.values():
            Path(f"/proc/{pid}/root/var/tmp/chaos-tasks").unlink(missing_ok=True)
        self.agent = Agent(self.lab)
        self.agent("load", rate=RATE)
        self.counted = 0

    def status(self) -> dict[str, Any]:
        """Return what the watchdog says, an empty state where it does not answer."""
        found: dict[str, Any] = {"state": "", "problems": [], "events": [], "repairs": {}}
        with contextlib.suppress(AssertionError):
            found.update(json.loads(self.agent("metrics", port=METRICS, path="/status")))
        return found

    def idents(self) -> dict[int, str]:
        """Return the engines that the hub has named to the old client."""
        return {int(number): ident for number, ident in self.agent("idents").items()}

    def on(self, node: str) -> list[int]:
        """Return the ids of a node's engines."""
        return [number for number, ident in self.idents().items() if place(ident)[0] == node]

    def probe(self, *, old: bool = False, limit: float = 3) -> dict[str, Any]:
        """Look whether the cluster is whole: each expected engine is there once, and does all kinds of work."""
        said: dict[str, Any] = self.agent("probe", expected=len(self.expected), name=NAME, old=old, limit=limit)
        if said["whole"] and (places := sorted(map(place, said["idents"]))) != self.expected:
            said.update(whole=False, why=f"engines are at {places}")
        return said

    def wait_until_whole(self, seconds: float, *, old: bool = False) -> dict[str, Any]:
        """Wait until it is whole."""
        started = time.monotonic()
        while True:
            said = self.probe(old=old)
            if said["whole"]:
                return said
            self.why = said.get("why", "")
            if time.monotonic() - started > seconds:
                raise AssertionError(f"not whole after {seconds:g} s: {said.get('why')}")

    def seen(self) -> dict[tuple[str, int], list[Any]]:
        """Return pid and variable of each engine, by its place."""
        said = self.wait_until_whole(30)
        return {place(ident): seen[2:] for ident, seen in zip(said["idents"], said["seen"], strict=True)}

    def push(self) -> dict[tuple[str, int], list[Any]]:
        """Give each engine a variable; return what each then has."""
        self.agent("push", name=NAME)
        return self.seen()

    def executed(self) -> Counter[int]:
        """Return how often each task was done, as the nodes have noted it."""
        counts: Counter[int] = Counter()
        for pid in self.roots.values():
            with contextlib.suppress(OSError):
                counts.update(map(int, Path(f"/proc/{pid}/root/var/tmp/chaos-tasks").read_text().split()))
        return counts

    def settle(self, seconds: float) -> dict[str, Any]:
        """Wait until the work that is under way is done; return what was lost and doubled since the last time."""
        said = self.agent("drain", seconds=seconds, within=120)
        first, self.counted = self.counted, said["submitted"]
        done = self.executed()
        doubled = [number for number in range(first, said["submitted"]) if done[number] > 1]
        return {
            "tasks": said["submitted"] - first,
            "lost": said["open"],
            "lost_messages": said["open_messages"],
            "lost_but_done": [number for number in said["open"] if done[number]],
            "doubled": doubled,
            "errors": said["errors"],
        }


class Report:
    """What is written to build/chaos.json: one row for each fault."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[dict[str, Any]]:
        """Keep a row for a fault, whether its test passes or not."""
        row: dict[str, Any] = {
            "fault": name,
            "detected_after": None,
            "whole_after": None,
            "tasks_lost": None,
            "tasks_doubled": None,
            "variables_kept": None,
            "note": "",
            # of the machine, which has other things to do: what waits for a core is slow
            "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
        }
        self.rows.append(row)
        try:
            yield row
        except BaseException as error:
            row["note"] = f"FAILED: {error}"[:1000]
            raise

    def lines(self) -> list[str]:
        """Return the rows as a table."""

        def cell(value: Any) -> str:
            return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)

        columns = [
            "fault",
            "detected_after",
            "whole_after",
            "tasks_lost",
            "tasks_doubled",
            "variables_kept",
            "load",
            "note",
        ]
        table = [columns, *([cell(row[column]) for column in columns] for row in self.rows)]
        widths = [max(len(row[number]) for row in table) for number in range(len(columns) - 1)]
        return [
            "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]])
            for row in table
        ]

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.rows, indent=2) + "\n")


class Fault:
    """A fault that is under way: measures, and fills its row."""

    def __init__(self, cluster: Cluster, row: dict[str, Any], before: dict[tuple[str, int], list[Any]]) -> None:
        self.cluster, self.row, self.before = cluster, row, before
        self.began, self.at = time.monotonic(), time.time()

    def restart_clock(self) -> None:
        """Count from now: the cause is gone."""
        self.began = time.monotonic()

    def detected(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait until somebody has noticed."""
        found = wait_until(condition, seconds, what)
        self.row["detected_after"] = round(time.monotonic() - self.began, 2)
        return found

    def whole(self, most: float, *, patience: float = 60) -> dict[tuple[str, int], list[Any]]:
        """Wait until the cluster is whole for new clients and the old one, fill the row, and hold it to its bar."""
        __tracebackhide__ = True
        try:
            said = self.cluster.wait_until_whole(most + patience)
            self.row["whole_after"] = round(time.monotonic() - self.began, 2)
            self.cluster.wait_until_whole(10, old=True)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.cluster.journal(self.at)}") from None
        after = {place(ident): seen[2:] for ident, seen in zip(said["idents"], said["seen"], strict=True)}
        kept = [where for where in self.before if after[where][1] == self.before[where][1]]
        self.row["variables_kept"] = f"{len(kept)} of {len(self.before)}"
        return after

    def count(self, seconds: float = 15) -> dict[str, Any]:
        """Count the tasks, when all are done or none was for so long, and fill the row.

        The scheduler gives an engine that has left 5 s to send its results, before a task goes elsewhere.
        """
        tasks = self.cluster.settle(seconds)
        self.row["tasks_lost"], self.row["tasks_doubled"] = len(tasks["lost"]), len(tasks["doubled"])
        self.row["tasks"] = tasks["tasks"]
        if tasks["lost"]:
            done, messages = tasks["lost_but_done"], tasks["lost_messages"]
            self.say(f"of the lost tasks {len(done)} were done, their results lost: {messages}")
        if tasks["errors"]:
            self.say(f"errors so far: {tasks['errors']}")
        return tasks

    def say(self, text: str) -> None:
        """Add to the note."""
        self.row["note"] = f"{self.row['note']}; {text}".removeprefix("; ")

    def told_whole(self) -> None:
        """Wait until the watchdog says so, too."""
        wait_until(lambda: self.cluster.status()["state"] == "whole", 30, "the watchdog says that it is whole")

    def hold(self, most: float, *, lost: float = 0) -> None:
        """Fail where it took too long, or more work was lost; it is dropped where the controller is told to stop."""
        took = self.row["whole_after"]
        assert took <= most, f"whole after {took:g} s, at most {most:g} s: {self.cluster.why}"
        assert self.row["tasks_lost"] <= lost, (
            f"{self.row['tasks_lost']} of {self.row['tasks']} tasks lost: {self.row['note']}"
        )
