# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the operator's files to those of a host, with the module run as Ansible would run it there."""

from __future__ import annotations

import os
import pwd
import shutil
import tarfile

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ipyparallel.cluster.plugins.action import put_files as action
from ansible_collections.ipyparallel.cluster.plugins.modules import put_files as module

BYTES = bytes(range(256))


@pytest.fixture
def job(tmp_path):
    """A directory of the operator's."""
    top = tmp_path / "job"
    (top / "deep/empty").mkdir(parents=True)
    (top / "run.py").write_text("print('é')\n")
    (top / "run.py").chmod(0o755)
    (top / "deep/data.csv").write_bytes(BYTES)
    (top / "deep/data.csv").chmod(0o640)
    (top / "deep/again").symlink_to("data.csv")
    return top


@pytest.fixture
def home(common_path, monkeypatch):
    """That of the account on the host."""
    monkeypatch.setenv("HOME", str(common_path))
    return common_path


@pytest.fixture
def put(run_action, run_module, home, tmp_path, monkeypatch):
    """Run the action; what it sends is kept in ``put.sent``."""

    def run(source, check=False, diff=False, **arguments):
        def execute_module(module_args, **_given):
            return run_module(module, check=check, diff=diff, **module_args)

        def transfer(self, local, remote):
            shutil.copy(local, remote)
            with tarfile.open(remote) as archive:
                run.sent.append(len(archive.getnames()))

        monkeypatch.setattr(action.ActionModule, "_transfer_file", transfer)
        monkeypatch.setattr(action.ActionModule, "_make_tmp_path", lambda self: str(tmp_path))
        run.sent = []
        return run_action(
            action.ActionModule, execute_module, check=check, diff=diff, source=str(source), tmpdir=None, **arguments
        )

    return run


def modes(top):
    return {str(path.relative_to(top)): oct(path.lstat().st_mode & 0o777) for path in sorted(top.rglob("*"))}


def test_fours(put, job, home):
    for diff in (False, True):
        assert put(job, check=True, diff=diff)["changed"]
        assert (os.listdir(home), put.sent) == ([], [])

    result = put(job)
    assert (result["changed"], result["destination"]) == (True, str(home))
    assert result["sent"] == ["job/deep/again", "job/deep/data.csv", "job/run.py"]
    # what is the same is sent once
    assert put.sent == [2]
    assert modes(home) == {
        "job": "0o700",
        "job/deep": "0o700",
        "job/deep/again": "0o640",
        "job/deep/data.csv": "0o640",
        "job/deep/empty": "0o700",
        "job/run.py": "0o755",
    }
    assert (home / "job/deep/data.csv").read_bytes() == (home / "job/deep/again").read_bytes() == BYTES
    assert not (home / "job/deep/again").is_symlink()

    for check in (True, False):
        result = put(job, check=check, diff=True)
        assert (result["changed"], result["sent"], result["diff"], put.sent) == (False, [], [], [])


def test_what_differs_is_changed_and_nothing_else_is_sent(put, job, home):
    put(job)
    (home / "job/run.py").write_text("old\n")
    (home / "job/deep/data.csv").chmod(0o600)
    (home / "job/deep").chmod(0o755)
    (home / "job/theirs").write_text("")
    shown = put(job, check=True, diff=True)["diff"]
    assert [(one["before_header"], one["before"], one["after"]) for one in shown] == [
        (f"{home}/job/deep/data.csv", f"mode 0600, group {os.getgid()}\n", f"mode 0640, group {os.getgid()}\n"),
        ("job/run.py", "old\n", "print('é')\n"),
    ]
    assert (home / "job/run.py").read_text() == "old\n"
    assert put(job, diff=True)["diff"] == shown
    assert put.sent == [1]
    found = modes(home)
    # a directory that was there keeps its mode
    assert [found[f"job/{name}"] for name in ("run.py", "deep/data.csv", "deep")] == ["0o755", "0o640", "0o755"]
    assert (home / "job/theirs").exists()


def test_a_change_of_modes_sends_nothing(put, job, home):
    put(job)
    (home / "job/run.py").chmod(0o600)
    assert put(job)["changed"]
    assert put.sent == []
    assert not put(job)["changed"]


@pytest.mark.parametrize(
    ("destination", "there"), [("", ""), ("~", ""), ("~/a/b", "a/b"), ("a/b", "a/b"), ("{home}/c", "c")]
)
def test_one_file_and_where_it_goes(put, job, home, destination, there):
    put(job / "run.py", destination=destination.format(home=home))
    assert (home / there / "run.py").read_text() == "print('é')\n"
    assert {mode for name, mode in modes(home).items() if not name.endswith(".py")} <= {"0o700"}


def test_the_home_is_that_of_the_account(run_module):
    me = pwd.getpwuid(os.geteuid())
    found = run_module(module, check=True, source="/x", destination="~/x", owner=me.pw_name)
    assert found["destination"] == f"{me.pw_dir}/x"


def test_text_of_a_diff_is_short(put, job, home):
    (home / "job").mkdir()
    (home / "job/run.py").write_bytes(b"\xff")
    (job / "run.py").write_text("x" * 100_001)
    shown = put(job, check=True, diff=True)["diff"][-1]
    assert (shown["before"], shown["after"]) == ("no text\n", "more than 100000 bytes\n")


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [("loop", ".", "leads to a directory that it is in"), ("lost", "nowhere", "is no file and no directory")],
)
def test_what_cannot_be_put_is_named(put, job, home, name, target, words):
    (job / name).symlink_to(target)
    with pytest.raises(AnsibleActionFail, match=f"{job}/{name} {words}: take it out"):
        put(job)
    assert os.listdir(home) == []


def test_what_is_in_the_way_is_named(put, job, home):
    (home / "job/run.py").mkdir(parents=True)
    assert "job/run.py is there and is a directory: remove it" in put(job)["msg"]
    shutil.rmtree(home / "job")
    (home / "job").write_text("")
    result = put(job, check=True)
    assert result["failed"]
    assert result["msg"] == f"{home}/job is there and is no directory: remove it"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"owner": "nobody-of-this-name"}, ["nobody-of-this-name", "ipyparallel.cluster.deploy"]),
        ({"group": "no-group-of-this-name"}, ["no-group-of-this-name", "ipyparallel_group"]),
        ({"destination": "~nobody-of-this-name/x"}, ["~nobody-of-this-name/x", "ipyparallel_put_destination"]),
    ],
)
def test_what_is_not_there_is_named(put, job, arguments, words):
    result = put(job, **arguments)
    assert result["failed"]
    assert [word for word in words if word not in result["msg"]] == []


# ---- root acts as the account


@pytest.fixture
def owned(account, common_path):
    """A directory of the account's, and one of root's that others may look at."""
    for name, ids in (("theirs", (account.pw_uid, account.pw_gid)), ("roots", (0, 0))):
        (common_path / name).mkdir(mode=0o755)
        os.chown(common_path / name, *ids)
    (common_path / "roots/secret").write_text("secret")
    (common_path / "roots/secret").chmod(0o600)
    return common_path


def state_of(top):
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_uid, path.read_bytes() if path.is_file() else None)
        for path in sorted([top, *top.rglob("*")])
    }


def test_what_root_puts_is_the_account_s(put, job, account, owned):
    result = put(job, owner=account.pw_name, destination=str(owned / "theirs"))
    assert result["changed"], result
    for path in (owned / "theirs").rglob("*"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (account.pw_uid, account.pw_gid)
    # what was root's becomes the account's
    os.chown(owned / "theirs/job/run.py", 0, 0)
    assert put(job, owner=account.pw_name, destination=str(owned / "theirs"))["sent"] == ["job/run.py"]
    assert (owned / "theirs/job/run.py").stat().st_uid == account.pw_uid
    assert not put(job, owner=account.pw_name, destination=str(owned / "theirs"))["changed"]


@pytest.mark.parametrize("link", ["job", "job/deep"])
@pytest.mark.parametrize("check", [False, True])
def test_a_link_of_the_account_s_leads_root_nowhere(put, job, account, owned, link, check):
    (owned / "roots/run.py").write_text("root's\n")
    (owned / "roots/run.py").chmod(0o600)
    before = state_of(owned / "roots")
    place = owned / "theirs" / link
    if place.parent != owned / "theirs":
        place.parent.mkdir()
        os.chown(place.parent, account.pw_uid, account.pw_gid)
    place.symlink_to(owned / "roots")
    os.chown(place, account.pw_uid, account.pw_gid, follow_symlinks=False)
    result = put(job, check=check, diff=True, owner=account.pw_name, destination=str(owned / "theirs"))
    assert state_of(owned / "roots") == before
    assert os.geteuid() == 0
    assert "root's" not in str(result)
    if not check:
        assert result["failed"]
        assert f"account {account.pw_name} cannot write {place}/" in result["msg"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_shown(put, job, account, owned):
    before = state_of(owned / "roots")
    (owned / "theirs/run.py").symlink_to(owned / "roots/secret")
    given = {"owner": account.pw_name, "destination": str(owned / "theirs")}
    assert "secret" not in str(put(job / "run.py", check=True, diff=True, **given)["diff"])
    put(job / "run.py", **given)
    assert (owned / "theirs/run.py").read_text() == "print('é')\n"
    assert not (owned / "theirs/run.py").is_symlink()
    assert state_of(owned / "roots") == before


def test_a_directory_that_the_account_may_not_write_is_named(put, job, account, owned):
    result = put(job, owner=account.pw_name, destination=str(owned / "roots"))
    assert f"account {account.pw_name} cannot write {owned}/roots/job: Permission denied" in result["msg"]
    assert "ipyparallel_put_destination" in result["msg"]


def test_the_account_has_all_its_groups(put, job, account, owned, monkeypatch):
    monkeypatch.setattr(os, "getgrouplist", lambda owner, gid: [gid, 4711])
    os.chown(owned / "roots", 0, 4711)
    (owned / "roots").chmod(0o775)
    result = put(job / "run.py", owner=account.pw_name, destination=str(owned / "roots"))
    assert result["changed"], result
    assert (owned / "roots/run.py").stat().st_gid == account.pw_gid
