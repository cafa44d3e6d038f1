# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Examples that users have changed or removed stay so, and the others follow the collection."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import examples
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership

OLD = {"Welcome.ipynb": "welcome 1\n", "Prime numbers.ipynb": "primes 1\n"}
NEW = {"Welcome.ipynb": "welcome 2\n", "Prime numbers.ipynb": "primes 2\n"}


class Notebooks:
    def __init__(self, tmp_path):
        self.directory = tmp_path / "notebooks" / "examples"
        self.record = tmp_path / "state" / "examples.json"
        self.ownership = Ownership()
        self.directory.parent.mkdir()
        self.record.parent.mkdir()

    def plan(self, files):
        return examples.make_plan(str(self.directory), str(self.record), files, self.ownership)

    def lay_down(self, files):
        """Return the names of what was written in the directory."""
        plan = self.plan(files)
        examples.apply(plan, self.ownership)
        assert self.plan(files).after == {}, "the second time changes nothing"
        return [os.path.basename(path) for path in plan.after if path != str(self.record)]

    def texts(self):
        return {path.name: path.read_text() for path in self.directory.iterdir()}


@pytest.fixture
def notebooks(tmp_path):
    return Notebooks(tmp_path)


def test_they_are_laid_down_for_the_account_only(notebooks):
    assert notebooks.lay_down(OLD) == list(OLD)
    assert notebooks.texts() == OLD
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (*notebooks.directory.iterdir(), notebooks.record)}
    assert modes == {0o600}
    assert stat.S_IMODE(notebooks.directory.stat().st_mode) == 0o700


def test_newer_ones_replace_them_as_they_were_laid_down(notebooks):
    notebooks.lay_down(OLD)
    plan = notebooks.plan(NEW)
    path = str(notebooks.directory / "Welcome.ipynb")
    assert (plan.before[path], plan.after[path]) == ("welcome 1\n", "welcome 2\n")
    assert notebooks.lay_down(NEW) == list(NEW)
    assert notebooks.texts() == NEW


def test_changed_ones_stay(notebooks):
    notebooks.lay_down(OLD)
    (notebooks.directory / "Welcome.ipynb").write_text("mine\n")
    assert notebooks.lay_down(OLD) == []
    assert notebooks.lay_down(NEW) == ["Prime numbers.ipynb"]
    assert notebooks.texts()["Welcome.ipynb"] == "mine\n"


def test_one_that_a_user_keeps_at_an_older_version_stays(notebooks):
    notebooks.lay_down(OLD)
    notebooks.lay_down(NEW)
    (notebooks.directory / "Welcome.ipynb").write_text(OLD["Welcome.ipynb"])
    assert notebooks.lay_down(NEW) == []
    assert notebooks.lay_down({**NEW, "Welcome.ipynb": "welcome 3\n"}) == []
    assert notebooks.texts()["Welcome.ipynb"] == OLD["Welcome.ipynb"]


def test_removed_ones_stay_removed(notebooks):
    notebooks.lay_down(OLD)
    (notebooks.directory / "Welcome.ipynb").unlink()
    assert notebooks.lay_down(OLD) == []
    assert notebooks.lay_down(NEW) == ["Prime numbers.ipynb"]
    assert notebooks.texts() == {"Prime numbers.ipynb": "primes 2\n"}


def test_a_directory_that_was_removed_stays_so(notebooks):
    notebooks.lay_down(OLD)
    for path in notebooks.directory.iterdir():
        path.unlink()
    notebooks.directory.rmdir()
    assert notebooks.lay_down({**NEW, "Monte Carlo.ipynb": "pi\n"}) == []
    assert not notebooks.directory.exists()


def test_one_that_is_new_in_the_collection_is_laid_down(notebooks):
    notebooks.lay_down(OLD)
    assert notebooks.lay_down({**OLD, "Monte Carlo.ipynb": "pi\n"}) == ["Monte Carlo.ipynb"]


def test_one_that_left_the_collection_stays(notebooks):
    notebooks.lay_down(OLD)
    assert notebooks.lay_down({"Welcome.ipynb": "welcome 2\n"}) == ["Welcome.ipynb"]
    assert notebooks.texts() == {**OLD, "Welcome.ipynb": "welcome 2\n"}


@pytest.mark.parametrize("content", ["mine\n", "welcome 1\n", b"\xff\xfe"])
def test_a_users_own_file_of_the_name_stays(notebooks, content):
    notebooks.directory.mkdir()
    own = notebooks.directory / "Welcome.ipynb"
    own.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = own.read_bytes()
    assert notebooks.lay_down(OLD) == ["Prime numbers.ipynb"]
    assert own.read_bytes() == before


def test_a_link_or_a_directory_of_the_name_stays(notebooks, tmp_path):
    notebooks.lay_down(OLD)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(OLD["Welcome.ipynb"])
    for name in OLD:
        (notebooks.directory / name).unlink()
    (notebooks.directory / "Welcome.ipynb").symlink_to(elsewhere)
    (notebooks.directory / "Prime numbers.ipynb").mkdir()
    assert notebooks.lay_down(NEW) == []
    assert (notebooks.directory / "Welcome.ipynb").is_symlink()
    assert elsewhere.read_text() == OLD["Welcome.ipynb"]


def test_a_file_in_place_of_the_directory_stays(notebooks):
    notebooks.directory.write_text("mine\n")
    assert notebooks.lay_down(OLD) == []
    assert notebooks.directory.read_text() == "mine\n"


def test_another_directory_has_examples_of_its_own(notebooks):
    notebooks.lay_down(OLD)
    first, notebooks.directory = notebooks.directory, notebooks.directory.with_name("others")
    assert notebooks.lay_down(OLD) == list(OLD)
    notebooks.directory = first
    (first / "Welcome.ipynb").unlink()
    assert notebooks.lay_down(OLD) == []


def test_what_was_interrupted_is_gone_on_with(notebooks):
    plan = notebooks.plan(OLD)
    notebooks.directory.mkdir()
    (notebooks.directory / "Welcome.ipynb").write_text(plan.after[str(notebooks.directory / "Welcome.ipynb")])
    assert notebooks.lay_down(OLD) == ["Prime numbers.ipynb"]
    assert notebooks.lay_down(NEW) == list(NEW), "what was laid down then is known"


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"/notebooks": 1}'])
def test_a_damaged_record_is_named_and_nothing_is_touched(notebooks, text):
    notebooks.record.write_text(text)
    with pytest.raises(examples.ExamplesError, match=rf"{notebooks.record}, the record .* is damaged .*: remove it"):
        notebooks.plan(OLD)


def test_what_cannot_be_written_is_named(notebooks, full_disk):
    plan = notebooks.plan(OLD)
    with full_disk(0), pytest.raises(examples.ExamplesError, match=r"Welcome\.ipynb: .*ipyparallel_notebook_examples"):
        examples.apply(plan, notebooks.ownership)
    assert not notebooks.record.exists()


def test_they_are_the_accounts_and_a_link_of_its_leads_root_nowhere(account, common_path):
    """As root, in a directory of the account's that it has turned into a link."""
    for name in ("notebooks", "state", "roots"):
        (common_path / name).mkdir()
    for name in ("notebooks", "state"):
        os.chown(common_path / name, account.pw_uid, account.pw_gid)
    (common_path / "roots").chmod(0o755)
    ownership = Ownership(account.pw_name)
    directory, record = common_path / "notebooks" / "examples", common_path / "state" / "examples.json"
    plan = examples.make_plan(str(directory), str(record), OLD, ownership)
    examples.apply(plan, ownership)
    assert {path.stat().st_uid for path in (directory, record, *directory.iterdir())} == {account.pw_uid}

    directory.rename(common_path / "notebooks" / "moved")
    directory.symlink_to(common_path / "roots")
    os.lchown(directory, account.pw_uid, account.pw_gid)
    plan = examples.make_plan(str(directory), str(record), {**NEW, "Monte Carlo.ipynb": "pi\n"}, ownership)
    with pytest.raises(examples.ExamplesError, match="Permission denied"):
        examples.apply(plan, ownership)
    assert list((common_path / "roots").iterdir()) == []
