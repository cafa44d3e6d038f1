# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is laid down for supervisor, read again by its own parser. Whether it runs is in the test of module process."""

from __future__ import annotations

import dataclasses
import gc
import os
import shlex
import stat
import sys
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import supervisor as under_test
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import Definition, ProcessError
from ansible_collections.ipyparallel.cluster.plugins.module_utils.supervisor import Supervisor
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from supervisor.datatypes import dict_of_key_value_pairs
from supervisor.options import ServerOptions

ENVIRONMENT = sys.prefix
each_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

one_line = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))
awkward = st.text(" ;#%()'\"\\,=ahers$\t\u00e9\u2028", max_size=20)
values = one_line | awkward
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
AWKWARD = [
    "",
    " ",
    "100%",
    "%(ENV_HOME)s",
    "%(here)s",
    "%%",
    'say "x"',
    "it's",
    """both ' and " """,
    '"quoted"',
    "'quoted'",
    "a ;b #c",
    "; a",
    " # a",
    "a\t;b",
    "C:\\temp\\",
    "\\",
    "a,B=c",
    '{"a": [1, 2]}',
    "Zürich \N{SNOWMAN}",
]


def definition(**changes):
    return dataclasses.replace(
        Definition("alpha", "engines-default", ("/bin/true",), fingerprint="ffff", instances=("0", "1")), **changes
    )


@pytest.fixture
def manager(tmp_path):
    for name in ("config/supervisor.d", "log", "run"):
        (tmp_path / name).mkdir(parents=True)
    return Supervisor("alpha", *(str(tmp_path / name) for name in ("config", "log", "run")), ENVIRONMENT)


def lay_down(manager, *definitions):
    for one in definitions:
        for file in manager.render(one):
            write_text(file.path, file.content, file.mode)


def read_by_supervisor(manager):
    """Return what supervisord would run, by name."""
    options = ServerOptions()
    options.realize(["-c", manager.main_path])
    groups = options.process_group_configs
    return options, {process.name: process for group in groups for process in group.process_configs}


def started_with(process):
    """Return command and environment that the process ends up with: env is a program that starts another."""
    command, environment = shlex.split(process.command), dict(process.environment)
    if command[0] == "/usr/bin/env":
        words = iter(command[1:])
        for word in words:
            if "=" not in word:
                return [word, *words], environment
            name, _sign, value = word.partition("=")
            environment[name] = value
    return command, environment


# ---- quoting


@given(values)
def test_what_is_quoted_reads_back(value):
    quoted = under_test.quote(value)
    if quoted is not None:
        assert dict_of_key_value_pairs(f'A={quoted},B="b"'.replace("%%", "%")) == {"A": value, "B": "b"}


@pytest.mark.parametrize("value", ["", "a", "100%", 'say "x" once', "it's", "C:\\temp\\", "a,B=c", '{"a": 1}', "a b"])
def test_usual_values_stay_in_the_option(value):
    assert under_test.quote(value) is not None


@pytest.mark.parametrize("value", ["'a' and \"b\"", "'a'", '"', "a ;b", "a\t#b", " #", "%(here)s"])
def test_values_that_the_option_would_spoil_are_told(value):
    assert under_test.quote(value) is None


@given(st.dictionaries(names, values, max_size=4), st.lists(values, max_size=3))
@example(dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", AWKWARD, strict=False)), AWKWARD)
@each_tmp_path
def test_every_environment_and_command_arrives(manager, environment, arguments):
    wanted = definition(command=("/bin/true", *arguments), environment=environment)
    lay_down(manager, wanted)
    _options, processes = read_by_supervisor(manager)
    assert list(processes) == ["engines-default-0", "engines-default-1"]
    for instance in ("0", "1"):
        process = processes[f"engines-default-{instance}"]
        assert started_with(process) == (list(wanted.command), wanted.marked_environment(instance))


@given(st.dictionaries(names, values, max_size=4))
@each_tmp_path
def test_the_digest_is_found_in_what_is_laid_down(manager, environment):
    wanted = definition(environment=environment)
    lay_down(manager, wanted)
    assert manager.laid_down("engines-default") == dict.fromkeys(wanted.units, wanted.digest)


# ---- the whole file


def test_the_options_of_a_process(manager, tmp_path):
    lay_down(manager, definition(directory="/tmp", umask="022", stop_timeout=42))
    _options, processes = read_by_supervisor(manager)
    process = processes["engines-default-1"]
    assert (process.directory, process.umask, process.stopwaitsecs) == ("/tmp", 0o022, 42)
    assert (process.autostart, process.autorestart.__name__) == (True, "RestartUnconditionally")
    assert process.startretries >= 10**6
    assert process.redirect_stderr
    assert process.stdout_logfile == str(tmp_path / "log" / "engines-default-1.log")
    assert process.stdout_logfile_maxbytes == 10 * 2**20


def test_the_options_of_supervisord(manager, tmp_path):
    lay_down(manager, definition())
    options, _processes = read_by_supervisor(manager)
    (server,) = options.configroot.supervisord.server_configs
    assert (server["file"], server["chmod"]) == (str(tmp_path / "run" / "supervisor.sock"), 0o600)
    assert server["file"] == manager.socket
    assert options.pidfile == str(tmp_path / "run" / "supervisord.pid")
    assert options.logfile == str(tmp_path / "log" / "supervisord.log")
    assert options.identifier == "ipyparallel-alpha"
    assert not options.nodaemon


def test_a_process_without_instances_has_its_own_name(manager):
    lay_down(manager, definition(name="controller", instances=None), definition(instances=()))
    _options, processes = read_by_supervisor(manager)
    assert list(processes) == ["controller"]
    assert processes["controller"].environment["IPYPARALLEL_INSTANCE"] == ""
    assert manager.laid_down("engines-default") == {}
    assert manager.defined() == ["controller", "engines-default"]


def test_files_are_private(manager):
    lay_down(manager, definition())
    for path in (manager.main_path, *manager.paths("engines-default")):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize("part", ["100%", "a b", "a;b", "a#b", "%(ENV_HOME)s", "it's"])
def test_awkward_directories(tmp_path, part):
    base = tmp_path / part
    for name in ("config/supervisor.d", "log", "run"):
        (base / name).mkdir(parents=True)
    manager = Supervisor("alpha", *(str(base / name) for name in ("config", "log", "run")), ENVIRONMENT)
    lay_down(manager, definition(directory=str(base)))
    manager.validate(definition(directory=str(base)))
    options, processes = read_by_supervisor(manager)
    assert processes["engines-default-0"].directory == str(base)
    assert processes["engines-default-0"].stdout_logfile == str(base / "log" / "engines-default-0.log")
    assert options.configroot.supervisord.server_configs[0]["file"] == manager.socket
    assert options.logfile == str(base / "log" / "supervisord.log")
    assert manager.defined() == ["engines-default"]


@pytest.mark.parametrize("part", ["*", "?", "[a]"])
def test_a_directory_that_supervisor_would_take_for_a_pattern_is_refused(tmp_path, part):
    manager = Supervisor("alpha", str(tmp_path / part), str(tmp_path), str(tmp_path), ENVIRONMENT)
    with pytest.raises(ProcessError, match="supervisor cannot use the path"):
        manager.render(definition())


@pytest.mark.parametrize("path", ["/a ;b", "/a #b", "/a ", "/%(here)s", "/a\nb"])
def test_a_path_that_supervisor_would_spoil_is_refused(manager, path):
    with pytest.raises(ProcessError, match="supervisor cannot use the path") as caught:
        manager.render(definition(directory=path))
    assert repr(path) in str(caught.value)
    assert "choose one without" in str(caught.value)


# ---- validation, before anything is written


def test_a_definition_is_validated_elsewhere(manager, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    manager.validate(definition())
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"umask": "9"},
            "9 can not be converted to an octal type in section 'program:engines-default-0' (file: 'CONFIG/",
        ),
        ({"name": "a b"}, "Invalid name: 'a b-0'"),
        ({"stop_timeout": "x"}, "'x'"),
    ],
)
def test_what_supervisor_refuses_is_told_with_its_reason(manager, changes, reason):
    with pytest.raises(ProcessError, match=r"supervisor refuses the definition of (engines-default|a b): .") as caught:
        manager.validate(definition(**changes))
    assert reason.replace("CONFIG", manager.config) in str(caught.value)


# ---- when nothing runs


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_without_a_supervisord(manager):
    assert manager.pid() is None
    assert manager.units("engines-default") == []
    assert manager.defined() == []
    assert manager.laid_down("engines-default") == {}
    Path(manager.socket).touch()
    assert manager.pid() is None
    manager.shutdown()
    gc.collect()


def test_supervisord_that_does_not_start_says_what_it_said(manager, tmp_path):
    write_text(manager.main_path, "[supervisord]\nlogfile=/nowhere/x.log\n")
    with pytest.raises(ProcessError, match="supervisord of cluster alpha does not start") as caught:
        manager.ensure()
    assert manager.main_path in str(caught.value)
    assert "/nowhere" in str(caught.value)


def test_another_environment_or_place_is_another_supervisord(manager, tmp_path):
    same = Supervisor("alpha", manager.config, manager.log, manager.run, ENVIRONMENT)
    assert same.digest == manager.digest
    for other in (
        Supervisor("alpha", manager.config, manager.log, manager.run, str(tmp_path)),
        Supervisor("alpha", manager.config, manager.log, str(tmp_path), ENVIRONMENT),
    ):
        assert other.digest != manager.digest
