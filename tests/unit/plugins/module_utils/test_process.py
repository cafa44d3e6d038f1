# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import process
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import (
    Definition,
    ManagedFile,
    Plan,
    ProcessError,
    Unit,
    make_plan,
    parse_environ,
    running_processes,
)
from hypothesis import given
from hypothesis import strategies as st

CLUSTER = f"unit_test_{os.getpid()}"
DEFINITION = Definition(
    cluster="alpha",
    name="engines-default",
    command=("/x/bin/ipengine", "--config=/c.py"),
    description="Engine",
    environment={"A": "1"},
    directory="/home/ada",
    umask="022",
    instances=("0", "1"),
    stop_timeout=30,
    files=(ManagedFile("/c.json", "{}"),),
    watched={"/cert.pem": "PEM"},
    fingerprint="0d5f1f4bb8a0c1e2",
)


# ---- the hash of a definition


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ("/x/bin/ipengine",)},
        {"command": ("/x/bin/ipengine --config=/c.py",)},
        {"environment": {"A": "2"}},
        {"environment": {"B": "1"}},
        {"environment": {}},
        {"directory": "/"},
        {"umask": "077"},
        {"stop_timeout": 31},
        {"files": (ManagedFile("/c.json", "[]"),)},
        {"files": (ManagedFile("/d.json", "{}"),)},
        {"files": ()},
        {"watched": {"/cert.pem": "another"}},
        {"watched": {}},
        {"fingerprint": "another"},
        {"account": "ada"},
        {"group": "ada"},
        {"hardening": {"NoNewPrivileges": True}},
        {"hardening": {"NoNewPrivileges": False}},
        {"writable": ("/data",)},
        {"ends": "main"},
        {"success_status": (3,)},
    ],
)
def test_what_restarts_a_process(changes):
    assert dataclasses.replace(DEFINITION, **changes).digest != DEFINITION.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": ("0", "1", "2")},
        {"instances": None},
        {"description": "another"},
        {"files": (ManagedFile("/c.json", "{}", 0o644, secret=True),)},
    ],
)
def test_what_does_not_restart_a_process(changes):
    assert dataclasses.replace(DEFINITION, **changes).digest == DEFINITION.digest


def test_the_hash_is_the_same_in_another_order_and_in_another_run():
    one = dataclasses.replace(DEFINITION, environment={"A": "1", "B": "2"})
    other = dataclasses.replace(DEFINITION, environment={"B": "2", "A": "1"})
    assert one.digest == other.digest
    # a hash that changed with the collection's version would restart every cluster: change this on purpose only
    assert DEFINITION.digest == "511d7db877ae5b5f"
    script = f"from {process.__name__} import Definition; print(Definition('alpha', 'controller', ('/x',)).digest)"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {Definition("alpha", "controller", ("/x",)).digest}


def test_units_and_their_marks():
    assert DEFINITION.units == {"engines-default-0": "0", "engines-default-1": "1"}
    assert dataclasses.replace(DEFINITION, instances=None).units == {"engines-default": ""}
    assert dataclasses.replace(DEFINITION, instances=()).units == {}
    assert DEFINITION.marked_environment("1") == {
        "A": "1",
        "IPYPARALLEL_CLUSTER": "alpha",
        "IPYPARALLEL_PROCESS": "engines-default",
        "IPYPARALLEL_INSTANCE": "1",
        "IPYPARALLEL_FINGERPRINT": "0d5f1f4bb8a0c1e2",
        "IPYPARALLEL_DEFINITION": DEFINITION.digest,
    }


def test_no_variable_of_the_user_replaces_a_mark():
    definition = dataclasses.replace(DEFINITION, environment={"IPYPARALLEL_CLUSTER": "beta"})
    assert definition.marked_environment("0")["IPYPARALLEL_CLUSTER"] == "alpha"


def test_a_command_names_the_environment_and_not_the_link_to_it(tmp_path):
    (tmp_path / "env" / "abc" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "abc" / "bin" / "python").symlink_to("/usr/bin/python3")
    (tmp_path / "current").symlink_to("env/abc")
    command = [f"{tmp_path}/current/bin/python", "-m", "current/bin"]
    assert process.resolve_command(command) == (f"{tmp_path}/env/abc/bin/python", "-m", "current/bin")


# ---- what a definition may hold


@pytest.mark.parametrize(("name", "content"), [("x.py", "c = get_config()\n"), ("x.json", "{}"), ("x.pem", "{")])
def test_files_that_are_well_formed(name, content):
    process.check_file(ManagedFile(f"/conf/{name}", content))


@pytest.mark.parametrize(
    ("name", "content"), [("x.py", "c = (\n"), ("x.py", "a\0b"), ("x.json", '{"a": '), ("x.json", "")]
)
def test_files_that_are_not_are_named(name, content):
    with pytest.raises(ProcessError, match=rf"/conf/{name} is not well-formed: ."):
        process.check_file(ManagedFile(f"/conf/{name}", content))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"environment": {"A B": "1"}}, ["'A B'", "letters, digits and underscores"]),
        ({"environment": {"1A": "1"}}, ["'1A'", "no digit first"]),
        ({"environment": {"A": "1\n[program:x]"}}, ["variable A", "one line"]),
        ({"environment": {"A": "1\0"}}, ["variable A", "null character"]),
        ({"command": ("/x", "a\nb")}, [r"'a\nb'", "engines-default", "one line"]),
        ({"directory": "/a\rb"}, [r"'/a\rb'", "engines-default", "one line"]),
        ({"files": (ManagedFile("/c.json", "{"),)}, ["/c.json", "not well-formed"]),
    ],
)
def test_a_definition_that_cannot_be_laid_down_says_why(changes, names):
    process.check_definition(DEFINITION)
    with pytest.raises(ProcessError) as caught:
        process.check_definition(dataclasses.replace(DEFINITION, **changes))
    assert [part for part in names if part not in str(caught.value)] == []


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_a_command_is_split_into_the_same_words_again(words):
    assert shlex.split(process.shell_line(words)) == words


# ---- what is to be done

A, B = "aaaa", "bbbb"


@pytest.mark.parametrize(
    ("wanted", "units", "state", "plan"),
    [
        # laid down for the first time
        ({"x": A}, [], "started", Plan(start=["x"])),
        # as it is
        ({"x": A}, [Unit("x", "running", 1, digest=A)], "started", Plan()),
        ({"x": ""}, [Unit("x", "running", 1, digest=B)], "started", Plan()),
        # changed
        ({"x": A}, [Unit("x", "running", 1, digest=B)], "started", Plan(restart=["x"])),
        ({"x": A}, [Unit("x", "starting", 1, digest=B)], "started", Plan(restart=["x"])),
        ({"x": A}, [Unit("x", "backoff")], "started", Plan(restart=["x"])),
        # not running
        ({"x": A}, [Unit("x", "stopped", digest="")], "started", Plan(start=["x"])),
        ({"x": A}, [Unit("x", "fatal")], "started", Plan(start=["x"])),
        ({"x": A}, [Unit("x", "exited")], "started", Plan(start=["x"])),
        # its manager was killed, and it lives on
        ({"x": A}, [Unit("x", "orphaned", 1, digest=A)], "started", Plan(start=["x"])),
        ({"x": A}, [Unit("x", "orphaned", 1, digest=A)], "stopped", Plan(stop=["x"])),
        # grown and shrunk
        ({"x-0": A, "x-1": A}, [Unit("x-0", "running", 1, digest=A)], "started", Plan(start=["x-1"])),
        (
            {"x-0": A},
            [Unit("x-0", "running", 1, digest=A), Unit("x-1", "running", 2, digest=A)],
            "started",
            Plan(stop=["x-1"]),
        ),
        ({}, [Unit("x-0", "backoff")], "started", Plan(stop=["x-0"])),
        # ended
        ({"x": ""}, [Unit("x", "running", 1, digest=A)], "stopped", Plan(stop=["x"])),
        ({"x": ""}, [Unit("x", "backoff")], "stopped", Plan(stop=["x"])),
        ({"x": ""}, [Unit("x", "stopped")], "stopped", Plan()),
        ({}, [], "stopped", Plan()),
        ({"x": A}, [Unit("x", "running", 1, digest=A)], "absent", Plan(stop=["x"])),
        ({}, [], "absent", Plan()),
    ],
)
def test_plans(wanted, units, state, plan):
    assert make_plan(wanted, units, state) == plan
    assert bool(make_plan(wanted, units, state)) == bool(plan.lines)


def test_a_plan_in_words_stops_first():
    plan = Plan(start=["d", "a"], restart=["b"], stop=["c"])
    assert plan.lines == ["stop c", "restart b", "start a", "start d"]


# ---- what runs

names = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.dictionaries(names, values))
def test_an_environment_reads_back(environment):
    data = b"".join(f"{name}={value}\0".encode() for name, value in environment.items())
    assert parse_environ(data) == environment


@given(st.binary())
def test_no_environment_is_an_error(data):
    parse_environ(data)


def marks(name="engines-default", instance="0", **more):
    return {
        **more,
        "IPYPARALLEL_CLUSTER": CLUSTER,
        "IPYPARALLEL_PROCESS": name,
        "IPYPARALLEL_INSTANCE": instance,
        "IPYPARALLEL_FINGERPRINT": "ffff",
        "IPYPARALLEL_DEFINITION": "dddd",
    }


def test_the_environment_of_a_process(python):
    assert process.process_environ(python(environment={"A": "1=2"}).pid)["A"] == "1=2"
    assert process.process_environ(2**22 + 1) == {}


def test_processes_that_run_are_found_by_their_marks(python):
    child = python(environment=marks())
    python(environment={**marks(), "IPYPARALLEL_CLUSTER": f"{CLUSTER}x"})
    python(environment={"IPYPARALLEL_CLUSTER": CLUSTER})
    found = [process.Running(child.pid, os.getpid(), "engines-default", "0", "ffff", "dddd")]
    assert running_processes(CLUSTER) == found
    child.kill()
    child.wait()
    assert running_processes(CLUSTER) == []


GRANDCHILD = """
import subprocess
script = "import signal; print(flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-ISc", script], stdout=subprocess.PIPE)
child.stdout.readline()
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), child.wait(), sys.exit()))
"""


def test_root_sees_the_processes_of_an_account(account, monkeypatch):
    """In many containers root may not look at what is another's, so it looks as that account."""
    looked, acting_as = [], process.acting_as
    monkeypatch.setattr(process, "acting_as", lambda *ids: looked.append(ids) or acting_as(*ids))
    script = "echo ready; read -r line"
    child = subprocess.Popen(
        ["/bin/sh", "-c", script],
        env=marks(),
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout.readline() == b"ready\n"
        assert [found.pid for found in running_processes(CLUSTER)] == [child.pid]
        looked.clear()
        assert process.process_environ(child.pid)["IPYPARALLEL_FINGERPRINT"] == "ffff"
        assert looked == [(account.pw_uid, account.pw_gid)]
        with process.as_owner_of(child.pid):
            assert (os.geteuid(), os.getegid()) == (account.pw_uid, account.pw_gid)
        assert os.geteuid() == 0


def test_children_inherit_the_marks_and_are_told_apart(python):
    engine = python(GRANDCHILD, environment=marks())
    assert [found.pid for found in running_processes(CLUSTER)] == [engine.pid]
    everything = running_processes(CLUSTER, main_only=False)
    assert len(everything) == 2
    assert {found.parent for found in everything} == {os.getpid(), engine.pid}
    process.end_processes([found.pid for found in everything], seconds=5)
    assert running_processes(CLUSTER, main_only=False) == []


def test_who_asks_in_a_terminal_of_the_cluster_is_no_part_of_it():
    script = f"from {process.__name__} import running_processes as r; print(r({CLUSTER!r}, main_only=False))"
    shell = ["sh", "-c", '"$0" "$@"; true', sys.executable, "-c", script]
    done = subprocess.run(
        shell, env={**os.environ, **marks("notebook", "")}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_parents_and_ancestors(python):
    child = python()
    assert process.parent_of(child.pid) == os.getpid()
    assert {child.pid, os.getpid(), os.getppid()} <= process.ancestors(child.pid)
    assert process.parent_of(2**22 + 1) == 0


def test_the_name_of_a_program_cannot_confuse(python, tmp_path):
    program = tmp_path / "a) Z 1 ("
    program.symlink_to(sys.executable)
    child = python(program=str(program))
    assert (Path("/proc") / str(child.pid) / "comm").read_text() == "a) Z 1 (\n"
    assert process.is_alive(child.pid)
    assert process.parent_of(child.pid) == os.getpid()


# ---- the end of processes


def test_a_process_is_asked_first(python):
    child = python("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))")
    process.end_processes([child.pid], seconds=10)
    # nobody has waited for it yet: it is a zombie
    assert not process.is_alive(child.pid)
    assert child.wait(timeout=5) == 3
    assert not process.is_alive(child.pid)


def test_a_process_that_will_not_is_forced(python):
    deaf, polite = python("signal.signal(signal.SIGTERM, signal.SIG_IGN)"), python()
    started = time.monotonic()
    process.end_processes([deaf.pid, polite.pid], seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert deaf.wait(timeout=5) == -signal.SIGKILL
    assert polite.wait(timeout=5) == -signal.SIGTERM


def test_a_process_that_is_gone_is_no_error():
    process.end_processes([2**22 + 1], seconds=1)
    process.end_processes([], seconds=1)


# ---- waiting and logs


def test_waiting_ends_with_the_condition_or_the_time():
    answers = iter([False, False, True])
    assert process.wait_until(lambda: next(answers), seconds=60)
    assert next(answers, None) is None
    assert not process.wait_until(lambda: False, seconds=0.02)


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 1000])
def test_the_end_of_a_log(tmp_path, count):
    path = tmp_path / "log"
    lines = [f"line {number}" for number in range(count)]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert process.tail(str(path)) == lines[-15:]
    assert process.tail(str(path), 2) == lines[-2:]


def test_a_log_that_is_no_text_or_not_there(tmp_path):
    path = tmp_path / "log"
    assert process.tail(str(path)) == []
    path.write_bytes(b"\xff" * 100000 + b"\nlast")
    assert process.tail(str(path))[-1] == "last"
    assert len("".join(process.tail(str(path)))) <= 200 * 15


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(1, 12))
def test_the_last_lines_are_whole(tmp_path_factory, lengths, count):
    path = tmp_path_factory.mktemp("log") / "x.log"
    assert process.last_lines(str(path), count) == []
    lines = [f"{number} {'x' * length}" for number, length in enumerate(lengths)]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert process.last_lines(str(path), count) == lines[-count:]
