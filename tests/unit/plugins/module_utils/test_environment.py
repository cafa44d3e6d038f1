# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pure parts; what uv makes is in the test of module python_environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import environment as under_test
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import (
    Environment,
    InstallError,
    Interpreter,
    environment_name,
    explain,
    probe,
    read_record,
)
from hypothesis import given
from hypothesis import strategies as st

PYTHON = Interpreter("/usr/bin/python3.11", (3, 11, 2), "x86_64", True)


# ---- the interpreter


def test_the_interpreter_tells_what_it_is():
    found = probe(sys.executable)
    assert found.executable == os.path.realpath(sys.executable)
    assert found.version == sys.version_info[:3]
    assert found.minor == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found.machine == platform.machine()


@pytest.mark.parametrize("content", [None, "#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n"])
def test_what_is_no_interpreter_is_named_with_the_variable(tmp_path, content):
    path = tmp_path / "python"
    if content:
        path.write_text(content)
        path.chmod(0o755)
    with pytest.raises(InstallError, match="cannot be run as a Python interpreter") as caught:
        probe(str(path))
    for part in (str(path), "ipyparallel_python", "3.10 to 3.13"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("version", "fits"), [("3, 9, 9", 0), ("3, 10, 0", 1), ("3, 13, 9", 1), ("3, 14, 0", 0)])
def test_the_versions_that_fit(tmp_path, version, fits):
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\necho \'{{"executable": "/x", "version": [{version}], "machine": "m", "venv": true}}\'\n'
    )
    path.chmod(0o755)
    if fits:
        assert probe(str(path)).executable == "/x"
        return
    with pytest.raises(InstallError) as caught:
        probe(str(path))
    minor = ".".join(version.split(", ")[:2])
    for part in (f"{path} is Python {minor}", "3.10 to 3.13", "ipyparallel_python"):
        assert part in str(caught.value)


# ---- names


def test_the_name_is_of_lock_and_interpreter():
    name = environment_name("lock", PYTHON)
    assert name == environment_name("lock", PYTHON)
    assert len(name) == 16
    others = [
        environment_name("lock ", PYTHON),
        environment_name("lock", Interpreter("/usr/bin/python3", (3, 11, 2), "x86_64", True)),
        environment_name("lock", Interpreter("/usr/bin/python3.11", (3, 12, 2), "x86_64", True)),
        environment_name("lock", Interpreter("/usr/bin/python3.11", (3, 11, 2), "aarch64", True)),
    ]
    assert len({name, *others}) == 5


def test_the_name_is_not_of_what_an_update_of_the_system_changes():
    newer = Interpreter("/usr/bin/python3.11", (3, 11, 9), "x86_64", False)
    assert environment_name("lock", newer) == environment_name("lock", PYTHON)


@given(st.text(), st.text())
def test_two_locks_have_two_names(one, other):
    assert (environment_name(one, PYTHON) == environment_name(other, PYTHON)) == (one == other)


# ---- records


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '"x"', "\0"])
def test_an_environment_that_was_not_finished_has_no_record(tmp_path, content):
    if content is not None:
        (tmp_path / under_test.RECORD).write_text(content)
    assert read_record(str(tmp_path)) == {}


def test_a_record_reads_back(tmp_path):
    (tmp_path / under_test.RECORD).write_text('{"packages": ["scipy"]}')
    assert read_record(str(tmp_path)) == {"packages": ["scipy"]}
    assert read_record("") == {}


# ---- what uv says: its own words, of version 0.13 unless marked

CONCLUDE = "we can conclude that your requirements are unsatisfiable."
NO_PACKAGE = f"""\
error: No solution found when resolving dependencies
  cause: Because no-such-package was not found in the package registry and you require no-such-package, {CONCLUDE}
"""
NO_PACKAGE_OLD = f"""\
  \N{MULTIPLICATION SIGN} No solution found when resolving dependencies:
  \N{BOX DRAWINGS LIGHT ARC UP AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL}\N{BLACK RIGHT-POINTING TRIANGLE} Because \
no-such-package was not found in the package registry and you require
      no-such-package, {CONCLUDE}
"""
NO_VERSION = f"""\
error: No solution found when resolving dependencies
  cause: Because there is no version of msgpack==99.1 and you require msgpack==99.1, {CONCLUDE}
"""
CONFLICT = f"""\
error: No solution found when resolving dependencies
  cause: Because you require msgpack>=1.1 and msgpack==1.0.0, {CONCLUDE}
"""
NO_SERVER = """\
error: Request failed after 3 retries in 7.3s
  cause: Failed to fetch: http://127.0.0.1:9/simple/six/
  cause: error sending request for url (http://127.0.0.1:9/simple/six/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
NO_PROXY = """\
error: Failed to fetch: https://example.org/simple/six/
  cause: error sending request for url (https://example.org/simple/six/)
  cause: client error (Connect)
  cause: tunnel error: failed to create underlying connection
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
NO_NAME = """\
error: Failed to fetch: https://nosuch.invalid/simple/six/
  cause: error sending request for url (https://nosuch.invalid/simple/six/)
  cause: client error (Connect)
  cause: dns error
  cause: error resolving DNS
  cause: failed to lookup address information: Name or service not known
"""
NO_ANSWER = """\
error: Failed to fetch: http://127.0.0.1:18080/408/six/
  cause: error sending request for url (http://127.0.0.1:18080/408/six/)
  cause: operation timed out
"""
NO_TRUST = """\
error: Failed to fetch: https://localhost:18443/simple/six/
  cause: error sending request for url (https://localhost:18443/simple/six/)
  cause: client error (Connect)
  cause: invalid peer certificate: UnknownIssuer
"""
NO_PERMISSION = f"""\
error: No solution found when resolving dependencies
  cause: Because six was not found in the package registry and you require six, {CONCLUDE}

hint: An index URL (http://127.0.0.1:18080/401) could not be queried due to a lack of valid authentication credentials \
(401 Unauthorized)
"""
NO_PERMISSION_403 = f"""\
error: No solution found when resolving dependencies
  cause: Because six was not found in the package registry and you require six, {CONCLUDE}

hint: An index (http://127.0.0.1:18080/403) returned a 403 Forbidden error. Check that the index URL is correct and \
the credentials are valid.
"""
OFFLINE = f"""\
error: No solution found when resolving dependencies
  cause: Because scipy was not found in the cache and you require scipy, {CONCLUDE}

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may \
only be read from the cache.
"""
NO_SPACE = """\
error: Failed to install: numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl (numpy==2.4.6)
  cause: Failed to copy to `/small/v/lib/python3.11/site-packages/numpy.libs/libscipy_openblas64_.so`
  cause: failed to copy file from /root/.cache/uv/x.so to /small/v/.tmp3Omyzj: No space left on device (os error 28)
"""
HASH = """\
error: Failed to download `six==1.16.0`
  cause: Hash mismatch for `six==1.16.0`

         Expected:
           sha256:0000000000000000000000000000000000000000000000000000000000000001
"""
SYNTAX = """\
error: Failed to parse: `six>>1`
  cause: no such comparison operator ">>", must be one of ~= == != <= >= < > ===
         six>>1
            ^^^
"""
INSTALL = "ipyparallel_install_environment"


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (NO_PACKAGE, ["no package 'no-such-package'", "ipyparallel_packages", "ipyparallel_requirements"]),
        (NO_PACKAGE_OLD, ["no package 'no-such-package'", "ipyparallel_packages"]),
        (NO_VERSION, ["no version of msgpack==99.1"]),
        (CONFLICT, ["you require msgpack>=1.1 and msgpack==1.0.0"]),
        (NO_SERVER, ["cannot be reached (connection refused)", "network", INSTALL]),
        (NO_PROXY, ["cannot be reached (connection refused)", "proxies", INSTALL]),
        (NO_NAME, ["cannot be reached (dns error)", INSTALL]),
        (NO_ANSWER, ["cannot be reached (timed out)", INSTALL]),
        (NO_TRUST, ["certificate", "not trust", "SSL_CERT_FILE", INSTALL]),
        (NO_PERMISSION, ["refuses", "401 Unauthorized", "credentials", INSTALL]),
        (NO_PERMISSION_403, ["refuses", "403 Forbidden", INSTALL]),
        (OFFLINE, ["'scipy'", "cache", "UV_OFFLINE", INSTALL]),
        (NO_SPACE, ["the disk is full", "make room"]),
        (HASH, ["Hash mismatch for `six==1.16.0`"]),
        (SYNTAX, ["Failed to parse: `six>>1`"]),
        ("", ["no message"]),
    ],
)
def test_what_uv_says_in_one_line_with_the_remedy(output, names):
    reason = explain(output)
    assert "\n" not in reason
    assert not reason.startswith("error")
    assert [part for part in names if part not in reason] == []


@given(st.text(max_size=4000))
def test_whatever_is_said_is_one_line_of_some_length(output):
    reason = explain(output)
    assert reason
    assert len(reason.splitlines()) == 1
    assert len(reason) <= 1500


# ---- the link to the current environment


@pytest.fixture
def environment(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "env" / name / "bin").mkdir(parents=True)
    return Environment(str(tmp_path), None, "")


def test_there_may_be_no_current_environment(tmp_path):
    assert Environment(str(tmp_path), None, "").current == ""


def test_a_switch_is_one_step_and_the_link_relative(environment, monkeypatch):
    environment.switch(environment.path("one"))
    assert environment.current == environment.path("one")
    assert os.readlink(environment.link) == "env/one"

    replace, seen = os.replace, []
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append(environment.current), replace(*paths)))
    environment.switch(environment.path("two"))
    assert seen == [environment.path("one")]
    assert environment.current == environment.path("two")
    assert sorted(os.listdir(environment.prefix)) == ["current", "env"]


def test_a_switch_that_was_interrupted_is_no_hindrance(environment):
    os.symlink("env/one", f"{environment.link}.new")
    environment.switch(environment.path("two"))
    assert environment.current == environment.path("two")
    assert not os.path.lexists(f"{environment.link}.new")


def test_a_link_to_nothing_is_none(environment):
    os.symlink("env/gone", environment.link)
    assert environment.current == ""


# ---- what nobody uses


def test_what_is_neither_current_nor_runs_is_idle(environment, python):
    assert environment.idle() == [environment.path("one"), environment.path("two")]
    environment.switch(environment.path("two"))
    assert environment.idle() == [environment.path("one")]
    environment.switch(environment.path("one"))
    program = os.path.join(environment.path("two"), "bin", "python")
    os.symlink(sys.executable, program)
    child = python(program=program)
    assert environment.idle() == []
    child.kill()
    child.wait()
    assert environment.idle() == [environment.path("two")]


def test_a_script_of_an_environment_uses_it_too(environment):
    """A program of an environment has its path as a second word: the first is its interpreter."""
    script = os.path.join(environment.path("two"), "bin", "ipengine")
    command = [sys.executable, "-ISc", "print(flush=True); import signal; signal.pause()", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline()
        try:
            assert environment.idle() == [environment.path("one")]
        finally:
            child.kill()


def test_without_environments_none_is_idle(tmp_path):
    assert Environment(str(tmp_path), None, "").idle() == []


def test_a_prefix_behind_a_link_is_the_same(environment, tmp_path_factory, python):
    link = tmp_path_factory.mktemp("link") / "prefix"
    link.symlink_to(environment.prefix)
    linked = Environment(str(link), None, "")
    linked.switch(linked.path("one"))
    assert linked.current == environment.path("one")
    assert linked.idle() == [linked.path("two")]


# ---- uv


def test_a_uv_that_was_given_is_taken():
    assert Environment("/prefix", "/usr/bin/uv", "").uv(PYTHON) == "/usr/bin/uv"


def test_without_venv_and_uv_both_remedies_are_told(tmp_path):
    lame = Interpreter("/usr/bin/python3.11", (3, 11, 2), "x86_64", False)
    with pytest.raises(InstallError) as caught:
        Environment(str(tmp_path), None, "uv==1").uv(lame)
    for part in ("/usr/bin/python3.11", "python3-venv", "ipyparallel_environment_uv"):
        assert part in str(caught.value)


def test_a_uv_that_was_made_before_is_taken_while_its_lock_is_the_same(tmp_path):
    lame = Interpreter("/usr/bin/python3.11", (3, 11, 2), "x86_64", False)
    program = tmp_path / "uv" / "bin" / "uv"
    program.parent.mkdir(parents=True)
    program.write_text("")
    program.chmod(0o755)
    (tmp_path / "uv" / "lock").write_text("uv==1")
    assert Environment(str(tmp_path), None, "uv==1").uv(lame) == str(program)
    with pytest.raises(InstallError):
        Environment(str(tmp_path), None, "uv==2").uv(lame)


def test_a_uv_that_cannot_be_run_is_named(tmp_path):
    with pytest.raises(InstallError, match="cannot run /nowhere/uv"):
        Environment(str(tmp_path), "/nowhere/uv", "").create("one", "", PYTHON)
    assert not os.path.exists(tmp_path / "env" / "one")
