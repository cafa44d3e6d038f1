# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the tests of the local cluster."""

from __future__ import annotations

import pytest
from account import PROJECT, Account
from figures import of_scenario

figures, pytest_terminal_summary = of_scenario(PROJECT / "build/local.json")


@pytest.fixture(scope="session")
def account() -> Account:
    return Account()
