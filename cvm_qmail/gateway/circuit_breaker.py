"""A module that fails several times in a row gets only probes, so that no client waits for it.

Invariants: while the circuit is open, every question gets its temporary failure at once.  A probe asks every
`PROBE_EVERY` seconds; any answer, to a probe or to a question that was already sent, closes the circuit.
"""

from __future__ import annotations

import asyncio
from functools import partial

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway.backend import PROBE, Backend, Done
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

FAILURES = 3
"""Questions in a row without an answer that open the circuit."""

PROBE_EVERY = 1.0
"""Seconds between the end of a probe and the next."""

PROBE_LIMIT = 2.0
"""Seconds for the answer to a probe."""


class Guarded:
    """A module with its circuit breaker."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._probing = False
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open."""
        return self.backend.state.in_a_row >= FAILURES

    def ask(self, recipient: Recipient, limit: float, done: Done) -> None:
        """See `Answers`."""
        if self.is_open:
            done(Result(Outcome.TEMPORARY_FAILURE, self.backend.state.reason))
        else:
            self.backend.ask(recipient, limit, partial(self._heard, done))

    def _heard(self, done: Done, result: Result) -> None:
        self._look()
        done(result)

    def _look(self) -> None:
        """Schedules a probe, if the circuit is open."""
        if self.is_open and not self._probing and not self._closed:
            self._probing = True
            asyncio.get_running_loop().call_later(PROBE_EVERY, self._probe)

    def _probe(self) -> None:
        if self._closed or not self.is_open:
            self._probing = False
        else:
            self.backend.ask(PROBE, PROBE_LIMIT, self._probed)

    def _probed(self, _result: Result) -> None:
        self._probing = False
        self._look()

    def close(self) -> None:
        """Nothing more will be asked."""
        self._closed = True
        self.backend.close()
