# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import grp
import os
import pwd
import stat

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OLD = "the old text, as long as it takes\n"
NEW = "the new text, as long as it takes\n"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_written_reads_back(tmp_path, text):
    path = str(tmp_path / "file")
    files.write_text(path, text)
    assert files.read_text(path) == text


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert files.read_text(str(tmp_path / "file")) is None


def test_bytes_that_are_no_text_are_read_and_differ_from_any(tmp_path):
    (tmp_path / "file").write_bytes(b"a\xffb")
    assert files.read_text(str(tmp_path / "file")) == "a\N{REPLACEMENT CHARACTER}b"


def test_bytes_that_are_no_text_may_be_kept(tmp_path):
    path = str(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"a\xffb\r\n")
    files.write_text(path, f"first\n{files.read_text(path, errors='surrogateescape')}")
    assert (tmp_path / "file").read_bytes() == b"first\na\xffb\r\n"


# ---- one step, and never readable by others


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_until_the_step_the_old_file_is_there_and_the_new_one_private(tmp_path, monkeypatch, open_umask, mode):
    path = tmp_path / "file"
    path.write_text(OLD)
    seen = []

    def fsync(descriptor):
        # the content is on its way to the disk, under whatever name
        seen.append((path.read_text(), mode_of(descriptor), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(str(path), NEW, mode)
    assert seen == [(OLD, 0o600, len(NEW))]
    assert path.read_text() == NEW
    assert mode_of(path) == mode
    assert os.listdir(tmp_path) == ["file"]


def test_the_new_file_has_its_mode_before_it_has_its_name(tmp_path, monkeypatch):
    replace, modes = os.replace, []
    monkeypatch.setattr(os, "replace", lambda source, target: (modes.append(mode_of(source)), replace(source, target)))
    files.write_text(str(tmp_path / "file"), NEW, 0o640)
    assert modes == [0o640]


def test_a_reader_keeps_the_file_it_has_opened(tmp_path):
    path = tmp_path / "file"
    path.write_text(OLD)
    with path.open() as reader:
        files.write_text(str(path), NEW)
        assert reader.read() == OLD


# ---- failures leave the old file


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    path = tmp_path / "file"
    path.write_text(OLD)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        files.write_text(str(path), NEW)
    assert path.read_text() == OLD
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("reason", [OSError("no"), KeyboardInterrupt()])
def test_a_step_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, reason):
    path = tmp_path / "file"
    path.write_text(OLD)

    def fail(*arguments):
        raise reason

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(reason)):
        files.write_text(str(path), NEW)
    assert path.read_text() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_text(str(tmp_path / "none" / "file"), NEW)


# ---- directories


def test_a_directory_and_those_above_it_are_made(tmp_path, open_umask):
    path = tmp_path / "a" / "b" / "c"
    assert files.make_directory(str(path), 0o700)
    assert mode_of(path) == 0o700
    assert mode_of(path.parent) == 0o755
    assert mode_of(path.parent.parent) == 0o755
    assert not files.make_directory(str(path), 0o700)


def test_a_directory_has_its_mode_under_any_umask(tmp_path):
    before = os.umask(0o777)
    try:
        files.make_directory(str(tmp_path / "a"), 0o750)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == 0o750


def test_a_mode_that_differs_is_set_right(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    assert files.make_directory(str(tmp_path / "a"), 0o700)
    assert mode_of(tmp_path / "a") == 0o700


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError):
        files.make_directory(str(tmp_path / "a"))


# ---- owners


def test_owners_that_do_not_exist_are_named():
    with pytest.raises(KeyError, match="nobody-of-this-name"):
        files.Ownership("nobody-of-this-name")
    with pytest.raises(KeyError, match="no-group-of-this-name"):
        files.Ownership(None, "no-group-of-this-name")


def test_owners_are_set_where_that_is_a_change(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_options: calls.append((uid, gid)))
    files.Ownership().apply(str(tmp_path))
    files.Ownership(pwd.getpwuid(os.geteuid()).pw_name).apply(str(tmp_path))
    assert calls == []

    other = next(account for account in pwd.getpwall() if account.pw_uid != os.geteuid())
    files.Ownership(other.pw_name).apply(str(tmp_path))
    files.write_text(str(tmp_path / "file"), NEW, ownership=files.Ownership(other.pw_name))
    files.make_directory(str(tmp_path / "a"), ownership=files.Ownership(other.pw_name))
    assert calls == [(other.pw_uid, other.pw_gid)] * 3


# ---- root acts as the account


def who():
    return os.geteuid(), os.getegid(), os.getgroups()


@pytest.fixture
def further_group(account):
    before = os.getgroups()
    os.setgroups([0, 4711])
    yield
    os.setgroups(before)


def test_root_is_the_account_for_a_while(account, further_group, common_path):
    before = who()
    assert 4711 in before[2]
    (common_path / "secret").write_text("")
    (common_path / "secret").chmod(0o600)
    with files.acting_as(account.pw_uid, account.pw_gid):
        assert who() == (account.pw_uid, account.pw_gid, [])
        with pytest.raises(PermissionError):
            (common_path / "secret").read_text()
    assert who() == before
    with pytest.raises(ZeroDivisionError), files.acting_as(account.pw_uid, account.pw_gid):
        raise ZeroDivisionError
    assert who() == before


@pytest.mark.parametrize("step", ["setegid", "seteuid"])
def test_root_is_root_again_when_a_step_fails(account, further_group, monkeypatch, step):
    before, do = who(), getattr(os, step)

    def refuse(number):
        if number:
            raise PermissionError(step)
        do(number)

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(PermissionError, match=step), files.acting_as(account.pw_uid, account.pw_gid):
        pytest.fail("it is not the account")
    assert who() == before


def test_root_stays_root_for_what_is_roots(account):
    before = who()
    with files.acting_as(0, 0):
        assert who() == before


def test_an_account_stays_what_it_is(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = who()
    for step in ("setgroups", "setegid", "seteuid"):
        monkeypatch.setattr(os, step, lambda *_arguments: pytest.fail("it has no right to"))
    with files.acting_as(1001, 1001):
        assert who() == before


@pytest.fixture
def owned(account, common_path):
    """A directory of the account's, and one of root's that others may look at."""
    for name, ids in (("theirs", (account.pw_uid, account.pw_gid)), ("roots", (0, 0))):
        (common_path / name).mkdir(mode=0o755)
        os.chown(common_path / name, *ids)
    return common_path


def owner_of(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def test_what_root_makes_is_the_accounts(account, owned):
    ownership = files.Ownership(account.pw_name)
    for place in ("theirs", "roots"):
        assert files.make_directory(str(owned / place / "a" / "b"), 0o700, ownership)
        files.write_text(str(owned / place / "file"), NEW, 0o600, ownership)
        for path in (owned / place / "a" / "b", owned / place / "file"):
            assert owner_of(path) == (account.pw_uid, account.pw_gid)
    assert owner_of(owned / "theirs" / "a") == (account.pw_uid, account.pw_gid)
    # what is above belongs to who made it, as without an account
    assert owner_of(owned / "roots" / "a") == (0, 0)


def test_a_group_that_the_account_is_not_in(account, owned):
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, account.pw_gid))
    files.write_text(str(owned / "theirs" / "file"), NEW, 0o640, files.Ownership(account.pw_name, group.gr_name))
    assert owner_of(owned / "theirs" / "file") == (account.pw_uid, group.gr_gid)


def test_without_an_account_root_keeps_what_it_makes(account, owned):
    files.write_text(str(owned / "theirs" / "file"), NEW)
    assert owner_of(owned / "theirs" / "file") == (0, 0)


def test_a_link_in_the_place_of_a_file_is_replaced(account, owned):
    (owned / "roots" / "file").write_text(OLD)
    (owned / "theirs" / "file").symlink_to(owned / "roots" / "file")
    files.write_text(str(owned / "theirs" / "file"), NEW, ownership=files.Ownership(account.pw_name))
    assert (owned / "roots" / "file").read_text() == OLD
    assert owner_of(owned / "roots" / "file") == (0, 0)
    assert (owned / "theirs" / "file").read_text() == NEW
    assert not (owned / "theirs" / "file").is_symlink()


def test_a_link_shows_root_no_more_than_the_account(account, owned):
    (owned / "roots" / "secret").write_text(OLD)
    (owned / "roots" / "secret").chmod(0o600)
    (owned / "roots" / "open").write_text(NEW)
    for name in ("secret", "open"):
        (owned / "theirs" / name).symlink_to(owned / "roots" / name)
    ownership = files.Ownership(account.pw_name)
    assert files.read_text(str(owned / "theirs" / "open"), ownership) == NEW
    assert files.read_text(str(owned / "theirs" / "none"), ownership) is None
    assert files.read_text(str(owned / "none" / "none"), ownership) is None
    with pytest.raises(PermissionError):
        files.read_text(str(owned / "theirs" / "secret"), ownership)
    # where the account decides nothing, root reads as ever
    assert files.read_text(str(owned / "roots" / "secret"), ownership) == OLD


@pytest.mark.parametrize("below", ["link", "link/below", "sub/../link"])
def test_a_link_in_the_place_of_a_directory_leads_root_nowhere(account, owned, below):
    """The account puts a link to a directory of root's where root is about to write."""
    (owned / "roots" / "below").mkdir()
    (owned / "theirs" / "sub").mkdir()
    (owned / "theirs" / "link").symlink_to(owned / "roots")
    os.chown(owned / "theirs" / "link", account.pw_uid, account.pw_gid, follow_symlinks=False)
    ownership = files.Ownership(account.pw_name)
    before = [(path, path.stat().st_mode, owner_of(path)) for path in sorted((owned / "roots").rglob("*"))]
    target = owned / "theirs" / below
    for attempt in (
        lambda: files.write_text(f"{target}/file", NEW, ownership=ownership),
        lambda: files.make_directory(f"{target}/new", 0o700, ownership),
        # is there, and has another mode
        lambda: files.make_directory(str(target), 0o700, ownership),
    ):
        with pytest.raises(PermissionError):
            attempt()
        assert os.geteuid() == 0
    after = [(path, path.stat().st_mode, owner_of(path)) for path in sorted((owned / "roots").rglob("*"))]
    assert after == before
