"""Sends questions to the modules in their domain's route.

The first module is asked; the next one when that has failed, or has not answered for `hedge` seconds, and so on.
The first answer that is accepted or rejected, or that a mailbox is full, ends it.

Invariants: a temporary failure of one module, or out of scope, is not the end while another has not answered.  If all
modules answer out of scope, so does the gateway; if one that did not answer might know the domain, the result is a
temporary failure.  A module that fails does not affect other domains: its questions are bounded, and its circuit
breaker ends them at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway import statistics
from cvm_qmail.gateway.backend import Answers, Backend, Done
from cvm_qmail.gateway.circuit_breaker import Guarded
from cvm_qmail.gateway.modules import CannotAsk, Modules
from cvm_qmail.gateway.routes_file import BadRoutes, RoutesFile
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols.result import Result
from cvm_qmail.protocols.routes import Routes
from cvm_qmail.reasons import Outcome, Rejection

NO_ROUTE = Result(Outcome.OUT_OF_SCOPE, "no-route")


class Routed(NamedTuple):
    """Routes, and their file."""

    routes: Routes
    file: RoutesFile


class Router:
    """All modules, and which of them to ask."""

    def __init__(self, routed: Routed, make: Callable[[str], Backend], *, hedge: float, timeout: float) -> None:
        """`make`: a backend for a module's name.  `hedge`: seconds; 0: the next is asked after a failure only.

        Raises `CannotAsk`.
        """
        self._file = routed.file
        self._make = make
        self._hedge = hedge
        self._timeout = timeout
        self._guarded: dict[str, Guarded] = {}
        self._routes = routed.routes
        self._replace(routed.routes)

    def look(self) -> str:
        """See `Answers`: reads the file again, if it has changed."""
        if not self._file.changed():
            return ""
        try:
            self._replace(self._file.read())
        except (BadRoutes, CannotAsk) as bad:
            return f"The routes stay as they were: {bad}"
        return f"The routes are new: {len(self._routes.modules)} domains, {len(self._guarded)} modules."

    def _replace(self, routes: Routes) -> None:
        """Uses these routes from now on; the state of a module that is still in them is kept."""
        kept = {name: self._guarded.get(name) or Guarded(self._make(name)) for name in routes.names}
        gone = [guarded for name, guarded in self._guarded.items() if name not in kept]
        self._routes, self._guarded = routes, kept
        for guarded in gone:
            guarded.close()

    def ask(self, recipient: Recipient, limit: float, done: Done) -> None:
        """See `Answers`."""
        asked = [self._guarded[name] for name in self._routes.of(recipient.domain)]
        if not asked:
            done(NO_ROUTE)
        else:
            _Asking(recipient, time.monotonic() + min(self._timeout, limit), asked, self._hedge, done).ask_next()

    def well(self, _seconds: float) -> bool:
        """See `Answers`: whether a module is not known to be down."""
        return not self._guarded or any(guarded.backend.state.up is not False for guarded in self._guarded.values())

    def states(self) -> list[statistics.Backend]:
        """See `Answers`."""
        return [state for guarded in self._guarded.values() for state in guarded.backend.states()]

    def close(self) -> None:
        """See `Answers`."""
        for guarded in self._guarded.values():
            guarded.close()


def answers_of(settings: Settings, turns: Turns, routed: Routed | None) -> Answers:
    """The modules to ask: those of the routes, or the single one.  Raises `CannotAsk`."""
    modules = Modules(settings, turns)
    if routed is None:
        return modules.backend(str(settings.module))
    return Router(routed, modules.backend, hedge=settings.hedge, timeout=settings.timeout)


class _Asking:
    """One question that has been sent."""

    def __init__(self, recipient: Recipient, end: float, left: list[Guarded], hedge: float, done: Done) -> None:
        self._recipient = recipient
        self._end = end
        self._left = left
        self._hedge = hedge
        self._done: Done | None = done
        self._pending = 0
        self._result: Result | None = None
        """The result if no better answer comes."""
        self._timer: asyncio.TimerHandle | None = None

    def ask_next(self) -> None:
        """Asks the next module."""
        self._stop_timer()
        guarded = self._left.pop(0)
        self._pending += 1
        if self._left and self._hedge:
            self._timer = asyncio.get_running_loop().call_later(self._hedge, self.ask_next)
        guarded.ask(self._recipient, max(0.0, self._end - time.monotonic()), self._heard)

    def _heard(self, result: Result) -> None:
        self._pending -= 1
        if self._done is None:
            return  # another module was faster
        if _is_final(result):
            self._finish(result)
            return
        if self._result is None or self._result.outcome is Outcome.OUT_OF_SCOPE:
            self._result = result
        if self._left:
            self.ask_next()
        elif not self._pending:
            self._finish(self._result)

    def _finish(self, result: Result) -> None:
        self._stop_timer()
        self._left.clear()
        done, self._done = self._done, None
        if done is not None:
            done(result)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_final(result: Result) -> bool:
    return result.outcome in (Outcome.ACCEPTED, Outcome.REJECTED) or result.rejection is Rejection.FULL
