# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module itself, run as Ansible runs it, but without the respawn; argon2 is replaced by something fast."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.modules import notebook_secrets
from making_certificates import issue, make_key, pem

GIVEN = "correct horse"
KEY, AUTHORITY = make_key(), make_key()


class Hasher:
    """Reversible, in argon2's form."""

    prefix = "argon2:$argon2id$v=19$m=8,t=1,p=1$c2FsdA$"

    def passwd(self, passphrase):
        return self.prefix + passphrase.encode().hex()

    def passwd_check(self, hashed_passphrase, passphrase):
        return hashed_passphrase == self.passwd(passphrase)


@pytest.fixture(autouse=True)
def cluster_python(monkeypatch):
    monkeypatch.setattr(notebook_secrets, "load_hasher", Hasher)
    monkeypatch.setattr(notebook_secrets, "respawn", lambda module, python: True)


@pytest.fixture
def run(tmp_path, run_module):
    def _run(check=False, diff=False, **arguments):
        arguments = {"directory": str(tmp_path / "notebook"), "python": "/nowhere", **arguments}
        result = run_module(notebook_secrets, check=check, diff=diff, **arguments)
        return result, result.text

    return _run


@pytest.mark.parametrize("password", [None, GIVEN])
def test_fours(run, tmp_path, password):
    arguments = {} if password is None else {"password": password}
    assert run(check=True, **arguments)[0]["changed"]
    assert not (tmp_path / "notebook").exists()

    result, _output = run(**arguments)
    assert result["changed"]
    file = str(tmp_path / "notebook" / "password")
    assert result["password_file"] == (file if password is None else None)
    assert result["command"] == (f"cat {file}" if password is None else None)

    assert not run(check=True, **arguments)[0]["changed"]
    assert not run(**arguments)[0]["changed"]


def test_no_secret_is_returned(run, tmp_path):
    for arguments in ({}, {"password": GIVEN}, {"password": "battery staple"}):
        result, output = run(diff=True, **arguments)
        assert "password" in result["diff"]["after"]
        for path in (tmp_path / "notebook").iterdir():
            assert path.read_text().strip() not in output
        assert arguments.get("password", "\0") not in output


@pytest.mark.parametrize(
    ("password", "rule"), [("e", "is shorter than 8 characters"), ("correct\nhorse", "has a newline")]
)
def test_a_bad_password_is_refused_in_plain_words(run, tmp_path, password, rule):
    result, output = run(password=password)
    assert result["failed"]
    assert rule in result["msg"]
    assert "ipyparallel_notebook_password" in result["msg"]
    assert "****" not in result["msg"]
    assert result["invocation"]["module_args"]["password"] is None
    assert "correct" not in output
    assert not (tmp_path / "notebook").exists()


def test_a_password_that_is_part_of_a_path_stars_nothing_out(run, tmp_path):
    result, _output = run(password="notebook")
    assert result["hash_file"] == str(tmp_path / "notebook" / "password.hash")


def test_a_damaged_hash_is_warned_of(run, tmp_path):
    run()
    (tmp_path / "notebook" / "password.hash").write_text("nonsense")
    result, _output = run()
    assert any("password.hash is damaged" in str(warning) for warning in result["warnings"])


def test_a_directory_that_is_a_file_is_named(run, tmp_path):
    (tmp_path / "notebook").write_text("")
    result, _output = run()
    assert result["failed"]
    assert str(tmp_path / "notebook") in result["msg"]


def test_an_unknown_owner_is_named(run):
    result, _output = run(owner="nobody-of-this-name")
    assert result["failed"]
    assert "nobody-of-this-name" in result["msg"]


def test_check_mode_without_an_environment_says_what_it_would_do(run, monkeypatch, tmp_path):
    monkeypatch.setattr(notebook_secrets, "respawn", lambda module, python: False)
    result, _output = run(check=True, diff=True)
    assert result["changed"]
    assert result["diff"]["after"] == "password: random, made\ntoken: made\n"
    assert result["command"] == f"cat {tmp_path}/notebook/password"
    assert not os.path.exists(Path(result["hash_file"]))


def test_a_certificate_that_is_missing_is_told(run, tmp_path):
    first, _output = run(names=["DNS:node1"], authority="")
    assert first["certificate_problem"] == first["key_problem"] == "there is no private key yet"
    assert first["authority_problem"] == "there is no authority yet"
    assert first["authority_names"] == ["DNS:node1"]
    assert not first["own_certificate"]
    (tmp_path / "notebook" / "key.pem").write_text("nonsense")
    (tmp_path / "notebook" / "certificate.pem").write_text("nonsense")
    second, _output = run(names=["DNS:node1"], authority="")
    assert second["certificate_problem"] == "the private key cannot be read"


def test_nothing_is_said_of_the_users_own_certificate(run):
    for check in (True, False):
        result, _output = run(check=check, names=["DNS:node1"])
        assert result["own_certificate"]
        assert (result["certificate_problem"], result["authority_names"]) == ("", [])


@pytest.mark.parametrize(
    ("names", "days", "by", "said"),
    [
        (["DNS:node1"], 200, AUTHORITY, ("", "", "")),
        (["DNS:node1"], 10, AUTHORITY, ("in less than 30 days", "", "")),
        (
            ["DNS:node1", "IP:10.0.0.5"],
            200,
            AUTHORITY,
            ("is not for IP:10.0.0.5", "", "may not sign for IP:10.0.0.5/32"),
        ),
        (["DNS:node1"], 200, None, ("has not signed", "has not signed", "")),
    ],
)
def test_the_certificate_and_its_authority_are_looked_at(run, tmp_path, names, days, by, said):
    authority = issue((), AUTHORITY, end=3600, permitted=["DNS:node1", "DNS:node2"])
    run(authority=authority)
    (tmp_path / "notebook" / "key.pem").write_text(pem(KEY))
    (tmp_path / "notebook" / "certificate.pem").write_text(issue(["DNS:node1"], KEY, end=days, by=by))
    result, _output = run(names=names, authority=authority)
    found = [result[f"{what}_problem"] for what in ("certificate", "key", "authority")]
    assert [bool(words) for words in found] == [bool(part) for part in said]
    assert [words for words, part in zip(found, said, strict=True) if part not in words] == []
    # what it may sign for already is kept
    assert {"DNS:node1", "DNS:node2"} <= set(result["authority_names"])
    assert ("IP:10.0.0.5/32" in result["authority_names"]) == ("IP:10.0.0.5" in names)


def test_a_key_that_others_can_read_is_closed(run, tmp_path):
    run()
    key = tmp_path / "notebook" / "key.pem"
    key.write_text("secret")
    key.chmod(0o644)
    result, output = run(diff=True)
    assert result["changed"]
    assert str(key) in result["diff"]["after"]
    assert "secret" not in output.replace("notebook_secrets", "")
    assert key.stat().st_mode & 0o777 == 0o600
    assert not run()[0]["changed"]


def test_check_mode_without_an_environment_cannot_look_at_the_certificate(run, monkeypatch):
    monkeypatch.setattr(notebook_secrets, "respawn", lambda module, python: False)
    result, _output = run(check=True, authority="")
    assert result["certificate_problem"] == "there is no software to look at it with yet"


def test_a_key_that_its_account_cannot_read_is_told(run, monkeypatch, tmp_path):
    run()
    key = str(tmp_path / "notebook" / "key.pem")

    def read_text(path, ownership):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(notebook_secrets, "read_text", read_text)
    assert run(authority="")[0]["certificate_problem"] == f"{key} cannot be read by its account"
