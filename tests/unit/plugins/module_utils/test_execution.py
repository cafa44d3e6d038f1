# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is sent to engines; IPython runs it here, in a process of its own, as it does there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import execution

MOST = execution.MOST_CHARACTERS
SHELL = """
import asyncio, inspect, json, sys
from IPython.core.interactiveshell import InteractiveShell

source, code, most = json.load(sys.stdin)
shell = InteractiveShell.instance()
# an engine's publishes a result and a traceback, and writes nothing
shell._showtraceback = lambda *_arguments: None
for name in ("start_displayhook", "write_output_prompt", "write_format_data", "finish_displayhook"):
    setattr(shell.displayhook, name, lambda *_arguments: None)
exec(source, shell.user_ns)

async def request():
    # as in an engine, whose event loop runs meanwhile
    return shell.user_ns["run_code"](code, most)

print("\\0" + json.dumps(asyncio.run(request())))
"""


def run_code(code, most=MOST):
    """Run *code* as an engine does; nothing of the module is there but the function itself."""
    import inspect

    source = "from __future__ import annotations\n" + inspect.getsource(execution.run_code).replace(
        "dict[str, t.Any]", "dict"
    )
    done = subprocess.run(
        [sys.executable, "-c", SHELL],
        input=json.dumps([source, code, most]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("\0")[2])


@pytest.mark.parametrize(
    "code", ["a = 1", "%timeit pass", "await thing()", "!ls", "%%bash\necho 1", "x?", "def f():\n  pass"]
)
def test_code_that_can_be_sent(code):
    execution.check_code(code, "it")


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("a = 1\nb = = 2", ["job.py, line 2", "invalid syntax", "b = = 2", "nothing was sent"]),
        ("for i in range(3):\nprint(i)", ["job.py, line 2", "indented block"]),
        ("print('a", ["job.py, line 1"]),
        ("a\0b", ["job.py"]),
    ],
)
def test_code_that_cannot_is_refused_by_its_line(code, names):
    with pytest.raises(execution.ExecutionError) as raised:
        execution.check_code(code, "job.py")
    assert [name for name in names if name not in str(raised.value)] == []


def test_what_code_says_and_returns():
    found = run_code("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (found["status"], found["stdout"], found["stderr"], found["result"]) == ("ok", "out\n", "err\n", "42")
    assert found["seconds"] >= 0
    assert run_code("a = 5")["result"] is None


@pytest.mark.parametrize(
    ("code", "error"), [("1 / 0", "ZeroDivisionError: division by zero"), ("raise SystemExit(3)", "SystemExit: 3")]
)
def test_an_error_comes_with_its_traceback(code, error):
    found = run_code(f"print('before')\n{code}")
    assert found["status"] == "error"
    assert found["error"] == error
    assert found["traceback"].rstrip().endswith(error)
    assert found["stdout"].startswith("before\n")


def test_code_may_await():
    found = run_code("import asyncio, sys\nprint('out')\nprint('err', file=sys.stderr)\nawait asyncio.sleep(0, 42)")
    assert (found["status"], found["stdout"], found["stderr"], found["result"]) == ("ok", "out\n", "err\n", "42")
    found = run_code("import asyncio\nawait asyncio.sleep(0)\n1 / 0")
    assert (found["status"], found["error"]) == ("error", "ZeroDivisionError: division by zero")
    assert found["traceback"].rstrip().endswith(found["error"])


@pytest.mark.parametrize("end", ["sys.exit()", "sys.exit(0)", "await asyncio.sleep(0); sys.exit(0)"])
def test_code_may_end_as_a_script_does(end):
    found = run_code(f"import asyncio, sys\nprint('out')\n{end}\nprint('never')")
    assert (found["status"], found["stdout"], found["stderr"]) == ("ok", "out\n", "")
    assert (found["result"], found["error"], found["traceback"]) == (None, "", "")


def test_long_texts_are_cut():
    found = run_code("print('x' * 100)\n'y' * 100", 10)
    assert (found["stdout"], found["result"]) == ("x" * 10, "'" + "y" * 9)
    assert execution.cut("x" * MOST) == "x" * MOST
    assert execution.cut("x" * (MOST + 1)).startswith("x" * MOST + "\n[the rest")


def test_what_a_command_says():
    found = execution.run_shell("echo out; echo err >&2; exit 3", MOST)
    assert (found["status"], found["rc"], found["stdout"], found["stderr"]) == ("error", 3, "out\n", "err\n")
    assert found["error"] == "the command ended with 3"
    assert execution.run_shell("true", MOST)["status"] == "ok"
    assert execution.run_shell("cat", MOST)["stdout"] == ""


class Result:
    """Work that is done, or never."""

    def __init__(self, value=None, *, done=True, engine=None):
        self.value, self.done, self.engine_id = value, done, engine
        self.waited = []

    def ready(self):
        return self.done

    def wait(self, seconds):
        self.waited.append(seconds)

    def get(self, _seconds):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Client:
    """A client whose engines do what a test says."""

    def __init__(self, *results):
        self.results = list(results)
        self.sent = []

    def __getitem__(self, number):
        self.number = number
        return self

    def load_balanced_view(self, ids):
        self.number = tuple(ids)
        return self

    def apply_async(self, function, argument, _most):
        self.sent.append((self.number, function.__name__, argument))
        return self.results.pop(0)


ENGINES = [{"id": number, "host": f"node{number}", "pool": "default", "core": 0, "pid": 1} for number in (1, 2, 3)]
OK = {"status": "ok", "stdout": "hello"}


def test_once_on_each_engine():
    client = Client(Result(OK), Result(ValueError("no")), Result(done=False))
    found = execution.execute(client, ENGINES, code="a", shell=None, balanced=0, limit=0.1)
    assert client.sent == [(number, "run_code", "a") for number in (1, 2, 3)]
    assert [(one["id"], one["host"], one["status"]) for one in found] == [
        (1, "node1", "ok"),
        (2, "node2", "error"),
        (3, "node3", "unfinished"),
    ]
    assert found[1]["error"] == "ValueError: no"
    assert found[2]["error"] == "still under way after 0.1 s; it goes on"


def test_load_balanced_on_whichever_is_free():
    results = [Result(OK, engine=2), Result(OK, engine=1), Result(done=False)]
    client = Client(*results)
    found = execution.execute(client, ENGINES, code=None, shell="ls", balanced=3, limit=5)
    assert client.sent == [((1, 2, 3), "run_shell", "ls")] * 3
    assert [(one["id"], one["host"]) for one in found] == [(2, "node2"), (1, "node1"), (None, None)]
    # one limit for all of it
    assert all(result.waited[0] <= 5 for result in results)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\nx = =", "the start-up /s.py, line 2 does not compile: invalid syntax (x = =); no engine was started"),
        ("%time 1", "the start-up /s.py, line 1 does not compile"),
        ("\0", "the start-up /s.py does not compile"),
    ],
)
def test_a_start_up_that_does_not_compile_is_named_with_its_line(code, said):
    execution.check_startup("x = 1\n", "/s.py")
    with pytest.raises(execution.ExecutionError) as caught:
        execution.check_startup(code, "/s.py")
    assert said in str(caught.value)
