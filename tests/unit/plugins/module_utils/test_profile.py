# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import types

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import profile

CONNECTOR = os.path.join("security", "ipcontroller-client.json")
STARTUP = os.path.join("startup", "00-ipyparallel-cluster.py")
HALF = '{"location": "127.0.0.1", "registration": 10100}'


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.ipython"),
        ({"IPYTHONDIR": ""}, "/home/ada/.ipython"),
        ({"IPYTHONDIR": "~/elsewhere"}, "/home/ada/elsewhere"),
        ({"IPYTHONDIR": "/data/ipython"}, "/data/ipython"),
    ],
)
def test_the_directory_is_ipythons_own(monkeypatch, environ, expected):
    monkeypatch.setenv("HOME", "/home/ada")
    assert profile.ipython_directory(environ) == expected


# ---- writing and removing


def write(directory, half=HALF):
    profile.write_profile(str(directory), profile.profile_files("alpha", half, str(directory)))


def test_a_profile_is_private_and_then_does_not_differ(tmp_path):
    directory = tmp_path / "profile_alpha"
    files = profile.profile_files("alpha", HALF, str(directory))
    assert profile.differing(str(directory), files) == list(files)
    profile.write_profile(str(directory), files)
    assert (directory / CONNECTOR).read_text() == HALF
    for path in files:
        assert stat.S_IMODE((directory / path).stat().st_mode) == 0o600
        assert stat.S_IMODE((directory / path).parent.stat().st_mode) == 0o700
    assert profile.differing(str(directory), profile.profile_files("alpha", HALF, str(directory))) == []
    assert profile.is_ours(str(directory))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_what_others_can_read_differs(tmp_path, mode):
    write(tmp_path / "p")
    (tmp_path / "p" / CONNECTOR).chmod(mode)
    files = profile.profile_files("alpha", HALF, str(tmp_path / "p"))
    assert profile.differing(str(tmp_path / "p"), files) == [CONNECTOR]
    profile.write_profile(str(tmp_path / "p"), files)
    assert stat.S_IMODE((tmp_path / "p" / CONNECTOR).stat().st_mode) == 0o600


def test_another_connector_differs(tmp_path):
    write(tmp_path / "p")
    files = profile.profile_files("alpha", HALF + " ", str(tmp_path / "p"))
    assert profile.differing(str(tmp_path / "p"), files) == [CONNECTOR]


def test_a_full_disk_leaves_the_old_connector(tmp_path, full_disk):
    write(tmp_path / "p")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "p", half='{"ssh": "another and longer"}')
    assert (tmp_path / "p" / CONNECTOR).read_text() == HALF


def test_a_profile_that_was_made_is_removed_whole(tmp_path):
    write(tmp_path / "p")
    (tmp_path / "p" / "history.sqlite").write_text("what IPython leaves there")
    profile.remove_profile(str(tmp_path / "p"))
    assert not (tmp_path / "p").exists()


def test_a_profile_that_was_found_keeps_what_is_not_ours(tmp_path):
    theirs = tmp_path / "p" / "startup" / "mine.py"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("x = 1")
    write(tmp_path / "p")
    # another run does not take it for its own
    write(tmp_path / "p", half=HALF + " ")
    profile.remove_profile(str(tmp_path / "p"))
    assert [path for path in (tmp_path / "p").rglob("*") if path.is_file()] == [theirs]
    assert not profile.is_ours(str(tmp_path / "p"))


def test_a_removal_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    (tmp_path / "p").mkdir()
    write(tmp_path / "p")
    for done in (0, 1, 2):
        unlink, count = os.unlink, iter(range(9))

        def unlink_some(path, unlink=unlink, count=count):
            if next(count) >= done:  # noqa: B023 - called in this turn of the loop only
                raise PermissionError(path)
            unlink(path)

        monkeypatch.setattr(os, "unlink", unlink_some)
        with pytest.raises(PermissionError):
            profile.remove_profile(str(tmp_path / "p"))
        monkeypatch.undo()
        assert profile.is_ours(str(tmp_path / "p"))
    profile.remove_profile(str(tmp_path / "p"))
    assert not [path for path in (tmp_path / "p").rglob("*") if path.is_file()]


# ---- versions


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        ({}, None),
        ({"python": "3.11.9", "ipyparallel": "9.2.0"}, None),
        ({"python": "3.13.1"}, ["your Python is 3.11.2", "3.13.1", "use a Python 3.13", "ipyparallel_python"]),
        ({"python": "3.1.1"}, ["3.1.1"]),
        ({"ipyparallel": "9.1.0"}, ["your ipyparallel is 9.2.0", "install ipyparallel==9.1.0"]),
    ],
)
def test_versions_that_differ_are_told_with_the_remedy(theirs, names):
    found = profile.version_differences({"python": "3.11.2", "ipyparallel": "9.2.0"}, theirs)
    assert len(found) == (names is not None)
    assert [part for part in names or [] if part not in found[0]] == []


def test_an_operator_without_ipyparallel_is_told():
    (found,) = profile.version_differences({"python": "3.11.2"}, {"python": "3.11.9", "ipyparallel": "9.2.0"})
    assert "your ipyparallel is missing" in found
    assert "install ipyparallel==9.2.0" in found


# ---- what IPython runs at its start


def run_startup(directory, monkeypatch, client, listens=True):
    monkeypatch.setitem(sys.modules, "ipyparallel", client and types.SimpleNamespace(Client=client))
    if listens:
        monkeypatch.setattr(socket, "create_connection", lambda address, timeout: contextlib.nullcontext())
    path = directory / STARTUP
    namespace = {"__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    return namespace


def test_the_startup_file_connects_to_the_connector_beside_it(tmp_path, monkeypatch, capsys):
    write(tmp_path / "p")
    asked = []

    class Client:
        def __init__(self, connector, timeout):
            asked.append(connector)
            assert timeout <= 10

        def direct_view(self, targets):
            return f"view of {targets}"

    namespace = run_startup(tmp_path / "p", monkeypatch, Client)
    assert asked == [str(tmp_path / "p" / CONNECTOR)]
    assert isinstance(namespace["ipclient"], Client)
    assert namespace["ipview"] == "view of all"
    assert not [name for name in namespace if name not in ("__file__", "__builtins__", "__doc__", "ipclient", "ipview")]
    assert capsys.readouterr().out == ""


def test_the_startup_file_of_an_absent_cluster_leaves_ipython_usable(tmp_path, monkeypatch, capsys):
    write(tmp_path / "p")

    def refuse(connector, timeout):
        raise TimeoutError("Hub connection request timed out")

    namespace = run_startup(tmp_path / "p", monkeypatch, refuse)
    assert namespace["ipclient"] is namespace["ipview"] is None
    assert "ipyparallel.cluster.status and connect" in capsys.readouterr().out
    namespace = run_startup(tmp_path / "p", monkeypatch, refuse)
    said = capsys.readouterr().out
    assert "cluster alpha cannot be reached" in said
    assert "Hub connection request timed out" in said


def test_where_nobody_listens_no_client_waits(tmp_path, monkeypatch, capsys, free_port):
    write(tmp_path / "p", json.dumps({"location": "127.0.0.1", "registration": free_port}))

    def client(_connector, timeout):
        raise AssertionError("it would wait")

    namespace = run_startup(tmp_path / "p", monkeypatch, client, listens=False)
    assert namespace["ipclient"] is namespace["ipview"] is None
    assert "ConnectionRefusedError" in capsys.readouterr().out


def test_an_operator_without_ipyparallel_has_a_shell(tmp_path, monkeypatch, capsys):
    write(tmp_path / "p")
    assert run_startup(tmp_path / "p", monkeypatch, None)["ipclient"] is None
    assert "ModuleNotFoundError" in capsys.readouterr().out


# ---- directories of others


@pytest.mark.parametrize("place", ["", "security", "startup", ".."])
def test_a_directory_of_somebody_else_is_named_with_the_remedy(tmp_path, monkeypatch, place):
    write(tmp_path / "p")
    stat = os.stat
    theirs = os.path.normpath(tmp_path / "p" / place)

    def owned(path, *arguments, **options):
        found = list(stat(path, *arguments, **options))
        found[4] = 54321 if os.fspath(path) == theirs else os.geteuid()
        return os.stat_result(found)

    monkeypatch.setattr(profile.os, "stat", owned)
    said = profile.other_owner(str(tmp_path / "p"))
    for part in (theirs, "belongs to 54321", "IPYTHONDIR"):
        assert part in said


def test_ipythons_directory_may_be_the_machines(tmp_path, account):
    write(tmp_path / "p")
    assert profile.other_owner(str(tmp_path / "p")) == ""
    for path in (tmp_path / "p", tmp_path / "p" / "security", tmp_path / "p" / "startup"):
        os.chown(path, account.pw_uid, -1)
    assert f"belongs to {account.pw_name}, and you are root: run as" in profile.other_owner(str(tmp_path / "p"))
    os.seteuid(account.pw_uid)
    try:
        assert profile.other_owner(str(tmp_path / "p")) == ""
        assert profile.other_owner(str(tmp_path / "new")) == ""
    finally:
        os.seteuid(0)
