# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import stat

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import (
    StateError,
    read_state,
    remember,
    shown,
    state_path,
    write_state,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

words = st.text("abc_-.09", min_size=1, max_size=8)
counts = st.integers(0, 100) | st.lists(st.integers(0, 9), max_size=3)
engines = st.dictionaries(words, st.dictionaries(words, counts, max_size=3), max_size=3)


EMPTY = {
    "engines": {},
    "defined": {},
    "notebooks": {},
    "pools": {},
    "scaled": {},
    "packages": [],
    "lease": {},
}


def test_a_new_cluster_remembers_nothing(tmp_path):
    assert read_state(str(tmp_path)) == EMPTY


@given(engines)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_written_reads_back(tmp_path, counts):
    state = {"engines": counts, "notebooks": {"node1": {"url": "https://127.0.0.1:8888/lab"}}}
    write_state(str(tmp_path), state)
    assert read_state(str(tmp_path)) == {**EMPTY, **state}


def test_what_this_version_does_not_know_is_kept(tmp_path):
    write_state(str(tmp_path), {"later": {"by": "ada"}, "engines": {}})
    assert read_state(str(tmp_path))["later"] == {"by": "ada"}


def test_the_file_is_private_and_the_same_in_another_order(tmp_path):
    write_state(str(tmp_path), {"engines": {"b": {}, "a": {}}})
    first = (tmp_path / "cluster.json").read_text()
    write_state(str(tmp_path), {"engines": {"a": {}, "b": {}}})
    assert (tmp_path / "cluster.json").read_text() == first
    assert stat.S_IMODE(os.stat(state_path(str(tmp_path))).st_mode) == 0o600


def test_a_full_disk_leaves_what_was_remembered(tmp_path, full_disk):
    write_state(str(tmp_path), {"engines": {"node1": {"default": 1}}})
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_state(str(tmp_path), {"engines": {}})
    assert read_state(str(tmp_path))["engines"] == {"node1": {"default": 1}}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "1",
        '"x"',
        '{"engines": []}',
        '{"engines": null}',
        '{"engines": {"node1": 2}}',
        '{"engines": {"node1": {"default": "2"}}}',
        '{"notebooks": []}',
        '{"engines": {"node1": {"default": -1}}}',
        '{"engines": {"node1": {"default": true}}}',
        '{"scaled": {"node1": {"default": ["0"]}}}',
        '{"scaled": {"node1": 1}}',
        '{"pools": []}',
        '{"packages": {}}',
        '{"lease": null}',
        "\0\0\0",
    ],
)
def test_a_broken_state_names_file_and_remedy(tmp_path, content):
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(StateError) as caught:
        read_state(str(tmp_path))
    for part in (f"{tmp_path}/cluster.json", "remove it", "ipyparallel.cluster.deploy"):
        assert part in str(caught.value)


def test_a_diff_shows_no_code_and_not_who_is_at_work():
    state = {"pools": {"a": {"code": "token = 'hush'"}, "b": {"hosts": {}}}, "lease": {"holder": "ada@laptop"}}
    text = json.dumps(shown(state))
    assert "hush" not in text
    assert "ada" not in text
    assert shown(state)["pools"]["b"] == {"hosts": {}}
    assert shown(state) != shown({**state, "pools": {**state["pools"], "a": {"code": "token = 'other'"}}})


def test_hosts_that_are_not_named_keep_what_they_have():
    before = {
        "engines": {"node1": {"default": 2, "big": 1}, "node2": {"default": 2}},
        "notebooks": {"node1": {"url": "one"}},
        "lease": 1,
    }
    copy = json.loads(json.dumps(before))
    after = remember(before, engines={"node2": {"default": 3}, "node3": {}}, notebooks={})
    assert after == {
        "engines": {"node1": {"default": 2, "big": 1}, "node2": {"default": 3}, "node3": {}},
        "notebooks": {"node1": {"url": "one"}},
        "lease": 1,
    }
    assert before == copy
    assert remember({}, engines={"node1": {}}) == {"engines": {"node1": {}}}
