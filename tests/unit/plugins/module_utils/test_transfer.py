# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import transfer
from ansible_collections.ipyparallel.cluster.plugins.module_utils.transfer import TransferError

GROUPS = {
    "all": ["other", "node1", "node2", "node3"],
    "alpha": ["node1", "node2", "node3"],
    "alpha_controller": ["node1"],
    "alpha_engines": ["node2", "node3"],
}


@pytest.mark.parametrize(
    ("wanted", "hosts"),
    [
        (None, ["node1", "node2", "node3"]),
        ([], ["node1", "node2", "node3"]),
        ("", ["node1", "node2", "node3"]),
        ("node3", ["node3"]),
        ("node3, node1", ["node1", "node3"]),
        (["engines", "node2"], ["node2", "node3"]),
        ("controller,engines", ["node1", "node2", "node3"]),
        ("notebook", []),
    ],
)
def test_hosts_by_name_and_by_what_they_are(wanted, hosts):
    assert transfer.choose_hosts(wanted, "alpha", GROUPS, "x") == hosts


@pytest.mark.parametrize("wanted", ["other", ["node1", "other"]])
def test_an_unknown_host_names_the_known_ones(wanted):
    with pytest.raises(
        TransferError, match=r"put_hosts: there is no host other in cluster alpha; .*: node1, node2, node3"
    ):
        transfer.choose_hosts(wanted, "alpha", GROUPS, "put_hosts")


def test_a_path_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    for given in ("data", "./data/", "~/data", str(tmp_path / "data")):
        assert transfer.existing_path(given, "x") == str(tmp_path / "data")
    with pytest.raises(TransferError, match=rf"put_source: {tmp_path}/nix does not exist on this machine"):
        transfer.existing_path("nix", "put_source")
    for given in ("", None):
        with pytest.raises(TransferError, match="set put_source to a file"):
            transfer.existing_path(given, "put_source")


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("", "/home/a/"),
        (None, "/home/a/"),
        ("x/y", "/home/a/x/y"),
        ("/data", "/data"),
        ("~b/x", "~b/x"),
        ("~", "/home/a/"),
        ("~/x", "/home/a/x"),
        ("~//x", "/home/a/x"),
    ],
)
def test_relative_paths_are_below_the_home(path, there):
    assert transfer.below("/home/a", path) == there


@pytest.mark.parametrize(
    ("path", "directory", "pattern"),
    [
        ("a.csv", "~", "a.csv"),
        ("results/*.csv", "~/results", "*.csv"),
        ("/data/job/", "/data", "job"),
        ("~b/x", "~b", "x"),
        ("/x", "/", "x"),
    ],
)
def test_patterns(path, directory, pattern):
    assert transfer.pattern_of(path, "x") == {"directory": directory, "pattern": pattern}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "nothing is given: set get_source"),
        ("a*/b", "wildcard in its directory"),
        ("~", "has no name"),
        ("~b", "has no name"),
        ("/", "has no name"),
        ("..", "has no name"),
    ],
)
def test_what_is_no_pattern(path, words):
    with pytest.raises(TransferError, match=words):
        transfer.pattern_of(path, "get_source")


def found(path, is_file=True):
    return {"path": path, "isreg": is_file, "isdir": not is_file and not path.endswith("link")}


def test_files_and_directories_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matches = [found("/home/a/job", is_file=False), found("/home/a/job.txt"), found("/home/a/job.link", is_file=False)]
    inside = [found("/home/a/job/x.csv"), found("/home/a/job/sub/y z.csv"), found("/home/a/job/link", is_file=False)]
    assert transfer.plan(matches, inside, "job*", "", "node1", several=False) == [
        {"src": "/home/a/job.txt", "dest": f"{tmp_path}/job.txt"},
        {"src": "/home/a/job/sub/y z.csv", "dest": f"{tmp_path}/job/sub/y z.csv"},
        {"src": "/home/a/job/x.csv", "dest": f"{tmp_path}/job/x.csv"},
    ]
    several = transfer.plan(matches, inside, "job*", "got", "node1", several=True)
    assert several[0]["dest"] == f"{tmp_path}/got/node1/job.txt"
    assert transfer.plan([], [], "x", "", "node1", several=True) == []


@pytest.mark.parametrize(
    ("matches", "inside"),
    [
        # another directory than that of the first, or no directory at all
        ([found("/home/a/job/x"), found("/home/ada/.bashrc")], []),
        ([found("/home/a/job/x"), found("/home/a/job/../../ada/x")], []),
        ([found("/home/a/job/../x")], []),
        ([found("../x")], []),
        ([found("x")], []),
        # another name than what was asked for
        ([found("/home/a/.bashrc")], []),
        ([found("/home/a/..", is_file=False)], []),
        # not in what matches
        ([found("/home/a/x", is_file=False)], [found("/home/ada/.bashrc")]),
        ([found("/home/a/x", is_file=False)], [found("/home/a/x.csv")]),
        ([found("/home/a/x", is_file=False)], [found("/home/a/x/../../ada/.bashrc")]),
        ([found("/home/a/x", is_file=False)], [found("/home/a/x/../.bashrc")]),
        ([found("/home/a/x")], [found("/home/a/x/y")]),
        ([], [found("/home/ada/.bashrc")]),
    ],
)
def test_a_host_does_not_say_where_its_files_are_written(tmp_path, matches, inside):
    with pytest.raises(TransferError, match=r"node1 answers with .*, which was not asked for"):
        transfer.plan(matches, inside, "x*", str(tmp_path), "node1", several=False)


def test_what_is_at_the_top(tmp_path):
    assert transfer.plan([found("/x")], [], "x", str(tmp_path), "node1", several=False) == [
        {"src": "/x", "dest": os.path.join(tmp_path, "x")}
    ]


def test_problems_are_told_and_not_raised(tmp_path):
    assert transfer.transfer_or_problem(str(tmp_path), "put", "engines", "alpha", GROUPS) == {
        "source": str(tmp_path),
        "hosts": ["node2", "node3"],
        "problem": "",
    }
    assert (
        "ipyparallel_put_hosts: there is no host"
        in (transfer.transfer_or_problem(str(tmp_path), "put", "nix", "alpha", GROUPS)["problem"])
    )
    assert transfer.transfer_or_problem("x/*", "get", [], "alpha", GROUPS)["source"] == {
        "directory": "~/x",
        "pattern": "*",
    }
    assert "set ipyparallel_get_source" in transfer.transfer_or_problem("", "get", [], "alpha", GROUPS)["problem"]
