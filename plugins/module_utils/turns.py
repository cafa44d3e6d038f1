# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules that may take long work in turns: after each they say how far they are, which Ansible cannot hear before.

Their actions print that and call them again (``plugin_utils/turns.py``). The first turn is as long as such work usually
takes, so that it costs nothing.
"""

from __future__ import annotations

import math
import time
import typing as t
from collections.abc import Mapping

TURN_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {"turn": {"type": "float"}, "resume": {"type": "dict"}}
"""The options of every module that works in turns (documentation fragment ``turns``)."""


class Pause(BaseException):
    """The turn is over; the message says how far the work is. No `Exception`: nothing is put back, the next goes on."""


class Turn:
    """One turn of a module.

    Attributes:
        state: what the next turn has to know, as JSON.
        started: when the first began, by the clock that all processes of the host share.
    """

    def __init__(self, params: Mapping[str, t.Any]) -> None:
        """Begin a turn.

        Args:
            params: of the module, with ``turn``, how long it may take (None: as long as it needs), and ``resume``.
        """
        now = time.monotonic()
        self.ends = now + params["turn"] if params["turn"] else math.inf
        self.resumed = bool(params["resume"])
        self.state: dict[str, t.Any] = {"started": now, **(params["resume"] or {})}
        self.started: float = self.state["started"]

    def seconds(self) -> float:
        """Return how long the work takes so far, in seconds."""
        return round(time.monotonic() - self.started, 3)

    def since(self, name: str) -> float:
        """Return when a part of the work began: now, if no turn has asked for it before."""
        began: float = self.state.setdefault(name, time.monotonic())
        return began

    def left_of(self, limit: float, name: str) -> float:
        """Return how much is left of the time limit of a part of the work, in seconds; 0 where it is over."""
        return max(0.0, self.since(name) + limit - time.monotonic())

    def at_most(self, seconds: float) -> float:
        """Return *seconds*, or what is left of the turn where that is less; never less than 0."""
        return max(0.0, min(seconds, self.ends - time.monotonic()))

    def is_over(self) -> bool:
        """Return whether it is time to say how far the work is."""
        return time.monotonic() >= self.ends

    def announce(self, what: str) -> None:
        """Let the operator know *what* is to take long before it begins, where there is one who listens.

        Raises:
            Pause: the next turn does it.
        """
        if self.ends < math.inf and not self.resumed:
            raise Pause(what)

    def answer(self, pause: Pause) -> dict[str, t.Any]:
        """Return what the module returns instead of its result."""
        return {"progress": str(pause), "resume": self.state}
