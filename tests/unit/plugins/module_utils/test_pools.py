# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import (
    POOL_NAME,
    Engine,
    Pool,
    PoolError,
    as_count,
    engines_by_rule,
    expected_engines,
    is_count,
    numbers_of,
    parse_ident,
    parse_memory,
    resolve_count,
    resolve_pools,
    resolve_size,
)
from hypothesis import given
from hypothesis import strategies as st

names = st.from_regex(POOL_NAME, fullmatch=True)
UNKNOWN = {"host": None, "pool": None, "core": None, "pid": None}


# ---- how many


@pytest.mark.parametrize(
    ("cores", "with_controller", "count"), [(1, True, 1), (1, False, 1), (2, True, 1), (2, False, 2), (64, True, 63)]
)
def test_the_rule_is_one_engine_per_core_and_one_fewer_beside_the_controller(cores, with_controller, count):
    assert engines_by_rule(cores, with_controller) == count


@pytest.mark.parametrize(
    ("value", "count"),
    [(None, 7), ("cores", 7), (0, 0), ("0", 0), (3, 3), (" 12 ", 12), (99999, 99999)],
)
def test_counts(value, count):
    assert resolve_count(value, "x", cores=8, with_controller=True) == count


@pytest.mark.parametrize("value", [-1, "-1", "many", "", 1.5, "1.5", True, False, [], {}, 100000, "1\n2"])
def test_a_bad_count_names_variable_value_and_what_is_allowed(value):
    with pytest.raises(PoolError) as caught:
        resolve_count(value, "ipyparallel_engines_per_host", cores=8, with_controller=True)
    for part in (repr(value), "ipyparallel_engines_per_host", "0 or more", "'cores'"):
        assert part in str(caught.value)


# ---- pools


def test_pools_have_their_own_count_or_the_hosts():
    pools = [
        {"name": "default"},
        {"name": "big", "count": 2, "environment": {"OMP_NUM_THREADS": 4}},
        {"name": "none", "count": 0},
    ]
    assert resolve_pools(pools, per_host=None, cores=4, with_controller=True) == [
        Pool("default", 3, {}),
        Pool("big", 2, {"OMP_NUM_THREADS": "4"}),
        Pool("none", 0, {}),
    ]
    assert resolve_pools([{"name": "default"}], per_host="5", cores=4, with_controller=True) == [Pool("default", 5, {})]
    assert resolve_pools([], per_host=None, cores=4, with_controller=False) == []


@pytest.mark.parametrize(
    ("pools", "names"),
    [
        ([{}], ["None", "ipyparallel_engines_pools[0].name", "lower-case"]),
        ([{"name": "a"}, {"name": "Big Pool"}], ["'Big Pool'", "ipyparallel_engines_pools[1].name", "lower-case"]),
        ([{"name": "a-b"}], ["'a-b'", "ipyparallel_engines_pools[0].name"]),
        ([{"name": "x" * 33}], ["ipyparallel_engines_pools[0].name", "32"]),
        ([{"name": 1}], ["ipyparallel_engines_pools[0].name"]),
        ([{"name": "a", "color": 1}], ["ipyparallel_engines_pools[0]", "'color'", "name, count, environment"]),
        ([{"name": "a", "hosts": "node1"}], ["'node1'", "ipyparallel_engines_pools[0].hosts", "list of hosts"]),
        ([{"name": "a", "size": "huge"}], ["'huge'", "ipyparallel_engines_pools[0].size", "small, medium, large"]),
        ([{"name": "a", "size": {"ram": 1}}], ["{'ram': 1}", "cpus (such as 0.5)"]),
        ([{"name": "a", "size": {"cpus": "two"}}], ["'two'", "ipyparallel_engines_pools[0].size.cpus"]),
        ([{"name": "a", "size": {"cpus": 0.01}}], ["0.01 CPUs", "less than one engine needs", "0.1 or more"]),
        ([{"name": "a", "size": {"memory": "lots"}}], ["'lots'", "such as 512M or 2G"]),
        ([{"name": "a", "size": {"memory": "64M"}}], ["64M", "75M", "less than one engine needs", "128M or more"]),
        ([{"name": "a"}, {"name": "a"}], ["ipyparallel_engines_pools[1]", "two pools 'a'", "name of its own"]),
        ([{"name": "a", "count": -1}], ["-1", "ipyparallel_engines_pools[0].count", "0 or more"]),
        ([{"name": "a", "environment": "A=1"}], ["'A=1'", "ipyparallel_engines_pools[0].environment"]),
        ([{"name": "a", "environment": ["A"]}], ["['A']", "ipyparallel_engines_pools[0].environment"]),
        ([{"name": "a", "environment": {"A B": 1}}], ["'A B'", "ipyparallel_engines_pools[0].environment"]),
        ([{"name": "a", "environment": {"": 1}}], ["''", "ipyparallel_engines_pools[0].environment"]),
        ([{"name": "a", "environment": {"A": "1\n2"}}], ["A", "ipyparallel_engines_pools[0].environment", "one line"]),
    ],
)
def test_a_bad_pool_names_the_variable_the_value_and_the_remedy(pools, names):
    with pytest.raises(PoolError) as caught:
        resolve_pools(pools, None, 4, True)
    assert [part for part in names if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("1k", 1024),
        ("1.5G", 3 * 2**29),
        ("512 MiB", 2**29),
        ("2GB", 2**31),
        ("1T", 2**40),
    ],
)
def test_amounts_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 2", True, None, [], "1e3"])
def test_what_is_no_amount_of_memory(text):
    assert parse_memory(text) is None


def test_sizes_are_named_or_given():
    assert resolve_size("small", "x") == (1, 2**30)
    assert resolve_size({"cpus": "0.5"}, "x") == (0.5, None)
    assert resolve_size({"memory": "1G"}, "x") == (None, 2**30)
    assert resolve_size('{"cpus": 0.5, "memory": "1G"}', "x") == (0.5, 2**30)
    assert resolve_size(None, "x") == resolve_size("", "x") == (None, None)


def test_a_pool_is_on_the_hosts_that_it_names():
    pools = [{"name": "a", "count": 2, "hosts": ["node2"], "size": "medium", "code": "x = 1"}]
    assert resolve_pools(pools, None, 4, True, "node1")[0].count == 0
    assert resolve_pools(pools, None, 4, True, "node2") == [Pool("a", 2, {}, 2, 4 * 2**30, "x = 1")]


@given(st.sets(st.integers(0, 20)))
def test_numbers_are_remembered_as_a_count_where_they_are_one(numbers):
    count = as_count(numbers)
    assert set(numbers_of(count)) == numbers
    assert is_count(count)
    assert isinstance(count, int) == (numbers == set(range(len(numbers))))


def test_a_bad_count_for_the_host_is_told_by_its_own_variable():
    with pytest.raises(PoolError, match="set ipyparallel_engines_per_host"):
        resolve_pools([{"name": "default"}], "many", 4, True)


# ---- idents


def engine_configuration():
    """Return the functions of the engines' configuration file, which is no module."""
    text = (Path(__file__).parents[4] / "roles/engines/files/ipengine_config.py").read_text(encoding="utf-8")
    functions = {}
    exec(text.partition("\ntry:\n")[0], functions)
    return functions


QUOTE = engine_configuration()["quote"]


@given(
    st.text(min_size=1), names, st.integers(0, 10**6), st.integers(1, 2**22), st.text("0123456789abcdef", min_size=1)
)
def test_an_ident_tells_where_the_engine_runs(host, pool, core, pid, random):
    ident = "__".join([QUOTE(host), QUOTE(pool), str(core), str(pid), random])
    assert parse_ident(ident) == {"host": host, "pool": pool, "core": core, "pid": pid}
    assert f"_{ident.replace('-', '')}_f".isidentifier(), "broadcast views make names of it"


@pytest.mark.parametrize(
    "ident",
    [
        "",
        "6fb7a9d4-0d1d5f5b5e3a",
        "a__b__c__d__e",
        "node1__default__0__x__aa",
        "node1__default__\u00b2__1__aa",
        "________",
    ],
)
def test_a_foreign_ident_tells_nothing(ident):
    assert parse_ident(ident) == UNKNOWN


@given(st.text())
def test_no_ident_is_an_error(ident):
    assert set(parse_ident(ident)) == set(UNKNOWN)


# ---- what is expected


def test_the_engines_one_by_one():
    counts = {"node1": {"default": 2, "big": 1}, "node2": {"default": 0}, "node3": {}}
    assert expected_engines(counts) == {
        Engine("node1", "default", 0),
        Engine("node1", "default", 1),
        Engine("node1", "big", 0),
    }
    assert str(Engine("node1", "default", 1)) == "node1 default/1"
