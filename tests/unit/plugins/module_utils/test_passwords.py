# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import passwords
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership
from hypothesis import given
from hypothesis import strategies as st

GIVEN = "correct horse"
OTHER = "battery staple"


class FakeHasher:
    """Hashes that have argon2's form and are different each time, as argon2's are."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def passwd(self, passphrase: str) -> str:
        hashed = f"argon2:$argon2id$v=19$m=10240,t=10,p=8$c2FsdA{len(self.known)}$aGFzaA"
        self.known[hashed] = passphrase
        return hashed

    def passwd_check(self, hashed_passphrase: str, passphrase: str) -> bool:
        if hashed_passphrase not in self.known:
            raise ValueError("invalid hash")
        return self.known[hashed_passphrase] == passphrase


@pytest.fixture
def hasher():
    return FakeHasher()


@pytest.fixture
def paths(tmp_path):
    return passwords.Paths(str(tmp_path / "notebook"))


def plan_and_apply(paths, password, hasher):
    plan = passwords.make_plan(paths, password, hasher)
    passwords.apply(plan, paths, Ownership())
    return plan


def content(path):
    return Path(path).read_text(encoding="utf-8")


def contents(paths):
    return {path.name: path.read_text(encoding="utf-8") for path in Path(paths.directory).iterdir()}


# ---- what a good password is


@pytest.mark.parametrize("password", ["12345678", "correct horse", "pässwörter", "a" * 200, "'\"$%{{ x }}"])
def test_good_passwords(password):
    passwords.check_password(password)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("", "shorter than 8 characters"),
        ("1234567", "shorter than 8 characters"),
        ("correct\nhorse", "newline"),
        ("correct horse\n", "newline"),
        ("correct\x00horse", "control character"),
        ("correct\thorse", "control character"),
        ("correct\x7fhorse", "control character"),
        ("correct\u2028horse", "newline"),
        ("correct\udc80horse", "control character"),
        (" correct horse", "begins or ends with a space"),
        ("correct horse\u00a0", "begins or ends with a space"),
    ],
)
def test_bad_passwords_are_refused_by_rule_and_variable(password, rule):
    with pytest.raises(passwords.PasswordError, match=rule) as caught:
        passwords.check_password(password)
    assert "ipyparallel_notebook_password" in str(caught.value)
    if password:
        assert password not in str(caught.value)


@given(st.text(max_size=40))
def test_a_password_is_taken_exactly_when_the_login_form_can_carry_it(password):
    try:
        passwords.check_password(password)
    except passwords.PasswordError:
        return
    assert len(password) >= 8
    assert password == password.strip()
    assert len(password.splitlines()) == 1
    assert password.encode("utf-8")


def test_random_passwords_are_long_typable_and_not_the_same():
    made = {passwords.random_password() for dummy in range(200)}
    assert len(made) == 200
    for password in made:
        passwords.check_password(password)
        assert len(password.replace("-", "")) == 16
        assert not set(password) & set("lio01 IO'\"")


def test_random_tokens_fit_an_url_and_have_32_bytes():
    made = {passwords.random_token() for dummy in range(50)}
    assert len(made) == 50
    assert all(passwords.TOKEN.fullmatch(token) and len(token) == 43 for token in made)


# ---- fours: check, do, check again, do again


@pytest.mark.parametrize("password", [None, GIVEN])
def test_fours(paths, hasher, password):
    assert passwords.make_plan(paths, password, hasher).changed
    assert not os.path.exists(paths.directory)

    assert plan_and_apply(paths, password, hasher).changed
    before = contents(paths)
    assert set(before) == {"password.hash", "token", *(["password"] if password is None else [])}

    again = passwords.make_plan(paths, password, hasher)
    assert not again.changed
    assert again.diff == {"before": "", "after": ""}
    assert not plan_and_apply(paths, password, hasher).changed
    assert contents(paths) == before


def test_files_are_closed_and_the_token_has_no_newline(paths, hasher):
    plan_and_apply(paths, None, hasher)
    assert stat.S_IMODE(os.stat(paths.directory).st_mode) == 0o700
    for path in (paths.hash, paths.password, paths.token):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert passwords.TOKEN.fullmatch(content(paths.token))
    assert hasher.passwd_check(content(paths.hash).strip(), content(paths.password).strip())


def test_a_given_password_takes_the_place_of_a_random_one(paths, hasher):
    assert plan_and_apply(paths, None, hasher).random
    token = content(paths.token)

    plan = plan_and_apply(paths, GIVEN, hasher)
    assert plan.diff["after"] == "password: changed to the given one\n"
    assert not plan.random
    assert not os.path.exists(paths.password)
    assert hasher.passwd_check(content(paths.hash).strip(), GIVEN)
    assert content(paths.token) == token

    assert plan_and_apply(paths, OTHER, hasher).changed
    assert hasher.passwd_check(content(paths.hash).strip(), OTHER)


def test_a_given_password_is_remembered(paths, hasher):
    plan_and_apply(paths, GIVEN, hasher)
    plan = plan_and_apply(paths, None, hasher)
    assert not plan.changed
    assert not plan.random
    assert hasher.passwd_check(content(paths.hash).strip(), GIVEN)


def test_a_refused_password_changes_nothing(paths, hasher):
    plan_and_apply(paths, GIVEN, hasher)
    before = contents(paths)
    with pytest.raises(passwords.PasswordError):
        plan_and_apply(paths, "short", hasher)
    assert contents(paths) == before


# ---- damage, and runs that were interrupted


@pytest.mark.parametrize(
    "damage", [b"", b"argon2:", b"\xff\xfe", b"argon2:$argon2id$v=19$m=1,t=1,p=1$AAAA", b"sha1:aa:bb"]
)
@pytest.mark.parametrize("password", [None, GIVEN])
def test_a_damaged_hash_is_replaced_and_said_so(paths, hasher, password, damage):
    plan_and_apply(paths, password, hasher)
    valid = password or content(paths.password).strip()
    Path(paths.hash).write_bytes(damage)
    plan = plan_and_apply(paths, password, hasher)
    assert plan.warnings == [f"{paths.hash} is damaged: it is made anew"]
    assert hasher.passwd_check(content(paths.hash).strip(), valid)
    assert not passwords.make_plan(paths, password, hasher).changed


def test_a_hash_that_argon2_cannot_decode_fits_no_password(paths, hasher):
    plan_and_apply(paths, GIVEN, hasher)
    hasher.known.clear()
    assert plan_and_apply(paths, GIVEN, hasher).changed
    assert hasher.passwd_check(content(paths.hash).strip(), GIVEN)


def test_a_damaged_hash_of_a_forgotten_password_becomes_a_random_one(paths, hasher):
    plan_and_apply(paths, GIVEN, hasher)
    Path(paths.hash).write_text("nonsense")
    plan = plan_and_apply(paths, None, hasher)
    assert plan.random
    assert plan.warnings
    assert hasher.passwd_check(content(paths.hash).strip(), content(paths.password).strip())


@pytest.mark.parametrize("damage", ["", "short", "x" * 43 + "\n"])
def test_a_damaged_token_is_replaced_and_said_so(paths, hasher, damage):
    plan_and_apply(paths, GIVEN, hasher)
    Path(paths.token).write_text(damage)
    plan = plan_and_apply(paths, GIVEN, hasher)
    assert plan.warnings == [f"{paths.token} is damaged: it is made anew"]
    assert plan.diff["after"] == "token: damaged: made anew\n"
    assert passwords.TOKEN.fullmatch(content(paths.token))


def test_files_that_others_can_read_are_closed(paths, hasher):
    plan_and_apply(paths, None, hasher)
    os.chmod(paths.password, 0o644)
    plan = plan_and_apply(paths, None, hasher)
    assert plan.changed
    assert stat.S_IMODE(os.stat(paths.password).st_mode) == 0o600
    assert not passwords.make_plan(paths, None, hasher).changed


@pytest.mark.parametrize("password", [None, GIVEN])
@pytest.mark.parametrize("first", [None, OTHER])
def test_a_run_that_was_interrupted_after_any_write_is_finished_by_the_next(
    paths, hasher, monkeypatch, password, first
):
    real_write, real_unlink = passwords.write_text, os.unlink
    for fail_at in range(4):
        for path in Path(paths.directory).glob("*"):
            path.unlink()
        plan_and_apply(paths, first, hasher)
        if password is None:
            Path(paths.hash).unlink()
        steps = iter(range(10))

        def interrupted(real, steps=steps, fail_at=fail_at):
            def step(*arguments):
                if next(steps) >= fail_at:
                    raise OSError("No space left on device")
                return real(*arguments)

            return step

        monkeypatch.setattr(passwords, "write_text", interrupted(real_write))
        monkeypatch.setattr(os, "unlink", interrupted(real_unlink))
        plan = passwords.make_plan(paths, password, hasher)
        if len(plan.write) + len(plan.remove) > fail_at:
            with pytest.raises(OSError, match="No space"):
                passwords.apply(plan, paths, Ownership())
        monkeypatch.undo()

        plan_and_apply(paths, password, hasher)
        valid = password or content(paths.password).strip()
        assert hasher.passwd_check(content(paths.hash).strip(), valid)
        assert os.path.exists(paths.password) is (password is None)
        assert not passwords.make_plan(paths, password, hasher).changed


def test_a_stale_random_password_is_removed_with_a_warning(paths, hasher):
    plan_and_apply(paths, GIVEN, hasher)
    Path(paths.password).write_text("k7mq-x2hp-9rtw-cdfg\n")
    plan = plan_and_apply(paths, None, hasher)
    assert plan.warnings == [f"{paths.password} is not the password in force: it is removed"]
    assert not os.path.exists(paths.password)
    assert hasher.passwd_check(content(paths.hash).strip(), GIVEN)


def test_a_host_that_cannot_hash_yet_gets_a_plan_in_words(paths):
    plan = passwords.make_plan(paths, None, None)
    assert plan.changed
    assert plan.random
    assert plan.diff["after"] == "password: random, made\ntoken: made\n"


def test_no_secret_is_in_what_a_plan_shows(paths, hasher):
    plan = plan_and_apply(paths, None, hasher)
    shown = f"{plan.diff} {plan.warnings}"
    for path in (paths.hash, paths.password, paths.token):
        assert content(path).strip() not in shown


# ---- the account's own links


@pytest.mark.parametrize("which", ["hash", "password", "token"])
def test_a_link_of_the_accounts_leads_root_to_nothing(account, common_path, hasher, which):
    (common_path / "secret").write_text("a secret of root's")
    (common_path / "secret").chmod(0o600)
    paths = passwords.Paths(str(common_path / "notebook"))
    ownership = Ownership(account.pw_name)
    passwords.apply(passwords.make_plan(paths, None, hasher, ownership), paths, ownership)
    path = getattr(paths, which)
    os.unlink(path)
    os.symlink(common_path / "secret", path)
    with pytest.raises(PermissionError, match=path):
        passwords.make_plan(paths, None, hasher, ownership)
    os.unlink(path)
    # and the first time, when its directory is not there
    os.rename(paths.directory, common_path / "elsewhere")
    assert passwords.make_plan(paths, None, hasher, ownership).make_directory
