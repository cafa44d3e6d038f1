# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watchdog concludes from what it sees: pure decisions, from observations to actions.

Times are seconds of the monotonic clock, so that a step of the wall clock means nothing here. `watchdog_service.py`
looks and acts.

The rule above all others: what answers, and what may be busy, is left alone. An engine that is frozen or cut off is
forgotten too, after some time, because every task for all engines hangs on it; when it comes back it is a ghost, is
told to end, and its service manager starts it again.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, parse_ident


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long the watchdog waits before it acts, in seconds; each the shortest time that does no harm."""

    ended: float = 1.0
    """After the end of an engine on this host: its nanny needs a moment to tell the hub itself."""
    replaced: float = 2.0
    """Of silence, of an engine whose place has a newer one: its manager starts one only when the other has ended."""
    doubled: float = 10.0
    """With a newer one in its place, of an engine that answers, and that nobody manages any more."""
    unheard: float = 8.0
    """Of silence, of an engine that has not answered since the controller started: it was restored, and is no more."""
    silent: float = 15.0
    """Of silence, of an engine that did answer. A shorter hiccup costs nobody his variables; the hub waits 30."""
    missing: float = 30.0
    """Until an expected engine that is not registered is a problem: its manager has had time to start it."""
    wedged: float = 60.0
    """With load-balanced work at a standstill while direct work is done: the time that a large result may travel."""
    wedged_at_start: float = 8.0
    """The same, in the first minute of a controller, when tasks get lost and large results cannot be under way."""
    young: float = 60.0
    """Age at which a controller's start is over."""
    stopped: float = 3.0
    """That a process of the controller is stopped (SIGSTOP); a debugger does it for moments."""
    hub: float = 10.0
    """Of a hub that does not answer and does not work either."""
    busy_hub: float = 120.0
    """Of a hub that does not answer and works."""
    settle: float = 20.0
    """Age below which a controller is never ended."""
    pauses: tuple[float, ...] = (0.0, 30.0, 120.0, 600.0)
    """Between two ends of the controller, by how many there were within the last hour."""


def make_limits(given: Mapping[str, t.Any]) -> Limits:
    """Return the limits, with those that are *given* in place of the watchdog's own.

    Raises:
        ValueError: there is no such limit, or a value is no time.
    """
    names = [field.name for field in dataclasses.fields(Limits)]
    limits: dict[str, t.Any] = {}
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"there is no {name!r}: there are {', '.join(names)}")
        try:
            limits[name] = tuple(float(part) for part in value) if name == "pauses" else float(value)
        except (TypeError, ValueError):
            limits[name] = ()
        if limits[name] == () or min([limits[name]] if name != "pauses" else limits[name]) < 0:
            raise ValueError(f"{value!r} is not a time in seconds: give {name!r} a number of 0 or more")
    return Limits(**limits)


class Action(t.NamedTuple):
    """Something to do, and why."""

    kind: t.Literal["forget", "end", "end_ghost", "end_controller"]
    why: str
    ident: str = ""
    number: int = -1
    step: int = 0


def place_of(ident: str) -> Engine | None:
    """Return where the engine *ident* runs, None for one that this collection has not started."""
    parts = parse_ident(ident)
    return Engine(parts["host"], parts["pool"], parts["core"]) if parts["pid"] else None


def name_of(ident: str) -> str:
    """Return how an event names the engine *ident*."""
    return str(place_of(ident) or ident)


# ---- engines

MOST_STANDSTILL = 120.0
"""How long a connection may stand still after a cut, in seconds (``TCP_RTO_MAX`` of Linux)."""


@dataclasses.dataclass
class Watched:
    """A registered engine."""

    number: int
    ident: str
    since: float
    answered: float | None = None
    """When it last answered, or its nanny did."""
    owes: float | None = None
    """Since when it owes an answer; None where it owes none."""
    ended: float | None = None
    """Since when its process, which was seen on this host, is no more."""
    away: float = 0.0
    """For how long it did not answer before it came back, with the same process."""
    place: Engine | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.place = place_of(self.ident)

    @property
    def heard(self) -> float:
        """When it last answered; if never, when it came, or when it did before it came back."""
        return self.since - self.away if self.answered is None else self.answered

    def silence(self, now: float) -> float:
        """Return for how long it has not answered what it was asked."""
        return 0.0 if self.owes is None else now - self.owes

    def is_settled(self, now: float) -> bool:
        """Tell whether all its connections have gone on since it came back.

        A connection that had something to send while the host was cut off may stand still for as long again: TCP waits
        twice as long after each loss (RFC 6298, 5.5), at most 120 s on Linux. Nothing is lost by it.
        """
        return now - self.since >= min(self.away, MOST_STANDSTILL)


def older_doubles(engines: Iterable[Watched]) -> dict[int, Watched]:
    """Return the engines whose place has a newer one, by their id, each with the newest; ids count upwards."""
    newest: dict[Engine, Watched] = {}
    found = list(engines)
    for engine in found:
        if engine.place and (engine.place not in newest or newest[engine.place].number < engine.number):
            newest[engine.place] = engine
    return {e.number: newest[e.place] for e in found if e.place and newest[e.place] is not e}


def judge_engines(engines: list[Watched], now: float, limits: Limits, deaf: bool) -> list[Action]:
    """Return the engines to forget, because all work for all engines hangs on them, and those to end.

    Args:
        engines: what is registered.
        now: the time.
        limits: how long to wait.
        deaf: nobody answers on the control channel while direct work is done: then it is the channel that is dead, and
            silence means nothing.
    """
    doubles = older_doubles(engines)
    actions = []
    for engine in engines:
        silence = 0.0 if deaf else engine.silence(now)
        newer = doubles.get(engine.number)
        why = ""
        if engine.ended is not None and now - engine.ended >= limits.ended:
            why = f"its process ended {now - engine.ended:.1f} s ago"
        elif newer and silence >= limits.replaced:
            why = f"engine {newer.number} has taken its place, and it has not answered for {silence:.1f} s"
        elif engine.answered is None and not engine.is_settled(now):
            continue
        elif engine.answered is None and silence >= limits.unheard:
            why = f"it has not answered for {silence:.1f} s, nor at any time before"
        elif silence >= limits.silent:
            why = f"it has not answered for {silence:.1f} s"
        if why:
            actions.append(Action("forget", why, engine.ident, engine.number))
        elif newer and engine.owes is None and now - newer.since >= limits.doubled:
            why = f"engine {newer.number} took its place {now - newer.since:.1f} s ago"
            actions.append(Action("end", why, engine.ident, engine.number))
    return actions


# ---- ghosts

GHOST_STEPS = (0.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""When a ghost that answers is told to end, in seconds after it was told first; then it is given up."""


GHOST_GRACE = 12.0
"""How long a ghost may answer, in seconds, before it is told to end: if its heart beats, the hub takes it back."""


@dataclasses.dataclass
class Departed:
    """An engine that was registered and is not; a ghost, if it answers."""

    ident: str
    since: float
    heard: float
    """When it last answered while it was registered."""
    asked: float | None = None
    answered: float | None = None
    first_answered: float | None = None
    told: int = 0
    first_told: float = 0.0

    def next_question(self) -> float:
        """Return when to ask it again: often at first, then seldom, because most are simply gone."""
        if self.asked is None:
            return self.since
        return self.asked + (3.0 if self.asked - self.since < 600 else 30.0)


DEPARTED_SECONDS = 24 * 3600.0
DEPARTED_MOST = 256


def judge_ghosts(departed: Iterable[Departed], now: float) -> list[Action]:
    """Return the ghosts to tell to end: those that the hub does not take back, and none registers again by itself."""
    actions = []
    for ghost in departed:
        # an answer that it gave before it was told last says nothing of now
        if ghost.answered is None or (ghost.asked is not None and ghost.answered < ghost.asked):
            continue
        if ghost.first_answered is None or now < ghost.first_answered + GHOST_GRACE:
            continue
        if ghost.told < len(GHOST_STEPS) and (not ghost.told or now >= ghost.first_told + GHOST_STEPS[ghost.told]):
            why = f"it answers, and the hub does not know it any more since {now - ghost.since:.1f} s"
            actions.append(Action("end_ghost", why, ghost.ident, step=ghost.told))
    return actions


def still_departed(
    departed: Iterable[Departed], registered: Iterable[str], ended: Iterable[str], now: float
) -> list[Departed]:
    """Return those of *departed* that may still be alive somewhere, the latest of them where there are too many.

    Args:
        departed: engines that were registered.
        registered: idents of those that are.
        ended: idents of those whose process, on this host, is no more.
        now: the time.
    """
    known, dead = set(registered), set(ended)
    # a manager starts an engine only when the one before it has ended
    taken = {place_of(ident) for ident in known} - {None}
    alive = [
        engine
        for engine in departed
        if engine.ident not in known
        and engine.ident not in dead
        and place_of(engine.ident) not in taken
        and now - engine.since < DEPARTED_SECONDS
    ]
    return sorted(alive, key=lambda engine: engine.since)[-DEPARTED_MOST:]


# ---- load-balanced work


@dataclasses.dataclass
class Trial:
    """A load-balanced no-op for one engine that is under way, beside direct no-ops for the same engine."""

    ident: str
    number: int
    started: float
    tasks: int
    """Load-balanced tasks that the hub had on the engine at the start."""
    done: int
    """Tasks of others that the engine had done at the start, at most."""
    direct: int = 0
    """Direct no-ops that were answered in the meantime."""
    first_direct: float | None = None
    last_direct: float | None = None


Verdict = t.Literal["wait", "busy", "wedged"]


def judge_trial(trial: Trial, tasks: int, done: int, *, now: float, limits: Limits, controller_age: float) -> Verdict:
    """Return what a load-balanced no-op that has not come back means.

    An engine does one thing at a time. While it runs a task it does no direct no-op either, and between tasks it makes
    progress. So only one that does direct no-ops, and does none of its load-balanced work, is wedged: the scheduler
    counts a task as outstanding that the engine never got, or whose result it never sent.

    Args:
        trial: what is under way.
        tasks: load-balanced tasks that the hub has on the engine now.
        done: tasks of others that the engine has done now, at least: the hub counts the no-ops too.
        now: the time.
        limits: how long to wait.
        controller_age: of the controller.
    """
    if tasks != trial.tasks or done > trial.done:
        return "busy"
    patience = limits.wedged_at_start if controller_age < limits.young else limits.wedged
    if trial.direct >= 3 and trial.first_direct is not None and now - trial.first_direct >= patience:
        return "wedged"
    # no direct no-op was done for a while: it is at work
    if now - (trial.last_direct if trial.last_direct is not None else trial.started) > 5.0:
        return "busy"
    return "wait"


# ---- the controller


@dataclasses.dataclass
class Controller:
    """The controller as it is seen on this host and on its sockets."""

    pid: int
    age: float
    stopped: dict[str, float] = dataclasses.field(default_factory=dict)
    """Processes that are stopped, each with the time since when."""
    hub_silent: float | None = None
    """Since when the hub owes an answer."""
    hub_works: float = 0.0
    """Part of a core that the hub has used meanwhile."""
    dead_paths: dict[str, float] = dataclasses.field(default_factory=dict)
    """Ways of work (direct, load-balanced, ...) that failed twice for all engines, each with the time since when."""


def judge_controller(controller: Controller, ends: list[float], now: float, limits: Limits) -> Action | None:
    """Return the end of a controller that is alive in part only; its service manager starts a whole one.

    Args:
        controller: what is seen of it.
        ends: when it was ended before.
        now: the time.
        limits: how long to wait.
    """
    why = half_dead(controller, now, limits)
    if not why or controller.age < limits.settle:
        return None
    recent = [end for end in ends if now - end < 3600]
    if recent and now - recent[-1] < limits.pauses[min(len(recent), len(limits.pauses) - 1)]:
        return None
    return Action("end_controller", why, number=controller.pid)


def half_dead(controller: Controller, now: float, limits: Limits) -> str:
    """Return why the controller is alive in part only; empty where it is well."""
    for name, since in sorted(controller.stopped.items()):
        if now - since >= limits.stopped:
            return f"its {name} has been stopped for {now - since:.1f} s"
    if controller.hub_silent is not None:
        silence = now - controller.hub_silent
        # a hub that works through a flood of messages answers when it is done
        if silence >= (limits.hub if controller.hub_works < 0.5 else limits.busy_hub):
            return f"its hub has not answered for {silence:.1f} s"
    for path, since in sorted(controller.dead_paths.items()):
        return f"{path} work has come to no engine for {now - since:.1f} s"
    return ""


# ---- the whole


def missing_engines(expected: Iterable[Engine], registered: Iterable[str]) -> list[Engine]:
    """Return the expected engines that are not registered."""
    return sorted(set(expected) - {place for ident in registered if (place := place_of(ident))})


def shorten(names: Iterable[t.Any], most: int = 8) -> str:
    """Return *names* as one text, the first of them where there are many."""
    found = [str(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def state_of(connected: bool, problems: Mapping[str, str]) -> str:
    """Return the state of the cluster in a word: ``whole``, ``degraded`` or ``down``."""
    if not connected:
        return "down"
    return "degraded" if problems else "whole"
