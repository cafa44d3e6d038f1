# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a running cluster is verified: what a check is, who runs it, and what is told about it.

The checks themselves are in ``verification_checks``. Each is a function of a ``Context``: it returns when the cluster
did what it should, and raises otherwise. A check that fails or hangs never stops those after it, and no check
leaves anything behind: the names it gives to objects on the engines come from ``Context.name`` and are
removed at the end.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import secrets
import signal
import sys
import tempfile
import time
import types
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils import hub

if t.TYPE_CHECKING:
    import ipyparallel

PROFILE = "verify"
"""Profile, beside ``default``, in the temporary IPython directory of a run."""

GRACE = 3.0
"""Seconds after which an engine that others keep busy is called busy rather than waited for."""

BUDGET = 4
"""A whole run takes at most this many times the time limit of one check."""

LONGEST_TEXT = 300
"""Values and errors in messages are cut to so many characters."""

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class CheckFailedError(Exception):
    """The cluster did something else than it should; the message says what was expected and what came."""


class NotAvailableError(Exception):
    """The check does not apply to this cluster; the message says why."""


class VerificationError(Exception):
    """Nothing can be verified at all; the message says why and what to do."""


class TimeUpError(BaseException):
    """The time limit is over. Not an ``Exception``, so that no library on the way swallows it."""


# ---------------------------------------------------------------------------------------------------------------------
# What checks are made of
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Check:
    """One operation that is proven on the running cluster.

    Attributes:
        feature: number of the feature of the collection that the operation belongs to.
        name: what the operation is called, in the words of its users.
        function: does it; returns None, or the seconds it took where the caller cannot measure them.
        hint: what may be wrong when it hangs though every engine answers.
    """

    feature: int
    name: str
    function: c.Callable[[Context], float | None]
    hint: str = ""


CHECKS: list[Check] = []
"""Every check, in the order in which they run."""


def check(feature: int, name: str, hint: str = "") -> c.Callable[[hub.Function], hub.Function]:
    """Register the decorated function as a check of *feature* called *name*; *hint* as in ``Check``."""

    def register(function: hub.Function) -> hub.Function:
        CHECKS.append(Check(feature, name, function, hint))
        return function

    return register


def shorten(value: object, longest: int = LONGEST_TEXT) -> str:
    """Return *value* for a message: a string as it is, all else by ``repr``; without colours, cut to *longest*."""
    text = _ANSI.sub("", value if isinstance(value, str) else repr(value)).strip()
    return text if len(text) <= longest else f"{text[:longest]}..."


def expect(what: str, came: object, expected: object) -> None:
    """Fail the check unless *came* equals *expected*."""
    if came != expected:
        raise CheckFailedError(f"{what}: expected {shorten(expected)}, came {shorten(came)}")


def expect_that(what: str, fulfilled: object, came: object) -> None:
    """Fail the check unless *fulfilled*; *what* says what was expected, *came* what is there instead."""
    if not fulfilled:
        raise CheckFailedError(f"expected {what}, came {shorten(came)}")


def expect_error(what: str, kind: type[BaseException], call: c.Callable[[], object]) -> t.Any:
    """Fail the check unless *call* raises a *kind*; return what it raised."""
    try:
        came = call()
    except kind as error:
        return error
    raise CheckFailedError(f"{what}: expected {kind.__name__}, came {shorten(came)} without an error")


@contextlib.contextmanager
def time_limit(seconds: float) -> c.Iterator[None]:
    """Raise ``TimeUpError`` in the block when it takes longer than *seconds*. For the main thread only.

    Many blocking calls of ipyparallel have no timeout of their own, so the limit comes as a signal from outside;
    it is repeated in case a library drops the first.
    """

    def ring(_number: int, _frame: types.FrameType | None) -> None:
        raise TimeUpError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def environment(**variables: str) -> c.Iterator[None]:
    """Set environment *variables* for the block and restore what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def write_private(path: pathlib.Path, text: str) -> None:
    """Write *text* to the new file *path*, mode 0600 from the first byte."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def lay_profiles(directory: pathlib.Path, connector: str) -> None:
    """Make *directory* an IPython directory whose profiles ``default`` and ``PROFILE`` both hold *connector*."""
    for profile in ("default", PROFILE):
        security = directory / f"profile_{profile}" / "security"
        security.mkdir(mode=0o700, parents=True)
        write_private(security / "ipcontroller-client.json", connector)


# ---------------------------------------------------------------------------------------------------------------------
# What a check gets to see
# ---------------------------------------------------------------------------------------------------------------------


@hub.on_engine
def _forget(prefix: str) -> list[str]:
    """Remove every name that begins with *prefix*, and what was typed with it, from the engine's namespace.

    Returns:
        the names that are still there.
    """
    space = globals()
    typed = space.get("In")
    if isinstance(typed, list):
        typed[:] = ["" if prefix in str(line) else line for line in typed]
    for name, value in list(space.items()):
        ours = name.startswith("_i") and isinstance(value, str) and prefix in value
        if ours and name in ("_i", "_ii", "_iii"):
            space[name] = ""
        elif ours or name.startswith(prefix):
            del space[name]
    return [name for name in space if name.startswith(prefix)]


def explain_silence(engine: int, ident: str, others: int) -> str:
    """Say why an engine does not answer.

    Args:
        engine: id of the engine.
        ident: its identity, which names its host.
        others: how many requests of others are running or waiting there.
    """
    if others:
        return (
            f"engine {engine} ({ident}) is busy: {others} request{'s' if others > 1 else ''} of others running or "
            "waiting there; verify again when it is done"
        )
    return (
        f"engine {engine} ({ident}) does not answer, and the hub knows of nothing else it should be doing: "
        "it is frozen or gone; restart it"
    )


class Context:
    """What a check works with.

    Attributes:
        client: a client by path, made from nothing but the connector.
        connector: path of that connector.
        directory: a private temporary directory, an IPython directory with profiles ``default`` and ``PROFILE``.
        limit: seconds that one check may take.
        ids: the engines that answer; checks use these, so that one busy engine does not fail everything.
        silent: for each engine that does not answer, why.
        busy: those of them that others keep busy.
        session: what came of each cell typed into IPython, once that was done.
        messages: ids of requests of other clients, whose results the hub shall forget too.
    """

    def __init__(
        self, client: ipyparallel.Client, connector: str, directory: pathlib.Path, limit: float, prefix: str
    ) -> None:
        self.client = client
        self.connector = connector
        self.directory = directory
        self.limit = limit
        self.ids: list[int] = list(client.ids)
        self.silent: dict[int, str] = {}
        self.busy: list[int] = []
        self.session: dict[str, t.Any] = {}
        self.messages: list[str] = []
        self._prefix = prefix
        self._idents: dict[int, str] = {engine["id"]: engine["uuid"] for engine in hub.registered(client)}

    def name(self, name: str) -> str:
        """Return *name* as it is used on the engines: it clashes with nobody's and is removed at the end."""
        return self._prefix + name

    def define(self, name: str, source: str) -> c.Callable[..., t.Any]:
        """Return the function *name* of the code *source*, as if the user had typed it.

        For functions whose code holds a name that differs from run to run.
        """
        space: dict[str, t.Any] = {"__name__": "__main__"}
        exec(source, space)  # noqa: S102  (the source is one of this package's own literals)
        return t.cast("c.Callable[..., t.Any]", space[name])

    @property
    def first(self) -> ipyparallel.DirectView:
        """A view of the first engine alone."""
        return t.cast("ipyparallel.DirectView", self.client[self.ids[0]])

    @property
    def direct(self) -> ipyparallel.DirectView:
        """A view of all engines that answer."""
        return self.client.direct_view(list(self.ids))

    @property
    def balanced(self) -> ipyparallel.LoadBalancedView:
        """A load-balanced view of the engines that take load-balanced tasks.

        Its targets are named: without them the scheduler keeps a task that no engine can run for ever, waiting
        for an engine that can.
        """
        takers = [engine for engine in self.takers if engine in self.ids]
        if not takers:
            raise CheckFailedError("not tried: no engine takes load-balanced tasks")
        return self._balanced(takers)

    def _balanced(self, targets: list[int]) -> ipyparallel.LoadBalancedView:
        # the scheduler drops a task that waits longer: nothing of a failed run stays behind there
        return self.client.load_balanced_view(targets, timeout=self.limit)

    @functools.cached_property
    def takers(self) -> list[int]:
        """The engines that take load-balanced tasks.

        Each is asked by itself: an engine that a restarted controller restored can answer directly and yet never
        get a task.
        """
        asked = {engine: self._balanced([engine]).apply_async(int) for engine in self.ids}
        self.client.wait(list(asked.values()), timeout=self.patience)
        return [engine for engine, result in asked.items() if result.ready()]

    @property
    def patience(self) -> float:
        """Seconds to wait for what is answered at once where all is well: leaves time to say why it was not."""
        return self.limit / 2

    @contextlib.contextmanager
    def another_client(self, *args: t.Any, **options: t.Any) -> c.Iterator[ipyparallel.Client]:
        """Open one more client, in the temporary IPython directory; it forgets its results and closes at the end."""
        import ipyparallel

        with environment(IPYTHONDIR=str(self.directory)):
            client = ipyparallel.Client(*args, timeout=self.limit, **options)
        try:
            yield client
            purge(client)
        finally:
            client.close(linger=1000)

    def survey(self, limit: float) -> None:
        """Ask every registered engine for an answer within *limit* seconds; sort them into ``ids`` and ``silent``.

        An engine that others keep busy is given up after ``GRACE`` seconds.
        """
        asked = {engine: self.client[engine].apply_async(int) for engine in self.client.ids}
        self.client.wait(list(asked.values()), timeout=min(GRACE, limit))
        late = self._late(asked)
        if late and not all(late.values()):
            self.client.wait([asked[engine] for engine in late], timeout=max(limit - GRACE, 0))
            late = self._late(asked)
        self.busy = [engine for engine, others in late.items() if others]
        self.silent = {engine: explain_silence(engine, self._idents[engine], others) for engine, others in late.items()}
        self.ids = [engine for engine in self.client.ids if engine in asked and engine not in late]

    def _late(self, asked: c.Mapping[int, ipyparallel.AsyncResult]) -> dict[int, int]:
        """For each engine that has not answered yet, how many requests of others are running or waiting there."""
        late = [engine for engine in self.client.ids if engine in asked and not asked[engine].ready()]
        if not late:
            return {}
        self._idents.update({engine["id"]: engine["uuid"] for engine in hub.registered(self.client)})
        own = set(self.client.history)
        status = self.client.queue_status(targets=late, verbose=True)
        return {engine: len({*status[engine]["queue"], *status[engine]["tasks"]} - own) for engine in late}

    def drop_departed(self) -> None:
        """Take engines that are not registered any more out of ``ids``."""
        registered = self.client.ids
        self.ids = [engine for engine in self.ids if engine in registered]

    def stayed(self) -> None:
        """Fail the check when an engine left while the others were running."""
        registered = self.client.ids
        gone = [f"engine {engine} ({ident})" for engine, ident in self._idents.items() if engine not in registered]
        if gone:
            raise CheckFailedError(f"expected all engines of the beginning, gone are {', '.join(gone)}")

    def clean(self) -> None:
        """Remove every name of this run from the engines; those that do not answer do it when they can."""
        for engine in set(self.silent) & set(self.client.ids):
            self.client[engine].apply_async(_forget, self._prefix).wait_for_send(1)
        if not self.ids:
            return
        left = self.direct.apply_async(_forget, self._prefix).get(self.limit)
        expect("names left on the engines", left, [[] for dummy in self.ids])
        purge(self.client, self.messages)


def purge(client: ipyparallel.Client, messages: c.Iterable[str] = (), patience: float = 2.0) -> None:
    """Make the hub forget the results of *client* and of *messages*.

    The hub may learn that a task is done a moment later than its client, and refuses until then. What it still does
    not call done after *patience* seconds stays until the hub's own limit removes it.
    """
    import ipyparallel

    deadline = time.monotonic() + patience
    while done := [message for message in client.history if message not in client.outstanding]:
        try:
            client.purge_hub_results([*done, *messages])
        except ipyparallel.error.RemoteError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        else:
            return


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for by options
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the cluster is expected to be; None where it does not matter.

    Attributes:
        engines: number of registered engines.
        packer: the connector's packer.
        encryption: ``curve`` or ``none``.
    """

    engines: int | None = None
    packer: str | None = None
    encryption: str | None = None


def read_connector(path: str) -> dict[str, t.Any]:
    """Return the client half of the connector in *path*.

    Raises:
        VerificationError: it is not there, not readable, or not a client half.
    """
    try:
        with open(path, encoding="utf-8") as file:
            connector = json.load(file)
    except FileNotFoundError:
        raise VerificationError(f"there is no connector {path}: deploy the cluster first") from None
    except OSError as error:
        raise VerificationError(f"the connector {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VerificationError(f"the connector {path} is not JSON ({error}): deploy the cluster again") from error
    if not isinstance(connector, dict) or "task_scheme" not in connector or "key" not in connector:
        raise VerificationError(
            f"{path} is not the client half of a connector: name the file ipcontroller-client.json, not the engine half"
        )
    return connector


def connector_packer(connector: c.Mapping[str, t.Any]) -> str:
    """Return the name of the packer in *connector*."""
    return str(connector.get("pack", "json"))


def connector_encryption(connector: c.Mapping[str, t.Any]) -> str:
    """Return ``curve`` or ``none``: how messages under *connector* are protected."""
    return "curve" if connector.get("curve_serverkey") else "none"


def asked_checks(asked: Asked, connector: c.Mapping[str, t.Any]) -> list[Check]:
    """Return a check for each thing that is *asked* for."""
    checks: list[Check] = []
    if asked.engines is not None:
        engines = asked.engines
        checks.append(
            Check(30, "expected engines", lambda context: expect("registered engines", len(context.client), engines))
        )
    if asked.packer is not None:
        packer = asked.packer

        def uses_packer(context: Context) -> None:
            expect("packer in the connector", connector_packer(connector), packer)
            expect("packer of the client's session", context.client.session.packer, packer)

        checks.append(Check(3, "expected packer", uses_packer))
    if asked.encryption is not None:
        encryption = asked.encryption
        checks.append(
            Check(
                7,
                "expected encryption",
                lambda _: expect("encryption in the connector", connector_encryption(connector), encryption),
            )
        )
    return checks


# ---------------------------------------------------------------------------------------------------------------------
# Running them, and what is told
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a check went.

    Attributes:
        check: the check.
        seconds: how long it took.
        message: empty when it passed, else what was expected and what came.
        omitted: the check does not apply here, *message* says why.
    """

    check: Check
    seconds: float
    message: str = ""
    omitted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the check passed."""
        return not self.message

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as the module does."""
        told: dict[str, t.Any] = {
            "name": self.check.name,
            "feature": self.check.feature,
            "seconds": round(self.seconds, 3),
            "ok": self.ok,
        }
        return told if self.ok else {**told, "message": self.message}


@dataclasses.dataclass(frozen=True)
class Report:
    """How a run went."""

    outcomes: list[Outcome]
    engines: int
    seconds: float

    @property
    def failed(self) -> list[Outcome]:
        """The checks that failed."""
        return [outcome for outcome in self.outcomes if not outcome.ok and not outcome.omitted]

    def message(self) -> str:
        """Return one message: every failed check by name with its reason, or that all is well."""
        done = [outcome for outcome in self.outcomes if not outcome.omitted]
        if not self.failed:
            engines = f"{self.engines} engine{'' if self.engines == 1 else 's'}"
            return f"all {len(done)} checks passed on {engines} in {self.seconds:.1f} s"
        names: dict[str, list[str]] = {}
        for outcome in self.failed:
            names.setdefault(first_lines(outcome.message), []).append(outcome.check.name)
        reasons = [f"{enumerate_names(which)}: {reason}" for reason, which in names.items()]
        return "\n".join([f"{len(self.failed)} of {len(done)} checks failed:", *reasons])

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as the module does."""
        return {
            "checks": [outcome.as_dict() for outcome in self.outcomes if not outcome.omitted],
            "omitted": [
                {"name": outcome.check.name, "reason": outcome.message} for outcome in self.outcomes if outcome.omitted
            ],
            "passed": sum(outcome.ok for outcome in self.outcomes),
            "failed_checks": [outcome.check.name for outcome in self.failed],
            "engines": self.engines,
            "seconds": round(self.seconds, 3),
        }


def first_lines(message: str, lines: int = 3) -> str:
    """Return the first *lines* of *message* that are not empty."""
    return "\n".join([line for line in message.splitlines() if line.strip()][:lines])


def enumerate_names(names: c.Sequence[str], most: int = 5) -> str:
    """Return *names* as one text; of more than *most*, the first and how many there are besides."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def attempt(check: Check, context: Context, limit: float) -> Outcome:
    """Run *check*, for at most *limit* seconds; whatever happens becomes its outcome."""
    started = time.perf_counter()
    taken: float | None = None
    message, omitted, hung = "", False, False
    try:
        with time_limit(limit):
            taken = check.function(context)
    except NotAvailableError as reason:
        message, omitted = str(reason), True
    except CheckFailedError as failure:
        message = str(failure)
    except (TimeUpError, TimeoutError):
        hung = True
    except Exception as error:  # noqa: BLE001  (any error of the cluster is a result here)
        message = f"{type(error).__name__}: {shorten(str(error))}"
    seconds = time.perf_counter() - started if taken is None else taken
    if hung:
        message = f"no answer within {limit:g} s"
        blame = _resurvey(context) or check.hint
        if blame:
            message = f"{message}: {blame}"
    return Outcome(check, seconds, message, omitted)


def _resurvey(context: Context) -> str:
    """After a check that hung: leave out the engines that do not answer any more; say which they are."""
    context.__dict__.pop("takers", None)
    try:
        with time_limit(2 * GRACE):
            context.survey(GRACE)
    except (TimeUpError, TimeoutError):
        context.ids = []
        return "the hub does not answer"
    except Exception as error:  # noqa: BLE001  (the next checks say more)
        return shorten(str(error))
    return "; ".join(context.silent.values())


def run_checks(checks: c.Iterable[Check], context: Context, limit: float, budget: float) -> list[Outcome]:
    """Run *checks* one after the other, each for at most *limit* and all for at most *budget* seconds."""
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    for check in checks:
        context.drop_departed()
        spent = time.perf_counter() - started
        if not context.ids:
            outcomes.append(Outcome(check, 0.0, "not tried: no engine answers"))
        elif spent > budget:
            outcomes.append(Outcome(check, 0.0, f"not tried: the checks before it took {spent:.0f} s"))
        else:
            outcomes.append(attempt(check, context, limit))
    return outcomes


LAST = (
    Check(30, "every engine stayed registered", Context.stayed),
    Check(33, "namespaces left as they were", Context.clean),
)
"""Run after all others, whatever became of them."""


def _connect(connector: str, timeout: float) -> ipyparallel.Client:
    """Return a client of *connector*, or say why there is none."""
    try:
        with time_limit(2 * timeout):  # an SSH server in the connector may ask for a password
            return hub.connect(connector, timeout)
    except hub.HubError:
        raise
    except TimeUpError:
        raise VerificationError(f"no client of {connector} within {2 * timeout:g} s: its SSH server hangs") from None
    except Exception as error:
        raise VerificationError(
            f"no client can be made from {connector} by this Python ({sys.executable}): "
            f"{type(error).__name__}: {shorten(str(error))}: is it the cluster's own, and its packer installed here?"
        ) from error


def verify(
    connector: str,
    timeout: float,
    asked: Asked,
    checks: c.Iterable[Check],
    temporary: str | None = None,
) -> Report:
    """Run *checks* on the cluster that *connector* names.

    Args:
        connector: path of the client half.
        timeout: seconds to wait for the hub, and for each check.
        asked: what else the cluster is expected to be.
        checks: the checks.
        temporary: where to make the temporary directory; it is removed at the end.

    Raises:
        VerificationError: the connector is unusable, or no engine is registered.
        hub.HubError: the hub does not answer.
    """
    started = time.perf_counter()
    content = read_connector(connector)
    with (
        tempfile.TemporaryDirectory(prefix="verify-", dir=temporary, ignore_cleanup_errors=True) as directory,
        contextlib.redirect_stdout(io.StringIO()),  # ipyparallel prints, and a module's output is its result
    ):
        lay_profiles(pathlib.Path(directory), json.dumps(content))
        client = _connect(connector, timeout)
        try:
            context = Context(client, connector, pathlib.Path(directory), timeout, f"_verify_{secrets.token_hex(4)}_")
            engines = len(context.ids)
            if not engines:
                raise VerificationError(
                    f"the hub of {connector} has no registered engine: start engines (playbook "
                    "ipyparallel.cluster.start), or see in their logs why they do not register"
                )
            every = [*asked_checks(asked, content), *checks]
            outcomes = run_checks(every, context, timeout, BUDGET * timeout)
            context.drop_departed()
            outcomes += [attempt(check, context, timeout) for check in LAST]
        finally:
            client.close(linger=1000)
    return Report(outcomes, engines, time.perf_counter() - started)
