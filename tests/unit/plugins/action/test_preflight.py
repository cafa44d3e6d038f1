# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.ipyparallel.cluster.plugins.action import preflight
from making_certificates import issue, make_key, pem

KEY = make_key()


@pytest.fixture
def at(monkeypatch):
    """The operator's clock, which says one time after the other."""

    def set_clock(*times):
        said = iter(times)
        monkeypatch.setattr(preflight, "time", type("Clock", (), {"time": staticmethod(lambda: next(said))}))

    return set_clock


@pytest.mark.parametrize(
    ("theirs", "clock"), [(1001.5, [-0.5, 1.5]), (1000.0, [-2.0, 0.0]), (4601.0, [3599.0, 3601.0]), (1, [-1001, -999])]
)
def test_the_clock_is_known_as_well_as_the_question_was_short(run_action, at, theirs, clock):
    at(1000.0, 1002.0)
    result = run_action(preflight.ActionModule, lambda **_given: {"changed": False, "time": theirs, "cores": 4})
    assert result["clock"] == clock
    assert result["cores"] == 4


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "no room"}, {"unreachable": True}, {"time": "noon"}])
def test_a_host_without_an_answer_has_no_clock(run_action, answer):
    result = run_action(preflight.ActionModule, lambda **_given: answer)
    assert "clock" not in result
    assert {name: result[name] for name in answer} == answer


def test_really(run_action):
    (behind, ahead) = run_action(preflight.ActionModule, lambda **_given: {"time": time.time()})["clock"]
    assert -1 < behind <= 0 <= ahead < 1


# ---- the user's own certificate


@pytest.fixture
def look(run_action, tmp_path, monkeypatch):
    """Look at a certificate and a key of these texts; None leaves one out."""

    def run(certificate, key, notebook="https://node1:8888", reached=("DNS:node1",)):
        paths = {"notebook_certificate": "cert.pem", "notebook_key": "key.pem"}
        monkeypatch.chdir(tmp_path)
        given = {}
        for (option, path), text in zip(paths.items(), (certificate, key), strict=True):
            if text:
                (tmp_path / path).write_text(text)
            given[option] = "" if text is None else path
        answer = {"notebook": notebook, "reached_at": list(reached)}
        result = run_action(preflight.ActionModule, lambda **_given: dict(answer), **given)
        assert "PRIVATE" not in str({**result, "certificate_problem": ""})
        return result.get("certificate_problem")

    return run


def test_an_own_certificate_that_will_do(look):
    assert look(issue(["DNS:node1"], KEY), pem(KEY)) == ""
    assert look(None, None) == ""
    assert look("nonsense", None, notebook={}) is None, "the host has no notebook"


def test_files_are_named_as_they_are_found(look, tmp_path):
    said = look(issue(["DNS:other"], KEY), pem(KEY))
    assert said.startswith(f"{tmp_path}/cert.pem (ipyparallel_notebook_certificate) is for other, ")
    (tmp_path / "key.pem").unlink()
    said = look(issue(["DNS:node1"], KEY), "")
    assert f"cannot read {tmp_path}/key.pem (ipyparallel_notebook_key) on the operator's machine: " in said
    assert "No such file" in said


@pytest.mark.parametrize("missing", ["ipyparallel_notebook_certificate", "ipyparallel_notebook_key"])
def test_one_of_the_two_alone_is_refused(look, missing):
    said = look(*(None if missing.endswith(name) else "x" for name in ("certificate", "key")))
    assert f"{missing} is not given: set both" in said
    assert ".pem" in said


def test_a_key_of_ansible_vault(look, tmp_path, monkeypatch):
    secrets = [("default", VaultSecret(b"a password"))]
    text = VaultLib(secrets).encrypt(pem(KEY)).decode()
    said = look(issue(["DNS:node1"], KEY), text)
    assert f"cannot read {tmp_path}/key.pem" in said
    assert "vault" in said
    made = DataLoader.__init__
    monkeypatch.setattr(DataLoader, "__init__", lambda self: made(self) or self.set_vault_secrets(secrets))
    assert look(issue(["DNS:node1"], KEY), text) == ""
