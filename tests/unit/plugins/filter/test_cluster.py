# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ipyparallel.cluster.plugins.filter import cluster as filters

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        (["alpha", "alpha_controller", "alpha_engines", "alpha_notebook"], ["controller", "engines", "notebook"]),
        (["alpha_notebook", "alpha_controller"], ["controller", "notebook"]),
        (["alpha", "beta_controller"], []),
        (["beta_alpha_engines", "alpha_engines_"], []),
        ([], []),
    ],
)
def test_what_a_host_is(groups, roles):
    assert filters.host_roles(groups, "alpha") == roles


# ---- requirements


def test_no_requirements():
    assert filters.requirement_lines("") == []


def test_requirements_at_a_url_are_read_where_they_are_installed():
    assert filters.requirement_lines("https://example.org/r.txt") == ["--requirement https://example.org/r.txt"]


def test_requirements_of_a_file(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("""\
# what we need
scipy  # for signals
attrs\t# for classes
pandas>=2 ; python_version > "3.10"

demo @ https://example.org/demo-1.0.whl#sha256=aa
--extra-index-url https://example.org/simple
""")
    assert filters.requirement_lines(str(path)) == [
        "scipy",
        "attrs",
        'pandas>=2 ; python_version > "3.10"',
        "demo @ https://example.org/demo-1.0.whl#sha256=aa",
        "--extra-index-url https://example.org/simple",
    ]


def test_a_requirement_with_its_hashes_stays_whole(tmp_path):
    """What is installed is sorted: the second line of a requirement must not become one of its own."""
    path = tmp_path / "requirements.txt"
    path.write_text("six==1.16.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via nothing\nattrs==1\n")
    lines = filters.requirement_lines(str(path))
    assert [line.split() for line in lines] == [
        ["six==1.16.0", "--hash=sha256:aa", "--hash=sha256:bb"],
        ["attrs==1"],
    ]


def test_requirements_that_cannot_be_read_name_variable_and_file(tmp_path):
    with pytest.raises(AnsibleFilterError) as caught:
        filters.requirement_lines(str(tmp_path / "none.txt"))
    for part in ("ipyparallel_requirements", f"{tmp_path}/none.txt", "No such file"):
        assert part in str(caught.value)


# ---- what hosts told


def told(pools=(), notebook=None, password=None, roles=("engines", "notebook")):
    preflight = {"pools": list(pools), "notebook": notebook or {}}
    values = {filters.PREFLIGHT: preflight, "ipyparallel_host_roles": list(roles)}
    return {**values, **({filters.SECRETS: password} if password else {})}


def test_counts_of_engines_are_those_of_the_hosts_that_are_asked_for():
    pools = {
        "node1": [{"name": "default", "instances": [0], "defined": 1}, {"name": "big", "instances": [], "defined": 2}],
        "node2": [{"name": "workers", "instances": [0, 2], "defined": None}],
        "node4": [{"name": "default", "instances": [0], "defined": 1}],
    }
    hosts = ["node1", "node2", "node3"]
    assert filters.engine_counts(pools, hosts) == {"node1": {"default": 1, "big": 0}, "node2": {"workers": [0, 2]}}
    assert filters.defined_counts(pools, hosts) == {"node1": {"default": 1, "big": 2}, "node2": {}}


@pytest.mark.parametrize(
    ("wanted", "new"), [([], ["node3", "node4"]), ("node4, node1", ["node4"]), (["node3"], ["node3"]), ("node1", [])]
)
def test_hosts_to_add_are_those_that_the_cluster_has_not(wanted, new):
    there = ["node1", "node2", "node3", "node4"]
    assert filters.new_hosts(wanted, there, {"node1": {}, "node2": {}}) == new


@pytest.mark.parametrize(
    ("value", "names"),
    [("", []), (None, []), ([], []), ("node2, node3", ["node2", "node3"]), (" ,a,", ["a"]), ([0, "b "], ["0", "b"])],
)
def test_lists_of_an_operator(value, names):
    assert filters.words(value) == names
    assert filters.words(0) == ["0"]


def test_a_host_to_add_has_to_be_in_the_inventory():
    with pytest.raises(AnsibleFilterError, match="node9 is no engine host of the inventory, which has node1, node2"):
        filters.new_hosts("node9", ["node1", "node2"], {})


@pytest.mark.parametrize(("wanted", "missing"), [([], "node3, node4"), ("node2,node4", "node4")])
def test_hosts_to_add_have_to_be_part_of_the_run(wanted, missing):
    there = ["node1", "node2", "node3", "node4"]
    deployed = ["node1"] if wanted else ["node1", "node2"]
    with pytest.raises(AnsibleFilterError, match=f"^{missing}: new, and left out of this run: add it to --limit"):
        filters.new_hosts(wanted, there, deployed, ["node3", "node4"])
    assert filters.new_hosts([], there, ["node1"], ["node2", "node3"]) == ["node4"]
    assert filters.new_hosts([], there, there, ["node3", "node4"]) == []


def test_engines_at_places():
    engines = [{"host": "a", "pool": "p", "core": core, "id": core} for core in range(3)]
    assert filters.at_places(engines, None) == engines
    assert filters.at_places(engines, [{"host": "a", "pool": "p", "core": 1, "more": 1}]) == engines[1:2]


def test_the_text_of_a_start_up_script_becomes_its_code(tmp_path):
    (tmp_path / "start.py").write_text("x = 1\n")
    script = str(tmp_path / "start.py")
    pools = [{"name": "a", "script": script, "code": "lost"}, {"name": "b", "code": "y = 2"}]
    assert [pool["code"] for pool in filters.with_startup(pools)] == ["x = 1\n", "y = 2"]
    with pytest.raises(AnsibleFilterError, match="cannot read /nowhere"):
        filters.with_startup([{"name": "a", "script": "/nowhere"}])


def test_notebooks_are_those_that_this_run_laid_down():
    notebook = {"url": "https://127.0.0.1:8888/lab"}
    hostvars = {
        "node1": told(notebook=notebook, password={"command": "cat /x"}),
        "node2": told(notebook=notebook, password={"changed": False, "own_certificate": True}),
        "node3": told(notebook=notebook),
        "node4": told(password={"command": "cat /x"}),
        "node5": {},
    }
    assert filters.notebooks(hostvars) == {
        "node1": {**notebook, "password_command": "cat /x", "own_certificate": None},
        "node2": {**notebook, "password_command": None, "own_certificate": True},
    }


# ---- the names by which playbooks and roles know them


def test_every_filter_that_is_used_is_there():
    used = set()
    for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/**/*.yml")]:
        used |= set(re.findall(r"\|\s*ipyparallel\.cluster\.(\w+)", path.read_text()))
    assert used
    assert used <= set(filters.FilterModule().filters())


@pytest.mark.parametrize("variable", [filters.PREFLIGHT, filters.SECRETS])
def test_the_variables_that_filters_read_are_registered(variable):
    texts = [path.read_text() for path in ROOT.glob("roles/*/tasks/*.yml")]
    assert any(f"register: {variable}\n" in text for text in texts)


PREFLIGHT = "__ipyparallel_common_host"


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({"ipyparallel_address": "10.0.0.1", PREFLIGHT: {"address": "10.0.0.2"}}, "10.0.0.1"),
        # the paths of a host are no place for addresses
        ({"__ipyparallel_common_paths": {"address": "10.0.0.2"}}, ""),
        ({PREFLIGHT: {"address": "10.0.0.3"}, "ansible_facts": {"default_ipv4": {"address": "10.0.0.4"}}}, "10.0.0.3"),
        ({"ansible_facts": {"default_ipv4": {"address": "10.0.0.4"}}}, "10.0.0.4"),
        ({PREFLIGHT: {}, "ansible_facts": {"default_ipv4": {}}, "ansible_host": "10.0.0.5"}, ""),
        ({}, ""),
    ],
)
def test_host_address(values, address):
    assert filters.host_address(values) == address


@pytest.mark.parametrize(
    ("address", "port"),
    [("127.0.0.1", None), ("::1", None), ("localhost", None), ("0.0.0.0", 8888), ("10.0.0.1", 8888), ("node1", 8888)],
)
def test_firewall_hosts(address, port):
    hostvars = {
        "node1": {
            "ipyparallel_address": "10.0.0.1",
            "ipyparallel_host_roles": ["notebook"],
            PREFLIGHT: {"notebook": {"address": address, "port": 8888}},
        },
        "node2": {PREFLIGHT: {"address": "10.0.0.2"}},
        "node3": {},
        "node4": {"ipyparallel_address": "10.0.0.4"},
    }
    assert filters.firewall_hosts(hostvars, ["node1", "node2", "node3"]) == {
        "node1": {"address": "10.0.0.1", "roles": ["notebook"], "notebook_port": port},
        "node2": {"address": "10.0.0.2", "roles": [], "notebook_port": None},
    }


# ---- preflights


def test_the_preflights_of_a_run_are_those_of_its_hosts():
    hostvars = {
        "node1": {filters.PREFLIGHT: {"machine": "a"}},
        "node2": {filters.PREFLIGHT: {"failed": True, "msg": "no room"}},
        "unreachable": {},
        "elsewhere": {filters.PREFLIGHT: {"machine": "b"}},
    }
    found = filters.preflights(hostvars, ["node1", "node2", "unreachable"])
    assert found == {"node1": {"machine": "a"}, "node2": {"failed": True, "msg": "no room"}}


def test_the_text_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text("a = 5\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert filters.text_of_file("~/job.py") == "a = 5\n"


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"\xff\xfe\x00", "no text in UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, why):
    path = tmp_path / "job.py"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnsibleFilterError) as raised:
        filters.text_of_file(str(path))
    assert str(path) in str(raised.value)
    assert why in str(raised.value)


# ---- status


def test_the_status_takes_each_host_s_own_answer():
    groups = {"alpha": ["node1", "node2"], "alpha_controller": ["node1"], "all": ["node1", "node2", "node3"]}
    hostvars = {
        "localhost": {"groups": groups},
        "node1": {"ipyparallel_host_roles": ["controller"], filters.HOST: {"skipped": True}},
        "node2": {"ipyparallel_host_roles": ["engines"], filters.HOST: {"host": {"cores": 8}, "problem": ""}},
        "node3": {},
    }
    cluster = {"deployed": True, "running": True, "engines": [], "expected_by_host": {}, "problem": ""}
    found = filters.overview_of({"cluster": cluster, "host": {"cores": 2}}, hostvars, "alpha")
    assert {name: host["cores"] for name, host in found["hosts"].items()} == {"node1": 2, "node2": 8}
    assert found["hosts"]["node2"]["roles"] == ["engines"]


def test_logs_of_the_hosts_of_a_play():
    hostvars = {"node1": {filters.LOGS: {"logs": [], "problem": "unreachable: x"}}, "node2": {}, "node3": {}}
    assert filters.logs(hostvars, ["node1", "node2"]).splitlines() == [
        "no logs of node1: unreachable: x",
        "no logs of node2: it has failed, as said above",
    ]


def test_files_that_were_brought():
    hostvars = {
        "node1": {filters.FETCHED: {"results": [{}, {}]}},
        "node2": {filters.FETCHED: {"skipped": True}},
        "node3": {},
        "node4": {filters.FETCHED: {"results": [{}]}},
    }
    assert filters.files_brought(hostvars, ["node1", "node2", "node3"]) == 2


def test_logins_of_the_hosts_of_a_play():
    login = {"lines": ["HostName x"], "left_out": [], "changed": False}
    hostvars = {"node1": {filters.LOGIN: login, "ipyparallel_host_roles": ["engines"]}, "node2": {}}
    assert filters.ssh_logins(hostvars, ["node1"]) == {
        "node1": {"lines": ["HostName x"], "left_out": [], "roles": ["engines"]}
    }


# ---- packages


def resolved(due=True, recorded=("scipy",), **more):
    return {
        filters.RESOLVED: {"due": due, "changes": ["+ scipy==1"] if due else [], "recorded": list(recorded)},
        **more,
    }


def test_words_of_a_shell():
    assert filters.shell_words("--pre --index-url 'a b'", "flags") == ["--pre", "--index-url", "a b"]
    assert filters.shell_words(["--pre", 1], "flags") == ["--pre", "1"]
    with pytest.raises(AnsibleFilterError, match="flags: no closing quotation"):
        filters.shell_words("--index-url 'secret", "flags")


def test_every_host_says_why_it_cannot_have_packages():
    hostvars = {
        "node1": resolved(),
        "node2": {filters.RESOLVED: {"msg": "there is no package 'x'"}},
        "node3": {filters.RESOLVED: {"msg": "there is no package 'x'"}},
        "node4": {filters.RESOLVED: {"msg": "the disk is full"}},
        "node5": {},
    }
    text = filters.unresolved(hostvars, ["node1", "node2", "node3", "node4"])
    assert text.startswith("Nothing was installed on any host. node2, node3: there is no package 'x'; node4: the disk")
    assert filters.unresolved(hostvars, ["node1"]) == ""
    assert "node5: it did not answer" in filters.unresolved(hostvars, ["node5"])


@pytest.mark.parametrize(
    ("defined", "begun", "left", "remember", "says"),
    [
        ("1 2 3", "1 2 3", "1 2 3", ["scipy"], "remembered for later hosts"),
        ("1 2 3 4", "1 2 3 4", "1 2 3", ["scipy"], "node4: failed"),  # not reached: it gets them later
        ("1 2 3", "1 2 3", "1 2", [], "not remembered for later hosts: node3 failed; run again"),
        ("1 2 3", "1 2", "1 2", [], "not remembered for later hosts: node3 had no part"),
        ("5", "5", "5", [], "a flag says where they come from"),
    ],
)
def test_what_is_remembered_is_on_every_host(defined, begun, left, remember, says):
    installed = {filters.INSTALLED: {"changes": ["+ scipy==1"]}}
    hostvars = {
        "node1": resolved(**installed),
        "node2": resolved(due=False, **{filters.INSTALLED: {"skipped": True}}),
        "node3": resolved(**{filters.INSTALLED: {"msg": "no"}}),
        "node4": {},
        "node5": resolved(recorded=[]),
    }
    hosts = [[f"node{number}" for number in numbers.split()] for numbers in (defined, begun, left)]
    done = filters.installation(hostvars, *hosts)
    assert done["remember"] == remember
    assert says in done["text"]
    assert filters.installation(hostvars, *hosts, True)["text"].startswith("this would be done:")


def versions(number):
    return {"versions": {"python": "3.11.2", "ipyparallel": number} if number else {}}


@pytest.mark.parametrize(
    ("hostvars", "says"),
    [
        ({host: {filters.ENVIRONMENT: versions("9.2.0")} for host in ("node1", "node2")}, ""),
        (
            {"node1": {filters.ENVIRONMENT: versions("9.2.0")}, "node2": {filters.ENVIRONMENT: versions("9.3.0")}},
            "node2 has ipyparallel 9.3.0, and the controller host node1 has 9.2.0: ",
        ),
        (
            {
                "node1": {},
                "node2": {
                    filters.ENVIRONMENT: versions("9.3.0"),
                    "__ipyparallel_common_remembered": versions("9.2.0"),
                },
            },
            "node2 has ipyparallel 9.3.0, and the controller host node1 has 9.2.0: ",
        ),
        # hosts are added, before which the controller host was asked
        (
            {
                "node1": {filters.ASKED: versions("9.2.0")},
                "node2": {
                    filters.ENVIRONMENT: versions("9.3.0"),
                    "__ipyparallel_common_remembered": {"changed": False, "skipped": True},
                },
            },
            "node2 has ipyparallel 9.3.0, and the controller host node1 has 9.2.0: ",
        ),
        # a part of deploy, or check mode: nothing was installed
        ({"node1": {}, "node2": {}}, ""),
        ({"node1": {filters.PREFLIGHT: versions("9.2.0")}, "node2": {filters.ENVIRONMENT: versions("")}}, ""),
    ],
)
def test_hosts_with_another_ipyparallel_are_named(hostvars, says):
    text = filters.version_differences(hostvars, ["node2"], "node1")
    assert text.startswith(says)
    assert bool(text) == bool(says)
