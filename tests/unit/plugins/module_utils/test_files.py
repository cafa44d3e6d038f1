# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

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
    assert calls == [(other.pw_uid, -1)] * 3
