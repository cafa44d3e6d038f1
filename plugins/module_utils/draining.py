# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Engines that are to leave: they get no new work, finish what they have, and only then are ended."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import typing as t
from collections.abc import Callable, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub, turns
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import in_words

if t.TYPE_CHECKING:
    import ipyparallel

HOLD_SECONDS = 15.0
"""For how long the task scheduler keeps to a request; it is repeated, so that work goes on where the asker has died."""
ANSWER_SECONDS = 3.0
LOOK_EVERY = 0.1
MOST_NAMED = 3
DRAIN_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "limit": {"type": "float", "default": 60.0},
    "force": {"type": "bool", "default": False},
}
"""The options of every module that lets engines leave (documentation fragment ``drain``)."""
EngineDict: t.TypeAlias = "dict[str, t.Any]"


class DrainError(RuntimeError):
    """Nobody could be asked; the message says who, and the remedy."""


class Unfinished(t.NamedTuple):
    """What an engine that is to leave has still to do."""

    engine: EngineDict
    tasks: list[dict[str, t.Any]]
    direct: int

    def __str__(self) -> str:
        """Return it as a message names it."""
        said = [f"task {task['task']} since {task['seconds']:.0f} s" for task in self.tasks]
        if self.direct:
            said.append(f"{self.direct} direct call{'' if self.direct == 1 else 's'}")
        return f"{place(self.engine)} has {', '.join(said)}"


class Left(t.NamedTuple):
    """How far a drain is: what engines have to do, and the tasks that wait for none but them."""

    unfinished: list[Unfinished]
    waiting: list[str]

    def __bool__(self) -> bool:
        """Return whether there is anything left to do."""
        return bool(self.unfinished or self.waiting)


def place(engine: EngineDict) -> str:
    """Return an engine as messages name it."""
    return f"engine {engine['id']} ({engine['host'] or '?'} {engine['pool'] or '?'}/{engine['core']})"


def places(engines: Sequence[EngineDict]) -> str:
    """Return engines as a line names them that says how far a drain or a restart is."""
    return f"{', '.join(place(one) for one in engines[:MOST_NAMED])}{' ...' if engines[MOST_NAMED:] else ''}"


def answer_of(answer: hub.Answer, who: str) -> dict[str, t.Any]:
    """Wait for an answer and return it.

    Raises:
        DrainError: none came.
    """
    try:
        message: dict[str, t.Any] = answer.result(timeout=ANSWER_SECONDS)
    except concurrent.futures.TimeoutError:
        raise DrainError(
            f"the {who} did not answer within {ANSWER_SECONDS:g} s: look at the cluster's status (playbook "
            "ipyparallel.cluster.status), and run again; nothing was ended"
        ) from None
    return message


def look(client: ipyparallel.Client, engines: Sequence[EngineDict], hold: float) -> Left:
    """Let *engines* get nothing more for *hold* seconds, and return what they have still to do.

    Raises:
        DrainError: the task scheduler or the hub did not answer.
    """
    scheduler = hub.ask_to_drain(client, [engine["uuid"] for engine in engines], hold)
    queue = hub.ask_queue(client)
    running, waiting = hub.drained_of(answer_of(scheduler, "task scheduler"))
    counts, _unassigned = hub.queue_of(answer_of(queue, "hub"))
    busy = [engine["id"] for engine in engines if counts.get(engine["id"], {}).get("queue", 0)]
    calls = hub.calls_of(answer_of(hub.ask_calls(client, busy), "hub")) if busy else {}
    found = []
    for engine in engines:
        tasks = [one for one in running.get(engine["uuid"], []) if not hub.is_of_watchdog(one["task"])]
        direct = [one for one in calls.get(engine["id"], []) if not hub.is_of_watchdog(one)]
        found.append(Unfinished(engine, tasks, len(direct)))
    return Left(
        [one for one in found if one.tasks or one.direct],
        [one for one in waiting if not hub.is_of_watchdog(one)],
    )


def go_on(_left: Left) -> None:
    """Do nothing between two looks at engines."""


def drain(
    client: ipyparallel.Client,
    engines: Sequence[EngineDict],
    limit: float,
    between: Callable[[Left], None] = go_on,
    started: float | None = None,
) -> Left:
    """Let *engines* finish what they have, and get nothing new.

    Args:
        client: of the cluster's hub.
        engines: as ``hub.registered`` returns them.
        limit: how long to wait, in seconds.
        between: what is done after each look, with what is left; it may raise what ends the wait.
        started: since when they are waited for, if not since now.

    Returns:
        What is left; nothing when they are drained, and then they get nothing for `HOLD_SECONDS` more. Where something
        is left, they are as they were before: `release` them, unless they are to be ended all the same.

    Raises:
        DrainError: the task scheduler or the hub did not answer.
    """
    deadline = (time.monotonic() if started is None else started) + limit
    while True:
        left = look(client, engines, HOLD_SECONDS)
        if not left or time.monotonic() >= deadline:
            return left
        between(left)
        time.sleep(LOOK_EVERY)


def paused_by(turn: turns.Turn, keep: Callable[[], None], what: str, total: int) -> Callable[[Left], None]:
    """Return what is done between two looks at engines that drain.

    Args:
        turn: it ends where its time is over.
        keep: keeps the lease.
        what: in words, what they drain for.
        total: how many they are.
    """

    def between(left: Left) -> None:
        keep()
        if left and turn.is_over():
            raise turns.Pause(f"{what}; {progress(left, total)}")

    return between


def hold(client: ipyparallel.Client, engines: Sequence[EngineDict], seconds: float) -> None:
    """Let *engines*, which are drained, get nothing for *seconds*, until their service manager has ended them.

    Raises:
        DrainError: the task scheduler did not answer.
    """
    answer_of(hub.ask_to_drain(client, [engine["uuid"] for engine in engines], seconds), "task scheduler")


def release(client: ipyparallel.Client, engines: Sequence[EngineDict]) -> None:
    """Let *engines* have work again."""
    hold(client, engines, 0)


def drain_or_release(
    client: ipyparallel.Client,
    engines: Sequence[EngineDict],
    limit: float,
    force: bool,
    between: Callable[[Left], None] = go_on,
    *,
    started: float | None = None,
) -> str:
    """Let *engines* finish what they have, as `drain` does; where they do not, give them work again.

    Args:
        client: of the cluster's hub.
        engines: as ``hub.registered`` returns them.
        limit: how long to wait, in seconds.
        force: whether they are to be ended all the same.
        between: what is done after each look, with what is left; where it raises, they get work again, too, unless the
            next turn goes on (`turns.Pause`).
        started: since when they are waited for, if not since now.

    Returns:
        Why they are not to be ended, with the remedy; nothing when they are drained, or with *force*.

    Raises:
        DrainError: the task scheduler or the hub did not answer.
    """
    try:
        left = drain(client, engines, limit, between, started)
        between(Left([], []))
    except Exception:
        with contextlib.suppress(DrainError):
            release(client, engines)
        raise
    if not left or force:
        return ""
    release(client, engines)
    return (
        f"{in_words_of(left, limit)}. None of these engines was ended, and they get work again: wait and run again, "
        "give more time with -e ipyparallel_drain_limit=SECONDS, or lose that work with -e ipyparallel_force=true"
    )


def progress(left: Left, total: int) -> str:
    """Return how far a drain of *total* engines is."""
    said = [f"{total - len(left.unfinished)} of {total} have finished their work"]
    if left.unfinished:
        said.append(f"still at work: {places([one.engine for one in left.unfinished])}")
    if left.waiting:
        said.append(f"tasks that wait for these engines alone: {len(left.waiting)}")
    return "; ".join(said)


def in_words_of(left: Left, limit: float) -> str:
    """Return what a drain that did not come to its end says."""
    said = [str(one) for one in left.unfinished]
    if left.waiting:
        said.append(f"tasks wait for these engines alone: {in_words(left.waiting)}")
    return f"after {limit:g} s {'; '.join(said)}"


# ---- restarts


class Restarted(t.NamedTuple):
    """An engine that was started again: its place, its number before and after, and how long it was away."""

    engine: EngineDict
    after: int
    seconds: float


def replaced(client: ipyparallel.Client, engines: Sequence[EngineDict]) -> dict[str, EngineDict]:
    """Return the engines that are registered in the places of *engines*, by the ident of the one before."""
    registered = hub.registered(client)
    now = {Engine.of(one): one for one in registered}
    there = {one["uuid"] for one in registered}
    found = {one["uuid"]: now.get(Engine.of(one)) for one in engines}
    return {ident: one for ident, one in found.items() if one and ident not in there and one["uuid"] != ident}


def restart(
    client: ipyparallel.Client,
    engines: Sequence[EngineDict],
    wait: float,
    between: Callable[[list[EngineDict]], None] = lambda _away: None,
    under_way: dict[str, t.Any] | None = None,
) -> list[Restarted]:
    """End *engines*, which are drained, and wait until their service managers have started others that answer.

    Args:
        client: of the cluster's hub.
        engines: as ``hub.registered`` returns them.
        wait: how long to wait for all of them, in seconds.
        between: what is done after each look, with the engines that are away; it may raise what ends the wait.
        under_way: how far the restart is, as JSON; empty before it begins. With what a call has left there that
            *between* ended, the next one goes on.

    Returns:
        Those that have come back.
    """
    state: dict[str, t.Any] = {} if under_way is None else under_way
    if not state:
        state.update(started=time.monotonic(), back={})
        for engine in engines:
            hub.tell_to_end(client, engine["uuid"], "SIGTERM")
    started, back = state["started"], state["back"]
    asked: dict[str, tuple[EngineDict, hub.Answer]] = {}
    while len(back) < len(engines) and time.monotonic() < started + wait:
        for ident, one in replaced(client, engines).items():
            if ident not in asked or asked[ident][0]["uuid"] != one["uuid"]:
                asked[ident] = one, hub.ask_engine(client, one["uuid"])
        for engine in engines:
            ident = engine["uuid"]
            if ident in asked and ident not in back and asked[ident][1].done():
                back[ident] = Restarted(engine, asked[ident][0]["id"], round(time.monotonic() - started, 3))
        if away := [engine for engine in engines if engine["uuid"] not in back]:
            between(away)
        time.sleep(0.02)
    return [Restarted(*one) for one in back.values()]
