"""A module that the gateway asks: its state, and how many questions wait for it.

Invariants: `Backend.ask` never raises and always ends within its time: a module that is down, slow, or sends a
malformed answer is a temporary failure, and is asked again with the next question.  No answer is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cvm_qmail.answer import Recipient
from cvm_qmail.escape import escape_text
from cvm_qmail.gateway import statistics
from cvm_qmail.gateway.module import Way
from cvm_qmail.protocols.cvm.lookup import NoAnswer, TooLong
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

PROBE = Recipient(b"", None)
"""The question whether a module works: an empty address, to which any answer will do."""

Done = Callable[[Result], None]
"""Takes the result of a question."""


class Answers(Protocol):
    """Answers questions: one module, or those of the routes."""

    def ask(self, recipient: Recipient, limit: float, done: Done) -> None:
        """Calls `done` with the result, at once or later, within `limit` seconds.  Never raises."""
        ...

    def well(self, seconds: float) -> bool:
        """Whether an answer came within the last `seconds`."""
        ...

    def states(self) -> list[statistics.Backend]:
        """The state of the modules, to be shown."""
        ...

    def look(self) -> str:
        """Checks whether its settings have changed; returns a line for the log."""
        ...

    def close(self) -> None:
        """Stops: no question will follow."""
        ...


class State:
    """Whether the module answers, to be shown."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.up: bool | None = None
        """None: it has not been asked yet."""
        self.since = 0.0
        self.detail = ""
        """Why it is down."""
        self.reason = ""
        """The reason word for that."""
        self.heard = float("-inf")
        """When the last answer came, by `time.monotonic`."""
        self.in_a_row = 0
        """The number of questions since then that got no answer."""
        self.failures: dict[str, int] = {}
        """How many questions got no answer, by reason."""

    def answered(self, now: float) -> None:
        """An answer came; `now`: seconds since 1970."""
        self.heard = time.monotonic()
        self.in_a_row = 0
        if not self.up:
            self.up, self.since, self.detail = True, now, ""

    def failed(self, now: float, error: NoAnswer) -> None:
        """None came."""
        self.failures[error.reason] = self.failures.get(error.reason, 0) + 1
        self.in_a_row += 1
        if self.up is not False:
            self.up, self.since = False, now
        self.detail, self.reason = error.detail, error.reason


class Backend:
    """One module; see the head of this file."""

    def __init__(self, module: str, way: Way, *, timeout: float, waiting: int) -> None:
        """`timeout` in seconds; `waiting`: questions at a time, beyond which the outcome is temporary at once."""
        self._way = way
        self._timeout = timeout
        self._waiting = waiting
        self.asking = 0
        """Questions that wait for their answer."""
        self.state = State(module)

    def ask(self, recipient: Recipient, limit: float, done: Done) -> None:
        """See `Answers`; within the module's own time-out as well."""
        if self.asking >= self._waiting:
            done(Result(Outcome.TEMPORARY_FAILURE, "too-many-waiting"))
            return
        self.asking += 1
        try:
            self._way.ask(recipient, time.monotonic() + min(self._timeout, limit), partial(self._heard, done))
        except TooLong:
            self.asking -= 1
            done(Result(Outcome.TEMPORARY_FAILURE, "too-long-to-ask"))

    def _heard(self, done: Done, said: Result | NoAnswer) -> None:
        self.asking -= 1
        if isinstance(said, NoAnswer):
            self.state.failed(time.time(), said)
            said = Result(Outcome.TEMPORARY_FAILURE, said.reason)
        else:
            self.state.answered(time.time())
        done(said)

    def well(self, seconds: float) -> bool:
        """See `Answers`."""
        return bool(self.state.up) and time.monotonic() - self.state.heard < seconds

    def states(self) -> list[statistics.Backend]:
        """See `Answers`."""
        state = self.state
        detail = escape_text(state.detail)
        return [
            statistics.Backend(state.module, state.up, state.since, detail, self.asking, dict(state.failures)),
        ]

    def look(self) -> str:
        """See `Answers`: nothing changes."""
        return ""

    def close(self) -> None:
        """See `Answers`."""
        self._way.close()
