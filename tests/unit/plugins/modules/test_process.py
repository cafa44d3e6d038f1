# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module process with a real supervisord, of this account, that ends with the test."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import process as processes
from ansible_collections.ipyparallel.cluster.plugins.module_utils import supervisor
from ansible_collections.ipyparallel.cluster.plugins.modules import fetch_logs, process, process_info

pytestmark = pytest.mark.filterwarnings(
    # supervisor's client leaves the closing of its socket to the garbage collector
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)

ENGINE = [
    "-ISuc",
    "import os, signal, sys; print('instance', os.environ['IPYPARALLEL_INSTANCE'], *sys.argv[1:]); signal.pause()",
]
RESTART_BOTH = ["restart engines-default-0", "restart engines-default-1"]
STOP_BOTH = ["stop engines-default-0", "stop engines-default-1"]
SECRET = "correct horse battery staple"


class Host:
    """A host with one cluster, whose state directory has a path short enough for a socket."""

    def __init__(self, directory, run_module):
        self.directory = directory
        self.cluster = f"unit_test_{os.getpid()}"
        self.run_module = run_module
        self.places = {name: str(directory / name) for name in ("config", "log", "run", "prefix")}
        self.python = f"{self.places['prefix']}/current/bin/python"
        (directory / "prefix" / "env").mkdir(parents=True)
        self.install("one")

    def install(self, name):
        """Make an environment that is the tests' under another name, and switch to it."""
        environment = self.directory / "prefix" / "env" / name
        programs = environment / "bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(os.path.realpath(sys.executable))
        (environment / "lib").symlink_to(f"{sys.prefix}/lib")
        (environment / "pyvenv.cfg").write_text(Path(sys.prefix, "pyvenv.cfg").read_text())
        # a program of an environment begins with the path of its interpreter
        (programs / "supervisord").write_text(f"#!{programs}/python\nfrom supervisor.supervisord import main\nmain()\n")
        (programs / "supervisord").chmod(0o755)
        link = self.directory / "prefix" / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"env/{name}")

    def process(self, name="engines-default", **arguments):
        options = {"cluster": self.cluster, "manager": "supervisor", **self.places, **arguments}
        return self.run_module(process, name=name, **options)

    def info(self, **arguments):
        return self.run_module(process_info, cluster=self.cluster, manager="supervisor", **self.places, **arguments)

    def engines(self, instances=2, **arguments):
        return self.process(command=[self.python, *ENGINE], instances=instances, stop_timeout=5, **arguments)

    def running(self, name=None):
        """Return what runs on this host, by name of the single process."""
        found = [one for one in processes.running_processes(self.cluster) if name in (None, one.name)]
        return {f"{one.name}-{one.instance}".removesuffix("-"): one.pid for one in found}

    def files(self):
        found = [path for name in ("config", "log", "run") for path in (self.directory / name).rglob("*")]
        return {str(path.relative_to(self.directory)) for path in found if not path.is_dir()}


def marked(cluster):
    """Return the processes whose environment names the cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"IPYPARALLEL_CLUSTER={cluster}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def host(run_module):
    directory = Path(tempfile.mkdtemp(prefix="ipp"))
    found = Host(directory, run_module)
    yield found
    # without the code that is tested, which may be broken; until none is left, because supervisord starts them again
    while left := marked(found.cluster):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory)
    # here, where the warning is expected, and not in whatever test comes next
    gc.collect()


@pytest.fixture
def started(host, eventually):
    """Two engines that run."""
    assert host.engines().get("actions"), "nothing was started"
    logs = [host.directory / "log" / f"engines-default-{instance}.log" for instance in (0, 1)]
    eventually(lambda: all(log.exists() and "instance" in log.read_text() for log in logs), "two engines run")
    assert all_run(host, 2)
    return host


def all_run(host, count):
    """Return whether *count* processes are what they are to become, and supervisord knows of them."""
    pids = [one["pid"] for one in host.info()["processes"]]
    return len(pids) == count and set(pids) == {pid for name, pid in host.running().items() if name != "supervisord"}


# ---- in fours


def test_fours(host, eventually):
    files = [{"path": f"{host.directory}/config/x.json", "content": "{}"}]
    result = host.engines(check=True, diff=True, files=files)
    assert result["changed"]
    assert result["actions"] == ["start engines-default-0", "start engines-default-1"]
    assert {"prepared": "start engines-default-0\nstart engines-default-1\n"} in result["diff"]
    assert host.files() == set()
    assert host.running() == {}

    result = host.engines(files=files)
    assert result["changed"]
    assert result["actions"] == ["start engines-default-0", "start engines-default-1"]
    assert {one["name"] for one in result["processes"]} == {"engines-default-0", "engines-default-1"}
    eventually(lambda: all_run(host, 2), "two engines run")
    before = host.running()
    assert set(before) == {"supervisord", "engines-default-0", "engines-default-1"}
    logs = [host.directory / "log" / f"engines-default-{instance}.log" for instance in range(2)]
    eventually(lambda: [log.read_text() for log in logs] == ["instance 0\n", "instance 1\n"], "both have written")

    for check in (True, False):
        result = host.engines(check=check, diff=True, files=files)
        assert not result["changed"]
        assert result["actions"] == []
    assert host.running() == before


def test_everything_is_private(started):
    names = ("config", "state")
    started.engines(files=[{"path": f"{started.directory}/{name}/x.json", "content": "{}"} for name in names])
    private = ["config", "config/supervisor.d", "log", "run", "state", "state/x.json", "run/supervisor.sock"]
    private += ["config/supervisord.conf", "config/supervisor.d/engines-default.conf"]
    modes = {name: stat.S_IMODE((started.directory / name).stat().st_mode) for name in private}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
    # no secret, and in scope system for another account to read
    assert stat.S_IMODE((started.directory / "config" / "x.json").stat().st_mode) == 0o644


def test_a_secret_is_private_wherever_it_is(started):
    started.engines(files=[{"path": f"{started.directory}/config/x.pem", "secret": SECRET}])
    assert stat.S_IMODE((started.directory / "config" / "x.pem").stat().st_mode) == 0o600


def test_examples_are_laid_down_beside_and_restart_nothing(started):
    """In fours; what is laid down when is in test_examples.py."""
    before = started.running()
    path = started.directory / "notebooks" / "examples" / "Welcome.ipynb"
    record = started.directory / "state" / "examples.json"

    def engines(text, **arguments):
        examples = {"directory": str(path.parent), "record": str(record), "files": {path.name: text}}
        return started.engines(examples=examples, **arguments)

    result = engines("1\n", check=True, diff=True)
    assert result["changed"]
    assert ("", "1\n") in [(part.get("before"), part.get("after")) for part in result["diff"]]
    assert not path.exists()
    assert not record.exists()
    assert engines("1\n")["changed"]
    assert path.read_text() == "1\n"
    for check in (True, False):
        assert not engines("1\n", check=check)["changed"]
    assert engines("2\n")["changed"]
    assert path.read_text() == "2\n"
    path.unlink()
    assert not engines("2\n")["changed"]
    assert not path.exists()
    assert started.running() == before

    record.write_text("nonsense")
    assert "is damaged" in engines("2\n")["msg"]
    path.write_text("mine\n")
    assert started.process(state="absent")["changed"]
    assert path.read_text() == "mine\n"


# ---- what restarts, and what does not


def test_a_changed_file_restarts_the_process_and_no_other(started, eventually):
    started.process("controller", command=[started.python, *ENGINE])
    eventually(lambda: all_run(started, 3), "the controller runs too")
    before = started.running()
    file = {"path": f"{started.directory}/config/x.json", "content": "{}"}

    result = started.engines(files=[file], check=True)
    assert result["actions"] == RESTART_BOTH
    assert started.running() == before

    result = started.engines(files=[file])
    assert result["actions"] == RESTART_BOTH
    assert Path(file["path"]).read_text() == "{}"
    eventually(lambda: all_run(started, 3), "all run again")
    after = started.running()
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {"engines-default-0", "engines-default-1"}
    assert not started.engines(files=[file])["changed"]


def test_an_interrupted_run_loses_no_restart(started, eventually):
    """The files are laid down, and then the run was interrupted."""
    before = started.running()
    file = {"path": f"{started.directory}/config/x.json", "content": "{}"}
    rendered = started.directory / "config" / "supervisor.d" / "engines-default.conf"
    old = rendered.read_text()
    started.engines(files=[file])
    new = rendered.read_text()
    assert new != old
    eventually(lambda: all_run(started, 2), "all run again")
    between = started.running("engines-default")
    assert not set(between.values()) & set(before.values())

    # back to the old, but only on disk
    rendered.write_text(old)
    Path(file["path"]).unlink()
    result = started.engines(files=[])
    assert result["actions"] == RESTART_BOTH
    eventually(lambda: all_run(started, 2), "all run again")
    assert not set(started.running("engines-default").values()) & set(between.values())


def test_a_watched_file_restarts_when_another_has_changed_it(started, eventually):
    watched = started.directory / "cert.pem"
    watched.write_text("one")
    assert started.engines(watch=[str(watched)])["changed"]
    assert not started.engines(watch=[str(watched)])["changed"]
    watched.write_text("two")
    assert started.engines(watch=[str(watched)])["actions"] == RESTART_BOTH


def test_a_pool_that_grows_or_shrinks_keeps_what_stays(started, eventually):
    before = started.running()
    assert started.engines(3)["actions"] == ["start engines-default-2"]
    eventually(lambda: all_run(started, 3), "three engines run")
    grown = started.running()
    assert {name: grown[name] for name in before} == before

    assert started.engines(1)["actions"] == ["stop engines-default-1", "stop engines-default-2"]
    assert set(started.running("engines-default")) == {"engines-default-0"}
    assert started.running()["engines-default-0"] == before["engines-default-0"]

    assert started.engines(0)["actions"] == ["stop engines-default-0"]
    assert started.running("engines-default") == {}
    assert not started.engines(0)["changed"]


def test_the_environment_arrives_whatever_it_holds(started, eventually):
    awkward = {"A": "100% ;b #c", "B": """both ' and " """, "C": "%(here)s", "NUMBER": 4, "D": "\\n"}
    started.engines(environment=awkward)
    wanted = {name: str(value) for name, value in awkward.items()}

    def arrived():
        pids = started.running("engines-default").values()
        return len(pids) == 2 and all(wanted.items() <= processes.process_environ(pid).items() for pid in pids)

    # what supervisor itself cannot carry is there when the program has taken the place of env
    eventually(arrived, f"the environment has {wanted}")
    assert not started.engines(environment=awkward)["changed"]


def test_another_environment_restarts_supervisord_too(started, eventually):
    before = started.running()
    started.install("two")
    assert started.engines()["changed"]
    eventually(lambda: all_run(started, 2), "all run again")
    after = started.running()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    commands = {
        Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] for pid in started.running("engines-default").values()
    }
    assert commands == {f"{started.directory}/prefix/env/two/bin/python"}


def test_a_process_that_dies_is_started_again_by_supervisord(started, eventually):
    before = started.running()
    os.kill(before["engines-default-0"], signal.SIGKILL)
    eventually(
        lambda: started.running().get("engines-default-0", 0) not in (0, before["engines-default-0"]), "it is back"
    )
    assert started.running()["engines-default-1"] == before["engines-default-1"]


# ---- supervisord is killed


def kill_supervisord(host, eventually):
    pid = host.running()["supervisord"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not processes.is_alive(pid), "supervisord is gone")


def test_without_supervisord_the_next_run_starts_whole(started, eventually):
    before = started.running("engines-default")
    kill_supervisord(started, eventually)
    assert started.running() == before
    assert {one["state"] for one in started.info()["processes"]} == {"orphaned"}

    assert started.engines()["changed"]
    eventually(lambda: all_run(started, 2), "all run again")
    after = started.running()
    assert set(after) == {"supervisord", *before}
    assert not set(after.values()) & set(before.values())
    assert not [pid for pid in before.values() if processes.is_alive(pid)]
    assert not started.engines()["changed"]


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_without_supervisord_processes_end_all_the_same(started, eventually, state):
    kill_supervisord(started, eventually)
    result = started.process(state=state)
    assert result["actions"] == STOP_BOTH
    assert started.running() == {}
    assert not started.process(state=state)["changed"]


def test_a_supervisord_whose_socket_was_removed_is_replaced(started, eventually):
    before = started.running()
    (started.directory / "run" / "supervisor.sock").unlink()
    assert started.engines()["changed"]
    eventually(lambda: all_run(started, 2), "all run again")
    after = started.running()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())


def test_a_supervisord_whose_socket_was_removed_is_stopped(started):
    (started.directory / "run" / "supervisor.sock").unlink()
    assert started.process(state="stopped")["changed"]
    assert started.running() == {}


# ---- the end


def test_stopped_ends_supervisord_with_the_last_process_and_keeps_the_files(started, eventually):
    started.process("controller", command=[started.python, *ENGINE])
    eventually(lambda: all_run(started, 3), "the controller runs too")
    laid_down = {name for name in started.files() if name.startswith("config/")}

    assert started.process(state="stopped", check=True)["actions"] == STOP_BOTH
    assert len(started.running()) == 4
    assert started.process(state="stopped")["changed"]
    assert set(started.running()) == {"supervisord", "controller"}
    assert not started.process(state="stopped")["changed"]
    assert started.process("controller", state="stopped")["changed"]
    assert started.running() == {}
    assert {name for name in started.files() if name.startswith("config/")} == laid_down
    for check in (True, False):
        assert not started.process("controller", state="stopped", check=check)["changed"]


def test_started_without_a_command_starts_what_is_laid_down(started, eventually):
    started.process(state="stopped")
    assert started.running() == {}
    assert started.process(check=True)["actions"] == ["start engines-default-0", "start engines-default-1"]
    assert started.process()["changed"]
    eventually(lambda: all_run(started, 2), "all run again")
    before = started.running()
    assert not started.process()["changed"]
    assert not started.engines()["changed"]
    assert started.running() == before


def test_absent_leaves_nothing(started):
    files = [{"path": f"{started.directory}/config/x.json", "content": "{}"}]
    started.engines(files=files)
    assert started.process(state="absent", files=files, check=True)["changed"]
    assert Path(files[0]["path"]).exists()
    assert len(started.running()) == 3

    assert started.process(state="absent", files=files)["changed"]
    assert started.running() == {}
    assert started.files() <= {"log/engines-default-0.log", "log/engines-default-1.log"}
    for check in (True, False):
        assert not started.process(state="absent", files=files, check=check)["changed"]


def test_on_a_host_without_an_environment_there_is_nothing_to_end(host):
    shutil.rmtree(host.directory / "prefix")
    for state in ("stopped", "absent"):
        assert not host.process(state=state)["changed"]
    assert host.info()["processes"] == []


def test_a_process_that_takes_its_time_may_take_it_and_is_started_again(host, eventually, monkeypatch):
    """A run was interrupted while the engine finished its task; the next one waits for that, and starts it."""
    slow = "finish = lambda *_: (print('task', flush=True), signal.sigwait([signal.SIGUSR1]), sys.exit())"
    script = (
        f"import signal, sys; {slow}; signal.signal(signal.SIGTERM, finish); print('ready', flush=True); signal.pause()"
    )
    arguments = {"command": [host.python, "-ISc", script], "stop_timeout": 30}
    log = host.directory / "log" / "engines-default.log"
    host.process(**arguments)
    eventually(lambda: log.exists() and log.read_text() == "ready\n", "it runs")
    places = [host.places[name] for name in ("config", "log", "run")]
    manager = supervisor.Supervisor(host.cluster, *places, host.python)
    manager.rpc().stopProcess("engines-default", False)
    eventually(lambda: log.read_text() == "ready\ntask\n", "it finishes its task")
    before = host.running("engines-default")["engines-default"]

    assert host.process(check=True, **arguments)["actions"] == ["start engines-default"]
    wait = supervisor.wait_until

    def wait_while_the_task_ends(condition, seconds):
        if not condition() and processes.is_alive(before):
            os.kill(before, signal.SIGUSR1)
        return wait(condition, seconds)

    monkeypatch.setattr(supervisor, "wait_until", wait_while_the_task_ends)
    assert host.process(**arguments)["changed"]
    eventually(lambda: all_run(host, 1), "it runs again")
    assert host.running("engines-default")["engines-default"] != before


# ---- bad input: nothing is changed


BAD = [
    ({"files": [{"path": "/nowhere/x.json", "content": "{"}]}, ["/nowhere/x.json", "not well-formed"]),
    ({"files": [{"path": "/nowhere/x.py", "content": "("}]}, ["/nowhere/x.py", "not well-formed"]),
    ({"environment": {"A B": "1"}}, ["'A B'", "letters, digits and underscores"]),
    ({"environment": {"A": "1\n2"}}, ["variable A", "one line"]),
    ({"umask": "9"}, ["engines-default", "9 can not be converted"]),
    ({"account": "nobody-of-this-name"}, ["engines-default", "nobody-of-this-name"]),
]


def test_bad_input_changes_nothing(started):
    rendered = started.directory / "config" / "supervisor.d" / "engines-default.conf"
    before = started.running(), started.files(), rendered.read_text()
    for arguments, names in BAD:
        result = started.engines(3, **arguments)
        assert result["failed"]
        assert [part for part in names if part not in result["msg"]] == []
        assert (started.running(), started.files(), rendered.read_text()) == before


def test_what_is_not_laid_down_cannot_be_started(host):
    result = host.process()
    assert result["failed"]
    for part in ("engines-default", host.cluster, "ipyparallel.cluster.deploy"):
        assert part in result["msg"]
    assert host.running() == {}


def test_a_full_disk_is_told_and_leaves_what_runs(started, full_disk):
    path = started.directory / "config" / "x.json"
    files = [{"path": str(path), "content": '"a text that is long enough"'}]
    before = started.running()
    with full_disk(size=20):
        result = started.engines(files=files)
    assert result["failed"]
    assert "engines-default" in result["msg"]
    assert not path.exists()
    assert started.running() == before


# ---- what is shown


def test_secrets_are_in_no_output(started):
    files = [{"path": f"{started.directory}/config/x.pem", "secret": SECRET}]
    outputs = [started.engines(files=files, diff=True, check=check) for check in (True, False)]
    assert Path(files[0]["path"]).read_text() == SECRET
    assert outputs[1]["changed"]
    files[0]["secret"] = f"{SECRET}!"
    outputs += [started.engines(files=files, diff=True), started.info(), started.process(state="absent", diff=True)]
    assert [output.text for output in outputs if SECRET in output.text] == []


def test_secrets_are_in_no_log_of_the_host(host, monkeypatch):
    """Of several lines, as connectors are: Ansible's own finds such a one in nothing that it logs."""
    logged = []
    monkeypatch.setattr(process.AnsibleModule, "log", lambda _self, msg, **_arguments: logged.append(msg))
    files = [{"path": f"{host.directory}/config/x.pem", "secret": f'{{\n  "key": "{SECRET}"\n}}\n'}]
    host.engines(check=True, files=files)
    assert logged
    assert [text for text in logged if SECRET in str(text)] == []


@pytest.mark.parametrize("which", ["files", "watch"])
def test_a_link_of_the_accounts_shows_root_nothing(host, account, common_path, which):
    """The account puts a link to a secret of root's where root looks for a file of the account's."""
    (common_path / "secret").write_text(SECRET)
    (common_path / "secret").chmod(0o600)
    (common_path / "theirs").mkdir()
    (common_path / "theirs" / "file").symlink_to(common_path / "secret")
    os.chown(common_path / "theirs", account.pw_uid, account.pw_gid)
    path = f"{common_path}/theirs/file"
    given = {"files": [{"path": path, "content": ""}], "watch": [path]}[which]
    result = host.engines(account=account.pw_name, diff=True, check=True, **{which: given})
    assert result.status
    assert path in result["msg"]
    assert SECRET not in result.text


def test_the_diff_shows_what_changes(started):
    files = [{"path": f"{started.directory}/config/x.json", "content": "{}"}]
    diff = started.engines(files=files, diff=True, check=True)["diff"]
    shown = {entry.get("after_header"): entry for entry in diff}
    assert shown[files[0]["path"]]["before"] == ""
    assert shown[files[0]["path"]]["after"] == "{}"
    assert (
        "[program:engines-default-0]" in shown[f"{started.directory}/config/supervisor.d/engines-default.conf"]["after"]
    )


def test_info_tells_what_a_failing_process_last_said(host, eventually):
    host.process("controller", command=[host.python, "-ISc", "raise SystemExit('no identity')"])
    eventually(lambda: "no identity" in host.info()["text"], "its log is there")
    (found,) = host.info()["processes"]
    assert found["process"] == found["name"] == "controller"
    assert found["tail"][-1] == "no identity"
    assert found["log"] == str(host.directory / "log" / "controller.log")
    text = host.info(lines=1)["text"]
    assert f"last lines of {found['log']}:\n    no identity" in text


# ---- logs


@pytest.fixture
def logs(host, monkeypatch):
    def run(**arguments):
        places = {**host.places, "environment": f"{host.places['prefix']}/current"}
        monkeypatch.setattr(fetch_logs, "own_paths", lambda scope, cluster: places)
        given = {"cluster": host.cluster, "scope": "user", "manager": "supervisor", "directory": "/nowhere"}
        return host.run_module(fetch_logs, **given, **arguments)

    return run


@pytest.mark.parametrize("check", [False, True])
def test_logs_of_what_runs_and_of_what_was_stopped(started, logs, check):
    found = logs(check=check)
    assert not found["changed"]
    by_name = {log["name"]: log for log in found["logs"]}
    assert list(by_name) == ["engines-default-0", "engines-default-1", "supervisord"]
    assert by_name["engines-default-1"]["state"] in {"starting", "running"}
    assert by_name["engines-default-1"]["text"] == ["instance 1"]
    assert any("engines-default-0" in line for line in by_name["supervisord"]["text"])
    assert len(logs(lines=1)["logs"][2]["text"]) == 1

    assert started.process(state="stopped")["changed"]
    by_name = {log["name"]: log for log in logs()["logs"]}
    assert (by_name["engines-default-0"]["state"], by_name["engines-default-0"]["text"]) == ("stopped", ["instance 0"])


def test_a_host_where_nothing_is_laid_down_has_no_logs(logs):
    assert logs()["logs"] == []


def test_logs_without_times_have_no_beginning(started, logs):
    found = logs(since="1 hour ago")
    assert found["failed"]
    assert "'1 hour ago': give a number of lines (ipyparallel_logs_lines)" in found["msg"]


def test_no_lines_are_refused(logs):
    assert "0 is not a number of lines" in logs(lines=0)["msg"]
