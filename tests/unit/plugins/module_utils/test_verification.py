# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests of how a cluster is verified, without a cluster."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import signal
import stat
import time

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import verification
from ansible_collections.ipyparallel.cluster.plugins.module_utils import verification_checks as checks
from ansible_collections.ipyparallel.cluster.plugins.module_utils.verification import Check, Outcome, Report

CLIENT_HALF = {"task_scheme": "leastload", "key": "k", "pack": "msgpack", "curve_serverkey": "secret"}


# ---- the list of checks ----------------------------------------------------------------------------------------------


def test_names_are_unique():
    names = [check.name for check in (*checks.CHECKS, *verification.LAST)]
    assert len(names) == len(set(names))


def test_every_feature_of_the_tutorials_is_checked():
    assert {check.feature for check in checks.CHECKS} == {30, 31, 32, 33, 34}


def test_engines_are_asked_first():
    assert checks.CHECKS[0].name == "every engine answers"


@pytest.mark.parametrize(
    ("feature", "operation"),
    [
        *((30, f"MultiEngineClient.{call}") for call in ("get_ids", "targets: all", "targets: a list of ids")),
        *((30, f"MultiEngineClient.{call}") for call in ("targets: one id", "block = True", "block = False")),
        *((30, f"MultiEngineClient.{call}") for call in ("execute on all", "execute on one", "map")),
        *((30, f"MultiEngineClient.{call}") for call in ("push / pull", "push_function / pull_function")),
        (30, "MultiEngineClient.scatter / gather"),
        *((31, f"TaskClient.{call}") for call in ("run", "get_task_result", "barrier")),
        *((31, task) for task in ("MapTask(func, args, kwargs)", "StringTask(code, push, pull)")),
        *((33, f"Client({how})") for how in ("", "'/path/to/ipcontroller-client.json'", "profile=...")),
        *((33, call) for call in ("apply", "apply_sync", "apply_async", "execute", "run a file")),
        *((33, call) for call in ("@remote(block=True)", "namespace as a dict", "Reference", "%px", "%%px --targets")),
        *((34, call) for call in ("push / pull of several names", "AsyncResult.ready", "AsyncResult.wait")),
        *((34, call) for call in ("AsyncResult.get with a limit: TimeoutError", "metadata", "sync_imports")),
        *((34, f"@require{what}") for what in ("('module')", "(module)", " that cannot be met: UnmetDependency")),
        *(
            (34, error)
            for error in ("RemoteError with the remote traceback", "CompositeError, one entry for each engine")
        ),
    ],
)
def test_operation_has_a_check(feature, operation):
    assert (feature, operation) in [(check.feature, check.name) for check in checks.CHECKS]


# ---- what checks are made of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ([1, "a"], "[1, 'a']"),
        ("\x1b[31mred\x1b[39m\n", "red"),
        ("x" * 20, "xxxxxxxxxx..."),
        (None, "None"),
    ],
)
def test_shorten(value, text):
    assert verification.shorten(value, 10) == text


def test_expect_says_what_was_expected_and_what_came():
    verification.expect("ids", [0, 1], [0, 1])
    with pytest.raises(verification.CheckFailedError, match=r"^ids: expected \[0, 1\], came \[0\]$"):
        verification.expect("ids", [0], [0, 1])


def test_expect_that_says_what_was_expected_and_what_came():
    verification.expect_that("a number", True, 1)
    with pytest.raises(
        verification.CheckFailedError, match=r"^expected a number, came 'x'$|^expected a number, came x$"
    ):
        verification.expect_that("a number", False, "x")


def test_expect_error_returns_the_error():
    assert verification.expect_error("division", ZeroDivisionError, lambda: 1 / 0).args == ("division by zero",)


def test_expect_error_fails_without_the_error():
    with pytest.raises(verification.CheckFailedError, match=r"division: expected ZeroDivisionError, came 1.0 without"):
        verification.expect_error("division", ZeroDivisionError, lambda: 1 / 1)


def test_expect_error_lets_other_errors_through():
    with pytest.raises(KeyError):
        verification.expect_error("division", ZeroDivisionError, lambda: {}["x"])


def test_functions_of_the_checks_do_not_refer_to_their_module():
    made = [value for value in vars(checks).values() if getattr(value, "__module__", "") == "__main__"]
    assert len(made) > 10
    for function in made:
        unknown = set(function.__code__.co_names) & set(vars(checks)) - set(function.__globals__)
        # names of modules that the function imports itself
        assert unknown <= {"sys", "os", "time"}, function.__name__


def test_time_limit_ends_what_hangs():
    started = time.monotonic()
    with pytest.raises(verification.TimeUpError), verification.time_limit(0.05):
        time.sleep(5)
    assert time.monotonic() - started < 1


def test_time_limit_is_not_swallowed():
    with pytest.raises(verification.TimeUpError), verification.time_limit(0.05), contextlib.suppress(Exception):
        time.sleep(5)


def test_time_limit_leaves_no_alarm_behind():
    before = signal.getsignal(signal.SIGALRM)
    with verification.time_limit(5):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("before", ["old", None])
def test_environment_is_restored(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("IPYTHONDIR", raising=False)
    else:
        monkeypatch.setenv("IPYTHONDIR", before)
    seen = []

    def block():
        with verification.environment(IPYTHONDIR="new"):
            seen.append(os.environ["IPYTHONDIR"])
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert seen == ["new"]
    assert os.environ.get("IPYTHONDIR") == before


def test_secrets_are_private_from_the_first_byte(tmp_path):
    previous = os.umask(0)
    try:
        verification.write_private(tmp_path / "secret", "text")
    finally:
        os.umask(previous)
    assert (tmp_path / "secret").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        verification.write_private(tmp_path / "secret", "other")


def test_profiles_hold_the_connector(tmp_path):
    verification.lay_profiles(tmp_path, "{}")
    for profile in ("default", verification.PROFILE):
        security = tmp_path / f"profile_{profile}" / "security"
        assert (security / "ipcontroller-client.json").read_text() == "{}"
        assert stat.S_IMODE(security.stat().st_mode) == 0o700


# ---- what is asked for by options ------------------------------------------------------------------------------------


def test_read_connector(tmp_path):
    (tmp_path / "client.json").write_text(json.dumps(CLIENT_HALF))
    assert verification.read_connector(str(tmp_path / "client.json")) == CLIENT_HALF


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no connector .*: deploy the cluster first"),
        ("{", "is not JSON"),
        ("[]", "is not the client half"),
        ('{"key": "k", "hb_ping": 1}', "is not the client half"),
    ],
)
def test_read_connector_that_is_none(tmp_path, content, message):
    path = tmp_path / "client.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(verification.VerificationError, match=message):
        verification.read_connector(str(path))


def test_read_connector_that_is_a_directory(tmp_path):
    with pytest.raises(verification.VerificationError, match="cannot be read: Is a directory"):
        verification.read_connector(str(tmp_path))


@pytest.mark.parametrize(
    ("connector", "packer", "encryption"),
    [
        (CLIENT_HALF, "msgpack", "curve"),
        ({"pack": "pickle", "curve_serverkey": None}, "pickle", "none"),
        ({}, "json", "none"),
    ],
)
def test_what_the_connector_names(connector, packer, encryption):
    assert verification.connector_packer(connector) == packer
    assert verification.connector_encryption(connector) == encryption


def test_nothing_asked_nothing_checked():
    assert verification.asked_checks(verification.Asked(), CLIENT_HALF) == []


class FakeSession:
    packer = "msgpack"


class FakeClient:
    """A client of three engines."""

    session = FakeSession()

    def __len__(self):
        return 3


class FakeContext:
    """A context whose engines stay, unless told otherwise."""

    def __init__(self, ids=(0, 1, 2), silent=None):
        self.client = FakeClient()
        self.ids = list(ids)
        self.silent = {}
        self.surveys = 0
        self._silent_later = silent or {}

    def drop_departed(self):
        pass

    def survey(self, limit):
        self.surveys += 1
        self.silent = self._silent_later
        self.ids = [engine for engine in self.ids if engine not in self.silent]


@pytest.mark.parametrize(
    ("asked", "failing"),
    [
        (verification.Asked(3, "msgpack", "curve"), []),
        (verification.Asked(2), ["expected engines"]),
        (verification.Asked(packer="json"), ["expected packer"]),
        (verification.Asked(encryption="none"), ["expected encryption"]),
        (verification.Asked(0, "json", "none"), ["expected engines", "expected packer", "expected encryption"]),
    ],
)
def test_what_is_asked_is_checked(asked, failing):
    made = verification.asked_checks(asked, CLIENT_HALF)
    outcomes = verification.run_checks(made, FakeContext(), 5, 5)
    assert [outcome.check.name for outcome in outcomes if not outcome.ok] == failing
    for outcome in outcomes:
        assert outcome.ok or "expected" in outcome.message


# ---- running checks --------------------------------------------------------------------------------------------------


def good(_context):
    return None


def bad(_context):
    verification.expect("answer", 41, 42)


def broken(_context):
    raise ValueError("\x1b[31mno such thing\x1b[39m")


def absent(_context):
    raise verification.NotAvailableError("numpy is not installed")


def hanging(_context):
    time.sleep(5)


def late(_context):
    raise TimeoutError


def timed(_context):
    return 12.5


@pytest.mark.parametrize(
    ("function", "ok", "message", "omitted"),
    [
        (good, True, "", False),
        (bad, False, "answer: expected 42, came 41", False),
        (broken, False, "ValueError: no such thing", False),
        (absent, False, "numpy is not installed", True),
        (hanging, False, "no answer within 0.05 s: a hint", False),
        (late, False, "no answer within 0.05 s: a hint", False),
    ],
)
def test_attempt(function, ok, message, omitted):
    outcome = verification.attempt(Check(30, "x", function, "a hint"), FakeContext(), 0.05)
    assert (outcome.ok, outcome.message, outcome.omitted) == (ok, message, omitted)
    assert outcome.seconds < 1


def test_attempt_takes_the_time_that_the_check_tells():
    assert verification.attempt(Check(33, "x", timed), FakeContext(), 5).seconds == 12.5


def test_a_check_that_hangs_names_the_engine_and_the_others_go_on_without_it():
    seen = []
    context = FakeContext(silent={1: "engine 1 (node1) is busy"})
    outcomes = verification.run_checks(
        [Check(30, "hangs", hanging, "a hint"), Check(30, "next", lambda context: seen.extend(context.ids))],
        context,
        0.05,
        5,
    )
    assert outcomes[0].message == "no answer within 0.05 s: engine 1 (node1) is busy"
    assert outcomes[1].ok
    assert seen == [0, 2]


def test_a_failing_check_does_not_stop_the_others():
    outcomes = verification.run_checks([Check(30, f.__name__, f) for f in (bad, broken, good)], FakeContext(), 5, 5)
    assert [outcome.ok for outcome in outcomes] == [False, False, True]


def test_without_engines_nothing_is_tried():
    outcomes = verification.run_checks([Check(30, "x", good)], FakeContext(ids=()), 5, 5)
    assert outcomes[0].message == "not tried: no engine answers"


def test_a_run_ends_when_its_time_is_over():
    outcomes = verification.run_checks([Check(30, "x", hanging), Check(30, "y", good)], FakeContext(), 0.05, 0.01)
    assert outcomes[1].message.startswith("not tried: the checks before it took")


# ---- engines that do not answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (1, ["engine 3 (node1:default:0:17:ab)", "is busy", "1 request of others"]),
        (2, ["is busy", "2 requests of others"]),
        (0, ["engine 3 (node1:default:0:17:ab)", "does not answer", "restart it"]),
    ],
)
def test_explain_silence(others, words):
    sentence = verification.explain_silence(3, "node1:default:0:17:ab", others)
    for word in words:
        assert word in sentence


class Answer:
    def __init__(self, ready):
        self._ready = ready

    def ready(self):
        return self._ready


class View:
    def __init__(self, answers):
        self._answers = answers

    def apply_async(self, _function):
        return Answer(self._answers)


class SurveyedClient:
    """A client of engines of which some do not answer, and some leave meanwhile."""

    def __init__(self, answers, queues=None, leaving=()):
        self.answers = answers
        self.ids = list(answers)
        self.history = ["mine"]
        self._engines = {engine: f"node{engine}:default:0:1:ab" for engine in answers}
        self.queues = queues or {}
        self.leaving = leaving
        self.waited = []

    def __getitem__(self, engine):
        return View(self.answers[engine])

    def wait(self, _results, timeout):
        self.waited.append(timeout)
        self.ids = [engine for engine in self.ids if engine not in self.leaving]

    def queue_status(self, targets, verbose):
        assert verbose
        return {engine: {"queue": ["mine", *self.queues.get(engine, [])], "tasks": []} for engine in targets}


def surveyed(client, limit=10.0):
    context = verification.Context(client, "connector", pathlib.Path("/nowhere"), 30.0, "_p_")
    context.survey(limit)
    return context


def test_survey_of_engines_that_all_answer():
    context = surveyed(SurveyedClient({0: True, 1: True}))
    assert (context.ids, context.silent, context.busy) == ([0, 1], {}, [])
    assert len(context.client.waited) == 1


def test_survey_does_not_wait_for_busy_engines():
    context = surveyed(SurveyedClient({0: True, 1: False}, {1: ["theirs", "too"]}))
    assert (context.ids, context.busy) == ([0], [1])
    assert "engine 1 (node1:default:0:1:ab) is busy: 2 requests of others" in context.silent[1]
    assert context.client.waited == [verification.GRACE]


def test_survey_waits_for_engines_that_should_answer():
    context = surveyed(SurveyedClient({0: True, 1: False}))
    assert (context.ids, context.busy) == ([0], [])
    assert "does not answer" in context.silent[1]
    assert context.client.waited == [verification.GRACE, 10.0 - verification.GRACE]


def test_survey_leaves_out_engines_that_left():
    context = surveyed(SurveyedClient({0: True, 1: False}, leaving=(1,)))
    assert (context.ids, context.silent) == ([0], {})
    with pytest.raises(verification.CheckFailedError, match=r"gone are engine 1 \(node1:default:0:1:ab\)"):
        context.stayed()


def test_engines_that_left_are_dropped():
    client = SurveyedClient({0: True, 1: True})
    context = verification.Context(client, "connector", pathlib.Path("/nowhere"), 30.0, "_p_")
    context.stayed()
    client.ids = [1]
    context.drop_departed()
    assert context.ids == [1]


# ---- what is left on engines -----------------------------------------------------------------------------------------


def test_forget_removes_what_was_named_and_typed():
    typed = ["", "a = 1", "_p_b = 2"]
    space = {
        "In": typed,
        "a": 1,
        "_p_b": 2,
        "_p_c": 3,
        "_i": "_p_b = 2",
        "_ii": "a = 1",
        "_i1": "a = 1",
        "_i2": "_p_b = 2",
        "_it": 5,
        "__builtins__": __builtins__,
    }
    forget = type(verification._forget)(verification._forget.__code__, space)
    assert forget("_p_") == []
    assert typed == ["", "a = 1", ""]
    assert {name: value for name, value in space.items() if not name.startswith("__")} == {
        "In": typed,
        "a": 1,
        "_i": "",
        "_ii": "a = 1",
        "_i1": "a = 1",
        "_it": 5,
    }


def test_a_function_can_be_made_of_code():
    context = verification.Context(SurveyedClient({0: True}), "c", pathlib.Path("/nowhere"), 30.0, "_p_")
    name = context.name("a")
    function = context.define("double", f"def double({name}):\n    return {name} * 2\n")
    assert name == "_p_a"
    assert function(4) == 8
    assert function.__module__ == "__main__"


# ---- what is told ----------------------------------------------------------------------------------------------------


def outcome(name, message="", omitted=False):
    return Outcome(Check(30, name, good), 0.12345, message, omitted)


def test_report_of_success():
    report = Report([outcome("a"), outcome("b"), outcome("c", "no numpy", omitted=True)], 1, 3.21)
    assert report.message() == "all 2 checks passed on 1 engine in 3.2 s"
    assert report.as_dict() == {
        "checks": [
            {"name": "a", "feature": 30, "seconds": 0.123, "ok": True},
            {"name": "b", "feature": 30, "seconds": 0.123, "ok": True},
        ],
        "omitted": [{"name": "c", "reason": "no numpy"}],
        "passed": 2,
        "failed_checks": [],
        "engines": 1,
        "seconds": 3.21,
    }


def test_report_of_failures():
    report = Report([outcome("a"), outcome("b", "expected 1\n\ncame\n2\n3"), outcome("c", "why")], 2, 3.21)
    assert report.message() == "2 of 3 checks failed:\nb: expected 1\ncame\n2\nc: why"
    told = report.as_dict()
    assert told["passed"] == 1
    assert told["failed_checks"] == ["b", "c"]
    assert told["checks"][1]["message"] == "expected 1\n\ncame\n2\n3"


def test_report_tells_a_common_reason_once():
    report = Report([outcome(str(number), "not tried") for number in range(8)], 2, 3.21)
    assert report.message() == "8 of 8 checks failed:\n0, 1, 2, 3, 4 and 3 more: not tried"
    assert len(report.as_dict()["failed_checks"]) == 8


@pytest.mark.parametrize(
    ("shown", "lines"),
    [
        ("", {}),
        ("[stdout:0] 42\n[stdout:1] 42\n", {0: "42", 1: "42"}),
        ("[stdout:0] \n42\n[stdout:12] \n4\n2\n", {0: "42", 12: "4\n2"}),
        ("something else\n[stdout:3] x", {3: "x"}),
    ],
)
def test_printed(shown, lines):
    assert checks.printed(shown) == lines


# ---- functions that run on engines, run here -------------------------------------------------------------------------


def test_primes():
    assert [number for number in range(20) if checks._is_prime(number)] == [2, 3, 5, 7, 11, 13, 17, 19]


def test_norms():
    assert checks._norms([3.0, 4.0], levels=(1, 2)) == [7.0, 5.0]


def test_random_matrices_are_the_same_everywhere():
    assert checks._random_matrix_spacing(1) == checks._random_matrix_spacing(1)
    assert checks._random_matrix_spacing(1) != checks._random_matrix_spacing(2)


@pytest.mark.parametrize("name", checks.SPARE_MODULES)
def test_spare_modules_can_be_imported_quietly(name, capsys):
    assert importlib.import_module(name).__name__ == name
    assert capsys.readouterr() == ("", "")


def test_string_task():
    assert checks._string_task("c = a + b", {"a": 1, "b": 2}, ["c", "a"]) == [3, 1]
