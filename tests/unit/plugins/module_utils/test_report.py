# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import report
from hypothesis import given
from hypothesis import strategies as st

ENGINES = [
    {
        "id": 0,
        "host": "node1",
        "pool": "default",
        "core": 0,
        "pid": 4711,
        "state": "idle",
        "queued": 0,
        "completed": 12,
        "uptime_seconds": 3725,
        "memory_bytes": 70 * 2**20,
    },
    {
        "id": 1,
        "host": "node2",
        "pool": "default",
        "core": 0,
        "pid": 12,
        "state": "busy",
        "queued": 3,
        "completed": 0,
        "uptime_seconds": None,
        "memory_bytes": None,
    },
]
HOSTS = {
    "node1": {
        "roles": ["controller", "engines", "notebook"],
        "reachable": True,
        "problem": "",
        "engines": {"default": {"expected": 1, "registered": 1, "busy": 0}},
        "cores": 2,
        "load_average": [0.5, 1, 2.25],
        "memory_total_bytes": 8 * 2**30,
        "memory_available_bytes": 5 * 2**30,
        "memory_used_bytes": 3 * 2**30,
        "uptime_seconds": 90061,
        "certificate_days": 824.4,
    },
    "node2": {
        "roles": ["engines"],
        "reachable": False,
        "problem": "unreachable: no answer in 2 s",
        "engines": {"default": {"expected": 1, "registered": 1, "busy": 1}},
        "cores": None,
        "load_average": None,
        "memory_total_bytes": None,
        "memory_available_bytes": None,
        "memory_used_bytes": None,
        "uptime_seconds": None,
        "certificate_days": None,
    },
}
CLUSTER = {
    "deployed": True,
    "running": True,
    "problem": "",
    "name": "alpha",
    "controller": {
        "host": "node1",
        "address": "10.0.0.5",
        "ports": {"engine": "10100-10108", "client": "10109-10114", "internal": "10115-10117"},
    },
    "packer": "json",
    "encryption": "curve",
    "scheduler": "leastload",
    "versions": {"python": "3.11.2", "ipyparallel": "9.2.0", "pyzmq": "27.1.0", "numpy": "2"},
    "engines": ENGINES,
    "expected": 2,
    "missing": [],
    "notebooks": {
        "node1": {
            "url": "https://10.0.0.5:8888/lab",
            "directory": "/home/ada/notebooks",
            "password_command": "cat /state/notebook/password",
        }
    },
    "queue": {"queued": 3, "unassigned": 1, "completed": 12},
    "hosts": HOSTS,
    "pools": {"default": {"expected": 2, "registered": 2, "busy": 1}},
}


def lines_of(text):
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("health", "lines"),
    [
        ({}, []),
        (
            {"state": "absent", "since": "", "problems": [], "repairs": []},
            ["health NO WATCHDOG answers: nobody repairs this cluster"],
        ),
        (
            {
                "state": "degraded",
                "since": "2026-01-02T03:04:05",
                "problems": ["the disk is full at /state"],
                "repairs": [{"time": "2026-01-02T03:04:09", "text": "repair: forgot engine 3"}],
            },
            [
                "health degraded since 2026-01-02T03:04:05",
                "the disk is full at /state",
                "2026-01-02T03:04:09 repair: forgot engine 3",
            ],
        ),
    ],
)
def test_what_the_watchdog_says_is_in_the_status(health, lines):
    without = lines_of(report.status(CLUSTER))
    assert [line for line in lines_of(report.status({**CLUSTER, "health": health})) if line not in without] == lines


@pytest.mark.parametrize(("count", "text"), [(0, "0 engines"), (1, "1 engine"), (2, "2 engines")])
def test_plurals(count, text):
    assert report.plural(count, "engine") == text


@given(st.lists(st.tuples(st.text("ab "), st.text("cd "), st.text("ef", min_size=1))))
def test_columns_are_aligned(rows):
    lines = report.table(rows)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        start = sum(max(len(other[column]) for other in rows) + 2 for column in (0, 1))
        assert line[start:] == row[2]


# ---- the closing summary


def test_the_summary_has_what_starcluster_showed():
    text = report.summary(CLUSTER, 12.34)
    lines = lines_of(text)
    assert lines[0] == "Cluster alpha: 2 engines on 2 nodes, in 12.3 s"
    assert "notebook https://10.0.0.5:8888/lab" in lines
    assert "password cat /state/notebook/password (on node1)" in lines
    assert "notebooks in /home/ada/notebooks (on node1)" in lines
    assert any(line.startswith("shell ipython --profile=alpha") for line in lines)
    assert lines[-3:] == report.connect_lines("alpha")


def test_the_lines_that_connect_are_python():
    lines = report.connect_lines("alpha")
    assert 'profile="alpha"' in lines[1]
    compile("\n".join(lines), "summary", "exec")


AUTHORITY = "/home/ada/.ipython/profile_alpha/security/authority.pem"


def test_the_summary_says_how_browsers_and_curl_trust_the_notebook():
    url = "https://127.0.0.1:8888/lab"
    notebooks = {
        "node1": {"url": url},
        "node2": {"url": url},
        "node3": {"url": "https://node3/", "own_certificate": True},
    }
    lines = lines_of(report.summary({**CLUSTER, "notebooks": notebooks}, 1, {"authority": AUTHORITY, "tunnel": ""}))
    assert [line for line in lines if "curl" in line] == [f"curl --cacert {AUTHORITY} {url}"]
    (told,) = [line for line in lines if line.startswith("authority ")]
    assert AUTHORITY in told
    assert "import it" in told


@pytest.mark.parametrize(("authority", "own"), [("", False), (AUTHORITY, True)])
def test_without_an_authority_nothing_is_said_of_it(authority, own):
    assert report.trust_lines(authority, {"node1": {"url": "https://node1/", "own_certificate": own}}) == []


def test_a_path_with_a_space_can_be_copied():
    said = report.trust_lines("/x y/authority.pem", {"node1": {"url": "https://node1/"}})
    assert said[1] == ("", "curl --cacert '/x y/authority.pem' https://node1/")


def test_what_the_operator_has_after_connect():
    connected = {
        "profile_directory": "/p",
        "tunnel": "ada@node1",
        "authority": AUTHORITY,
        "notebooks": {"a": {"url": "u"}},
    }
    text = report.connection(connected, "alpha")
    wanted = ["Connected to cluster alpha", "/p", "SSH to ada@node1", f"--cacert {AUTHORITY} u", 'profile="alpha")']
    assert [words for words in wanted if words not in text] == []
    assert "is not there yet" in report.connection({"profile_directory": "/p", "changed": True}, "alpha")


def test_one_engine_is_one():
    assert "1 engine on 1 node," in report.summary({**CLUSTER, "engines": ENGINES[:1]}, 1)


def test_a_given_password_has_no_command():
    notebooks = {"node1": {**CLUSTER["notebooks"]["node1"], "password_command": None}}
    assert "password the one you gave" in lines_of(report.summary({**CLUSTER, "notebooks": notebooks}, 1))


@pytest.mark.parametrize(("encryption", "words"), [("curve", "encrypted (CURVE)"), ("none", "not encrypted (signed)")])
def test_encryption_in_words(encryption, words):
    assert f"messages json, {words}" in lines_of(report.summary({**CLUSTER, "encryption": encryption}, 1))


# ---- status


def test_the_status_of_a_running_cluster():
    lines = lines_of(report.status(CLUSTER))
    for line in (
        "cluster alpha: running",
        "controller 10.0.0.5, ports 10100-10108 (engine), 10109-10114 (client), 10115-10117 (internal)",
        "engines 2 of 2, 1 busy",
        "queue 3 queued, 1 unassigned, 12 completed",
        "versions python 3.11.2, ipyparallel 9.2.0, pyzmq 27.1.0",
        "messages json, encrypted (CURVE), scheduler leastload",
        "notebook https://10.0.0.5:8888/lab",
        "certificate 824 days left (on node1)",
        "host is engines busy cores load memory up",
        "node1 controller, engines, notebook 1 of 1 0 2 0.50 1.00 2.25 3.0 GiB of 8.0 GiB 1 d 1 h",
        "node2 engines 1 of 1 1 ? ? ? ? unreachable: no answer in 2 s",
        "id host pool core pid state queued completed up memory",
        "0 node1 default 0 4711 idle 0 12 1 h 2 min 70 MiB",
        "1 node2 default 0 12 busy 3 0 ? ?",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith("problem")]


def test_the_status_of_a_cluster_that_does_not_answer():
    unknown = {"expected": 1, "registered": None, "busy": None}
    hosts = {name: {**host, "engines": {"default": unknown}} for name, host in HOSTS.items()}
    down = {
        **CLUSTER,
        "running": False,
        "problem": "the hub did not answer",
        "engines": [],
        "queue": {},
        "hosts": hosts,
    }
    lines = lines_of(report.status(down))
    assert lines[0] == "cluster alpha: NOT RUNNING"
    assert lines[1] == "problem the hub did not answer"
    assert "engines ? of 2" in lines
    assert "node2 engines ? of 1 ? ? ? ? ? unreachable: no answer in 2 s" in lines
    assert "queue ?" in lines
    assert not [line for line in lines if line.startswith("id ")]


def test_an_engine_that_others_started_has_no_place():
    foreign = {**ENGINES[0], "host": None, "pool": None, "core": None, "pid": None}
    assert "0 ? ? ? ? idle 0 12 1 h 2 min 70 MiB" in lines_of(report.status({**CLUSTER, "engines": [foreign]}))


def test_the_status_without_the_controller_host():
    gone = {
        "deployed": None,
        "running": False,
        "name": "alpha",
        "problem": "controller host node1: unreachable: no route",
        "engines": [],
        "hosts": {name: {**host, "engines": None} for name, host in HOSTS.items()},
        "pools": {},
    }
    lines = lines_of(report.status(gone))
    assert lines[:3] == ["cluster alpha: NOT RUNNING", "problem controller host node1: unreachable: no route", ""]
    assert any(line.startswith("node1 controller, engines, notebook ? ? 2 0.50") for line in lines)


def test_pools_are_told_apart_where_there_are_several():
    counts = {"expected": 2, "registered": 1, "busy": 1}
    both = {"default": counts, "gpu": {**counts, "registered": 2}}
    hosts = {"node1": {**HOSTS["node1"], "engines": both}}
    lines = lines_of(report.status({**CLUSTER, "hosts": hosts, "pools": both}))
    assert "engines 2 of 2: default 1 of 2, gpu 2 of 2, 1 busy" in lines
    assert any(
        line.startswith("node1 controller, engines, notebook default 1 of 2, gpu 2 of 2 2 2 0.50") for line in lines
    )


def test_a_host_without_engines_has_none():
    hosts = {"node1": {**HOSTS["node1"], "engines": {}}}
    assert any(
        line.startswith("node1 controller, engines, notebook none 0 2")
        for line in lines_of(report.status({**CLUSTER, "hosts": hosts}))
    )


def test_a_controller_s_uptime_and_a_certificate_that_has_ended():
    hosts = {"node1": {**HOSTS["node1"], "certificate_days": -1.5}}
    controller = {**CLUSTER["controller"], "uptime_seconds": 41}
    lines = lines_of(report.status({**CLUSTER, "hosts": hosts, "controller": controller}))
    assert any(line.startswith("controller 10.0.0.5, up 41 s, ports 10100-10108") for line in lines)
    assert any(line.startswith("certificate EXPIRED") for line in lines)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3725, "1 h 2 min"),
        (90061, "1 d 1 h"),
        (8640000, "100 d 0 h"),
        (-1, "0 s"),
    ],
)
def test_lengths_of_time(seconds, words):
    assert report.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2048, "2 KiB"),
        (70 * 2**20, "70 MiB"),
        (8 * 2**30, "8.0 GiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_sizes(count, words):
    assert report.size(count) == words


def test_the_status_of_no_cluster_is_why():
    assert report.status({"deployed": False, "problem": "there is no cluster"}) == "there is no cluster"


# ---- verify, and what a removal leaves


def test_checks_as_a_table():
    checks = [
        {"feature": 30, "name": "map", "seconds": 0.0123, "ok": True},
        {"feature": 31, "name": "error", "seconds": 2, "ok": False, "message": "expected 42, got 41"},
    ]
    lines = lines_of(report.verification({"checks": checks}))
    assert "30 map 0.012 ok" in lines
    assert "31 error 2.000 FAILED: expected 42, got 41" in lines


def test_what_stays_is_named():
    assert "/home/ada/notebooks on node1" in report.what_stays(CLUSTER["notebooks"])
    assert report.what_stays({})


# ---- ssh


def test_what_the_operator_can_do_with_ssh():
    written = {"path": "/x.conf", "names": ["a-node1", "a-node2"], "include": "Include /x.conf"}
    logins = {"node1": {"lines": ["y"], "left_out": ["-X"]}, "here": {"lines": [], "left_out": []}}
    assert report.ssh(written, logins).splitlines() == [
        "/x.conf is written: ssh a-node1, ssh a-node2",
        "put this line first into ~/.ssh/config, or give -F /x.conf:",
        "    Include /x.conf",
        "here has another connection than ssh, and is left out",
        "node1: not carried over: -X",
    ]
    assert report.ssh({**written, "include": ""}, {}) == "/x.conf is written: ssh a-node1, ssh a-node2"
    assert report.ssh({**written, "include": ""}, {}, True).startswith("/x.conf would be written: ssh a-node1")
    # the file may have hosts that the run was not for
    said = "no host of this run has connection ssh; /x.conf keeps the others that it has"
    assert report.ssh({**written, "names": []}, logins) == said


# ---- logs


def test_what_was_brought_and_what_was_not():
    log = {"name": "controller", "state": "running", "lines": 12, "path": "/logs/node1/controller.log"}
    found = {
        "node3": {"logs": [], "problem": "unreachable: no answer in 3 s"},
        "node1": {"logs": [log], "problem": ""},
        "node4": {"failed": True, "msg": "no journal"},
        "node2": {"logs": [], "problem": ""},
        "node5": {},
    }
    assert lines_of(report.logs(found)) == [
        "host process state lines file",
        "node1 controller running 12 /logs/node1/controller.log",
        "no logs of node2: nothing of the cluster is laid down there",
        "no logs of node3: unreachable: no answer in 3 s",
        "no logs of node4: no journal",
        "no logs of node5: it has failed, as said above",
    ]
    assert report.logs({"node2": {"logs": [], "problem": ""}}).startswith("no logs of node2")


# ---- what engines said

SAID = {"status": "ok", "stdout": "hello\n", "stderr": "", "result": "42", "traceback": "", "error": ""}


def test_what_engines_say_alike_is_said_once():
    done = {"results": [{"id": number, "host": f"node{number}", **SAID} for number in range(3)]}
    assert report.execution(done).splitlines() == ["engines 0 (node0), 1 (node1), 2 (node2): ok", "    hello", "    42"]


def test_errors_are_shown_by_their_traceback_or_else_in_words():
    error = {**SAID, "status": "error", "error": "ValueError: no", "stdout": "", "result": None}
    done = {
        "results": [
            {"id": 0, "host": "node1", **error, "traceback": "Traceback:\n  line\nValueError: no\n"},
            {
                "id": None,
                "host": None,
                **error,
                "status": "unfinished",
                "error": "still under way after 5 s; it goes on",
            },
        ]
    }
    assert report.execution(done).splitlines() == [
        "engine 0 (node1): error",
        "    Traceback:",
        "      line",
        "    ValueError: no",
        "engine ? (?): unfinished",
        "    still under way after 5 s; it goes on",
    ]


def test_what_would_be_run():
    assert report.execution({"engines": [0, 4]}) == "would run on 2 engines"
    assert report.execution({"msg": "would run it on the engines of a cluster that is to be made"}).startswith(
        "would run"
    )


# ---- renewed keys


def test_a_rotation_tells_what_the_old_connector_gets():
    made = {"fingerprint": "0d5f1f4bb8a0c1e2"}
    proof = {"refused": "no answer in 1 s", "channels": 7, "answered": 0.02}
    text = report.rotation(proof, made, 21.04)
    assert text.splitlines()[:3] == [
        "New keys in 21.0 s, fingerprint 0d5f1f4bb8a0c1e2",
        "  the old connector: 7 ports refuse its key, and its client gets no answer in 1 s",
        "  the new one: the hub answers after 0.02 s",
    ]
    assert "ports refuse" not in report.rotation({**proof, "channels": 0}, made, 1)
    assert report.rotation({"changed": False}, made, 1).startswith("would make new keys")


# ---- installed packages


def test_what_was_installed_is_told_once_for_all_hosts():
    results = {host: {"changes": ["+ scipy==1.16.0"]} for host in ("node1", "node2")}
    assert report.installation(results, "", []).splitlines() == [
        "node1, node2:",
        "    + scipy==1.16.0",
        "remembered for later hosts",
    ]
    text = report.installation({**results, "node3": {"changes": []}}, "node4 failed; run again", ["node4"], would=True)
    assert text.splitlines() == [
        "this would be done:",
        "node1, node2:",
        "    + scipy==1.16.0",
        "node3: nothing to install",
        "node4: failed, as said above",
        "not remembered for later hosts: node4 failed; run again",
    ]


def test_a_version_that_was_replaced_stays_in_memory():
    assert "until they restart" in report.installation({"node1": {"changes": ["- a==1", "+ a==2"]}}, "", [])
    assert "until they restart" not in report.installation({"node1": {"changes": ["+ a==2"]}}, "", [])
