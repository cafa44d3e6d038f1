# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's units: what systemd makes of them, and what they can do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from conftest import NODES
from figures import Figures
from lab import TREE, Lab
from remote import FIREWALL, HEALTH, Operator

PREFIX = "ipyparallel-ipyparallel-"
ENGINE = "engines-default@0.service"
PROCESSES = {"controller": "controller.service", "engines": ENGINE, "notebook": "notebook.service"}
if HEALTH:
    PROCESSES["health"] = "health.service"
EXPOSURE = {"controller": 1.5, "health": 1.5, "engines": 2.0, "notebook": 2.0}


def hardening_of(role: str) -> dict[str, Any]:
    """Return the hardening of a role, as its variables say."""
    variables: dict[str, Any] = {}
    for name in ("common", role):
        variables |= DataLoader().load_from_file(str(TREE / f"roles/{name}/vars/main.yml"), trusted_as_template=True)
    wanted = {name: value for name, value in variables.items() if "hardening" in name}
    found = Templar(DataLoader(), variables=wanted).template(wanted[f"__ipyparallel_{role}_hardening"])
    return dict(json.loads(json.dumps(found)))


def properties(lab: Lab, node: str, unit: str) -> dict[str, str]:
    text = lab.execute(node, ["systemctl", "show", "--all", PREFIX + unit])
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.fixture(scope="module")
def calls(lab: Lab) -> Callable[[str], set[str]]:
    """Return what gives the system calls of a group, those of its subgroups too."""
    groups: dict[str, list[str]] = {}
    for line in lab.execute("node1", ["systemd-analyze", "--no-pager", "syscall-filter"]).splitlines():
        if line.startswith("@"):
            words = groups.setdefault(line.strip(), [])
        elif line.startswith(" ") and "#" not in line:
            words.append(line.strip())

    def of(group: str) -> set[str]:
        return {call for word in groups[group] for call in (of(word) if word.startswith("@") else {word})}

    return of


@pytest.mark.parametrize("node", NODES)
def test_units_by_name(operator: Operator, node: str) -> None:
    said = operator.shell(node, "systemctl list-units --all --no-legend --plain --type=service,target 'ipyparallel*'")
    rows = [line.split()[:4] for line in said.splitlines()]
    names = {row[0].removeprefix(PREFIX) for row in rows}
    expected = {"engines-default.target", ENGINE}
    if node == "node1":
        expected |= {*PROCESSES.values()} | ({"firewall.service"} if FIREWALL else set())
    else:
        expected |= {"engines-default@1.service"}
    assert names == expected
    assert {tuple(row[1:3]) for row in rows} == {("loaded", "active")}


@pytest.mark.parametrize(
    ("node", "unit"),
    [("node1", unit) for unit in PROCESSES.values() if "@" not in unit]
    + [(node, "engines-default.target") for node in NODES],
)
def test_is_enabled(on: Callable[[str], Any], node: str, unit: str) -> None:
    assert on(node).service(PREFIX + unit).is_enabled


@pytest.mark.parametrize("role", PROCESSES)
def test_hardening_is_in_force(lab: Lab, calls: Callable[[str], set[str]], role: str) -> None:
    wanted = hardening_of(role)
    assert len(wanted) > 20
    seen = properties(lab, "node1", PROCESSES[role])
    words = {True: "yes", False: "no"}
    differ = {}
    for name, value in wanted.items():
        if name == "SystemCallFilter":
            allowed: set[str] = set()
            for group in value:
                named = calls(group.lstrip("~"))
                allowed = allowed - named if group.startswith("~") else allowed | named
            # a group has calls of other architectures too, which this one does not know
            if not {*seen[name].split()} <= allowed or "read" not in seen[name].split():
                differ[name] = "has calls that it should not have"
        elif isinstance(value, bool):
            if seen[name] != words[value]:
                differ[name] = seen[name]
        elif {*seen[name].split()} != {*str(value).split()}:
            differ[name] = seen[name]
    assert differ == {}


@pytest.mark.parametrize("role", PROCESSES)
def test_the_kernel_knows(operator: Operator, role: str) -> None:
    """No new privileges, a filter of system calls, no capabilities, and not root."""
    pid = operator.shell("node1", f"systemctl show --value --property=MainPID {PREFIX}{PROCESSES[role]}").strip()
    text = operator.shell("node1", f"cat /proc/{pid}/status", account="plain")
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    seen = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapBnd", "CapEff")}
    assert seen == {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16, "CapEff": "0" * 16}
    account = operator.shell("node1", "id -u ipyparallel").strip()
    assert {*status["Uid"].split()} == {account}


@pytest.mark.parametrize("role", PROCESSES)
def test_exposure(lab: Lab, figures: Figures, role: str) -> None:
    said = lab.execute("node1", ["systemd-analyze", "--no-pager", "security", PREFIX + PROCESSES[role]])
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    figures.add(f"systemd-analyze security: {role}", float(found.group(1)), "", EXPOSURE[role])


@pytest.mark.parametrize("role", PROCESSES)
def test_files_that_it_may_open(lab: Lab, role: str) -> None:
    assert int(properties(lab, "node1", PROCESSES[role])["LimitNOFILE"]) >= 8192


@pytest.mark.parametrize("path", ["/opt/ipyparallel/ipyparallel", "/etc/ipyparallel/ipyparallel"])
def test_software_and_definitions_are_roots(operator: Operator, path: str) -> None:
    assert operator.shell("node2", f"find {path} -xdev '(' -not -user root -o -perm /022 ')' -not -type l") == ""


def test_state_is_the_accounts_alone(operator: Operator) -> None:
    said = operator.shells(NODES, "stat -c '%U %a' /var/lib/ipyparallel/ipyparallel")
    assert said == dict.fromkeys(NODES, "ipyparallel 700\n")


# ---- what user code can do in an engine -----------------------------------------------------------------------------

USER_CODE = """
def try_out():
    import ctypes, json, mmap, multiprocessing, os, pathlib, socket, tempfile
    from multiprocessing import shared_memory
    import numpy, psutil

    found = {}
    found["numpy"] = bool(numpy.allclose(numpy.linalg.inv(numpy.eye(300) * 2), numpy.eye(300) / 2))
    # several: a worker that does not end when it is told to is met now and then
    for _number in range(5):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found["pool"] = pool.map(abs, [-1, 2]) == [1, 2]
    memory = shared_memory.SharedMemory(create=True, size=1000)
    memory.buf[:4] = b"1234"
    other = shared_memory.SharedMemory(name=memory.name)
    found["shared_memory"] = bytes(other.buf[:4]) == b"1234"
    other.close()
    memory.close()
    memory.unlink()
    found["psutil"] = psutil.cpu_count() > 0 and psutil.virtual_memory().total > 0 and psutil.cpu_times().user > 0
    # what every compiler that runs in a process does: memory that is written and executed
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    found["machine code"] = page.write(b"x") == 1
    called = []
    ctypes.CFUNCTYPE(None)(lambda: called.append(1))()
    found["callback"] = called == [1]
    for name, directory in (("home", pathlib.Path.home()), ("tmp", pathlib.Path("/tmp"))):
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            file.write(b"x")
        found[name] = True
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    found["one thread"] = [os.environ.get(name) for name in variables] == ["1"] * 4
    numpy.ones((900, 900)) @ numpy.ones((900, 900))
    maps = pathlib.Path("/proc/self/maps").read_text()
    found["blas is there"] = "openblas" in maps
    found["outside"] = socket.create_connection((os.environ["SSH_HOST"], 22), 5) is not None
    try:
        pathlib.Path("/etc/written").write_text("")
    except OSError:
        found["not /etc"] = True
    return found

view = c[:]
view.push({"address": ADDRESS}, block=True)
view.execute("import os; os.environ['SSH_HOST'] = address", block=True)
print(json.dumps(view.apply_sync(try_out)))
"""


def test_user_code_can_do_what_it_needs(operator: Operator, address: str) -> None:
    found = operator.client(USER_CODE.replace("ADDRESS", repr(address)))
    assert len(found) == 5
    assert [{name for name, works in engine.items() if not works} for engine in found] == [set()] * 5
    assert {*map(len, found)} == {12}


MACHINE_CODE = """
def compiled():
    import numba

    @numba.njit(parallel=True)
    def total(n):
        found = 0.0
        for i in numba.prange(n):
            found += i
        return found

    return total(1001), numba.vectorize(["f8(f8)"])(lambda x: x * 2)(21.0)

print(json.dumps(c[-1].apply_sync(compiled)))
"""


def test_numba_compiles_in_an_engine(operator: Operator) -> None:
    assert operator.client(MACHINE_CODE) == [500500.0, 42.0]


def test_files_of_engines_in_tmp_are_seen_on_the_host(operator: Operator) -> None:
    code = "c[:].apply_sync(lambda: open('/tmp/from_an_engine', 'w').close())\nprint(0)"
    operator.client(code)
    assert operator.shells(NODES, "ls /tmp/from_an_engine && rm /tmp/from_an_engine") == dict.fromkeys(
        NODES, "/tmp/from_an_engine\n"
    )


FIRST_CALL = """
heard = []
for number in range(20):
    new = p.Client(connector, timeout=20)
    result = new[:].execute(f"print({number})")
    result.get(20)
    heard.append(result.wait_for_output(10) and {text.strip() for text in result.stdout} == {str(number)})
    new.close()
print(json.dumps(heard))
"""


def test_a_new_client_hears_what_its_first_call_prints(operator: Operator) -> None:
    assert operator.client(FIRST_CALL) == [True] * 20


def test_what_user_code_leaves_ends_with_its_engine(operator: Operator) -> None:
    marker = "86399"
    operator.client(
        f'c[:].execute(\'import subprocess; subprocess.Popen(["sleep", "{marker}"])\', block=True)\nprint(0)'
    )
    assert all(text for text in operator.shells(NODES, f"pgrep -fx 'sleep {marker}'").values())
    operator.shells(NODES, f"systemctl restart '{PREFIX}engines-default@*.service'")
    assert operator.shells(NODES, f"pgrep -fx 'sleep {marker}'") == dict.fromkeys(NODES, "")
    operator.ok("start")
    assert len(operator.status()["engines"]) == 5
