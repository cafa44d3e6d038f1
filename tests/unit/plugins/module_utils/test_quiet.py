# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.quiet import QuietModule
from ansible_collections.ipyparallel.cluster.plugins.modules import (
    change_engines,
    execute,
    preflight,
    process,
    python_environment,
)

SECRETS = {
    *("code", "shell", "environment", "pools_code", "files", "notebook_password", "lease", "engines_environment"),
    *("packages", "flags", "lock"),
}


def test_only_what_is_named_is_logged():
    module = QuietModule.__new__(QuietModule)
    said: list[str] = []
    module.params, module.logged, module.log = {"hosts": ["node1"], "code": "secret"}, ("hosts",), said.append
    module._log_invocation()
    assert said == ["hosts=['node1']"]


@pytest.mark.parametrize("module", [change_engines, execute, preflight, process, python_environment])
def test_no_module_logs_code_files_or_secrets(module):
    assert issubclass(module.Module, QuietModule)
    assert module.Module.logged
    assert not SECRETS & set(module.Module.logged)
