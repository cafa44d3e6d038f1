# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The watchdog at work: it looks, lets `watchdog.py` judge, acts, and tells what it did.

One loop, twice a second, that never waits for an answer. Most of what it looks at costs no message: the processes of
this host in ``/proc``, and the registrations of which the hub tells its clients. Everything is done by messages to the
hub and by ending processes of its own account, which their service manager starts again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.server
import json
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
import typing as t
from collections.abc import Callable, Iterable, Iterator

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import certificate_days
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Ports
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.pools import Engine, expected_engines
from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import (
    PREFIX,
    age,
    process_environ,
    running_processes,
    stat_fields,
)
from ansible_collections.ipyparallel.cluster.plugins.module_utils.state import StateError, read_state, state_path
from ansible_collections.ipyparallel.cluster.plugins.module_utils.watchdog import (
    GHOST_STEPS,
    Action,
    Controller,
    Departed,
    Trial,
    Watched,
    half_dead,
    judge_controller,
    judge_engines,
    judge_ghosts,
    judge_trial,
    make_limits,
    missing_engines,
    name_of,
    older_doubles,
    shorten,
    state_of,
    still_departed,
)

if t.TYPE_CHECKING:
    import ipyparallel
    from prometheus_client.core import Metric

TICK = 0.5
QUEUE_EVERY = 2.0
ENGINES_EVERY = 3.0
MOST_QUESTIONS = 4.0  # to engines, a second: with many of them each is asked less often
ROUND_EVERY = 30.0  # of no-ops, each time through another engine
SLOW_EVERY = 10.0  # descriptors, disks, certificate
NO_OP_LIMIT = 5.0
CLIENT_SECONDS = 1800.0  # a client keeps what nobody answered, and its history
CHILDREN = ("iopub", "direct", "control", "task", "broadcast", "broadcast 0", "broadcast 1", "heartbeat")
"""The schedulers of ipcontroller in the order in which it starts them, at a broadcast depth of 1."""
MISSING_SHORTLY = 5.0  # from then on the state tells; a line is written when it lasts
LITTLE_SPACE = 32 * 1024 * 1024
MANY_FILES = 0.8


class ProcessStat(t.NamedTuple):
    """What ``/proc/<pid>/stat`` tells."""

    state: str
    seconds: float
    """Of processor time."""
    age: float


def process_stat(pid: int) -> ProcessStat | None:
    """Return what is to know of process *pid*, None where it is gone."""
    fields = stat_fields(pid)
    if not fields or fields[0] in "ZX":
        return None
    hertz = os.sysconf("SC_CLK_TCK")
    return ProcessStat(fields[0], (int(fields[11]) + int(fields[12])) / hertz, age(fields))


def children_of(pid: int) -> list[int]:
    """Return the children of process *pid*, in the order in which they were started."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as stream:
                found += [int(child) for child in stream.read().split()]
    return sorted(found)


def open_files(pid: int) -> tuple[int, int]:
    """Return how many files process *pid* has open, and how many it may have."""
    return len(os.listdir(f"/proc/{pid}/fd")), resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]


def end_at_once(pid: int) -> None:
    """Kill process *pid*."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@dataclasses.dataclass
class Settings:
    """What ``health.json`` says."""

    cluster: str
    host: str
    """The name of this host in idents of engines."""
    port_base: int
    state: str
    connector: str
    certificate: str = ""
    limits: dict[str, t.Any] = dataclasses.field(default_factory=dict)


class Event(t.NamedTuple):
    """Something that happened, at a time of the wall clock."""

    time: float
    text: str


class Journal:
    """What happened: one line each on standard output, and the last of them for those who ask."""

    def __init__(self) -> None:
        self.events: collections.deque[Event] = collections.deque(maxlen=50)
        self.problems: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Write a line."""
        event = Event(time.time(), text)
        self.events.append(event)
        with contextlib.suppress(OSError):  # a full disk ends no watchdog
            sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event.time))} {text}\n")
            sys.stdout.flush()

    def now(self, problems: dict[str, str]) -> None:
        """Take *problems* for those there are; what is new is written, and what is solved."""
        for name in problems.keys() - self.problems.keys():
            self._since[name] = time.monotonic()
            self.say(f"problem: {problems[name]}")
        for name in self.problems.keys() - problems.keys():
            self.say(f"solved after {time.monotonic() - self._since.pop(name):.1f} s: {self.problems[name]}")
        self.problems = dict(problems)


class Watchdog:
    """Everything the watchdog knows."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.limits = make_limits(settings.limits)
        self.clock = clock
        self.journal = Journal()
        self.conditions: dict[str, str] = {}
        """Problems by name, which the looks find and take away."""
        self.counts: collections.Counter[str] = collections.Counter()
        self.state, self.state_since, self.state_began = "down", time.time(), self.clock()
        self.looked = clock()
        self._next: dict[str, float] = {}

        self.client: ipyparallel.Client | None = None
        self.client_since = 0.0
        self.client_of: tuple[int, t.Any] | None = None
        self.failed_since: float | None = None

        self.engines: dict[str, Watched] = {}
        self.mine: set[str] = set()
        """Idents of engines whose process was seen on this host."""
        self.questions: dict[str, tuple[hub.Answer, float, bool]] = {}
        self.departed: dict[str, Departed] = {}
        self.ghost_questions: dict[str, tuple[hub.Answer, float]] = {}
        self.told: dict[str, float] = {}
        self.expected: set[Engine] = set()
        self.expected_stamp: t.Any = None
        self.missing_since: dict[Engine, float] = {}

        self.main = 0
        self.main_seen = False
        self.schedulers: dict[int, str] = {}
        self.stopped: dict[str, float] = {}
        self.ends: list[float] = []
        self.files: dict[str, tuple[int, int]] = {}

        self.queue: dict[int, dict[str, int]] = {}
        self.unassigned = 0
        self.queue_asked = 0.0
        self.queue_question: tuple[hub.Answer, float, float] | None = None
        self.own_done: collections.Counter[int] = collections.Counter()
        """No-ops of the watchdog that came back, by engine; the hub counts them as work."""
        self.own_sent: collections.Counter[int] = collections.Counter()
        """Those that were sent and came back or will."""
        self.completed_before = 0
        self.no_ops: dict[str, tuple[ipyparallel.AsyncResult, int, float]] = {}
        self.finished: list[ipyparallel.AsyncResult] = []
        self.failures: dict[str, tuple[int, float]] = {}
        self.trials: dict[str, Trial] = {}
        self.trial_tasks: dict[str, ipyparallel.AsyncResult] = {}
        self.trial_directs: dict[str, tuple[ipyparallel.AsyncResult, float]] = {}
        self.waits: dict[str, tuple[float, float, int, int]] = {}
        self.suspects: dict[str, tuple[int, int, float]] = {}
        self.untried: set[str] = set()
        self.checks: dict[str, tuple[ipyparallel.AsyncResult, tuple[int, int], float | None]] = {}
        self.stale: dict[str, tuple[int, int]] = {}
        """Direct and load-balanced work that the hub believes to be on an engine, and is not."""
        self.turn = 0

        self.certificate_days: float | None = None
        self._load_seen()

    # ---- the loop

    def run(self) -> None:
        """Watch for ever."""
        self.journal.say(f"watching cluster {self.settings.cluster}")
        while True:
            started = self.clock()
            self.tick()
            # not time.sleep, which fails where the clock is faked for this process alone
            select.select([], [], [], max(0.05, TICK - (self.clock() - started)))

    def tick(self) -> None:
        """Look at everything once, and do what follows from it."""
        now = self.clock()
        self._look_at_processes(now)
        self._look_at_expected(now)
        if self._due("slow", SLOW_EVERY, now):
            self._look_slowly()
        try:
            self._connect(now)
            if self.client is not None:
                self._look_at_hub(now)
                self._look_at_engines(now)
                self._look_at_ghosts(now)
                self._look_at_work(now)
        except Exception as error:  # noqa: BLE001 - a hub or an engine that leaves in between raises what its client raises
            self.journal.say(f"looking again with a new client: {type(error).__name__}: {error}")
            self._disconnect()
        self._judge_controller(now)
        self._conclude(now)
        self.looked = now

    def _due(self, name: str, every: float, now: float) -> bool:
        if now < self._next.get(name, 0.0):
            return False
        self._next[name] = now + every
        return True

    def _condition(self, name: str, text: str) -> None:
        """Note problem *name*, or that it is none where *text* is empty."""
        if text:
            self.conditions[name] = text
        else:
            self.conditions.pop(name, None)

    def _conclude(self, now: float) -> None:
        missing = {}
        if self.client is not None:
            missing = {e: self.missing_since.get(e, now) for e in missing_engines(self.expected, self.engines)}
            self.missing_since = missing
        lasting = [engine for engine, since in missing.items() if now - since >= self.limits.missing]
        short = [since for since in missing.values() if now - since >= MISSING_SHORTLY]
        text = f"{len(lasting)} of {len(self.expected)} engines are missing: {shorten(lasting)}" if lasting else ""
        # the first text stays while the problem does
        self._condition("missing", text)
        self.journal.now(self.conditions)
        state = state_of(
            self.client is not None and self.queue_question_is_fresh(now),
            {**self.conditions, **dict.fromkeys(["missing"] if short else [], "")},
        )
        if state != self.state:
            self.journal.say(f"{state}, after {now - self.state_began:.1f} s {self.state}")
            self.state, self.state_since, self.state_began = state, time.time(), now

    def queue_question_is_fresh(self, now: float) -> bool:
        """Return whether the hub owes no answer for long."""
        return self.queue_question is None or now - self.queue_question[1] < 3.0

    # ---- this host

    def _look_at_processes(self, now: float) -> None:
        main = process_stat(self.main) if self.main else None
        if main is None:
            if not self._due("find", 1.0, now):
                return
            was, self.main = self.main, self._find_controller()
            self.stopped, self.schedulers = {}, {}
            if not self.main:
                self._condition("controller", "there is no controller on this host")
                return
            main = process_stat(self.main)
            if self.main_seen and was != self.main:
                self.counts["controller_restarts"] += 1
                self.journal.say(f"the controller has started again, as process {self.main}")
            self.main_seen = True
        self._condition("controller", "")
        if len(self.schedulers) < len(CHILDREN) and self._due("children", 1.0, now):
            pids = children_of(self.main)
            names = CHILDREN if len(pids) == len(CHILDREN) else [f"child {pid}" for pid in pids]
            self.schedulers = {pid: f"{name} scheduler" for pid, name in zip(pids, names, strict=True)}
        stopped = {}
        for pid, name in {self.main: "main process", **self.schedulers}.items():
            found = process_stat(pid)
            if found and found.state in "Tt":
                stopped[name] = self.stopped.get(name, now)
        self.stopped = stopped
        for ident, engine in self.engines.items():
            if engine.place and engine.place.host == self.settings.host:
                self._look_at_local_engine(ident, engine, now)

    def _find_controller(self) -> int:
        run = os.environ.get(f"{PREFIX}RUN")
        found = [p.pid for p in running_processes(self.settings.cluster, run=run) if p.name == "controller"]
        return min(found, default=0)

    def _look_at_local_engine(self, ident: str, engine: Watched, now: float) -> None:
        pid = int(ident.split("__")[3])
        if ident not in self.mine:
            # a process that cannot be seen (another namespace, hidden) is none that ended
            if process_environ(pid).get(f"{PREFIX}CLUSTER") == self.settings.cluster:
                self.mine.add(ident)
        elif engine.ended is None and process_stat(pid) is None:
            engine.ended = now

    def _look_at_expected(self, now: float) -> None:
        if not self._due("expected", QUEUE_EVERY, now):
            return
        try:
            found = os.stat(state_path(self.settings.state))
            stamp: t.Any = (found.st_ino, found.st_mtime_ns)
        except OSError:
            stamp = None
        if stamp == self.expected_stamp and "state" not in self.conditions:
            return
        self.expected_stamp = stamp
        try:
            self.expected = expected_engines(read_state(self.settings.state)["engines"])
            self._condition("state", "")
        except (StateError, OSError) as error:
            self._condition("state", f"cannot read which engines are expected: {error}")

    def _look_slowly(self) -> None:
        self.files = {}
        for pid, name in {self.main: "main process", **self.schedulers}.items():
            with contextlib.suppress(OSError):
                self.files[name] = open_files(pid)
        many = [f"{name} {used} of {most}" for name, (used, most) in self.files.items() if used > MANY_FILES * most]
        text = f"the controller runs out of file descriptors: {shorten(many)}: raise its limit" if many else ""
        self._condition("files", self.conditions.get("files", text) if text else "")
        full = []
        for path in sorted({self.settings.state, os.environ.get("TMPDIR", "/tmp")}):  # noqa: S108 - nothing is written there
            with contextlib.suppress(OSError):
                if shutil.disk_usage(path).free < LITTLE_SPACE:
                    full.append(path)
        self._condition("disk", f"the disk is full at {shorten(full)}" if full else "")
        if self._due("certificate", 3600.0, self.clock()):
            self.certificate_days = certificate_days(self.settings.certificate)

    # ---- the hub

    def _connect(self, now: float) -> None:
        stamp = None
        with contextlib.suppress(OSError):
            found = os.stat(self.settings.connector)
            stamp = (found.st_ino, found.st_mtime_ns)
        wanted = (self.main, stamp)
        if self.client is not None and self.client_of == wanted and now - self.client_since < CLIENT_SECONDS:
            return
        renewed = self.client is not None and self.client_of == wanted
        if renewed and (self.trials or self.no_ops):
            return
        if not renewed:
            self._disconnect()
        if not self.main or not self._due("connect", 0.5, now):
            return
        try:
            client = hub.connect(self.settings.connector, timeout=2.0)
            hub.sign_as_watchdog(client)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, there is none
            if self.failed_since is None:
                self.failed_since = now
                self.journal.say(f"cannot connect: {error}")
            return
        if renewed:
            self._disconnect()
        else:
            self.journal.say("connected to the hub")
            self._next["work"] = now + 3.0
        hub.listen(client, [])
        self.client, self.client_since, self.client_of, self.failed_since = client, now, wanted, None
        if not renewed:
            self.untried = set(client._engines.values())

    def _disconnect(self) -> None:
        if self.client is not None:
            with contextlib.suppress(Exception):
                self.client.close(linger=0)
        self.client = None
        self.queue_question = None
        for kept in (self.questions, self.ghost_questions, self.no_ops, self.trials, self.trial_tasks, self.suspects):
            kept.clear()
        self.trial_directs.clear()
        self.checks.clear()
        self.stale.clear()
        self.failures.clear()
        self.finished.clear()
        for engine in self.engines.values():
            engine.owes = None

    def _look_at_hub(self, now: float) -> None:
        if self.client is None:
            return
        if self.queue_question and self.queue_question[0].done():
            before = self.queue
            self.queue, self.unassigned = hub.queue_of(self.queue_question[0].result())
            self.queue_asked, self.queue_question = self.queue_question[1], None
            if sum(c["completed"] for c in before.values()) > sum(c["completed"] for c in self.queue.values()):
                # a new hub counts from the beginning
                self.completed_before += self._completed(before)
                self.own_done.clear()
                self.own_sent.clear()
        if self.queue_question is None and self._due("queue", QUEUE_EVERY, now):
            main = process_stat(self.main)
            self.queue_question = (hub.ask_queue(self.client), now, main.seconds if main else 0.0)

    def _completed(self, queue: dict[int, dict[str, int]]) -> int:
        return sum(counts["completed"] - self.own_done[number] for number, counts in queue.items())

    @property
    def completed(self) -> int:
        """Tasks that users have had done."""
        return max(0, self.completed_before + self._completed(self.queue))

    # ---- engines

    def _look_at_engines(self, now: float) -> None:
        if self.client is None:
            return
        registered = {engine["uuid"]: engine["id"] for engine in hub.registered(self.client)}
        for ident in registered.keys() - self.engines.keys():
            self._arrive(ident, registered[ident], now)
        for ident in self.engines.keys() - registered.keys():
            self._depart(ident, now)
        if registered.keys() != self._remembered:
            self._save_seen()
        self._ask_engines(now)
        doubles = older_doubles(self.engines.values())
        deaf = self._control_is_dead(now)
        for action in judge_engines(list(self.engines.values()), now, self.limits, deaf):
            self._act_on_engine(action, now)
        lines = shorten(
            f"{name_of(self.engines[ident].ident)}" for ident in self.engines if self.engines[ident].number in doubles
        )
        self._condition("doubled", f"registered twice: {lines}" if lines else "")
        silent = [e for e in self.engines.values() if e.silence(now) > 4.0]
        self._condition("silent", f"no answer from {shorten(name_of(e.ident) for e in silent)}" if silent else "")

    def _arrive(self, ident: str, number: int, now: float) -> None:
        engine = self.engines[ident] = Watched(number, ident, now)
        before = self.departed.pop(ident, None)
        if before and before.heard < before.since:  # else it is one that an older watchdog knew
            engine.away = now - before.heard
            self.journal.say(f"engine {number} ({name_of(ident)}) is back, {engine.away:.1f} s after it answered last")
        if self.client_since != now:
            self.untried.add(ident)
        gone = [d for d in self.departed.values() if engine.place and name_of(d.ident) == str(engine.place)]
        doubled = any(e.place == engine.place and e.number < number for e in self.engines.values() if engine.place)
        if gone or doubled:
            self.counts["engine_replacements"] += 1
            after = f", {now - max(d.since for d in gone):.1f} s after the one before it left" if gone else ""
            self.journal.say(f"engine {number} ({name_of(ident)}) is there{after}")

    def _depart(self, ident: str, now: float) -> None:
        engine = self.engines.pop(ident)
        self.departed[ident] = Departed(ident, now, heard=engine.heard)
        self.questions.pop(ident, None)
        self.untried.discard(ident)
        self._end_trial(ident)
        self.journal.say(f"engine {engine.number} ({name_of(ident)}) has left")

    def _ask_engines(self, now: float) -> None:
        for ident, (answer, asked, nanny) in list(self.questions.items()):
            engine = self.engines.get(ident)
            if answer.done() and engine:
                engine.answered, engine.owes = now, None
                del self.questions[ident]
            elif engine and now - asked > (1.0 if not nanny else 2.0):
                # an engine whose work never lets go of the interpreter is heard through its nanny
                engine.owes = engine.owes if engine.owes is not None else asked
                self.questions[ident] = (hub.ask_nanny(self.client, ident), now, True)
        every = max(ENGINES_EVERY, len(self.engines) / MOST_QUESTIONS)
        budget = max(1, round(TICK * len(self.engines) / every + 0.5))
        doubles = older_doubles(self.engines.values())
        for ident, engine in sorted(self.engines.items(), key=lambda item: self._next.get(item[0], 0.0)):
            urgent = engine.number in doubles
            if ident in self.questions or not (urgent or budget) or not self._due(ident, 1.0 if urgent else every, now):
                continue
            budget -= not urgent
            self.questions[ident] = (hub.ask_engine(self.client, ident), now, False)
        for ident in [i for i in self._next if "__" in i and i not in self.engines]:
            del self._next[ident]

    def _control_is_dead(self, now: float) -> bool:
        """Return whether nobody answers on the control channel, while direct work is done."""
        found = self.engines.values()
        if not found or any((e.silence(now) < 4.0 and e.ended is None) or not e.is_settled(now) for e in found):
            self.failures.pop("control", None)
            self.no_ops.pop("control", None)
            return False
        # somebody has to do something that is not on this channel
        if "control" not in self.no_ops and "control" not in self.failures:
            number = min(e.number for e in self.engines.values())
            self.no_ops["control"] = (hub.no_op(self.client, "direct", number, NO_OP_LIMIT), number, now)
        elif "control" in self.no_ops and hub.outcome(self.no_ops["control"][0]):
            self.failures["control"] = (2, self.no_ops.pop("control")[2])
        return "control" in self.failures

    def _act_on_engine(self, action: Action, now: float) -> None:
        if now - self.told.get(action.ident, -100.0) < 5.0:
            return
        self.told = {ident: at for ident, at in self.told.items() if now - at < 60.0}
        self.told[action.ident] = now
        if action.kind == "forget":
            hub.forget(self.client, action.number)
            self._repaired("zombie", f"forgot engine {action.number} ({name_of(action.ident)}): {action.why}")
        else:
            hub.tell_to_end(self.client, action.ident, "SIGTERM")
            self._repaired("doubled", f"told engine {action.number} ({name_of(action.ident)}) to end: {action.why}")

    def _repaired(self, kind: str, text: str) -> None:
        self.counts[f"repair {kind}"] += 1
        self.journal.say(f"repair: {text}")

    # ---- ghosts

    @property
    def _seen_path(self) -> str:
        return os.path.join(self.settings.state, "health", "seen.json")

    def _load_seen(self) -> None:
        self._remembered: set[str] = set()
        with contextlib.suppress(OSError, ValueError):
            seen = json.loads(read_text(self._seen_path) or "[]")
            self._remembered = {ident for ident in seen if isinstance(ident, str)}
        now = self.clock()
        self.departed = {ident: Departed(ident, now, heard=now) for ident in self._remembered}

    def _save_seen(self) -> None:
        """Remember those who are there and those who left, for the next watchdog."""
        now = {*self.engines, *self.departed}
        if now == self._remembered:
            return
        try:
            write_text(self._seen_path, json.dumps(sorted(now), indent=1) + "\n")
            self._remembered = now
            self._condition("seen", "")
        except OSError as error:
            self._condition("seen", f"cannot write {self._seen_path}: {error.strerror}")

    def _look_at_ghosts(self, now: float) -> None:
        ended = [i for i in self.departed if i in self.mine and process_stat(int(i.split("__")[3])) is None]
        kept = still_departed(self.departed.values(), self.engines, ended, now)
        self.departed = {departed.ident: departed for departed in kept}
        self.mine &= {*self.engines, *self.departed}
        for ident, (answer, asked) in list(self.ghost_questions.items()):
            if ident not in self.departed or answer.done():
                if ident in self.departed:
                    ghost = self.departed[ident]
                    ghost.answered = now
                    ghost.first_answered = ghost.first_answered or now
                del self.ghost_questions[ident]
            elif now - asked > 60.0:
                del self.ghost_questions[ident]
                self.departed[ident].first_answered = None
        for departed in kept:
            if now >= departed.next_question() and now - departed.since > 1.0:
                departed.asked = now
                self.ghost_questions[departed.ident] = (hub.ask_nanny(self.client, departed.ident), now)
        for action in judge_ghosts(kept, now):
            ghost = self.departed[action.ident]
            ghost.told += 1
            ghost.first_told = ghost.first_told or now
            # at last the hard way: what it holds is lost to the cluster anyhow
            name = (None, "SIGTERM", "SIGKILL")[min(action.step // 2, 2)]
            hub.tell_to_end(self.client, action.ident, name)
            again = "again " if action.step else ""
            self._repaired("ghost", f"told the ghost of {name_of(action.ident)} {again}to end: {action.why}")
        stubborn = [name_of(d.ident) for d in kept if d.told == len(GHOST_STEPS) and d.ident in self.ghost_questions]
        self._condition("ghosts", f"ghosts that do not end: {shorten(stubborn)}" if stubborn else "")

    # ---- work

    def _look_at_work(self, now: float) -> None:
        self._read_no_ops(now)
        self._read_trials(now)
        self._read_checks(now)
        self._suspect(now)
        idle = [e for e in self.engines.values() if self._is_idle(e, now)]
        for ident in [e.ident for e in idle if e.ident in self.untried] if now >= self._next.get("work", 0.0) else []:
            # after a start of the controller every engine, and any that is new
            self.untried.discard(ident)
            self._try_engine(self.engines[ident], now)
        if self._due("round", 1.0 if self.failures else ROUND_EVERY, now) and not self.no_ops:
            self._start_round(idle, now)

    def _is_idle(self, engine: Watched, now: float) -> bool:
        waiting = self._waiting(engine.number)
        nothing = not any(waiting) or waiting == self.stale.get(engine.ident)
        answers = engine.owes is None and engine.is_settled(now)
        return nothing and answers and engine.ident not in self.trials

    def _waiting(self, number: int) -> tuple[int, int]:
        """Return how much direct and load-balanced work the hub has on an engine."""
        counts = self.queue.get(number, {})
        return counts.get("queue", 0), counts.get("tasks", 0)

    def _start_round(self, idle: list[Watched], now: float) -> None:
        self.no_ops["scheduler"] = (hub.no_op(self.client, "scheduler", -1, NO_OP_LIMIT), -1, now)
        hub.drop_records(self.client, self.finished)
        self.finished.clear()
        if not idle:
            return
        self.turn += 1
        engine = sorted(idle, key=lambda e: e.number)[self.turn % len(idle)]
        hub.listen(self.client, [engine.number])
        for way in ("direct", "broadcast"):
            self.no_ops[way] = (hub.no_op(self.client, way, engine.number, NO_OP_LIMIT), engine.number, now)
        self._try_engine(engine, now)

    def _read_no_ops(self, now: float) -> None:
        for way, (result, number, started) in list(self.no_ops.items()):
            if way == "control":
                continue  # see `_control_is_dead`
            ended = hub.outcome(result)
            if ended and (way != "direct" or result.wait_for_output(0) or now - started > NO_OP_LIMIT):
                heard = way != "direct" or result.wait_for_output(0)
                if number >= 0:
                    self.own_done[number] += ended == "done"
                    self.own_sent[number] += ended == "done"
                self.finished.append(result)
                del self.no_ops[way]
                self._judge_way(way, False, now)
                if way == "direct":
                    self._judge_way("published", not heard and ended == "done", started)
            elif not ended and now - started > NO_OP_LIMIT:
                # the engine may have got work in the meantime
                engine = next((e for e in self.engines.values() if e.number == number), None)
                failed = way == "scheduler" or (engine is not None and self._is_idle_but_for(engine, way))
                del self.no_ops[way]
                self._judge_way(way, failed, started)
        if not self.no_ops.keys() & {"direct"}:
            hub.listen(self.client, [])

    def _is_idle_but_for(self, engine: Watched, way: str) -> bool:
        queue, tasks = self.stale.get(engine.ident, (0, 0))
        now_queue, now_tasks = self._waiting(engine.number)
        return now_tasks <= tasks and now_queue <= queue + (way == "direct")

    def _judge_way(self, way: str, failed: bool, since: float) -> None:
        if not failed:
            self.failures.pop(way, None)
        else:
            count, first = self.failures.get(way, (0, since))
            self.failures[way] = (count + 1, first)

    def _suspect(self, now: float) -> None:
        """Try engines whose load-balanced work does not go on; most of them simply work."""
        for engine in self.engines.values():
            waiting = self._waiting(engine.number)
            tasks, done = sum(waiting), self.queue.get(engine.number, {}).get("completed", 0)
            before = self.suspects.get(engine.ident)
            nothing = not tasks or waiting == self.stale.get(engine.ident)
            if nothing or before is None or before[:2] != (tasks, done):
                self.suspects[engine.ident] = (tasks, done, now)
                continue
            if engine.ident in self.trials or now - before[2] < 5.0:
                continue
            wait = self.waits.get(engine.ident)
            if wait is None or wait[2:] != (tasks, done):
                wait = (now, 5.0, tasks, done)
            if now >= wait[0]:
                # a task that takes long is asked about less and less often
                self.waits[engine.ident] = (now + wait[1], min(wait[1] * 2, 300.0), tasks, done)
                self._try_engine(engine, now)
        for kept in (self.suspects, self.waits, self.stale, self.checks):
            for ident in kept.keys() - self.engines.keys():
                del kept[ident]

    def _try_engine(self, engine: Watched, now: float) -> None:
        if engine.ident in self.trials:
            return
        counts = self.queue.get(engine.number, {})
        # at most so many were of others; what is sent and not seen yet makes it fewer
        done = counts.get("completed", 0) - self.own_done[engine.number]
        self.trials[engine.ident] = Trial(engine.ident, engine.number, now, counts.get("tasks", 0), done)
        self.trial_tasks[engine.ident] = hub.no_op(self.client, "load-balanced", engine.number, NO_OP_LIMIT)

    def _end_trial(self, ident: str) -> None:
        self.trials.pop(ident, None)
        self.trial_tasks.pop(ident, None)

    def _read_trials(self, now: float) -> None:
        for ident, (result, _started) in list(self.trial_directs.items()):
            if ended := hub.outcome(result):
                trial = self.trials.get(ident)
                del self.trial_directs[ident]
                self.finished.append(result)
                if ended == "done" and ident in self.engines:
                    self.own_done[self.engines[ident].number] += 1
                if trial and ended == "done":
                    trial.direct += 1
                    trial.last_direct = now
                    trial.first_direct = now if trial.first_direct is None else trial.first_direct
        for ident, trial in list(self.trials.items()):
            ended = hub.outcome(self.trial_tasks[ident])
            if ended:
                self.finished.append(self.trial_tasks[ident])
            if ended and ended != "TaskTimeout":
                self.own_done[trial.number] += ended == "done"
                self.own_sent[trial.number] += ended == "done"
                self._end_trial(ident)
                waiting = self._waiting(trial.number)
                if ended == "done" and any(waiting) and ident not in self.checks and ident not in self.trial_directs:
                    self.own_sent[trial.number] += 1
                    self.checks[ident] = (hub.no_op(self.client, "direct", trial.number, NO_OP_LIMIT), waiting, None)
                continue
            if ended:  # it did not begin: once more
                self.trial_tasks[ident] = hub.no_op(self.client, "load-balanced", trial.number, NO_OP_LIMIT)
            if now - trial.started < 1.0:
                continue
            last = trial.last_direct if trial.last_direct is not None else trial.started
            if ident not in self.trial_directs and now - last >= 1.0:
                self.own_sent[trial.number] += 1
                self.trial_directs[ident] = (hub.no_op(self.client, "direct", trial.number, NO_OP_LIMIT), now)
            counts = self.queue.get(trial.number, {})
            # at least so many were of others
            done = counts.get("completed", 0) - self.own_sent[trial.number]
            found = process_stat(self.main)
            age = found.age if found else 0.0
            verdict = judge_trial(trial, counts.get("tasks", 0), done, now=now, limits=self.limits, controller_age=age)
            if verdict == "wedged":
                self._end_wedged(trial, now)
            if verdict != "wait":
                self._end_trial(ident)

    def _read_checks(self, now: float) -> None:
        """Learn what the hub believes to be on an engine and is not.

        It never takes off what was tried again elsewhere, or was lost. An engine that has done load-balanced and then
        direct work had nothing before them, and nothing of it is left.
        """
        for ident, (result, waiting, done) in list(self.checks.items()):
            ended, engine = hub.outcome(result), self.engines.get(ident)
            if engine is None or ended not in {"", "done"}:
                del self.checks[ident]
            elif ended and done is None:
                self.own_done[engine.number] += 1
                self.finished.append(result)
                self.checks[ident] = (result, waiting, now)
            elif done is not None and self.queue_asked > done:
                del self.checks[ident]
                if self._waiting(engine.number) == waiting:
                    self.stale[ident] = waiting

    def _end_wedged(self, trial: Trial, now: float) -> None:
        hub.tell_to_end(self.client, trial.ident, "SIGTERM")
        self._repaired(
            "wedged",
            f"told engine {trial.number} ({name_of(trial.ident)}) to end, its variables are lost: no load-balanced "
            f"work for {now - trial.started:.1f} s, while it did {trial.direct} direct no-ops",
        )

    # ---- the controller

    def _judge_controller(self, now: float) -> None:
        main = process_stat(self.main) if self.main else None
        if main is None:
            self._condition("half-dead", "")
            return
        silent_since, works = self.failed_since, 0.0
        if self.queue_question:
            _answer, asked, seconds = self.queue_question
            silent_since = asked
            works = (main.seconds - seconds) / max(now - asked, 0.1)
        dead = {
            ("load-balanced" if way == "scheduler" else way): since
            for way, (n, since) in self.failures.items()
            if n >= 2
        }
        seen = Controller(self.main, main.age, self.stopped, silent_since, works, dead)
        why = half_dead(seen, now, self.limits)
        self._condition(
            "half-dead", self.conditions.get("half-dead", f"the controller is half dead: {why}") if why else ""
        )
        action = judge_controller(seen, self.ends, now, self.limits)
        if action:
            self.ends = [*self.ends[-20:], now]
            self._repaired("controller", f"ended the controller (process {action.number}): {action.why}")
            self._disconnect()
            # told to end, it would drop its tasks; and a stopped process does not hear it
            end_at_once(action.number)

    # ---- answers

    def status(self) -> dict[str, t.Any]:
        """Return what is told to those who ask."""
        problems, events = list(self.journal.problems.values()), list(self.journal.events)
        return {
            "cluster": self.settings.cluster,
            "state": self.state,
            "since": stamp(self.state_since),
            "problems": problems,
            "engines": {"registered": len(self.engines), "expected": len(self.expected)},
            # of what the hub says that engines have done, by id
            "own_completed": {number: count for number, count in list(self.own_done.items()) if count},
            "looked": round(self.clock() - self.looked, 1),
            "repairs": {k.removeprefix("repair "): n for k, n in self.counts.items() if k.startswith("repair ")},
            "events": [{"time": stamp(event.time), "text": event.text} for event in events],
        }

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(f"ipyparallel_{name}", text, value=value)

        engines = list(self.engines.values())
        queued = sum(sum(self._waiting(e.number)) - sum(self.stale.get(e.ident, (0, 0))) for e in engines)
        yield gauge("up", "Whether the cluster is whole: 1, else 0.", float(self.state == "whole"))
        yield gauge("hub_up", "Whether the hub answers: 1, else 0.", float(self.state != "down"))
        yield gauge("engines_registered", "Engines that the hub has registered.", len(self.engines))
        yield gauge("engines_expected", "Engines that the cluster should have.", len(self.expected))
        yield gauge("engines_missing", "Expected engines that are not registered.", len(self.missing_since))
        yield gauge("problems", "Problems that there are.", len(self.journal.problems))
        yield gauge("tasks_queued", "Tasks that are on engines.", max(0, queued))
        yield gauge("tasks_unassigned", "Tasks that wait for an engine.", self.unassigned)
        yield CounterMetricFamily("ipyparallel_tasks_completed", "Tasks that engines have done.", value=self.completed)
        repairs = CounterMetricFamily("ipyparallel_repairs", "Repairs, by what was repaired.", labels=["kind"])
        for kind in ("zombie", "doubled", "ghost", "wedged", "controller"):
            repairs.add_metric([kind], self.counts[f"repair {kind}"])
        yield repairs
        for name, text in (
            ("controller_restarts", "Starts of the controller after the first."),
            ("engine_replacements", "Engines that took the place of one that left."),
        ):
            yield CounterMetricFamily(f"ipyparallel_{name}", text, value=self.counts[name])
        files = GaugeMetricFamily(
            "ipyparallel_controller_open_files", "File descriptors of a process of the controller.", labels=["process"]
        )
        most = GaugeMetricFamily(
            "ipyparallel_controller_open_files_limit", "Limit of the file descriptors.", labels=["process"]
        )
        for name, (used, limit) in list(self.files.items()):
            files.add_metric([name], used)
            most.add_metric([name], limit)
        yield files
        yield most
        if self.certificate_days is not None:
            text = "Days until the certificate of the notebook on this host ends."
            yield gauge("notebook_certificate_days", text, self.certificate_days)
        yield gauge("look_age_seconds", "Time since the watchdog has looked.", self.clock() - self.looked)


def stamp(seconds: float) -> str:
    """Return a time of the wall clock as a text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def serve(watchdog: Watchdog, port: int) -> http.server.ThreadingHTTPServer:
    """Answer ``/status`` and ``/metrics`` on loopback, in a thread.

    Raises:
        OSError: the port is taken.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(watchdog)

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/status":
                self.answer(200, "application/json", json.dumps(watchdog.status(), indent=1).encode())
            elif self.path == "/metrics":
                self.answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self.answer(404, "text/plain", b"there are /status and /metrics\n")

        def answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002
            """Keep quiet: a scraper comes every few seconds."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 2}, daemon=True).start()
    return server


def main(arguments: Iterable[str]) -> None:
    """Watch as the settings in the file that is named say."""
    (path,) = arguments
    with open(path, encoding="utf-8") as stream:
        settings = Settings(**json.load(stream))
    try:
        watchdog = Watchdog(settings)
    except ValueError as error:
        raise SystemExit(f"ipyparallel_health_limits: {error}") from None
    serve(watchdog, Ports(settings.port_base).metrics)
    watchdog.run()
