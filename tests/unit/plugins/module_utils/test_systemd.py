# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is laid down for systemd, read again by its own parser, and what a systemctl that logs its calls is told.

Whether it runs is in the scenarios with hosts that systemd has started.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import process as processes
from ansible_collections.ipyparallel.cluster.plugins.module_utils import systemd as under_test
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.managers import make_manager
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import (
    Definition,
    Plan,
    ProcessError,
    Unit,
    check_definition,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.systemd import Systemd
from ansible_collections.ipyparallel.cluster.plugins.modules import process

SYSTEMD = next((path for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if os.path.exists(path)), None)
needs_systemd = pytest.mark.skipif(
    not (SYSTEMD and shutil.which("systemd-analyze")), reason="systemd is not installed here: there is no parser to ask"
)
AWKWARD = [
    "",
    " ",
    " a  b ",
    "100%",
    "%i %h",
    "%%",
    'say "x"',
    "it's",
    """both ' and " """,
    '"quoted"',
    "'quoted'",
    "$HOME ${HOME} $$",
    "a ;b #c",
    ";",
    "; a",
    "# a",
    "C:\\temp\\new",
    "\\",
    "\\\\",
    "\\x41\\n",
    "a\tb",
    "a,B=c",
    '{"a": [1, 2]}',
    "-x",
    "@x",
    "Zürich \N{SNOWMAN} \u2028",
]
NAMES = [f"V{number}" for number in range(len(AWKWARD))]
SYSTEMCTL = """\
#!{python} -IS
import fnmatch, json, os, sys
here, units = {here!r}, {units!r}
with open(f"{{here}}/calls", "a") as stream:
    stream.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
with open(f"{{here}}/runtime", "w") as stream:
    stream.write(os.environ.get("XDG_RUNTIME_DIR", ""))
with open(f"{{here}}/says.json") as stream:
    says = json.load(stream)
arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
if sys.argv[0].endswith("journalctl"):
    if says["fails"].get("journalctl"):
        sys.exit(says["fails"]["journalctl"])
    print("\\n".join(says["journal"]))
    sys.exit()
if "--property=DefaultLimitNOFILE" in sys.argv:
    print(says["limit"])
    sys.exit()
verb, *names = arguments
if verb in says["fails"]:
    print(says["fails"][verb], file=sys.stderr)
    sys.exit(1)
if verb == "show":
    blocks = []
    for name in names:
        blocks += [unit for unit in says["units"] if fnmatch.fnmatchcase(unit["Id"], name)]
        if "*" not in name and name not in [unit["Id"] for unit in says["units"]]:
            blocks.append({{"Id": name, "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}})
    print("\\n\\n".join("\\n".join(f"{{key}}={{value}}" for key, value in block.items()) for block in blocks))
if verb in ("enable", "disable"):
    target = "default.target" if "--user" in sys.argv else "multi-user.target"
    os.makedirs(f"{{units}}/{{target}}.wants", exist_ok=True)
    for name in names:
        link = f"{{units}}/{{target}}.wants/{{name}}"
        os.symlink(f"../{{name}}", link) if verb == "enable" else os.unlink(link)
"""


def definition(**changes):
    return dataclasses.replace(
        Definition(
            "alpha", "engines-default", ("/bin/true",), "Engine", fingerprint="ffff", instances=("0", "1"), ends="main"
        ),
        **changes,
    )


SINGLE = definition(name="controller", instances=None, ends="together", description="Controller")


class Fake:
    """A systemctl and a journalctl that log how they are called, and answer what they are told to."""

    def __init__(self, directory, units):
        self.directory, self.units = directory, units
        directory.mkdir()
        for name in ("systemctl", "journalctl"):
            python = os.path.realpath(sys.executable)
            (directory / name).write_text(SYSTEMCTL.format(python=python, here=str(directory), units=str(units)))
            (directory / name).chmod(0o755)
        self.says()

    def says(self, *units, limit="524288", journal=(), fails=None):
        found = [{"LoadState": "loaded", **unit} for unit in units]
        text = {"units": found, "limit": f"DefaultLimitNOFILE={limit}", "journal": journal, "fails": fails or {}}
        (self.directory / "says.json").write_text(json.dumps(text))

    def calls(self, shown=False):
        """Return how they were called since the last time, without what only looks."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [shlex.join(call) for call in map(json.loads, lines) if shown or "show" not in call]


@pytest.fixture
def units(tmp_path, monkeypatch):
    """The directory of the system's units, which is a test's."""
    monkeypatch.setattr(under_test, "SYSTEM_UNITS", str(tmp_path / "system"))
    (tmp_path / "system").mkdir()
    return tmp_path / "system"


@pytest.fixture
def fake(units, tmp_path, monkeypatch):
    found = Fake(tmp_path / "bin", units)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return found


def manager_of(tmp_path, of_account=False):
    config = tmp_path / "home" / "ipyparallel" / "alpha"
    (tmp_path / "home" / "systemd" / "user").mkdir(parents=True, exist_ok=True)
    config.mkdir(parents=True, exist_ok=True)
    return Systemd("alpha", str(config), "/run/alpha", sys.prefix, of_account)


@pytest.fixture
def manager(tmp_path, fake):
    return manager_of(tmp_path)


@pytest.fixture
def of_account(tmp_path, fake, tmp_path_factory, monkeypatch):
    # systemd-analyze puts something there
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    fake.units = tmp_path / "home" / "systemd" / "user"
    (fake.directory / "systemctl").write_text(
        SYSTEMCTL.format(python=os.path.realpath(sys.executable), here=str(fake.directory), units=str(fake.units))
    )
    return manager_of(tmp_path, of_account=True)


def lay_down(manager, *definitions):
    for one in definitions:
        for file in manager.render(one):
            write_text(file.path, file.content, file.mode)


def lines_of(manager, wanted, name=None):
    """Return the directives of a rendered service, by name; of those with several lines the list."""
    files = {os.path.basename(file.path): file.content for file in manager.render(wanted)}
    ending = "" if wanted.instances is None else "@"
    text = files[name or f"ipyparallel-alpha-{wanted.name}{ending}.service"]
    found = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


# ---- read by systemd


def unquoted(line):
    """Return the words of a command line as systemd shows it."""
    words = re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', line, re.DOTALL)

    def plain(found):
        return {"t": "\t"}.get(found[1], found[1])

    return [re.sub(r"\\(.)", plain, quoted) or word for quoted, word in words]


def read_by_systemd(manager, common_path):
    """Return what systemd itself has understood of each laid down unit, by name: lists of values by their names."""
    units, runtime = common_path / "units", common_path / "runtime"
    for directory in (units, runtime):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o755)
    wanted = []
    for path in Path(manager.unit_directory).glob("ipyparallel-*"):
        (units / path.name).write_text(path.read_text())
        wanted.append(path.name.replace("@.", "@0."))
    (units / "default.target").write_text("".join(["[Unit]\n", *(f"Wants={name}\n" for name in wanted)]))
    as_another = {}
    if os.geteuid() == 0:
        # as root it does not test
        os.chown(runtime, 65534, 65534)
        as_another = {"user": 65534, "group": 65534, "extra_groups": []}
    done = subprocess.run(
        [SYSTEMD, "--test", "--user", "--no-pager"],
        env={"SYSTEMD_UNIT_PATH": str(units), "XDG_RUNTIME_DIR": str(runtime), "HOME": "/", "PATH": os.defpath},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **as_another,
    )
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if str(units) in line]
    found = {}
    for block in done.stdout.split("\t-> Unit ")[1:]:
        name, _colon, rest = block.partition(":\n")
        if name in wanted:
            found[name] = {}
            # a value may have what ends a line elsewhere
            for line in rest.split("\n"):
                key, colon, value = line.strip("\t").partition(": ")
                if colon:
                    found[name].setdefault(key, []).append(value)
    assert set(found) == set(wanted)
    return found, complaints


@needs_systemd
@pytest.mark.parametrize("instances", [None, ("0", "1")])
def test_every_environment_and_command_arrives(manager, common_path, instances):
    wanted = definition(
        instances=instances,
        command=("/opt/a b/100%/$HOME/#;/true", *AWKWARD),
        environment=dict(zip(NAMES, AWKWARD, strict=True)),
    )
    lay_down(manager, wanted)
    found, complaints = read_by_systemd(manager, common_path)
    assert complaints == []
    unit = found["ipyparallel-alpha-engines-default@0.service" if instances else manager.handle(wanted.name)]
    program, *arguments = unquoted(unit["Command Line"][0])
    assert program == wanted.command[0]
    # it is systemd's executor that makes one of two, and knows no variable in them
    assert arguments == [word.replace("$", "$$") for word in AWKWARD]
    environment = dict(value.split("=", 1) for value in unit["Environment"])
    assert environment == {
        **wanted.marked_environment("0" if instances else ""),
        "PATH": f"{os.path.realpath(sys.prefix)}/bin:{processes.SEARCH_PATH}",
        "IPYPARALLEL_RUN": "/run/alpha",
    }


@needs_systemd
def test_no_value_can_take_the_place_of_the_instance(manager, common_path):
    wanted = definition(environment={"A": 'x "IPYPARALLEL_INSTANCE=7"', "IPYPARALLEL_INSTANCE": "7", "PATH": "/x"})
    lay_down(manager, wanted)
    found, _complaints = read_by_systemd(manager, common_path)
    shown = found["ipyparallel-alpha-engines-default@0.service"]["Environment"]
    assert "IPYPARALLEL_INSTANCE=0" in shown
    assert 'A=x "IPYPARALLEL_INSTANCE=7"' in shown
    assert "PATH=/x" in shown


PATHS = ["100%", "%h", "a b", "it's", 'say "x"', "$HOME", "C:\\temp", "end\\", "#a", "; b", "end "]


@needs_systemd
@pytest.mark.parametrize("part", PATHS)
def test_every_directory_arrives(manager, common_path, part):
    lay_down(manager, dataclasses.replace(SINGLE, directory=f"/srv/{part}"))
    found, complaints = read_by_systemd(manager, common_path)
    unit = found["ipyparallel-alpha-controller.service"]
    assert complaints == []
    assert unit["WorkingDirectory"] == [f"/srv/{part}"]
    assert unquoted(unit["Command Line"][0]) == ["/bin/true"]


@needs_systemd
@pytest.mark.parametrize("part", PATHS)
def test_every_writable_path_arrives(manager, common_path, part):
    lay_down(manager, dataclasses.replace(SINGLE, writable=("/a", f"/srv/{part}", "/b")))
    found, complaints = read_by_systemd(manager, common_path)
    assert complaints == []
    assert found["ipyparallel-alpha-controller.service"]["ReadWritePaths"] == [f"-/a -/srv/{part} -/b"]


@needs_systemd
def test_descriptions_arrive(manager, common_path):
    lay_down(manager, definition(description='100% of "it\'s" %i'), dataclasses.replace(SINGLE, description="a\\b\\"))
    found, complaints = read_by_systemd(manager, common_path)
    assert complaints == []
    assert found["ipyparallel-alpha-engines-default@0.service"]["Description"] == ['100% of "it\'s" %i 0']
    assert found["ipyparallel-alpha-engines-default.target"]["Description"] == ['100% of "it\'s" %i: all of them']
    assert found["ipyparallel-alpha-controller.service"]["Description"] == ["a\\b\\"]


@needs_systemd
def test_what_systemd_understands_of_a_definition(manager, common_path):
    wanted = definition(
        directory="/srv",
        umask="027",
        stop_timeout=42,
        account="ada",
        group="staff",
        success_status=(3, 143),
        hardening={
            "NoNewPrivileges": True,
            "PrivateTmp": False,
            "ProtectSystem": "strict",
            "CapabilityBoundingSet": "",
            "SystemCallFilter": ["@system-service", "~@privileged"],
            "ProtectHome": None,
        },
    )
    lay_down(manager, wanted, SINGLE)
    found, complaints = read_by_systemd(manager, common_path)
    assert complaints == []
    engine, controller = (found[f"ipyparallel-alpha-{name}.service"] for name in ("engines-default@0", "controller"))
    expected = {
        "WorkingDirectory": "/srv",
        "UMask": "0027",
        "User": "ada",
        "Group": "staff",
        "Restart": "always",
        "RestartSec": "100ms",
        "KillMode": "process",
        "ProtectSystem": "strict",
        "PrivateTmp": "no",
        "ProtectHome": "no",
        "PartOf": "ipyparallel-alpha-engines-default.target (origin-file)",
        "Slice": "ipyparallel-alpha.slice",
    }
    assert {name: engine[name][0] for name in expected} == expected
    assert engine["TimeoutStopSec"] == ["42s"]
    python = f"{os.path.realpath(sys.prefix)}/bin/python"
    assert unquoted(engine["Command Line"][1]) == [python, "-IS", f"{manager.config}/end_leftovers.py"]
    assert controller["KillMode"] == ["control-group"]
    assert len(controller["Command Line"]) == 1
    assert "PartOf" not in controller
    target = found["ipyparallel-alpha-engines-default.target"]
    wants = [value.split(" ")[0] for value in target["Wants"]]
    assert sorted(wants) == [f"ipyparallel-alpha-engines-default@{number}.service" for number in (0, 1)]


# ---- directives


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (True, ["X=yes"]),
        (False, ["X=no"]),
        ("strict", ["X=strict"]),
        ("", ["X="]),
        (0, ["X=0"]),
        (1, ["X=1"]),
        (["@system-service", "~@privileged"], ["X=@system-service", "X=~@privileged"]),
        ([True, "a"], ["X=yes", "X=a"]),
        ([], []),
        (None, []),
    ],
)
def test_a_directive_as_lines(value, lines):
    assert under_test.directive_lines("X", value) == lines


HARDENING = {"NoNewPrivileges": True, "ProtectSystem": "strict", "SystemCallFilter": ["@a", "~@b"], "PrivateTmp": True}


def test_the_systems_manager_restricts_and_changes_the_account(manager):
    found = lines_of(
        manager, dataclasses.replace(SINGLE, account="ada", group="staff", hardening=HARDENING, writable=("/a", "/b"))
    )
    assert (found["User"], found["Group"]) == (["ada"], ["staff"])
    assert found["SystemCallFilter"] == ["@a", "~@b"]
    assert set(HARDENING) < set(found)
    assert len(found["ReadWritePaths"]) == 2
    assert found["After"] == ["network-online.target"]
    assert found["WantedBy"] == ["multi-user.target"]


def test_the_manager_of_an_account_leaves_out_what_it_cannot_do(of_account):
    found = lines_of(
        of_account, dataclasses.replace(SINGLE, account="ada", group="staff", hardening=HARDENING, writable=("/a",))
    )
    assert set(HARDENING) & set(found) == {"NoNewPrivileges", "SystemCallFilter"}
    assert set(found) & {"User", "Group", "ReadWritePaths", "After", "Wants"} == set()
    assert found["WantedBy"] == ["default.target"]


def test_without_an_account_there_is_none(manager):
    assert set(lines_of(manager, SINGLE)) & {"User", "Group"} == set()


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ("524288", under_test.OPEN_FILES),
        ("4096", 4096),
        ("infinity", under_test.OPEN_FILES),
        ("", under_test.OPEN_FILES),
    ],
)
def test_the_limit_of_open_files_is_not_above_the_managers(manager, fake, limit, wanted):
    fake.says(limit=limit)
    assert lines_of(manager, SINGLE)["LimitNOFILE"] == [str(wanted)]


def test_a_process_that_cannot_start_yet_is_tried_for_ever(manager):
    for wanted in (SINGLE, definition()):
        found = lines_of(manager, wanted)
        assert found["StartLimitIntervalSec"] == ["0"]
        assert found["Restart"] == ["always"]


def test_a_template_is_started_by_its_target_only(manager):
    assert "WantedBy" not in lines_of(manager, definition())
    target = lines_of(manager, definition(), "ipyparallel-alpha-engines-default.target")
    assert target["WantedBy"] == ["multi-user.target"]
    assert "Wants" not in lines_of(manager, definition(instances=()), "ipyparallel-alpha-engines-default.target")


def test_units_are_for_everyone_to_read_and_hold_no_files(manager):
    wanted = definition(files=(processes.ManagedFile("/c.json", "correct horse", secret=True),))
    lay_down(manager, wanted)
    for file in manager.render(wanted):
        assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o644
        assert "correct horse" not in file.content


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "a\nExecStartPre=/x"},
        {"writable": ("/a\nExecStartPre=/x",)},
        {"hardening": {"ProtectHome": "yes\nExecStartPre=/x"}},
        {"hardening": {"SystemCallFilter": ["@a", "@b\nExecStartPre=/x"]}},
        {"account": "ada\nExecStartPre=/x"},
        {"group": "ada\nExecStartPre=/x"},
    ],
)
def test_no_value_becomes_a_line_of_its_own(changes):
    with pytest.raises(ProcessError, match="one line"):
        check_definition(definition(**changes))


# ---- validation, before anything is written


@needs_systemd
@pytest.mark.parametrize("which", ["manager", "of_account"])
@pytest.mark.parametrize("wanted", [SINGLE, definition(), definition(instances=())], ids=["single", "two", "none"])
def test_a_definition_is_validated_elsewhere(request, which, wanted, tmp_path):
    found = request.getfixturevalue(which)
    before = sorted(tmp_path.rglob("*"))
    found.validate(dataclasses.replace(wanted, hardening=HARDENING | {"SystemCallFilter": ["@system-service"]}))
    after = sorted(path for path in tmp_path.rglob("*") if path.parent != tmp_path / "bin")
    assert after == [path for path in before if path.parent != tmp_path / "bin"]


@needs_systemd
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hardening": {"NoNewPriviledges": True}}, "NoNewPriviledges"),
        ({"hardening": {"ProtectSystem": "perhaps"}}, "perhaps"),
        ({"hardening": {"RestrictAddressFamilies": "AF_NOTHING"}}, "AF_NOTHING"),
        ({"umask": "9"}, "09"),
        ({"stop_timeout": "x"}, "x"),
        ({"directory": "relative"}, "relative"),
        ({"command": ("/nowhere/program",)}, "/nowhere/program"),
        # there is no way to write them that it would take
        ({"command": ("/it's/program",)}, "special characters"),
        ({"command": ("/back\\slash/program",)}, "special characters"),
    ],
)
@pytest.mark.parametrize("wanted", [SINGLE, definition()], ids=["single", "template"])
def test_what_systemd_refuses_is_told_with_its_reason(manager, wanted, changes, reason, tmp_path):
    with pytest.raises(ProcessError) as caught:
        manager.validate(dataclasses.replace(wanted, **changes))
    assert f"systemd refuses the definition of {wanted.name}: " in str(caught.value)
    assert reason in str(caught.value)
    assert os.listdir(manager.unit_directory) == []


def test_a_host_without_systemd_says_so(manager, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for attempt in (
        lambda: manager.validate(SINGLE),
        lambda: manager.units("controller"),
        lambda: manager.apply("controller", Plan(start=["controller"]), "started"),
    ):
        with pytest.raises(ProcessError, match=r"there is no systemctl on .*ipyparallel_scope=user.*=supervisor"):
            attempt()


# ---- names and files


@pytest.mark.parametrize(
    ("single", "unit"),
    [
        ("controller", "ipyparallel-alpha-controller.service"),
        ("engines-default-0", "ipyparallel-alpha-engines-default@0.service"),
        ("engines-gpu_2-17", "ipyparallel-alpha-engines-gpu_2@17.service"),
    ],
)
def test_the_unit_of_a_single_process(manager, single, unit):
    assert manager.unit(single) == unit


@pytest.mark.parametrize("which", ["manager", "of_account"])
def test_what_is_laid_down_reads_back_and_leaves_nothing(request, which):
    found = request.getfixturevalue(which)
    assert found.defined() == []
    assert [found.laid_down(name) for name in ("controller", "engines-default")] == [{}, {}]
    wanted = definition(instances=("0", "1", "2"), environment={"A": 'x\\" IPYPARALLEL_PROCESS=b'})
    lay_down(found, SINGLE, wanted)
    assert found.defined() == ["controller", "engines-default"]
    assert found.laid_down("controller") == {"controller": SINGLE.digest}
    assert found.laid_down("engines-default") == dict.fromkeys(wanted.units, wanted.digest)

    for name in ("controller", "engines-default"):
        found.apply(name, Plan(), "started")
        assert found.enabled(name, "started")
    everything = [path for path in Path(found.unit_directory).rglob("*") if not path.is_dir()]
    assert len(everything) == 5
    for name in ("controller", "engines-default"):
        paths = [path for path in found.paths(name) if os.path.lexists(path)]
        assert paths
        for path in paths:
            os.unlink(path)
    assert [path for path in Path(found.unit_directory).rglob("*") if not path.is_dir()] == []
    assert found.defined() == []


def test_a_pool_that_shrinks_to_nothing_is_still_laid_down(manager):
    lay_down(manager, definition())
    lay_down(manager, definition(instances=()))
    assert manager.defined() == ["engines-default"]
    assert manager.laid_down("engines-default") == {}


def test_clusters_and_pools_of_like_names_are_told_apart(manager, tmp_path):
    other = Systemd("alpha_2", str(tmp_path / "other"), "/run/alpha_2", sys.prefix)
    Path(other.config).mkdir()
    lay_down(manager, definition(), definition(name="engines-default_2", instances=("0",)))
    lay_down(other, definition(cluster="alpha_2", name="engines-big"))
    assert manager.defined() == ["engines-default", "engines-default_2"]
    assert other.defined() == ["engines-big"]
    assert set(manager.laid_down("engines-default")) == {"engines-default-0", "engines-default-1"}
    assert set(manager.laid_down("engines-default_2")) == {"engines-default_2-0"}
    assert not set(manager.paths("engines-default")) & set(manager.paths("engines-default_2"))


def test_the_units_of_an_account_are_beside_its_settings(of_account, tmp_path):
    assert of_account.unit_directory == f"{tmp_path}/home/systemd/user"
    assert of_account.directories == [of_account.config, of_account.unit_directory]


def test_managers_by_name(tmp_path, units):
    class Module:
        params = {"cluster": "alpha", "config": f"{tmp_path}/x/alpha", "run": "/run/alpha", "log": "/log"}  # noqa: RUF012

    Module.params["manager"] = "systemd"
    assert make_manager(Module(), "/env").unit_directory == str(units)
    Module.params["manager"] = "systemd_user"
    assert make_manager(Module(), "/env").unit_directory == f"{os.path.dirname(tmp_path)}/{tmp_path.name}/systemd/user"


# ---- what runs


@pytest.mark.parametrize(
    ("active", "sub", "state", "runs"),
    [
        ("active", "running", "running", True),
        ("active", "exited", "exited", False),
        ("activating", "auto-restart", "backoff", True),
        ("activating", "auto-restart-queued", "starting", True),
        ("activating", "start", "starting", True),
        ("deactivating", "stop-sigterm", "stopping", False),
        ("deactivating", "final-sigkill", "stopping", False),
        ("inactive", "dead", "stopped", False),
        ("failed", "failed", "failed", False),
        ("maintenance", "x", "maintenance", False),
    ],
)
def test_states(manager, fake, active, sub, state, runs):
    fake.says({"Id": "ipyparallel-alpha-controller.service", "ActiveState": active, "SubState": sub, "MainPID": "0"})
    (unit,) = manager.units("controller")
    assert (unit.name, unit.state, unit.runs, unit.pid, unit.since) == ("controller", state, runs, None, None)


def test_the_instances_that_systemd_knows(manager, fake, python):
    child = python(environment={"IPYPARALLEL_DEFINITION": "dddd"})
    running = {"ActiveState": "active", "SubState": "running"}
    base = "ipyparallel-alpha-engines-default"
    fake.says(
        {"Id": f"{base}@0.service", **running, "MainPID": str(child.pid), "ExecMainStartTimestamp": "@1780000000"},
        {"Id": f"{base}@1.service", **running, "MainPID": "0", "ExecMainStartTimestamp": ""},
        {"Id": f"{base}@2.service", "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"},
        {"Id": f"{base}@3.service", "LoadState": "bad-setting", "ActiveState": "failed", "SubState": "failed"},
        {"Id": f"{base}@.service", "ActiveState": "inactive", "SubState": "dead"},
        {"Id": f"{base}_2@0.service", **running, "MainPID": "1"},
    )
    log = "journalctl --unit=ipyparallel-alpha-engines-default@"
    assert manager.units("engines-default") == [
        Unit("engines-default-0", "running", child.pid, 1780000000, "dddd", f"{log}0.service"),
        Unit("engines-default-1", "running", None, None, "", f"{log}1.service"),
        Unit("engines-default-3", "failed", None, None, "", f"{log}3.service"),
    ]


def test_nothing_runs(manager):
    assert manager.units("engines-default") == []


def test_a_manager_that_does_not_answer_is_not_one_that_knows_nothing(manager, fake):
    fake.says(fails={"show": "Failed to connect to bus: No medium found"})
    with pytest.raises(ProcessError, match="No medium found"):
        manager.units("engines-default")


@pytest.mark.parametrize(("which", "option"), [("manager", "--unit"), ("of_account", "--user-unit")])
def test_the_last_lines_of_the_journal(request, which, option, fake):
    found = request.getfixturevalue(which)
    fake.says(journal=["one", "two"])
    assert found.tail(Unit("engines-default-1", "failed"), 7) == ["one", "two"]
    (call,) = fake.calls()
    assert f"{option}=ipyparallel-alpha-engines-default@1.service --lines=7 " in call


@pytest.mark.parametrize(("since", "option"), [("", []), ("1 hour ago", ["--since=1 hour ago"])])
def test_the_journal_with_its_times(manager, fake, since, option):
    fake.says(journal=["one", "two"])
    assert manager.history("controller", 1000, since) == ["one", "two"]
    (call,) = fake.calls()
    words = ["--unit=ipyparallel-alpha-controller.service", "--lines=1000", "--output=short-iso", *option]
    assert call == shlex.join(["journalctl", *words, "--no-pager", "--quiet"])


def test_a_time_that_the_journal_does_not_understand(manager, fake):
    fake.says(fails={"journalctl": "Failed to parse timestamp: soon"})
    with pytest.raises(ProcessError, match="cannot show the log of controller: Failed to parse timestamp: soon"):
        manager.history("controller", 10, "soon")


# ---- the plan is carried out

POOL = "ipyparallel-alpha-engines-default"


@pytest.mark.parametrize(
    ("name", "plan", "state", "enabled", "calls"),
    [
        (
            "controller",
            Plan(start=["controller"]),
            "started",
            False,
            [
                "daemon-reload",
                "enable --quiet ipyparallel-alpha-controller.service",
                "start ipyparallel-alpha-controller.service",
            ],
        ),
        (
            "controller",
            Plan(restart=["controller"]),
            "started",
            True,
            ["daemon-reload", "restart ipyparallel-alpha-controller.service"],
        ),
        (
            "controller",
            Plan(stop=["controller"]),
            "stopped",
            True,
            [
                "stop ipyparallel-alpha-controller.service",
                "daemon-reload",
                "disable --quiet ipyparallel-alpha-controller.service",
                "stop 'ipyparallel-alpha-controller.targe[t]'",
            ],
        ),
        (
            "engines-default",
            Plan(["engines-default-2"], ["engines-default-0"], ["engines-default-3"]),
            "started",
            False,
            [
                f"stop {POOL}@3.service",
                "daemon-reload",
                f"enable --quiet {POOL}.target",
                f"restart {POOL}@0.service",
                f"start {POOL}@2.service {POOL}.target",
            ],
        ),
        # what was interrupted before the target was started
        ("engines-default", Plan(), "started", True, ["daemon-reload", f"start {POOL}.target"]),
        (
            "engines-default",
            Plan(stop=["engines-default-0", "engines-default-1"]),
            "stopped",
            True,
            [
                f"stop {POOL}@0.service {POOL}@1.service",
                "daemon-reload",
                f"disable --quiet {POOL}.target",
                f"stop '{POOL}.targe[t]'",
            ],
        ),
        ("engines-default", Plan(), "absent", False, ["daemon-reload", f"stop '{POOL}.targe[t]'"]),
    ],
)
@pytest.mark.parametrize("which", ["manager", "of_account"])
def test_what_systemctl_is_told(request, which, fake, name, plan, state, enabled, calls):
    found = request.getfixturevalue(which)
    lay_down(found, SINGLE, definition())
    if enabled:
        found.apply(name, Plan(), "started")
    fake.calls()
    found.apply(name, plan, state)
    command = "systemctl" if which == "manager" else "systemctl --user"
    assert fake.calls() == [f"{command} {call}" for call in calls]
    assert found.enabled(name, state)
    assert not found.enabled(name, "stopped" if state == "started" else "started")


def test_slices_end_with_what_was_in_them(manager, fake):
    lay_down(manager, SINGLE)
    manager.release()
    assert fake.calls() == []
    for path in manager.paths(SINGLE.name):
        Path(path).unlink(missing_ok=True)
    manager.release()
    assert fake.calls()[-1] == "systemctl stop ipyparallel.slice"


def test_the_manager_of_an_account_is_found_without_a_login(of_account, fake, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    of_account.units("controller")
    assert (fake.directory / "runtime").read_text() == f"/run/user/{os.getuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    of_account.units("controller")
    assert (fake.directory / "runtime").read_text() == "/elsewhere"


@pytest.mark.parametrize(
    ("verb", "plan", "state"),
    [
        ("start", Plan(start=["controller"]), "started"),
        ("restart", Plan(restart=["controller"]), "started"),
        ("enable", Plan(), "started"),
        ("daemon-reload", Plan(), "started"),
        ("stop", Plan(stop=["controller"]), "stopped"),
    ],
)
def test_a_failure_has_systemds_reason_and_the_end_of_the_log(manager, fake, verb, plan, state):
    lay_down(manager, SINGLE)
    failed = {"Id": "ipyparallel-alpha-controller.service", "ActiveState": "failed", "SubState": "failed"}
    fake.says(failed, journal=["no identity"], fails={verb: "Job failed. See 'journalctl -xe'."})
    with pytest.raises(ProcessError) as caught:
        manager.apply("controller", plan, state)
    for part in (f"systemctl {verb} failed for controller of cluster alpha", "Job failed", "no identity"):
        assert part in str(caught.value)
    # nothing goes on after it
    assert [call.split()[1] for call in fake.calls() if call.startswith("systemctl")][-1] == verb


# ---- by module process


@pytest.fixture
def module(manager, run_module, tmp_path):
    """Module process with this manager."""
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "current").symlink_to(sys.prefix)
    places = {"config": manager.config, "log": "/log", "run": "/run/alpha", "prefix": str(tmp_path / "prefix")}

    def run(name, **arguments):
        return run_module(process, cluster="alpha", manager="systemd", name=name, **places, **arguments)

    return run


@needs_systemd
def test_the_module_changes_once_and_says_so_before(manager, fake, module, python):
    file = {"path": f"{manager.config}/x.json", "content": "{}"}
    arguments = {"name": "engines-default", "command": ["/bin/true"], "instances": 2, "ends": "main", "files": [file]}
    both = ["start engines-default-0", "start engines-default-1"]

    result = module(check=True, diff=True, **arguments)
    assert (result["changed"], result["actions"]) == (True, both)
    assert f"{POOL}@.service" in result.text
    assert fake.calls() == []
    assert (os.listdir(manager.config), os.listdir(manager.unit_directory)) == ([], [])

    assert module(**arguments)["actions"] == both
    assert fake.calls() == [
        "systemctl daemon-reload",
        f"systemctl enable --quiet {POOL}.target",
        f"systemctl start {POOL}@0.service {POOL}@1.service {POOL}.target",
    ]
    assert sorted(os.listdir(manager.config)) == ["end_leftovers.py", "x.json"]

    (digest,) = set(manager.laid_down("engines-default").values())
    child = python(environment={"IPYPARALLEL_DEFINITION": digest})
    state = {"ActiveState": "active", "SubState": "running", "MainPID": str(child.pid)}
    fake.says(*({"Id": f"{POOL}@{number}.service", **state} for number in (0, 1)))
    for check in (True, False):
        result = module(check=check, **arguments)
        assert (result["changed"], result["actions"]) == (False, [])
    assert fake.calls() == []
    assert [one["state"] for one in result["processes"]] == ["running"] * 2

    # interrupted before it was enabled
    os.unlink(f"{manager.unit_directory}/multi-user.target.wants/{POOL}.target")
    assert module(check=True, **arguments)["changed"]
    assert module(**arguments)["changed"]
    assert f"systemctl enable --quiet {POOL}.target" in fake.calls()

    ends = ["stop engines-default-0", "stop engines-default-1"]
    for check in (True, False):
        assert module("engines-default", state="absent", check=check, files=[file])["actions"] == ends
    assert fake.calls() == [
        f"systemctl stop {POOL}@0.service {POOL}@1.service",
        "systemctl daemon-reload",
        f"systemctl stop '{POOL}.targe[t]'",
        "systemctl stop ipyparallel-alpha.slice",
        "systemctl list-units --plain --no-legend 'ipyparallel-*.slice'",
        "systemctl stop ipyparallel.slice",
    ]
    fake.says()
    assert [path for path in Path(manager.unit_directory).rglob("*") if not path.is_dir()] == []
    assert not module("engines-default", state="absent", files=[file])["changed"]


@needs_systemd
def test_what_systemd_refuses_changes_nothing(manager, fake, module):
    result = module("controller", command=["/bin/true"], hardening={"NoNewPriviledges": True})
    assert result["failed"]
    assert "NoNewPriviledges" in result["msg"]
    assert (os.listdir(manager.config), os.listdir(manager.unit_directory)) == ([], [])
    assert fake.calls() == []


@needs_systemd
def test_what_root_lays_down_for_an_account(manager, module, account, common_path):
    state = common_path / "state"
    files = [
        {"path": f"{manager.config}/x.json", "content": "{}"},
        {"path": f"{state}/y.pem", "secret": "correct horse"},
    ]
    directories = [{"path": str(state)}]
    result = module("controller", command=["/bin/true"], files=files, directories=directories, account=account.pw_name)
    assert not result.get("failed"), result["msg"]

    def told(path):
        found = os.lstat(path)
        return found.st_uid, stat.S_IMODE(found.st_mode)

    # the account reads its settings, and cannot change what it is started with
    assert told(f"{manager.config}/x.json") == (0, 0o644)
    assert told(manager.paths("controller")[2]) == (0, 0o644)
    assert told(state) == (account.pw_uid, 0o700)
    assert told(state / "y.pem") == (account.pw_uid, 0o600)

    # what it puts in their place leads root nowhere
    (common_path / "roots").mkdir(mode=0o755)
    (common_path / "roots" / "y.pem").write_text("root's")
    shutil.rmtree(state)
    state.symlink_to("roots")
    os.chown(state, account.pw_uid, account.pw_gid, follow_symlinks=False)
    for given in ({"command": ["/bin/true"]}, {"state": "absent"}):
        result = module("controller", files=files, account=account.pw_name, **given)
        assert result["failed"]
        assert "Permission denied" in result["msg"]
        assert (common_path / "roots" / "y.pem").read_text() == "root's"


# ---- what an engine leaves behind

IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
# it ends when the file that it waits for is gone
ENDS_BY_ITSELF = """
import os, threading, time
def wait():
    while os.path.exists({path!r}):
        time.sleep(0.01)
    os._exit(5)
threading.Thread(target=wait).start()
"""


@pytest.fixture
def script(tmp_path):
    manager = Systemd("alpha", str(tmp_path), "/run/alpha", sys.prefix)
    text = under_test.END_LEFTOVERS.format(managed=processes.MANAGED)
    path = Path(manager.config, "end_leftovers.py")
    path.write_text(text)
    processes.check_file(processes.ManagedFile(str(path), text))
    return path


def clean_up(script, invocation):
    """Start the script, and let it say when it waits."""
    code = f"""
import time
sleep = time.sleep
time.sleep = lambda seconds: (print("waits", flush=True), sleep(seconds))
exec(compile(open({str(script)!r}).read(), "script", "exec"))
"""
    return subprocess.Popen(
        [sys.executable, "-IS", "-c", code],
        env={"INVOCATION_ID": invocation},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_is_left_is_ended_and_nothing_else(script, python):
    ours, others = "0" * 32, "0" * 31 + "1"
    polite = python(environment={"INVOCATION_ID": ours})
    deaf = python(IGNORES, environment={"INVOCATION_ID": ours})
    strangers = [
        python(environment={"INVOCATION_ID": others}),
        python(environment={"INVOCATION_ID": f"{ours}0"}),
        python(environment={"NOT_INVOCATION_ID": ours}),
        python(environment={"A": f"INVOCATION_ID={ours}"}),
        python(),
    ]
    with clean_up(script, ours) as done:
        done.communicate(timeout=30)
    assert done.returncode == 0
    assert polite.wait(timeout=5) == -signal.SIGTERM
    assert deaf.wait(timeout=5) == -signal.SIGKILL
    assert [stranger.poll() for stranger in strangers] == [None] * len(strangers)


def test_what_ends_by_itself_is_not_signalled(script, python, tmp_path):
    path = tmp_path / "told"
    path.touch()
    nanny = python(ENDS_BY_ITSELF.format(path=str(path)), environment={"INVOCATION_ID": "a" * 32})
    with clean_up(script, "a" * 32) as done:
        assert done.stdout.readline() == "waits\n"
        path.unlink()
        done.communicate(timeout=30)
    assert done.returncode == 0
    assert nanny.wait(timeout=5) == 5


def test_where_nothing_is_left_nothing_is_waited_for(script):
    with clean_up(script, "b" * 32) as done:
        assert done.communicate(timeout=30)[0] == ""
    assert done.returncode == 0
