# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The figures of a cluster of many hosts, by SSH and systemd, each beside its alternative of the same run.

Makes a lab of nodes in containers (molecule/shared/lab.py), as root, and removes it again. Nodes and operator share
this machine's cores, so what counts is the ratio. Parts: ``--only start,noop``; see PARTS.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

sys.path[:0] = [str(Path(__file__).parent / "shared"), str(Path(__file__).parents[1] / "molecule/shared")]
import lab as labs  # noqa: E402 - the path is set above
from common import PROJECT, Bench, number  # noqa: E402

NAME = "bench"
Counts: TypeAlias = Mapping[str, int]
COUNTS: Counts = {"node1": 7, "node2": 8, "node3": 8}
TOTAL = sum(COUNTS.values())
CONTROLLER = "node1"
PYTHON = f"/opt/ipyparallel/{NAME}/current/bin/python"
CONFIG = f"/etc/ipyparallel/{NAME}"
STATE = f"/var/lib/ipyparallel/{NAME}"
CONNECTOR = f"{STATE}/connector/ipcontroller-client.json"
SHARED = Path(__file__).parent / "shared"
MITOGEN = "mitogen==0.3.54"
SAVED_ENGINES = f"{STATE}/controller/log/engines.json"
LIMIT = 600
"""Seconds after which a command counts as hanging."""
ACCOUNTING = r"""
import glob, json, os
mark, found = b"IPYPARALLEL_CLUSTER=" + CLUSTER.encode(), {}
for path in glob.glob("/proc/[0-9]*"):
    try:
        environ = open(path + "/environ", "rb").read().split(b"\0")
        if mark not in environ:
            continue
        name = [x for x in environ if x.startswith(b"IPYPARALLEL_PROCESS=")][0].decode().partition("=")[2]
        ticks = open(path + "/stat").read().rpartition(")")[2].split()[11:13]
        files = len(os.listdir(path + "/fd"))
        pss = [line for line in open(path + "/smaps_rollup") if line.startswith("Pss:")][0].split()[1]
    except (OSError, IndexError):
        continue
    one = found.setdefault(name, {"cpu": 0.0, "most_files": 0, "mb": 0.0, "processes": 0})
    one["cpu"] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    one["most_files"] = max(one["most_files"], files)
    one["mb"] += int(pss) * 1024 / 1e6
    one["processes"] += 1
print(json.dumps(found))
"""


class FailureError(Exception):
    """What was to be measured did not work; the message has the end of its output."""


@dataclass
class Run:
    """A run of a playbook."""

    seconds: float
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # for which a module ran, by host
    times: list[tuple[str, float]] = field(default_factory=list)  # of each task

    def started_on(self, host: str) -> int:
        """Return for how many tasks a module ran on a host."""
        return len(self.tasks.get(host, []))

    def changed_on(self, host: str) -> int:
        """Return how many tasks have changed a host."""
        return sum(task["changed"] for task in self.tasks.get(host, []))


class Probe:
    """A process on the controller host that asks the cluster; see shared/on_node.py."""

    def __init__(self, nodes: Nodes) -> None:
        code = (SHARED / "on_node.py").read_text()
        command = f"cd / && exec sudo -u ipyparallel {PYTHON} -c {shlex.quote(code)}"
        self.process = subprocess.Popen(
            nodes.ssh(CONTROLLER, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the probe has ended"}
        if "error" in answer:
            raise FailureError(answer["error"])
        return answer.get("value")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Ask, and wait for the answer."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": what, "connector": CONNECTOR, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


class Nodes:
    """The lab, and a cluster on some of its nodes."""

    def __init__(self, mitogen: Path) -> None:
        self.lab = labs.Lab(NAME)
        self.mitogen = mitogen
        self.reason = ""  # why there is no mitogen

    # Commands

    def ssh(self, node: str, command: str) -> list[str]:
        """Return the command line of a command on a node."""
        return ["ssh", "-F", str(self.lab.directory / "ssh_config"), node, command]

    def on(self, node: str, command: str, data: str = "") -> str:
        """Run a command on a node; return its output."""
        done = subprocess.run(
            self.ssh(node, command), input=data, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        if done.returncode:
            raise FailureError(f"{node}: {command[:200]}: {done.stderr[-1500:]}{done.stdout[-500:]}")
        return done.stdout

    def on_all(self, command: str | Callable[[str], str], nodes: Sequence[str] = tuple(COUNTS)) -> dict[str, str]:
        """Run a command on nodes at once."""
        with ThreadPoolExecutor(len(nodes)) as pool:
            commands = [command if isinstance(command, str) else command(node) for node in nodes]
            return dict(zip(nodes, pool.map(self.on, nodes, commands), strict=True))

    def inventory(self, counts: Mapping[str, int]) -> list[str]:
        """Write an inventory of the nodes of a cluster, and return ansible's arguments."""
        nodes = [node for node in self.lab.nodes() if node.name in counts]
        cluster = labs.Cluster(NAME, (CONTROLLER,), tuple(counts), (CONTROLLER,))
        hosts = self.lab.directory / f"{len(counts)}-hosts.yml"
        hosts.write_text(labs.inventory_text(self.lab.directory, nodes, cluster))
        numbers = self.lab.directory / f"{len(counts)}-counts.json"
        numbers.write_text(
            json.dumps({"all": {"hosts": {host: {"ipyparallel_engines_per_host": n} for host, n in counts.items()}}})
        )
        return ["-i", str(hosts), "-i", str(numbers)]

    def play(self, playbook: str, counts: Counts | None = None, *arguments: str, mitogen: bool = False) -> Run:
        """Run a playbook; return how long it took, and its tasks."""
        counts = counts or COUNTS
        with tempfile.TemporaryDirectory() as directory:
            tasks, times = Path(directory) / "tasks.json", Path(directory) / "times.json"
            environ = {
                **os.environ,
                "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "molecule/shared/counting"),
                "ANSIBLE_CALLBACKS_ENABLED": "tasks",
                "ANSIBLE_NOCOLOR": "1",
                "TASKS_FILE": str(tasks),
                "TASKS_TIMES_FILE": str(times),
            }
            if mitogen:
                environ["ANSIBLE_STRATEGY_PLUGINS"] = str(self.mitogen / "ansible_mitogen/plugins/strategy")
                environ["ANSIBLE_STRATEGY"] = "mitogen_linear"
            program = str(Path(sys.executable).with_name("ansible-playbook"))
            command = [
                program,
                *self.inventory(counts),
                "-e",
                f"cluster={NAME}",
                *arguments,
                f"playbooks/{playbook}.yml",
            ]
            started = time.monotonic()
            done = subprocess.run(
                command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False, timeout=LIMIT
            )
            seconds = time.monotonic() - started
            if done.returncode:
                raise FailureError(f"{playbook}: {done.stdout[-4000:]}{done.stderr[-1500:]}")
            how = " with mitogen" if mitogen else ""
            print(f"    {playbook} on {len(counts)} hosts{how}: {seconds:.1f} s", flush=True)
            return Run(seconds, json.loads(tasks.read_text()), json.loads(times.read_text()))

    # The services

    def units(self, node: str) -> str:
        """Return the units that start all of the cluster on a node."""
        found = self.on(node, f"cd /etc/systemd/system && ls -d ipyparallel-{NAME}-*").split()
        return " ".join(name for name in found if "@" not in name)

    def start_units(self, units: Mapping[str, str]) -> None:
        """Start the same units that a deploy starts, on all nodes at once."""
        self.on_all(lambda node: f"sudo systemctl start {units[node]}")

    def stop_units(self, units: Mapping[str, str]) -> None:
        """Stop them, engines first, and forget the engines."""
        self.on_all(f"sudo systemctl stop ipyparallel-{NAME}-engines-default.target")
        self.on_all(lambda node: f"sudo systemctl stop {units[node]}")
        self.on(CONTROLLER, f"sudo rm -f {SAVED_ENGINES}")

    def settings(self, process: str, **classes: Mapping[str, Any]) -> None:
        """Change settings in the processes' own files; the next deploy puts them right."""
        code = (
            "import json, sys; path, new = json.load(sys.stdin); old = json.load(open(path))\n"
            "for name, traits in new.items(): old.setdefault(name, {}).update(traits)\n"
            "json.dump(old, open(path, 'w'))"
        )
        nodes = [CONTROLLER] if process == "ipcontroller" else list(COUNTS)
        data = json.dumps([f"{CONFIG}/{process}.json", classes])
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: self.on(node, f"sudo python3 -c {shlex.quote(code)}", data), nodes))

    def account(self, node: str) -> dict[str, dict[str, float]]:
        """Return CPU time, files, memory and number of the cluster's processes on a node, by name."""
        code = f"CLUSTER = {NAME!r}\n{ACCOUNTING}"
        found: dict[str, dict[str, float]] = json.loads(self.on(node, "sudo python3 -", code))
        return found

    @contextmanager
    def probe(self) -> Iterator[Probe]:
        """Give a process that can ask the cluster."""
        probe = Probe(self)
        try:
            yield probe
        finally:
            probe.close()


# ---- parts ----------------------------------------------------------------------------------------------------------


def empty(nodes: Nodes, bench: Bench, _options: argparse.Namespace) -> None:
    """Three empty hosts until verify has passed."""
    nodes.lab.down()
    nodes.lab.up(list(COUNTS))
    two = dict.fromkeys(COUNTS, 2)
    deployed = nodes.play("site", two).seconds
    verified = nodes.play("verify", two).seconds
    bench.keep(
        "three empty hosts until verify has passed, notebook included",
        deployed + verified,
        "s",
        alternative="of it verify",
        beside=verified,
        bar=75,
    )


def prepared(nodes: Nodes) -> dict[str, str]:
    """Make sure that the cluster of the parts that follow is there and runs; return its units."""
    nodes.lab.up(list(COUNTS))
    nodes.play("deploy")
    return {node: nodes.units(node) for node in COUNTS}


def seconds_of_start(nodes: Nodes, probe: Probe, units: Mapping[str, str]) -> float:
    """Start the units plainly; return how long it took until all engines answer."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(probe.ask, "wait", engines=TOTAL)
        started = time.monotonic()
        nodes.start_units(units)
        answer.result()
        return time.monotonic() - started


def start(nodes: Nodes, bench: Bench, options: argparse.Namespace) -> None:
    """23 engines on three prepared hosts."""
    units = prepared(nodes)
    ours, answers, plain, launcher, idle = [], [], [], [], []
    give_key(nodes)
    with nodes.probe() as probe:
        for turn in range(options.turns):
            nodes.play("stop")
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(probe.ask, "wait", engines=TOTAL)
                ours.append(nodes.play("deploy").seconds)
                answers.append(answer.result())
            idle.append(nodes.play("deploy").seconds)
            nodes.play("stop")
            plain.append(seconds_of_start(nodes, probe, units))
            nodes.stop_units(units)
            if turn < options.launcher_turns:
                launcher.append(ssh_launcher(nodes))
            print(
                f"  turn {turn + 1}: deploy {ours[-1]:.1f} s (all answered after {answers[-1]:.1f}), nothing to do "
                f"{idle[-1]:.1f}, systemctl {plain[-1]:.1f}, SSH launcher {[round(one, 1) for one in launcher]}",
                flush=True,
            )
    nodes.play("deploy")
    middle = statistics.median
    name = f"{TOTAL} engines on 3 prepared hosts, deploy until all answer"
    if launcher:
        bench.keep(
            name,
            middle(answers),
            "s",
            alternative="ipyparallel's SSH launcher",
            beside=middle(launcher),
            bar_of_ratio=0.4,
        )
    else:
        bench.missing(f"{name}, beside ipyparallel's SSH launcher", "--launcher-turns 0")
    bench.keep(
        "the same, beside what it does without a start, and 1.5 of the next line",
        middle(answers),
        "s",
        alternative="deploy with nothing to do",
        beside=middle(idle),
        bar=middle(idle) + 1.5 * middle(plain),
    )
    bench.keep("the same units by systemctl start, all hosts at once", middle(plain), "s")
    bench.keep("the same deploy until it has ended, the notebook's start included", middle(ours), "s")


def give_key(nodes: Nodes) -> None:
    """Let the controller host reach the engine hosts by SSH, as ipyparallel's launcher needs it."""
    key = (nodes.lab.directory / "id_ed25519").read_text()
    known = (nodes.lab.directory / "known_hosts").read_text()
    hosts = "".join(f"Host {node.name}\n  HostName {node.address}\n" for node in nodes.lab.nodes())
    nodes.on(CONTROLLER, "umask 077; mkdir -p ~/.ssh; cat > ~/.ssh/id_ed25519", key)
    nodes.on(CONTROLLER, "cat > ~/.ssh/known_hosts", known)
    nodes.on(CONTROLLER, "cat > ~/.ssh/config", hosts)


def ssh_launcher(nodes: Nodes) -> float:
    """Start the same engines with ipyparallel's SSH launcher, in the same environment; return the seconds."""
    address = next(node.address for node in nodes.lab.nodes() if node.name == CONTROLLER)
    code = (SHARED / "ssh_launcher.py").read_text()
    # its helper programs are found on PATH
    arguments = " ".join(shlex.quote(word) for word in (PYTHON, "-c", code, json.dumps(COUNTS), address))
    output = nodes.on(CONTROLLER, f"cd ~ && PATH={Path(PYTHON).parent}:$PATH {arguments}")
    found = re.search(r'\{"seconds": ([0-9.]+)\}', output)
    if not found:
        raise FailureError(f"the SSH launcher said: {output[-1500:]}")
    return float(found[1])


def noop(nodes: Nodes, bench: Bench, options: argparse.Namespace) -> None:
    """Deploy again, nothing to do."""
    prepared(nodes)
    runs = [nodes.play("deploy") for _turn in range(options.turns)]
    seconds = statistics.median(run.seconds for run in runs)
    changed = sum(run.changed_on(host) for run in runs for host in run.tasks)
    bench.keep("deploy again, tasks that changed something", changed, "", bar=0)
    bench.keep("deploy again: modules started on an engine host", runs[0].started_on("node2"), "", bar=20)
    bench.keep("deploy again: modules started on the controller and notebook host", runs[0].started_on(CONTROLLER), "")
    ping = []
    for _turn in range(options.turns):
        started = time.monotonic()
        program = str(Path(sys.executable).with_name("ansible"))
        subprocess.run(
            [program, *nodes.inventory(COUNTS), "lab_nodes", "-m", "ping"], cwd=PROJECT, capture_output=True, check=True
        )
        ping.append(time.monotonic() - started)
    bench.keep(
        "deploy again on 3 hosts", seconds, "s", alternative="ansible -m ping", beside=statistics.median(ping), bar=15
    )
    fast = with_mitogen(nodes, bench, COUNTS, options.turns, "deploy again on 3 hosts, with mitogen")
    if fast is not None:
        bench.keep("deploy again on 3 hosts, with mitogen", fast, "s", alternative="without", beside=seconds, bar=6)
    print("  where the time of a deploy with nothing to do goes:")
    by_task: dict[str, list[float]] = {}
    for run in runs:
        ran = {task["task"] for tasks in run.tasks.values() for task in tasks}
        for name, took in run.times:
            kind = name if name in ran else "on no host: checks of arguments, skips, includes"
            by_task.setdefault(kind, []).append(took / len(runs))
    for name, times in sorted(by_task.items(), key=lambda item: -sum(item[1]))[:16]:
        print(f"  {sum(times):6.2f} s  {len(times) // len(runs):3} x  {name.removeprefix('ipyparallel.cluster.')}")
    known = sum(sum(times) for times in by_task.values())
    print(f"  {seconds - known:6.2f} s         start and end of ansible-playbook")


def with_mitogen(nodes: Nodes, bench: Bench, counts: Mapping[str, int], turns: int, name: str) -> float | None:
    """Return the seconds of a deploy with nothing to do with mitogen, or keep why there are none."""
    if nodes.reason:
        bench.missing(name, nodes.reason)
        return None
    try:
        return statistics.median(nodes.play("deploy", counts, mitogen=True).seconds for _turn in range(turns))
    except FailureError as failure:
        complaint = re.search(r"^.*(?:ERROR|Error|FAILED).*$", str(failure), re.MULTILINE)
        bench.missing(name, f"it fails: {complaint[0][:120] if complaint else 'see the output'}")
        print(failure, file=sys.stderr)
        return None


def processes(nodes: Nodes, hosts: Sequence[str]) -> dict[str, str]:
    """Return what tells the running processes of hosts from others that took their place."""
    return nodes.on_all(
        f"systemctl show --property=Id,MainPID,ExecMainStartTimestampMonotonic 'ipyparallel-{NAME}-*'", hosts
    )


def grow(nodes: Nodes, bench: Bench, _options: argparse.Namespace) -> None:
    """One more host, and a host alone."""
    prepared(nodes)
    before = processes(nodes, list(COUNTS))
    there = {node.name for node in nodes.lab.nodes()}
    for name in ("node4", "node5"):  # of an earlier run
        if name in there:
            nodes.lab.down([name])
    nodes.lab.up([*COUNTS, "node4"])
    more = nodes.play("add_engines", {**COUNTS, "node4": 4})
    old = max(more.started_on(host) for host in COUNTS if host != CONTROLLER)
    bench.keep("one more host: modules started on an old engine host", old, "", bar=0)
    # choosing hosts is the operator's work
    asked = [task for task in more.tasks.get(CONTROLLER, []) if task["module"] != "add_host"]
    bench.keep("one more host: modules started on the controller host", len(asked), "", bar=3)
    restarted = sum(before[host] != now for host, now in processes(nodes, list(COUNTS)).items())
    bench.keep("one more host: old hosts with a restarted process", restarted, "", bar=0)
    nodes.lab.up([*COUNTS, "node4", "node5"])
    alone = alone_on(nodes, "node5")
    bench.keep(
        "one more host (empty)",
        more.seconds,
        "s",
        alternative="deploy of one empty host alone",
        beside=alone,
        bar_of_ratio=1.3,
    )
    with nodes.probe() as probe:
        probe.ask("wait", engines=TOTAL + 4)


def alone_on(nodes: Nodes, node: str) -> float:
    """Deploy a cluster of one host, of its own; return the seconds, and remove it."""
    (found,) = nodes.lab.known([node])
    cluster = labs.Cluster("alone", (node,), (node,), (node,))
    file = nodes.lab.directory / "alone.yml"
    file.write_text(labs.inventory_text(nodes.lab.directory, [found], cluster))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    arguments = ["-i", str(file), "-e", "cluster=alone", "-e", '{"ipyparallel_engines_per_host": 4}']
    started = time.monotonic()
    done = subprocess.run(
        [program, *arguments, "playbooks/deploy.yml"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise FailureError(done.stdout[-3000:])
    nodes.lab.down([node])
    return seconds


def slope(nodes: Nodes, bench: Bench, options: argparse.Namespace) -> None:
    """Growth of the run with nothing to do, from 3 to 12 hosts."""
    prepared(nodes)
    few = dict.fromkeys(COUNTS, 1)
    many = {f"node{index}": 1 for index in range(1, options.hosts + 1)}
    there = {node.name for node in nodes.lab.nodes()}
    nodes.lab.up(list(many))
    # what takes long on an empty host is copied from a prepared one
    new = [name for name in many if name not in there]
    container = nodes.lab.container
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        tar = f"{directory}/prefix.tar"
        with open(tar, "wb") as file:
            subprocess.run(
                ["podman", "exec", container("node3"), "tar", "-c", "-C", "/", "opt/ipyparallel"],
                stdout=file,
                check=True,
            )
        for name in new:
            with open(tar, "rb") as file:
                subprocess.run(
                    ["podman", "exec", "-i", container(name), "tar", "-x", "-C", "/"], stdin=file, check=True
                )
    nodes.play("deploy", few)
    nodes.play("deploy", many)
    turns = max(1, options.turns - 1)
    seconds = {}
    for counts in (few, many):
        nodes.play("deploy", counts)  # the firewall has shut out, and lets in again, those that are not in the other
        seconds[len(counts)] = statistics.median(nodes.play("deploy", counts).seconds for _turn in range(turns))
    more = len(many) - len(few)
    each = (seconds[len(many)] - seconds[len(few)]) / more
    name = f"deploy again, growth from 3 to {len(many)} hosts, a host"
    bench.keep(name, each, "s", alternative=f"all of the run on {len(many)} hosts", beside=seconds[len(many)], bar=5)
    fast = []
    for counts in (few, many):
        nodes.play("deploy", counts)
        fast.append(with_mitogen(nodes, bench, counts, turns, f"{name}, with mitogen"))
    if fast[0] is not None and fast[1] is not None:
        bench.keep(
            f"{name}, with mitogen", (fast[1] - fast[0]) / more, "s", alternative="without", beside=each, bar=1.5
        )
    nodes.play("stop", many)
    nodes.lab.down([name for name in many if name not in COUNTS])


def heartbeat(nodes: Nodes, bench: Bench, options: argparse.Namespace) -> None:
    """Start of the services, and their idle cost, by heartbeat and with and without nannies."""
    units = prepared(nodes)
    # the watchdog asks nannies, and would take engines without them for dead ones
    watchdog = f"ipyparallel-{NAME}-health.service"
    nodes.on(CONTROLLER, f"sudo systemctl stop {watchdog}")
    units = {node: " ".join(set(names.split()) - {watchdog}) for node, names in units.items()}
    rows: dict[tuple[int, bool], tuple[float, float, float, float]] = {}
    try:
        with nodes.probe() as probe:
            for nanny in (True, False):
                for period in options.periods:
                    nodes.settings(
                        "ipcontroller", HeartMonitor={"period": period, "max_heartmonitor_misses": -(-30000 // period)}
                    )
                    nodes.settings("ipengine", IPEngine={"enable_nanny": nanny})
                    seconds = []
                    for _turn in range(options.heartbeat_turns):
                        nodes.stop_units(units)
                        seconds.append(seconds_of_start(nodes, probe, units))
                    time.sleep(2)  # the last of the start
                    before = {node: nodes.account(node) for node in (CONTROLLER, "node2")}
                    began = time.monotonic()
                    time.sleep(options.idle)  # what is measured is what it does when nobody asks
                    after = {node: nodes.account(node) for node in (CONTROLLER, "node2")}
                    lasted = time.monotonic() - began
                    controller = after[CONTROLLER]["controller"]["cpu"] - before[CONTROLLER]["controller"]["cpu"]
                    engines = after["node2"]["engines-default"]["cpu"] - before["node2"]["engines-default"]["cpu"]
                    memory = after["node2"]["engines-default"]["mb"] / COUNTS["node2"]
                    row = statistics.median(seconds), controller / lasted * 100, engines / lasted * 100 / 8, memory
                    rows[period, nanny] = row
                    print(f"  {period} ms, nannies {nanny}: {row[0]:.1f} s, controller {row[1]:.1f} %", flush=True)
    finally:
        # processes keep the settings with which they were started; the deploy writes those of the collection
        nodes.stop_units(units)
        nodes.play("deploy")
    for (period, nanny), (took, controller, engine, memory) in rows.items():
        words = f"heartbeat {period} ms, {'with' if nanny else 'without'} nannies"
        beside = rows.get((3000, True), (None,) * 4)
        stock = "3000 ms with nannies"
        bench.keep(f"{words}: start of {TOTAL} engines", took, "s", alternative=stock, beside=beside[0])
        bench.keep(f"{words}: idle controller", controller, "% of a core", alternative=stock, beside=beside[1])
        bench.keep(f"{words}: idle engine", engine, "% of a core", alternative=stock, beside=beside[2])
        bench.keep(f"{words}: memory of an engine", memory, "MB", alternative=stock, beside=beside[3])
    print("\n| heartbeat | nannies | start | idle controller | idle engine | memory of an engine |")
    print("|---:|---|---:|---:|---:|---:|")
    for (period, nanny), (took, controller, engine, memory) in rows.items():
        cells = f"{took:.1f} s | {controller:.1f} % | {engine:.2f} % | {memory:.0f} MB"
        print(f"| {period} ms | {'yes' if nanny else 'no'} | {cells} |")


def tuning(nodes: Nodes, bench: Bench, _options: argparse.Namespace) -> None:
    """Threads, high-water mark, file descriptors, journal."""
    prepared(nodes)
    cores = os.cpu_count() or 1
    with nodes.probe() as probe:
        probe.ask("wait", engines=TOTAL)
        times = {threads: probe.ask("matmul", host="node2", engines=cores, threads=threads) for threads in ("1", "")}
        bench.keep(
            f"numpy's matrix products in {cores} engines on {cores} cores, one thread each",
            times["1"],
            "s",
            alternative="BLAS's default",
            beside=times[""],
        )

        files = nodes.account(CONTROLLER)["controller"]["most_files"]
        nodes.on("node3", f"sudo systemctl stop ipyparallel-{NAME}-engines-default.target")
        probe.ask("wait", engines=TOTAL - COUNTS["node3"])
        fewer = nodes.account(CONTROLLER)["controller"]["most_files"]
        nodes.on("node3", f"sudo systemctl start ipyparallel-{NAME}-engines-default.target")
        probe.ask("wait", engines=TOTAL)
        each = (files - fewer) / COUNTS["node3"]
        limit = 65536
        bench.keep("file descriptors of the controller's fullest process, an engine", each, "")
        if each > 0:
            bench.keep(
                f"engines for which LimitNOFILE={limit} suffices",
                (limit - files) / each + TOTAL,
                "",
                alternative="the usual limit of 1024",
                beside=(1024 - files) / each + TOTAL,
            )

        def rate(label: str, **classes: Mapping[str, Any]) -> float:
            nodes.settings("ipcontroller", **classes)
            nodes.on(CONTROLLER, f"sudo systemctl restart ipyparallel-{NAME}-controller")
            probe.ask("wait", engines=TOTAL)
            found: float = probe.ask("tasks")
            print(f"  {label}: {found:.0f} tasks a second", flush=True)
            return found

        lines = journal(nodes)
        marks = {hwm: rate(f"hwm {hwm}", TaskScheduler={"hwm": hwm}) for hwm in (0, 4, 1)}
        for hwm in (0, 4):
            bench.keep(
                f"load-balanced tasks that do nothing, hwm {hwm}",
                marks[hwm],
                "a second",
                alternative="hwm 1",
                beside=marks[1],
            )
        written = journal(nodes) - lines
        bench.keep("lines in the journals for three restarts of the controller and 9300 tasks", written, "", bar=2000)
    quiet = journal(nodes)
    time.sleep(10)  # nobody asks the cluster anything
    bench.keep("lines in the journals of an idle cluster, a second", (journal(nodes) - quiet) / 10, "", bar=0.1)


def journal(nodes: Nodes) -> int:
    """Return how many lines the cluster's processes have written to the journals of all hosts."""
    found = nodes.on_all(f"sudo journalctl --quiet --output=cat --unit='ipyparallel-{NAME}-*' | wc -l")
    return sum(int(lines) for lines in found.values())


PARTS = {
    "empty": empty,
    "start": start,
    "noop": noop,
    "grow": grow,
    "slope": slope,
    "heartbeat": heartbeat,
    "tuning": tuning,
}


# ---- the whole ------------------------------------------------------------------------------------------------------


def install_mitogen(directory: Path) -> str:
    """Install mitogen into a directory of its own; return why it could not be, or nothing."""
    done = subprocess.run(
        [PROJECT / ".venv/bin/uv", "--system-certs", "pip", "install", "--quiet", "--target", directory, MITOGEN],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{MITOGEN} cannot be installed here" if done.returncode else ""


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="The figures of a cluster of many hosts.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas ({','.join(PARTS)})")
    parser.add_argument("--turns", type=int, default=3, help="of what is short (3)")
    parser.add_argument(
        "--launcher-turns", type=int, default=1, help="of ipyparallel's SSH launcher, which is slow (1)"
    )
    parser.add_argument("--heartbeat-turns", type=int, default=1, help="starts by each heartbeat (1)")
    parser.add_argument("--periods", default="3000,1000,500,300", help="heartbeats in ms (3000,1000,500,300)")
    parser.add_argument("--idle", type=float, default=10, help="seconds in which idle processes are watched (10)")
    parser.add_argument("--hosts", type=int, default=12, help="of the growth (12)")
    parser.add_argument("--keep", action="store_true", help="leave the lab there")
    options = parser.parse_args(arguments)
    options.periods = [int(period) for period in options.periods.split(",")]
    options.only = options.only.split(",")
    if unknown := [part for part in options.only if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write it."""
    options = options_of(arguments)
    bench = Bench("hosts")
    began = time.monotonic()
    try:
        labs.check_prerequisites(list(labs.PACKAGES_OF))
    except labs.LabError as error:
        for part in options.only:
            bench.missing(part, str(error))
        return 0
    with ExitStack() as stack:
        mitogen = stack.enter_context(tempfile.TemporaryDirectory(prefix="mitogen-"))
        nodes = Nodes(Path(mitogen))
        nodes.reason = install_mitogen(nodes.mitogen)
        if not options.keep:
            stack.callback(nodes.lab.down)
        for part in options.only:
            started = time.monotonic()
            print(f"{part}: {(PARTS[part].__doc__ or '').strip()}", flush=True)
            try:
                PARTS[part](nodes, bench, options)
            except (FailureError, labs.LabError, subprocess.SubprocessError) as failure:
                print(failure, file=sys.stderr)
                bench.missing(part, f"it failed: {str(failure).strip().splitlines()[-1][:120]}")
            print(f"  ({number(time.monotonic() - started)} s)", flush=True)
    print(f"\n{bench.table()}\n\nmeasured in {(time.monotonic() - began) / 60:.1f} minutes")
    failed = [row["name"] for row in bench.rows if str(row.get("not_measured", "")).startswith("it failed")]
    return 1 if bench.missed() or failed else 0


if __name__ == "__main__":
    sys.exit(main())
