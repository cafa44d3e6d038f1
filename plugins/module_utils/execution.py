# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Code and shell commands on engines: what is sent, what comes back, and what is still under way."""

from __future__ import annotations

import ast
import time
import typing as t
from collections.abc import Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub

if t.TYPE_CHECKING:
    import ipyparallel

MOST_CHARACTERS = 100_000
"""Of each output that is brought back; what is cut off is said to be."""


class ExecutionError(ValueError):
    """The code cannot be sent; the message names the line and what is wrong with it."""


def check_code(code: str, name: str) -> None:
    """Check that *code* compiles, with the magics and the top-level ``await`` that IPython knows.

    Args:
        code: as a cell of a notebook has it.
        name: what it is called in the message.

    Raises:
        ExecutionError: it does not; nothing has been sent.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        source = TransformerManager().transform_cell(code)  # type: ignore[no-untyped-call]
        compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise ExecutionError(f"{why_not(error, name)}; nothing was sent to an engine") from None


def check_startup(code: str, name: str) -> None:
    """Check that the code which engines run first, plain Python, compiles.

    Args:
        code: as a module has it.
        name: what it is called in the message, such as the file it is from.

    Raises:
        ExecutionError: it does not.
    """
    try:
        compile(code, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise ExecutionError(f"{why_not(error, f'the start-up {name}')}; no engine was started") from None


def why_not(error: Exception, name: str) -> str:
    """Return why code called *name* does not compile, with its line where that is known."""
    number = getattr(error, "lineno", None)
    text = (getattr(error, "text", None) or "").strip()
    line = f", line {number}" if number else ""
    return f"{name}{line} does not compile: {getattr(error, 'msg', error)}{f' ({text})' if text else ''}"


# ---- on the engine: these are sent as they are, and find nothing of this module there


def run_code(code: str, most: int) -> dict[str, t.Any]:
    """Run *code* as a cell in the engine's namespace; return what came of it."""
    import asyncio
    import concurrent.futures
    import contextvars
    import time
    import traceback
    import warnings

    from IPython import get_ipython
    from IPython.utils.capture import capture_output

    def run_aside(cell: t.Any) -> t.Any:
        # code with await needs a loop of its own, and a thread has only one, which is here the engine's
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(contextvars.copy_context().run, asyncio.run, cell).result()

    # after sys.exit; who followed it would end the engine
    warnings.filterwarnings("ignore", "To exit: use")
    shell = get_ipython()
    before, shell.loop_runner = shell.loop_runner, run_aside
    started = time.monotonic()
    try:
        with capture_output(display=False) as captured:
            done = shell.run_cell(code, store_history=False)
    finally:
        shell.loop_runner = before
    error = done.error_before_exec or done.error_in_exec
    if isinstance(error, SystemExit) and error.code in (None, 0):
        error = None
    lines = traceback.format_exception(type(error), error, error.__traceback__) if error else []
    return {
        "status": "error" if error else "ok",
        "stdout": captured.stdout[:most],
        "stderr": captured.stderr[:most],
        "result": repr(done.result)[:most] if done.result is not None else None,
        "error": f"{type(error).__name__}: {error}" if error else "",
        "traceback": "".join(lines)[:most],
        "seconds": round(time.monotonic() - started, 3),
    }


def run_shell(command: str, most: int) -> dict[str, t.Any]:
    """Run *command* in a shell on the engine's host; return what came of it."""
    import subprocess
    import time

    started = time.monotonic()
    done = subprocess.run(  # noqa: S602 - a shell is what was asked for
        command, shell=True, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
    )
    return {
        "status": "error" if done.returncode else "ok",
        "stdout": done.stdout[:most],
        "stderr": done.stderr[:most],
        "rc": done.returncode,
        "error": f"the command ended with {done.returncode}" if done.returncode else "",
        "seconds": round(time.monotonic() - started, 3),
    }


# ---- here


NOTHING = {"stdout": "", "stderr": "", "result": None, "rc": None, "error": "", "traceback": "", "seconds": None}
"""What is known of an engine that has returned nothing."""


def outcome(result: ipyparallel.AsyncResult, limit: float) -> dict[str, t.Any]:
    """Return what came of work: what the engine returned, what hindered it, or that it is still under way."""
    if not result.ready():
        return {**NOTHING, "status": "unfinished", "error": f"still under way after {limit:g} s; it goes on"}
    try:
        found: dict[str, t.Any] = result.get(0)
    except Exception as error:  # noqa: BLE001 - whatever the engine, its end or a scheduler made of it
        said = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
        return {**NOTHING, "status": "error", "error": said}
    return {**NOTHING, **{name: cut(value) if isinstance(value, str) else value for name, value in found.items()}}


def cut(text: str) -> str:
    """Return *text*, or its beginning and that there is more."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[the rest, after {MOST_CHARACTERS} characters, was left where it is]"


def execute(
    client: ipyparallel.Client,
    engines: Sequence[dict[str, t.Any]],
    *,
    code: str | None,
    shell: str | None,
    balanced: int,
    limit: float,
) -> list[dict[str, t.Any]]:
    """Run code or a command on engines at once, and wait.

    Args:
        client: of the cluster's hub.
        engines: where to, as ``selection.select`` returns them.
        code: Python, or None.
        shell: a command, where there is no code.
        balanced: 0 for once on each engine; else how many times, each on whichever of them is free.
        limit: how long to wait for all of it, in seconds.

    Returns:
        For each engine, or each time, what `run_code` or `run_shell` returned, and ``id``, ``host``, ``pool``, ``core``
        of the engine; ``status`` is ``unfinished`` for what is still under way.
    """
    work = (hub.on_engine(run_code), code) if code is not None else (hub.on_engine(run_shell), shell)
    deadline = time.monotonic() + limit
    by_id = {engine["id"]: engine for engine in engines}
    if balanced:
        view = client.load_balanced_view(list(by_id))
        sent = [(None, view.apply_async(*work, MOST_CHARACTERS + 1)) for _number in range(balanced)]
    else:
        sent = [(number, client[number].apply_async(*work, MOST_CHARACTERS + 1)) for number in by_id]
    for _number, result in sent:
        result.wait(max(0.0, deadline - time.monotonic()))
    found = []
    for number, result in sent:
        ran_on = result.engine_id if number is None and result.ready() else number
        where = by_id.get(ran_on) or {"id": ran_on, "host": None, "pool": None, "core": None}
        found.append({**{name: where[name] for name in ("id", "host", "pool", "core")}, **outcome(result, limit)})
    return found
