# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import usage
from hypothesis import given
from hypothesis import strategies as st

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:   12000000 kB
HugePages_Total:       0
"""


def test_memory_is_in_bytes():
    total, available = 16_000_000 * 1024, 12_000_000 * 1024
    assert usage.memory(MEMINFO) == {"total": total, "available": available, "used": total - available}


def test_without_the_kernel_s_own_estimate_what_is_free_counts():
    text = MEMINFO.replace("MemAvailable", "MemSomething")
    assert usage.memory(text)["available"] == 1_000_000 * 1024


@given(st.text())
def test_any_text_is_read(text):
    assert set(usage.memory(text)) == {"total", "available", "used"}


def test_this_host():
    found = usage.usage("nothing_of_this_name", "user")
    assert 0 < found["memory_available_bytes"] <= found["memory_total_bytes"]
    assert found["memory_used_bytes"] == found["memory_total_bytes"] - found["memory_available_bytes"]
    assert found["cores"] >= 1
    assert len(found["load_average"]) == 3
    assert found["uptime_seconds"] > 0
    assert found["processes"] == []
    assert found["certificate_days"] is None


def test_where_the_first_process_is_hidden_the_machine_s_boot_counts(monkeypatch):
    monkeypatch.setattr(usage, "stat_fields", lambda pid: [])
    assert usage.uptime() > 0


def test_processes_of_this_cluster(python):
    def start(cluster, process, instance=""):
        marks = {"CLUSTER": cluster, "PROCESS": process, "INSTANCE": instance, "RUN": "/run/x"}
        return python(environment={f"IPYPARALLEL_{name}": value for name, value in marks.items()})

    engine, controller = start("alpha", "engines-default", "1"), start("alpha", "controller")
    start("beta", "controller")
    found = usage.processes("alpha", "/run/x")
    assert [(one["name"], one["pid"]) for one in found] == [
        ("controller", controller.pid),
        ("engines-default-1", engine.pid),
    ]
    for one in found:
        assert 0 <= one["uptime_seconds"] < 60
        assert 1_000_000 < one["memory_bytes"] < 1_000_000_000
    assert usage.processes("alpha", "/run/y") == []


@pytest.mark.parametrize("pid", [2**22 + 1])
def test_a_process_that_is_gone_has_no_memory(pid):
    assert usage.resident(pid) == 0
    assert usage.resident(os.getpid()) > 0
