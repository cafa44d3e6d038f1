# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Someone who has never seen the collection works in parallel in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import NODES, Browse, log_in
from lab import TREE
from playwright.sync_api import Error, Page, expect
from remote import Operator

CELL = "%px import socket; print('engine on', socket.gethostname())"
PATIENCE = 60_000  # ms: the lab's machine may have other work


@pytest.fixture(scope="module")
def page(browse: Browse, authority: Path, url: str, password: str):
    with browse(authority) as context:
        page = context.pages[0]
        page.set_default_timeout(PATIENCE)
        log_in(page, url, password)
        page.wait_for_selector("#jp-top-panel")
        yield page


def test_without_the_authority_the_browser_refuses(browse: Browse, url: str) -> None:
    with browse() as context, pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
        context.pages[0].goto(f"{url}/lab")


def test_a_wrong_password_is_refused(browse: Browse, authority: Path, url: str) -> None:
    with browse(authority) as context:
        page = context.pages[0]
        log_in(page, url, "not the password")
        expect(page.locator(".message.error")).to_be_visible()
        assert "/login" in page.url


def test_a_parallel_cell_runs_on_the_engines_of_two_hosts(page: Page) -> None:
    page.click(".jp-LauncherCard[data-category=Notebook]")
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=PATIENCE)
    cell = page.locator(".jp-Notebook .jp-Cell").first.locator(".cm-content")
    cell.click()
    cell.fill(CELL)
    page.keyboard.press("Control+Enter")
    output = page.locator(".jp-Notebook .jp-OutputArea")
    for host in ("node1", "node2"):
        expect(output.get_by_text(f"engine on {host}").first).to_be_visible(timeout=PATIENCE)


def test_the_sidebar_lists_the_cluster(page: Page) -> None:
    page.click(".lm-TabBar-tab[title*=Parallel]")
    panel = page.locator(".ipp-Sidebar, .ipp-ClusterManager").first
    expect(panel.get_by_text("ipyparallel").first).to_be_visible()
    (TREE / "build").mkdir(exist_ok=True)
    page.screenshot(path=TREE / "build/notebook.png")


def test_the_sidebar_cannot_end_the_cluster(page: Page, operator: Operator) -> None:
    before = operator.pids("ipyparallel", NODES)
    assert all(before.values())
    with page.expect_response(lambda answer: "/ipyparallel/clusters/" in answer.url) as answered:
        page.locator(".ipp-ClusterListingItem-stop").first.click()
    assert answered.value.status == 409
    expect(page.get_by_text("kept running by the service managers").first).to_be_visible()
    assert operator.pids("ipyparallel", NODES) == before
