# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Grow, launch, restart, upgrade and shrink, while a client works; at the end each task has exactly one right "
"result."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import LEAST_TASKS, OLD, Load, places
from figures import Figures
from lab import TREE
from remote import Operator

STATE = "/var/lib/ipyparallel/ipyparallel/cluster.json"
IDENTITY = "/var/lib/ipyparallel/ipyparallel/identity.json"
TWO_OF = {host: [f"{host}/0", f"{host}/1"] for host in (*OLD, "node4")}


def test_a_host_is_added_and_no_other_is_touched(
    operator: Operator, load: Load, figures: Figures, more: list[str]
) -> None:
    operator.ok("install_packages", "-e", "ipyparallel_install=toolz==1.0.0")
    before = operator.pids("ipyparallel", OLD)
    checked = operator.ok("add_engines", *more, "--check", "--diff")
    assert operator.pids("ipyparallel", ["node4"]) == {"node4": {}}
    assert set(checked.tasks) <= {"node1", "node4", "localhost"}
    run = operator.ok("add_engines", *more)
    old = sum(len(run.tasks.get(host, [])) for host in OLD[1:])
    figures.add("add a host: tasks on old engine hosts", old, "", 0)
    there = [row["task"] for row in run.tasks["node1"] if row["module"] != "add_host"]
    figures.add("add a host: tasks on the controller host", len(there), "", 3)
    figures.keep("add a host: time", run.seconds, "s", 60)
    assert operator.pids("ipyparallel", OLD) == before
    assert len(places(operator)) == 8
    # what was installed on the others before is there too
    ids = [one["id"] for one in operator.status()["engines"] if one["host"] == "node4"]
    imported = f"print(json.dumps(c[{ids}].apply_sync(lambda: __import__('toolz').__version__)))"
    assert operator.client(imported) == ["1.0.0", "1.0.0"]

    again = operator.ok("add_engines", *more)
    assert not any(again.changed.values())
    # the same as a deployment of this one host, with nothing left to do for either
    one = operator.ok("deploy", *more, "--limit", "node4")
    figures.keep("add no host: of the time of a deployment of one", again.seconds / one.seconds, "", 1.3)


def test_workers_are_launched_with_size_environment_and_code(
    operator: Operator, load: Load, more: list[str], tmp_path: Path
) -> None:
    script, file = tmp_path / "start.py", tmp_path / "workers.json"
    script.write_text("import os\nVALUE = int(os.environ['FACTOR']) * 7\n")
    variables = {
        "ipyparallel_workers": 3,
        "ipyparallel_workers_size": "small",
        "ipyparallel_workers_environment": {"FACTOR": "6"},
        "ipyparallel_workers_script": str(script),
        "ipyparallel_workers_code": "VALUE = 'the script wins'",
        "ipyparallel_workers_file": str(file),
    }
    given = [*more, "-e", json.dumps(variables)]
    operator.ok("launch_workers", *given, "--check", "--diff")
    assert places(operator, "workers") == []
    operator.ok("launch_workers", *given)
    workers = json.loads(file.read_text())
    assert len(workers) == 3
    for worker in workers:
        assert worker["status"] in ("idle", "busy")
        assert (worker["pool"], worker["cpus"], worker["memory"]) == ("workers", 1, 2**30)
    ids = [worker["id"] for worker in workers]
    assert operator.client(f"print(json.dumps(c[{ids}].pull('VALUE', block=True)))") == [42, 42, 42]
    for worker in workers:
        unit = f"ipyparallel-ipyparallel-engines-workers@{worker['core']}.service"
        shown = operator.shell(worker["host"], f"systemctl show --property=MemoryMax,CPUQuotaPerSecUSec {unit}")
        assert set(shown.split()) == {f"MemoryMax={2**30}", "CPUQuotaPerSecUSec=1s"}


def test_a_deployment_keeps_what_was_launched(operator: Operator, load: Load, more: list[str], tmp_path: Path) -> None:
    before = operator.pids("ipyparallel", [*OLD, "node4"])
    assert not any(operator.ok("deploy", *more).changed.values())
    assert operator.pids("ipyparallel", [*OLD, "node4"]) == before
    file = tmp_path / "workers.json"
    operator.ok("list_workers", "-e", f"ipyparallel_workers_file={file}")
    assert len(json.loads(file.read_text())) == 3


def test_workers_stop_and_leave_nothing(operator: Operator, load: Load, more: list[str], tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    run = operator.ok("stop_workers", *more, "-e", f"ipyparallel_workers_file={file}")
    assert any(run.changed.values())
    assert [worker["pool"] for worker in json.loads(file.read_text())] == ["workers"] * 3
    assert places(operator, "workers") == []
    left = operator.shells([*OLD, "node4"], "find /etc /var -name '*workers*' -path '*pyparallel*'")
    assert left == dict.fromkeys([*OLD, "node4"], "")
    assert not any(operator.ok("stop_workers", *more).changed.values())


def test_engines_are_restarted_one_after_the_other(operator: Operator, load: Load, figures: Figures) -> None:
    before = {one["uuid"] for one in operator.status()["engines"]}
    controller = operator.pids("ipyparallel", ["node1"])["node1"]["controller"]
    kept = operator.lab.directory / "restart.json"
    run = operator.ok("restart_engines", "-e", f"ipyparallel_restart_file={kept}")
    said = json.loads(kept.read_text())
    assert len(said["engines"]) == 8
    slowest = max(one["seconds"] for one in said["engines"])
    figures.keep("rolling restart of 8 engines: the slowest", slowest, "s", 2)
    mean = sum(one["seconds"] for one in said["engines"]) / 8
    figures.watch("rolling restart of 8 engines: each", mean, 2)
    assert said["least"] >= 7, run.said
    assert not before & {one["uuid"] for one in operator.status()["engines"]}
    assert operator.pids("ipyparallel", ["node1"])["node1"]["controller"] == controller


def test_a_pool_is_scaled(operator: Operator, load: Load, more: list[str]) -> None:
    given = [*more, "-e", "ipyparallel_scale_count=1", "-e", "ipyparallel_scale_hosts=node2,node3"]
    operator.ok("scale", *given, "--check", "--diff")
    assert len(places(operator)) == 8
    run = operator.ok("scale", *given)
    assert {host for host, count in run.changed.items() if count} == {"node1", "node2", "node3"}
    assert places(operator) == sorted([*TWO_OF["node1"], "node2/0", "node3/0", *TWO_OF["node4"]])
    assert not any(operator.ok("scale", *given).changed.values())
    assert not any(operator.ok("deploy", *more).changed.values()), "a later deployment keeps it"
    operator.ok("scale", *more, "-e", "ipyparallel_scale_count=2")
    assert len(places(operator)) == 8
    assert json.loads(operator.shell("node1", f"cat {STATE}"))["scaled"] == {}


def test_a_new_lock_is_taken_one_host_after_the_other(operator: Operator, load: Load, more: list[str]) -> None:
    directory = operator.lab.directory
    lock = directory / "requirements.txt"
    lock.write_text((TREE / "roles/environment/files/requirements.txt").read_text() + "# another one\n")
    settings = directory / "group_vars/ipyparallel.yml"
    settings.write_text(settings.read_text() + f"ipyparallel_environment_lock: {lock}\n")
    before = {one["uuid"] for one in operator.status()["engines"]}
    run = operator.ok("upgrade", *more)
    assert all(run.changed.values())
    after = {one["uuid"] for one in operator.status()["engines"]}
    assert len(after) == 8
    assert not before & after
    environments = operator.shells([*OLD, "node4"], "ls /opt/ipyparallel/ipyparallel/env | wc -l")
    assert environments == dict.fromkeys([*OLD, "node4"], "1\n")
    again = operator.ok("upgrade", *more)
    assert not any(again.changed.values())
    modules = {row["module"] for rows in again.tasks.values() for row in rows}
    assert "change_engines" not in modules, "no engine has to finish where none restarts"
    # and engines that had nothing to be restarted for have work again
    queue = (
        "import time; a = c.load_balanced_view(); t = time.time(); a.map_sync(abs, range(16)); print(time.time() - t)"
    )
    assert operator.client(queue) < 20


def test_an_upgrade_that_would_change_the_identity_is_refused_and_writes_none(operator: Operator, load: Load) -> None:
    before = operator.shell("node1", f"cat {IDENTITY}")
    run = operator.play("upgrade", "-e", "ipyparallel_controller_port_base=10200")
    assert run.status != 0
    assert "run playbook ipyparallel.cluster.deploy first" in run.said
    assert operator.shell("node1", f"cat {IDENTITY}") == before


def test_an_engine_leaves_by_its_id(operator: Operator, load: Load, more: list[str]) -> None:
    (number,) = (one["id"] for one in operator.status()["engines"] if (one["host"], one["core"]) == ("node4", 0))
    operator.ok("remove_engines", *more, "-e", f"ipyparallel_remove_ids={number}")
    assert places(operator) == sorted([*TWO_OF["node1"], *TWO_OF["node2"], *TWO_OF["node3"], "node4/1"])


def test_a_host_leaves_and_is_clean(operator: Operator, load: Load, more: list[str], lab) -> None:
    given = [*more, "-e", "ipyparallel_remove_hosts=node4"]
    operator.ok("remove_engines", *given, "--check", "--diff")
    assert "node4/1" in places(operator)
    operator.ok("remove_engines", *given)
    assert {place[:5] for place in places(operator)} == set(OLD)
    assert not operator.status()["problem"]
    left = "ls -d /etc/ipyparallel /opt/ipyparallel /var/lib/ipyparallel /var/log/ipyparallel 2>/dev/null"
    assert (
        operator.shell("node4", f"{left}; ls /etc/systemd/system | grep ipyparallel; pgrep -u ipyparallel; true") == ""
    )
    address = lab.known(["node4"])[0].address
    assert address not in operator.shell("node1", "nft list ruleset")
    assert not any(operator.ok("remove_engines", *given).changed.values())


def test_each_task_has_exactly_one_right_result(operator: Operator, load: Load, figures: Figures) -> None:
    found = load.finish()
    assert found["sent"] >= LEAST_TASKS
    figures.add(f"tasks lost of {found['sent']}", len(found["wrong"]), "", 0)
    done = "".join(operator.shells(OLD, "cat /tmp/done").values()).split()
    # what node4 did went with it only where its files are; they are in /tmp, which stays
    done += operator.shell("node4", "cat /tmp/done").split()
    figures.add(f"tasks done twice of {found['sent']}", len(done) - len(set(done)), "", 0)
    assert len(set(done)) == found["sent"]
