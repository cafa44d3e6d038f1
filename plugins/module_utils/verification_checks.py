# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The checks of a running cluster: one function for each operation that users of IPython's parallel computing know.

They follow the two tutorials that the collection keeps alive. Operations of the old ``MultiEngineClient`` and
``TaskClient`` keep their names, and are done in today's terms: a direct and a load-balanced view.

Two things are not checked, because they would harm the work of others:

- a load-balanced task that moves from one engine to another (a failing task with ``retries``, an unmet ``@require``):
  the hub counts it as running on the engine it left until that engine is gone, so ``queue_status()`` would never
  be zero again;
- an error under ``%px``: it aborts what other clients have waiting to be executed on the same engines. Errors of
  silent code, as views execute it, do not.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import importlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
import types
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub
from ansible_collections.ipyparallel.cluster.plugins.module_utils.hub import on_engine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.verification import (
    CHECKS,
    PROFILE,
    CheckFailedError,
    Context,
    NotAvailableError,
    check,
    expect,
    expect_error,
    expect_that,
    shorten,
    write_private,
)

if t.TYPE_CHECKING:
    import ipyparallel

__all__ = ["CHECKS"]

SPARE_MODULES = (
    *("colorsys", "fileinput", "getopt", "graphlib", "mailbox", "modulefinder", "netrc", "opcode", "pickletools"),
    *("plistlib", "pyclbr", "quopri", "sched", "stringprep", "symtable", "tabnanny", "wave", "zipapp"),
)
"""Modules of the standard library that hardly anybody has in an engine's namespace, to be imported there."""

OUTPUT_HINT = "the controller's scheduler of outputs (iopub) may be gone; restart the controller"
CONTROL_HINT = "the controller's control scheduler may be gone; restart the controller"
BROADCAST_HINT = "the controller's broadcast schedulers may be gone; restart the controller"

MOMENT = 0.2
"""Seconds that a task takes when something has to be seen while it runs."""


# ---------------------------------------------------------------------------------------------------------------------
# Functions that run on engines
# ---------------------------------------------------------------------------------------------------------------------


@on_engine
def _double(value: t.Any) -> t.Any:
    return value * 2


@on_engine
def _add(left: t.Any, right: t.Any) -> t.Any:
    return left + right


@on_engine
def _keywords(first: t.Any, *, second: t.Any = None) -> t.Any:
    return [first, second]


@on_engine
def _process() -> int:
    import os

    return os.getpid()


@on_engine
def _sleep(seconds: float, answer: t.Any = None) -> t.Any:
    import time

    time.sleep(seconds)
    return answer


@on_engine
def _fail(message: str) -> None:
    raise ValueError(message)


@on_engine
def _speak(text: str) -> None:
    import sys

    sys.stdout.write(f"{text}\n")
    sys.stderr.write(f"{text.upper()}\n")


@on_engine
def _has(name: str) -> bool:
    return name in globals()


@on_engine
def _present(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in globals()]


@on_engine
def _drop(name: str) -> None:
    globals().pop(name, None)


@on_engine
def _string_task(code: str, push: dict[str, t.Any], pull: list[str]) -> list[t.Any]:
    space = dict(push)
    exec(code, space)  # noqa: S102  (that is what a string task is)
    return [space[name] for name in pull]


@on_engine
def _norms(vector: list[float], levels: tuple[float, ...] = (2,)) -> list[float]:
    return [sum(abs(x) ** level for x in vector) ** (1 / level) for level in levels]


@on_engine
def _numpy_norms(array: t.Any, levels: tuple[float, ...] = (2,)) -> list[float]:
    import numpy

    return [float(numpy.linalg.norm(array, level)) for level in levels]


@on_engine
def _has_numpy() -> bool:
    import importlib.util

    return importlib.util.find_spec("numpy") is not None


@on_engine
def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


@on_engine
def _random_matrix_spacing(seed: int) -> float:
    """Return the mean spacing of the eigenvalues of random symmetric 2 x 2 matrices."""
    import math
    import random

    draw = random.Random(seed)
    spacings: list[float] = []
    while len(spacings) < 100:
        a, b, d = draw.gauss(0, 1), draw.gauss(0, 1), draw.gauss(0, 1)
        spacings.append(math.hypot(a - d, 2 * b))
    return sum(spacings) / len(spacings)


def _chunks(context: Context) -> list[int]:
    """Return numbers to map over: three for each engine, so that each has work."""
    return list(range(3 * len(context.ids)))


def _execute_code(context: Context, view: ipyparallel.DirectView, code: str) -> ipyparallel.AsyncResult:
    """Execute *code* and wait for the result, but not for output as ``block=True`` would."""
    result = view.execute(code, block=False)
    result.get(context.limit)
    return result


def _await_output(context: Context, result: ipyparallel.AsyncResult) -> None:
    """Wait for what the engines printed."""
    if not result.wait_for_output(context.patience):
        raise CheckFailedError(f"expected output, came none within {context.patience:g} s: {OUTPUT_HINT}")


def _having(context: Context, name: str) -> list[int]:
    """Return the engines that have *name* in their namespace."""
    found = context.direct.apply_async(_has, name).get_dict(context.limit)
    return [engine for engine, there in found.items() if there]


@contextlib.contextmanager
def _spare_module(context: Context) -> c.Iterator[str]:
    """Let the block import a module on the engines whose name is in nobody's namespace; remove the name afterwards."""
    taken = context.direct.apply_async(_present, SPARE_MODULES).get(context.limit)
    free = [name for name in SPARE_MODULES if not any(name in names for names in taken)]
    if not free:
        raise NotAvailableError("the engines' namespaces have all the modules that could be imported for a test")
    name = secrets.choice(free)
    try:
        yield name
    finally:
        context.direct.apply_async(_drop, name).get(context.limit)


# ---------------------------------------------------------------------------------------------------------------------
# Feature 30: MultiEngineClient
# ---------------------------------------------------------------------------------------------------------------------


@check(30, "every engine answers")
def _every_engine_answers(context: Context) -> None:
    context.survey(context.patience)
    if context.silent and not context.ids and not context.busy:
        raise CheckFailedError(
            f"none of {len(context.silent)} engines answers, and the hub knows of nothing else they should be doing: "
            "the controller's scheduler of direct work is gone, or all of them are frozen; restart the controller"
        )
    if context.silent:
        raise CheckFailedError("; ".join(context.silent.values()))


@check(30, "MultiEngineClient.get_ids")
def _get_ids(context: Context) -> None:
    ids = context.client.ids
    expect_that("ids in ascending order, each once", ids == sorted(set(ids)), ids)
    # only of these: without targets, the hub lists engines that left long ago, too
    status = context.client.queue_status(targets=ids)
    expect("engines whose queue the hub tells", sorted(key for key in status if key != "unassigned"), ids)


@check(30, "MultiEngineClient.targets: all")
def _targets_all(context: Context) -> None:
    if context.silent:
        raise CheckFailedError(f"not tried: engines {sorted(context.silent)} do not answer")
    view = context.client.direct_view("all")
    answers = view.apply_async(_process).get_dict(context.limit)
    expect("engines that 'all' reached", sorted(answers), context.client.ids)
    expect("different processes among them", len(set(answers.values())), len(answers))


@check(30, "MultiEngineClient.targets: a list of ids")
def _targets_list(context: Context) -> None:
    chosen = context.ids[::-1]
    answers = context.client.direct_view(chosen).apply_async(_process)
    answers.get(context.limit)
    expect("engines in the order of the list", answers.engine_id, chosen)


@check(30, "MultiEngineClient.targets: one id")
def _targets_one(context: Context) -> None:
    for engine in context.ids:
        answer = context.client[engine].apply_async(_double, 4)
        expect(f"answer of engine {engine}, not in a list", answer.get(context.limit), 8)
        expect("engine that answered", answer.engine_id, engine)


@check(30, "MultiEngineClient.targets: a slice")
def _targets_slice(context: Context) -> None:
    ids = context.client.ids
    expect("targets of client[:]", context.client[:].targets, ids)
    expect("targets of client[::2]", context.client[::2].targets, ids[::2])
    expect("targets of client[-1]", context.client[-1].targets, ids[-1])


@check(30, "MultiEngineClient.targets in one call")
def _targets_in_call(context: Context) -> None:
    name, last = context.name("targeted"), context.ids[-1]
    context.direct.push({name: 1}, targets=last, block=True)
    expect("engines with the name", _having(context, name), [last])


@check(30, "MultiEngineClient.block = True")
def _block_true(context: Context) -> None:
    view = context.direct
    view.block = True
    expect("result of a blocking call", view.apply(_double, 3), [6] * len(context.ids))


@check(30, "MultiEngineClient.block = False")
def _block_false(context: Context) -> None:
    import ipyparallel

    view = context.direct
    view.block = False
    answer = view.apply(_double, 3)
    expect_that("an AsyncResult", isinstance(answer, ipyparallel.AsyncResult), answer)
    expect("its result", answer.get(context.limit), [6] * len(context.ids))


@check(30, "MultiEngineClient.execute on all", OUTPUT_HINT)
def _execute_all(context: Context) -> None:
    name = context.name("executed")
    result = _execute_code(context, context.direct, f"{name} = 6 * 7\nprint('Hello world!')")
    _await_output(context, result)
    expect("what the engines printed", result.stdout, ["Hello world!\n"] * len(context.ids))
    expect("what they computed", context.direct.pull(name, block=True), [42] * len(context.ids))


@check(30, "MultiEngineClient.execute on one", OUTPUT_HINT)
def _execute_one(context: Context) -> None:
    name, last = context.name("executed_on_one"), context.ids[-1]
    context.direct.execute(f"{name} = 1", targets=last, block=True)  # waits for the result and for all output
    expect("engines with the name", _having(context, name), [last])


@check(30, "MultiEngineClient.map")
def _map(context: Context) -> None:
    numbers = _chunks(context)
    expect("map_sync", context.direct.map_sync(_double, numbers), [2 * n for n in numbers])
    expect("map of two sequences", context.direct.map(_add, numbers, numbers, block=True), [2 * n for n in numbers])


@check(30, "MultiEngineClient.map, not blocking")
def _map_async(context: Context) -> None:
    numbers = _chunks(context)
    result = context.direct.map_async(_double, numbers)
    expect("results while iterating", list(result), [2 * n for n in numbers])
    expect("result", result.get(context.limit), [2 * n for n in numbers])
    expect("engines that took part", sorted(set(result.engine_id)), context.ids)


@check(30, "MultiEngineClient.push / pull")
def _push_pull(context: Context) -> None:
    name = context.name("pushed")
    value = {"text": "Grüße", "numbers": [1, 2.5, None], "bytes": b"\x00\xff", "tuple": (1, 2)}
    context.direct.push({name: value}, block=True)
    expect("pulled", context.direct.pull(name, block=True), [value] * len(context.ids))


@check(30, "MultiEngineClient.push / pull, not blocking")
def _push_pull_async(context: Context) -> None:
    name = context.name("pushed_async")
    context.direct.push({name: 7}, block=False).get(context.limit)
    expect("pulled", context.direct.pull(name, block=False).get(context.limit), [7] * len(context.ids))


@check(30, "MultiEngineClient.push_function / pull_function")
def _push_function(context: Context) -> None:
    name = context.name("function")
    context.direct.push({name: _double}, block=True)
    _execute_code(context, context.direct, f"{context.name('called')} = {name}(21)")
    expect("function called there", context.direct.pull(context.name("called"), block=True), [42] * len(context.ids))
    expect("function pulled and called here", context.first.pull(name, block=True)(5), 10)


@check(30, "MultiEngineClient.scatter / gather")
def _scatter_gather(context: Context) -> None:
    name, numbers = context.name("scattered"), _chunks(context)
    context.direct.scatter(name, numbers, block=True)
    expect("parts", context.direct.pull(name, block=True), [numbers[i : i + 3] for i in range(0, len(numbers), 3)])
    expect("gathered", context.direct.gather(name, block=True), numbers)


@check(30, "MultiEngineClient.scatter / gather, not blocking")
def _scatter_gather_async(context: Context) -> None:
    name, numbers = context.name("scattered_async"), _chunks(context)
    context.direct.scatter(name, numbers, block=False).get(context.limit)
    _execute_code(context, context.direct, f"{name} = [n * n for n in {name}]")
    expect("gathered squares", context.direct.gather(name, block=False).get(context.limit), [n * n for n in numbers])


# ---------------------------------------------------------------------------------------------------------------------
# Feature 31: TaskClient
# ---------------------------------------------------------------------------------------------------------------------


@check(31, "every engine takes load-balanced tasks")
def _every_engine_takes_tasks(context: Context) -> None:
    takers = context.takers
    if not takers:
        raise CheckFailedError(
            "none got a task, though they answer directly: the task scheduler is gone; restart the controller"
        )
    left_out = [engine for engine in context.ids if engine not in takers]
    if left_out:
        raise CheckFailedError(
            f"engines {left_out} answer directly but get no load-balanced task: another client's tasks fill them, or "
            "the scheduler lost count of them when the controller was restarted; if they are idle, restart them"
        )


@check(31, "TaskClient.run")
def _run(context: Context) -> None:
    task = context.balanced.apply_async(_double, 21)
    expect("message ids of one task", len(task.msg_ids), 1)
    expect("result", task.get(context.limit), 42)
    expect_that(f"an engine of {context.ids}", task.engine_id in context.ids, task.engine_id)


@check(31, "TaskClient.run, blocking")
def _run_blocking(context: Context) -> None:
    expect("result", context.balanced.apply_sync(_double, 21), 42)


@check(31, "TaskClient.get_task_result")
def _get_task_result(context: Context) -> None:
    task = context.balanced.apply_async(_sleep, MOMENT / 4, "slept")
    again = context.client.get_result(task.msg_ids[0], block=False, owner=False)
    expect("result by task id", again.get(context.limit), "slept")


@check(31, "TaskClient.get_task_result of another client")
def _get_task_result_of_another(context: Context) -> None:
    import ipyparallel

    task = context.balanced.apply_async(_double, 21)
    task.get(context.limit)
    with context.another_client(context.connector) as other:
        try:
            if task.msg_ids[0] not in other.hub_history():
                raise NotAvailableError("the hub keeps no results (IPController.db_class is NoDB)")
        except ipyparallel.error.RemoteError as error:
            raise NotAvailableError(f"the hub keeps no results (IPController.db_class): {error}") from error
        expect("result by task id", other.get_result(task.msg_ids[0], block=True).get(context.limit), 42)


@check(31, "TaskClient.barrier")
def _barrier(context: Context) -> None:
    tasks = [context.balanced.apply_async(_sleep, MOMENT / 4, number) for number in range(4)]
    ids = [message for task in tasks for message in task.msg_ids]
    expect("barrier", context.client.wait(ids, timeout=context.limit), True)
    expect("tasks ready after it", [task.ready() for task in tasks], [True] * 4)


@check(31, "MapTask(func, args, kwargs)")
def _map_task(context: Context) -> None:
    task = context.balanced.apply_async(_keywords, 1, second="two")
    expect("func(*args, **kwargs)", task.get(context.limit), [1, "two"])


@check(31, "StringTask(code, push, pull)")
def _string_task_direct(context: Context) -> None:
    given, made = context.name("given"), context.name("made")
    context.first.push({given: 20}, block=True)
    _execute_code(context, context.first, f"{made} = {given} + 1")
    expect("pulled", context.first.pull([given, made], block=True), [20, 21])


@check(31, "StringTask(code, push, pull), load-balanced")
def _string_task_balanced(context: Context) -> None:
    task = context.balanced.apply_async(_string_task, "made = given + 1", {"given": 20}, ["given", "made"])
    expect("pulled", task.get(context.limit), [20, 21])


@check(31, "load-balanced map keeps the order")
def _balanced_map(context: Context) -> None:
    delays = [MOMENT / 4, 0, 0, 0, 0, 0]
    result = context.balanced.map_async(_sleep, delays, range(6), ordered=True)
    expect("results in the order of the arguments", list(result), list(range(6)))


@check(31, "load-balanced map, as results come, in chunks")
def _balanced_map_unordered(context: Context) -> None:
    numbers = list(range(20))
    result = context.balanced.map_async(_double, numbers, ordered=False, chunksize=4)
    expect("tasks", len(result.msg_ids), 5)
    expect("results, sorted", sorted(result), [2 * n for n in numbers])


@check(31, "load-balanced task that fails")
def _balanced_error(context: Context) -> None:
    import ipyparallel

    task = context.balanced.apply_async(_fail, "on purpose")
    error = expect_error("result", ipyparallel.error.RemoteError, lambda: task.get(context.limit))
    expect("error", [error.ename, error.evalue], ["ValueError", "on purpose"])


@check(31, "task with retries")
def _retries(context: Context) -> None:
    # it succeeds at once: see at the top of this file what a retry leaves behind
    view = context.balanced
    view.retries = 2
    expect("result", view.apply_async(_double, 21).get(context.limit), 42)


@check(31, "task after another")
def _after(context: Context) -> None:
    # on different engines where there are some, so that only the dependency can hold the second back
    targets = context.balanced.targets
    first, second = context.balanced, context.balanced
    first.targets, second.targets = [targets[0]], [targets[-1]]
    earlier = first.apply_async(_sleep, MOMENT)
    with second.temp_flags(after=[earlier]):
        later = second.apply_async(_process)
    later.get(context.limit)
    expect("the first task was done when the second was", earlier.ready(), True)


@check(31, "task that follows another to its engine")
def _follow(context: Context) -> None:
    leader, followers = context.balanced, context.balanced
    leader.targets = [followers.targets[-1]]
    led = leader.apply_async(_process)
    with followers.temp_flags(follow=[led]):
        tasks = [followers.apply_async(_process) for dummy in range(3)]
    processes = [task.get(context.limit) for task in tasks]
    expect("processes of the followers", processes, [led.get(context.limit)] * 3)


@check(31, "task after one that failed")
def _impossible(context: Context) -> None:
    import ipyparallel

    view = context.balanced
    failed = view.apply_async(_fail, "on purpose")
    failed.wait(context.limit)
    with view.temp_flags(after=[failed]):
        task = view.apply_async(_process)
    error = expect_error("result", ipyparallel.error.RemoteError, lambda: task.get(context.limit))
    expect("error", error.ename, "ImpossibleDependency")


# ---------------------------------------------------------------------------------------------------------------------
# Feature 32: the tutorial's examples
# ---------------------------------------------------------------------------------------------------------------------


@check(32, "example: prime numbers")
def _primes(context: Context) -> None:
    answers = context.direct.map(_is_prime, range(1000), block=False).get(context.limit)
    expect("primes below 1000", sum(answers), 168)


@check(32, "example: random matrices")
def _random_matrices(context: Context) -> None:
    seeds = list(range(len(context.ids)))
    spacings = context.balanced.map_async(_random_matrix_spacing, seeds).get(context.limit)
    here = [_random_matrix_spacing(seed) for seed in seeds]
    expect_that(f"{shorten(here)}", all(abs(a - b) < 1e-9 for a, b in zip(here, spacings, strict=True)), spacings)


# ---------------------------------------------------------------------------------------------------------------------
# Feature 33: a client, and remote execution
# ---------------------------------------------------------------------------------------------------------------------


def _expect_usable(context: Context, client: ipyparallel.Client) -> None:
    expect("ids", client.ids, context.client.ids)
    expect("answer of an engine", client[context.ids[0]].apply_async(_double, 4).get(context.limit), 8)


@check(33, "Client()")
def _client_default(context: Context) -> None:
    with context.another_client() as client:
        _expect_usable(context, client)


@check(33, "Client('/path/to/ipcontroller-client.json')")
def _client_by_path(context: Context) -> None:
    with context.another_client(context.connector) as client:
        _expect_usable(context, client)


@check(33, "Client(profile=...)")
def _client_by_profile(context: Context) -> None:
    with context.another_client(profile=PROFILE) as client:
        _expect_usable(context, client)


@check(33, "apply")
def _apply(context: Context) -> None:
    view = context.first
    view.block = True
    expect("apply, blocking", view.apply(_add, 1, 2), 3)
    view.block = False
    expect("apply, not blocking", view.apply(_add, 1, right=2).get(context.limit), 3)


@check(33, "apply_sync")
def _apply_sync(context: Context) -> None:
    expect("apply_sync", context.first.apply_sync(_add, "a", "b"), "ab")


@check(33, "apply_async")
def _apply_async(context: Context) -> None:
    expect("apply_async", context.first.apply_async(_add, [1], [2]).get(context.limit), [1, 2])


@check(33, "apply with keyword arguments (get_norms)")
def _apply_norms(context: Context) -> None:
    vector, levels = [3.0, 4.0], (1, 2)
    expect("norms", context.first.apply_async(_norms, vector, levels=levels).get(context.limit), [7.0, 5.0])


@check(33, "apply of a module's function")
def _apply_module_function(context: Context) -> None:
    import textwrap

    answer = context.first.apply_async(textwrap.shorten, "one two three", width=11, placeholder="...")
    expect("textwrap.shorten", answer.get(context.limit), "one two...")


@check(33, "apply with numpy arrays (get_norms)")
def _apply_numpy(context: Context) -> None:
    try:
        import numpy
    except ImportError as error:
        raise NotAvailableError("numpy is not installed on this host") from error
    missing = [e for e in context.ids if not context.client[e].apply_async(_has_numpy).get(context.limit)]
    if missing:
        raise NotAvailableError(f"numpy is not installed on engines {missing}")
    array, levels = numpy.random.random(1024), (1, 2, 3, numpy.inf)
    came = context.direct.apply_async(_numpy_norms, array, levels=levels).get(context.limit)
    here = _numpy_norms(array, levels)
    expect_that(f"norms {shorten(here)}", all(numpy.allclose(here, norms) for norms in came), came)
    name = context.name("array")
    context.direct.push({name: array}, block=True)
    back = context.direct.pull(name, block=True)
    expect_that("the array that was pushed", all(numpy.array_equal(array, other) for other in back), back)


@check(33, "execute")
def _execute(context: Context) -> None:
    name = context.name("b")
    _execute_code(context, context.first, f"{name} = 5 * 5")
    expect("value", context.first[name], 25)


@check(33, "run a file")
def _run_file(context: Context) -> None:
    square, five = context.name("mysquare"), context.name("a")
    script = context.directory / "myscript.py"
    write_private(
        script, f"import math as {context.name('math')}\n\n{five} = 5\n\n\ndef {square}(x):\n    return x*x\n"
    )
    context.first.run(str(script), block=False).get(context.limit)
    _execute_code(context, context.first, f"{context.name('b')} = {square}({five})")
    expect("values", context.first.pull([five, context.name("b")], block=True), [5, 25])


@check(33, "@remote(block=True)")
def _remote(context: Context) -> None:
    process = context.first.remote(block=True)(_process)()
    expect("the engine's process", process, context.first.apply_async(_process).get(context.limit))


@check(33, "@remote(block=False)")
def _remote_async(context: Context) -> None:
    double = context.direct.remote(block=False)(_double)
    expect("results", double(2).get(context.limit), [4] * len(context.ids))


@check(33, "@parallel")
def _parallel(context: Context) -> None:
    double, numbers = context.direct.parallel(block=True)(_double), _chunks(context)
    expect("results", double.map(numbers), [2 * n for n in numbers])


@check(33, "namespace as a dict")
def _namespace(context: Context) -> None:
    name = context.name("dict")
    context.first[name] = ["foo", "bar"]
    expect("e0[name]", context.first[name], ["foo", "bar"])
    import ipyparallel

    error = expect_error(
        "e0[no such name]", ipyparallel.error.RemoteError, lambda: context.first[context.name("never")]
    )
    expect("error", error.ename, "NameError")


@check(33, "namespace: get and update")
def _namespace_update(context: Context) -> None:
    one, two = context.name("one"), context.name("two")
    view = context.first
    view.block = True
    view.update({one: 1, two: 2})
    expect("get", view.get(one), 1)
    expect("get of several", view.get([one, two]), [1, 2])


@check(33, "global a in a function (inc_a)")
def _global_assigned(context: Context) -> None:
    name = context.name("a")
    increase = context.define("inc_a", f"def inc_a(increment):\n    global {name}\n    {name} = {name} + increment\n")
    context.first[name] = 10
    context.first.apply_async(increase, 5).get(context.limit)
    expect("a after inc_a(5)", context.first[name], 15)


@check(33, "globals read in a function (mul_by_a)")
def _global_read(context: Context) -> None:
    name = context.name("a")
    multiply = context.define("mul_by_a", f"def mul_by_a(b):\n    return {name} * b\n")
    context.first[name] = 10
    expect("mul_by_a(2)", context.first.apply_async(multiply, 2).get(context.limit), 20)


@check(33, "Reference")
def _reference(context: Context) -> None:
    import ipyparallel

    name = context.name("referred")
    reference = ipyparallel.Reference(name)
    for value in (10, 5):
        context.first[name] = value
        expect(
            f"double(ra) where a is {value}",
            context.first.apply_async(_double, reference).get(context.limit),
            value * 2,
        )


@check(33, "broadcast view", BROADCAST_HINT)
def _broadcast(context: Context) -> None:
    view = context.client.broadcast_view(list(context.ids))
    expect("apply", view.apply_async(_double, 4).get(context.limit), [8] * len(context.ids))


@check(33, "broadcast view, replies collected", BROADCAST_HINT)
def _broadcast_coalescing(context: Context) -> None:
    view = context.client.broadcast_view(list(context.ids), is_coalescing=True)
    processes = view.apply_async(_process).get(context.limit)
    expect("different processes", len(set(processes)), len(context.ids))


# ---------------------------------------------------------------------------------------------------------------------
# Feature 33: magics, in a real IPython
# ---------------------------------------------------------------------------------------------------------------------

_SESSION = """
import json, sys, time
from IPython.utils.capture import capture_output

with open(sys.argv[1]) as file:
    cells = json.load(file)
shell = get_ipython()
told = {}
for name, source in cells.items():
    started = time.perf_counter()
    with capture_output() as output:
        result = shell.run_cell(source)
    error = result.error_before_exec or result.error_in_exec
    told[name] = {
        "stdout": output.stdout,
        "stderr": output.stderr,
        "error": f"{type(error).__name__}: {error}" if error else "",
        "seconds": time.perf_counter() - started,
    }
    with open(sys.argv[2], "w") as file:
        json.dump(told, file)
"""
"""Runs in IPython: types the cells of one file, and writes what came of them into another, after each."""


@dataclasses.dataclass(frozen=True)
class _Cell:
    """What came of a cell typed into IPython."""

    stdout: str
    stderr: str
    error: str
    seconds: float

    def succeed(self) -> _Cell:
        """Fail the check when the cell raised an error."""
        if self.error:
            raise CheckFailedError(f"expected no error, came {shorten(self.error)}")
        return self


def _cells(context: Context) -> dict[str, str]:
    """Return what is typed into IPython, in this order."""
    name, first = context.name("px"), context.ids[0]
    return {
        "client": f"import ipyparallel\nrc = ipyparallel.Client(timeout={context.limit})",
        "activate": f"view = rc[:]\nview.targets = {context.ids}\nview.block = True\nview.activate()",
        # shown when all is there, not as it comes: the order is certain then, and nothing is shown twice
        "pxconfig": "%pxconfig --no-stream",
        "px": f"%px {name} = 6 * 7",
        "px print": f"%px print({name})",
        "%px": f"%%px\n{name}_cell = 1\nprint({name} + {name}_cell)",
        "%px --targets": f"%%px --targets {first}\n{name}_one = 1",
        "%px --noblock": f"%%px --noblock\nprint({name} * 10)",
        "pxresult": "%pxresult",
        "autopx on": "%autopx",
        "autopx": f"{name}_auto = 5",
        "autopx off": "%autopx",
        "autopx local": f"print('{name}_auto' in globals())",
        "history": "print(*rc.history)\nrc.close()",
    }


def _type_cells(context: Context) -> None:
    """Type all cells into one IPython, started by profile as a user would; keep what came of them."""
    script, cells, told = (context.directory / name for name in ("session.py", "cells.json", "told.json"))
    write_private(script, _SESSION)
    write_private(cells, json.dumps(_cells(context)))
    write_private(told, "{}")
    options = [
        f"--ipython-dir={context.directory}",
        f"--profile={PROFILE}",
        "--no-banner",
        "--colors=NoColor",
        "--HistoryManager.enabled=False",
    ]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "IPython", *options, "--", str(script), str(cells), str(told)],
            env={**os.environ, "IPYTHONDIR": str(context.directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        context.session = {name: _Cell(**cell) for name, cell in json.loads(told.read_text() or "{}").items()}
    if "history" in context.session:
        context.messages += context.session["history"].stdout.split()
    if not context.session:
        raise CheckFailedError(f"IPython ended with status {ended.returncode}: {shorten(ended.stdout)}")


def _cell(context: Context, name: str) -> _Cell:
    """Return what came of the cell *name*."""
    if name not in context.session:
        raise CheckFailedError("not tried: IPython did not get so far")
    return t.cast(_Cell, context.session[name])


def printed(shown: str) -> dict[int, str]:
    """Return what each engine printed, from what IPython *shown*: a heading for each engine, then its text."""
    pairs = re.split(r"^\[stdout:(\d+)\][ \n]*", shown, flags=re.MULTILINE)[1:]
    return {int(engine): text.strip() for engine, text in zip(pairs[::2], pairs[1::2], strict=True)}


def _expect_printed(context: Context, cell: _Cell, text: str) -> None:
    expect("what the engines printed", printed(cell.stdout), dict.fromkeys(context.ids, text))


@check(33, "ipython --profile=...: Client()")
def _magic_client(context: Context) -> None:
    _type_cells(context)
    _cell(context, "client").succeed()


@check(33, "%px")
def _magic_px(context: Context) -> float:
    for name in ("activate", "pxconfig", "px"):
        _cell(context, name).succeed()
    cell = _cell(context, "px print").succeed()
    _expect_printed(context, cell, "42")
    return cell.seconds


@check(33, "%%px")
def _magic_cell(context: Context) -> float:
    cell = _cell(context, "%px").succeed()
    _expect_printed(context, cell, "43")
    return cell.seconds


@check(33, "%%px --targets")
def _magic_targets(context: Context) -> float:
    cell = _cell(context, "%px --targets").succeed()
    name = context.name("px_one")
    expect("engines with the name", _having(context, name), context.ids[:1])
    return cell.seconds


@check(33, "%pxresult")
def _magic_result(context: Context) -> float:
    _cell(context, "%px --noblock").succeed()
    cell = _cell(context, "pxresult").succeed()
    _expect_printed(context, cell, "420")
    return cell.seconds


@check(33, "%autopx")
def _magic_autopx(context: Context) -> float:
    for name in ("autopx on", "autopx", "autopx off"):
        _cell(context, name).succeed()
    expect("value on the engines", context.direct.pull(context.name("px_auto"), block=True), [5] * len(context.ids))
    expect("whether it is here too", _cell(context, "autopx local").stdout, "False\n")
    return _cell(context, "autopx").seconds


# ---------------------------------------------------------------------------------------------------------------------
# Feature 34: results, errors, imports
# ---------------------------------------------------------------------------------------------------------------------


@check(34, "push / pull of several names")
def _push_pull_several(context: Context) -> None:
    a, b = context.name("a"), context.name("b")
    context.first.push({a: 1.03234, b: 3453}, block=True)
    expect("pull(a)", context.first.pull(a, block=True), 1.03234)
    expect("pull((a, b))", context.first.pull((a, b), block=True), [1.03234, 3453])


@check(34, "pull, not blocking")
def _pull_async(context: Context) -> None:
    a = context.name("a")
    context.first[a] = 1.03234
    expect("pull(a, block=False).get()", context.first.pull(a, block=False).get(context.limit), 1.03234)


@check(34, "AsyncResult.ready")
def _ready(context: Context) -> None:
    result = context.first.apply_async(_sleep, MOMENT, "slept")
    expect("ready() while it runs", result.ready(), False)
    expect("result", result.get(context.limit), "slept")
    expect("ready() after it", [result.ready(), result.successful()], [True, True])


@check(34, "AsyncResult.get with a limit: TimeoutError")
def _get_timeout(context: Context) -> None:
    import ipyparallel

    result = context.first.apply_async(_sleep, MOMENT, "slept")
    error = expect_error("get(0.02) of a task that sleeps", TimeoutError, lambda: result.get(0.02))
    expect_that("ipyparallel's TimeoutError", isinstance(error, ipyparallel.error.TimeoutError), error)
    expect("result later", result.get(context.limit), "slept")


@check(34, "AsyncResult.wait")
def _wait(context: Context) -> None:
    result = context.first.apply_async(_sleep, MOMENT)
    expect("wait(0.02) of a task that sleeps", result.wait(0.02), False)
    expect("wait", result.wait(context.limit), True)


@check(34, "metadata")
def _metadata(context: Context) -> None:
    import datetime

    result = context.first.apply_async(_sleep, 0)
    result.get(context.limit)
    metadata = result.metadata
    for field in ("submitted", "started", "completed", "received"):
        expect_that(f"a time in {field}", isinstance(metadata[field], datetime.datetime), metadata[field])
    # submitted and received are times of this host, the other two of the engine's, whose clock may differ
    expect_that("submitted before received", metadata["submitted"] <= metadata["received"], metadata)
    expect_that("started before completed", metadata["started"] <= metadata["completed"], metadata)
    expect("msg_id", metadata["msg_id"], result.msg_ids[0])
    expect("engine_id", metadata["engine_id"], context.ids[0])
    idents = {engine["id"]: engine["uuid"] for engine in hub.registered(context.client)}
    expect("engine_uuid", metadata["engine_uuid"], idents[context.ids[0]])
    expect("status", metadata["status"], "ok")
    expect("stdout and stderr", [metadata["stdout"], metadata["stderr"]], ["", ""])
    expect("after and follow", [metadata["after"], metadata["follow"]], [[], []])


@check(34, "metadata of several engines")
def _metadata_all(context: Context) -> None:
    result = context.direct.apply_async(_sleep, 0)
    result.get(context.limit)
    expect("engine_id", [metadata["engine_id"] for metadata in result.metadata], context.ids)


@check(34, "stdout and stderr of a task")
def _output(context: Context) -> None:
    result = context.direct.apply_async(_speak, "hello")
    result.get(context.limit)
    _await_output(context, result)
    expect("stdout", result.stdout, ["hello\n"] * len(context.ids))
    expect("stderr", result.stderr, ["HELLO\n"] * len(context.ids))


@check(34, "sync_imports")
def _sync_imports(context: Context) -> None:
    with _spare_module(context) as name:
        with context.direct.sync_imports(quiet=True):
            here = __import__(name)  # what the statement does; the name is known at run time only
        expect("engines with the module's name", _having(context, name), context.ids)
        expect("import here", here.__name__, name)


def _expect_required(context: Context, name: str, required: str | types.ModuleType) -> None:
    """Fail the check unless a function that requires *required* finds the module *name*."""
    import ipyparallel

    function = context.define("function", f"def function():\n    return {name}.__name__\n")
    came = context.direct.apply_async(ipyparallel.require(required)(function)).get(context.limit)
    expect("module found by the function", came, [name] * len(context.ids))


@check(34, "@require('module')")
def _require_name(context: Context) -> None:
    with _spare_module(context) as name:
        _expect_required(context, name, name)


@check(34, "@require(module)")
def _require_module(context: Context) -> None:
    with _spare_module(context) as name:
        _expect_required(context, name, importlib.import_module(name))


@check(34, "@require(function)")
def _require_function(context: Context) -> None:
    import ipyparallel

    helper = context.define(context.name("helper"), f"def {context.name('helper')}(x):\n    return x + 1\n")
    caller = context.define("caller", f"def caller(x):\n    return {context.name('helper')}(x) * 2\n")
    answer = context.first.apply_async(ipyparallel.require(helper)(caller), 20)
    expect("result", answer.get(context.limit), 42)


@check(34, "@require that cannot be met: UnmetDependency")
def _require_unmet(context: Context) -> None:
    import ipyparallel

    absent = context.name("no_such_module")
    task = context.first.apply_async(ipyparallel.require(absent)(_process))
    error = expect_error("result", ipyparallel.error.RemoteError, lambda: task.get(context.limit))
    expect("error", [error.ename, error.evalue], ["UnmetDependency", absent])


@check(34, "RemoteError, blocking")
def _remote_error(context: Context) -> None:
    import ipyparallel

    error = expect_error("apply_sync", ipyparallel.error.RemoteError, lambda: context.first.apply_sync(_fail, "oh"))
    expect("error", [error.ename, error.evalue], ["ValueError", "oh"])
    expect("engine named in it", error.engine_info.get("engine_id"), context.ids[0])


@check(34, "RemoteError with the remote traceback")
def _remote_traceback(context: Context) -> None:
    import ipyparallel

    function = context.name("divide")
    code = f"def {function}(x):\n    return x / 0\n\n{function}(1)"
    error = expect_error(
        "execute", ipyparallel.error.RemoteError, lambda: context.first.execute(code).get(context.limit)
    )
    shown = shorten("\n".join(error.render_traceback()), 5000)
    for part in ("Traceback", "return x / 0", "ZeroDivisionError: division by zero"):
        expect_that(f"{part!r} in the traceback", part in shown, shown)


@check(34, "CompositeError, one entry for each engine")
def _composite_error(context: Context) -> None:
    import ipyparallel

    error = expect_error(
        "execute",
        ipyparallel.error.CompositeError,
        lambda: context.direct.execute("1/0", block=False).get(context.limit),
    )
    expect("errors", [entry[0] for entry in error.elist], ["ZeroDivisionError"] * len(context.ids))
    expect("engines", [entry[3]["engine_id"] for entry in error.elist], context.ids)


@check(34, "CompositeError.raise_exception")
def _raise_exception(context: Context) -> None:
    import ipyparallel

    result = context.direct.apply_async(_fail, "oh")
    composite = expect_error("get", ipyparallel.error.CompositeError, lambda: result.get(context.limit))
    error = expect_error("raise_exception", ipyparallel.error.RemoteError, lambda: composite.raise_exception(0))
    expect("error", [error.ename, error.evalue], ["ValueError", "oh"])
    expect_that("a traceback", "ValueError" in (error.traceback or ""), error.traceback)


@check(34, "errors as results (return_exceptions)")
def _return_exceptions(context: Context) -> None:
    import ipyparallel

    numbers = [1, 0]
    inverse = context.define("inverse", "def inverse(x):\n    return 1 / x\n")
    came = context.balanced.map_async(inverse, numbers, return_exceptions=True).get(context.limit)
    expect("first result", came[0], 1.0)
    expect_that("an error as the second", isinstance(came[1], ipyparallel.error.RemoteError), came)


@check(34, "abort of a waiting task", CONTROL_HINT)
def _abort(context: Context) -> None:
    import ipyparallel

    running = context.first.apply_async(_sleep, MOMENT, "ran")
    waiting = context.first.apply_async(_sleep, MOMENT, "ran too")
    context.client.abort(waiting, targets=context.ids[0], block=True)
    expect_error("result of the aborted task", ipyparallel.error.TaskAborted, lambda: waiting.get(context.limit))
    expect("result of the running one", running.get(context.limit), "ran")


def _expect_soon(context: Context, what: str, ask: c.Callable[[], set[str]]) -> None:
    """Fail the check unless *ask* returns an empty set within the limit of a check."""
    deadline = time.monotonic() + context.patience
    while (came := ask()) and time.monotonic() < deadline:
        time.sleep(0.01)
    expect(what, came, set())


@check(34, "queue_status")
def _queue_status(context: Context) -> None:
    tasks = [context.first.apply_async(_sleep, MOMENT / 4) for dummy in range(2)]
    mine = {message for task in tasks for message in task.msg_ids}

    def missing(*states: str) -> set[str]:
        status = context.client.queue_status(targets=context.ids[0], verbose=True)
        return mine.difference(*(status[state] for state in states))

    # the hub learns of tasks a little later than the engines do
    _expect_soon(context, "own tasks that the hub does not know", lambda: missing("queue", "completed"))
    context.client.wait(tasks, timeout=context.limit)
    _expect_soon(context, "own tasks that the hub does not call completed", lambda: missing("completed"))
