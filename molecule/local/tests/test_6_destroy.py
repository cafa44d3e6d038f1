# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make destroy` leaves nothing but the notebooks, and says where they are."""

from __future__ import annotations

from typing import Any

from account import NOTEBOOK_PORT, PORT_BASE, Account


def test_destroy_leaves_the_notebooks_only(account: Account, host: Any) -> None:
    account.ok("echo mine > ~/notebooks/mine.ipynb")
    said = account.ok("make destroy")
    assert f"{account.home}/notebooks" in said
    assert (account.home / "notebooks/mine.ipynb").read_text() == "mine\n"
    assert account.marked(cluster="ipyparallel") == {}
    assert [
        port
        for port in (*range(PORT_BASE, PORT_BASE + 20), NOTEBOOK_PORT)
        if host.socket(f"tcp://127.0.0.1:{port}").is_listening
    ] == []
    assert account.files_of("ipyparallel") == []
    assert not (account.home / ".local/state/ipyparallel").exists()


def test_destroy_again_changes_nothing(account: Account) -> None:
    assert "changed=0 " in account.ok("make destroy")


def test_destroyed_is_not_deployed(account: Account) -> None:
    status = account.status()
    assert not status["deployed"]
    assert "deploy" in status["problem"]
