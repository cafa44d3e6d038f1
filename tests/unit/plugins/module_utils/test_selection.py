# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import SelectionError, in_words, select

ENGINES = [
    {"id": 0, "host": "node1", "pool": "default"},
    {"id": 1, "host": "node1", "pool": "large"},
    {"id": 4, "host": "node2", "pool": "default"},
    # one that somebody else has started
    {"id": 7, "host": None, "pool": None},
]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, [0, 1, 4, 7]),
        ({"ids": [4, 0]}, [0, 4]),
        ({"hosts": ["node1"]}, [0, 1]),
        ({"pools": ["default"]}, [0, 4]),
        ({"hosts": ["node1"], "pools": ["default", "large"]}, [0, 1]),
        ({"ids": [0, 1, 7], "hosts": ["node1"], "pools": ["large"]}, [1]),
    ],
)
def test_engines_that_are_meant(wanted, ids):
    assert [engine["id"] for engine in select(ENGINES, **wanted)] == ids


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"ids": [0, 5, 6]}, ["no engine 5, 6", "0, 1, 4, 7"]),
        ({"hosts": ["node3"]}, ["no host node3", "node1, node2"]),
        ({"pools": ["small", "large"]}, ["no pool small", "default, large"]),
        ({"hosts": ["node2"], "pools": ["large"]}, ["no engine is in all of", "node2", "large"]),
    ],
)
def test_what_is_not_there_is_named_with_what_is(wanted, names):
    with pytest.raises(SelectionError) as raised:
        select(ENGINES, **wanted)
    assert [name for name in names if name not in str(raised.value)] == []


def test_a_cluster_without_engines():
    with pytest.raises(SelectionError, match="has no engines"):
        select([], ids=[0])


def test_long_lists_are_short():
    assert in_words(range(100)).endswith("18, 19 ...")
    assert in_words([]) == "none"
