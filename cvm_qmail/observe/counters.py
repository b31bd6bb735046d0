"""Counts requests in a column of the server's counters: a `Sink` of a worker.

Invariants: less than a microsecond a request.  Memory is bounded: a reason word that is in no registry counts as
"other" of its outcome.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from cvm_qmail.answer import TEMPORARY_FAILURE, Unavailable, Verdict
from cvm_qmail.observe.stats import BUCKETS, FIRST
from cvm_qmail.reasons import REASONS
from cvm_qmail.service.events import Event

OTHER = "other"

WORDS: Sequence[str] = tuple(
    dict.fromkeys(
        [f"{reason.outcome.value}/{reason.word}" for reason in REASONS]
        + [f"{outcome}/{OTHER}" for outcome in (*(verdict.word for verdict in Verdict), TEMPORARY_FAILURE)]
    )
)
"""The cells after the latencies: outcome and reason."""

_REPEATS, _NANOSECONDS = FIRST.index("repeats"), FIRST.index("nanoseconds")
_LATENCIES = len(FIRST)
_WORDS = len(FIRST) + len(BUCKETS) + 1
_CELLS = {tuple(word.split("/")): _WORDS + at for at, word in enumerate(WORDS)}

_BY_OUTCOME = {
    outcome: {word: at for (kind, word), at in _CELLS.items() if kind == outcome}
    for outcome in (*(verdict.word for verdict in Verdict), TEMPORARY_FAILURE)
}
_ACCEPTED, _REJECTED = _BY_OUTCOME[Verdict.ACCEPTED.word], _BY_OUTCOME[Verdict.REJECTED.word]
_IS_ACCEPTED, _IS_REJECTED = Verdict.ACCEPTED, Verdict.REJECTED  # a look into an enumeration costs 0.1 us
_OUT_OF_SCOPE, _FAILED = _BY_OUTCOME[Verdict.OUT_OF_SCOPE.word], _BY_OUTCOME[TEMPORARY_FAILURE]


class Counters:
    """The counters of one worker."""

    __slots__ = ("_clock", "_column")

    def __init__(self, column: memoryview, clock: Callable[[], float]) -> None:
        """`column`: 64-bit cells; `clock`: that of `Event.began`."""
        self._column = column
        self._clock = clock

    def request(self, event: Event) -> object:
        """Counts a request; returns its cell, for `repeat`."""
        outcome = event.outcome
        if isinstance(outcome, Unavailable):
            cells = _FAILED
        else:
            verdict = outcome.verdict
            cells = _ACCEPTED if verdict is _IS_ACCEPTED else _REJECTED if verdict is _IS_REJECTED else _OUT_OF_SCOPE
        cell = cells.get(outcome.reason) or cells[OTHER]
        column, seconds = self._column, self._clock() - event.began  # written out, as below
        column[cell] += 1
        column[_NANOSECONDS] += int(seconds * 1e9)
        column[bisect_left(BUCKETS, seconds) + _LATENCIES] += 1
        return cell

    def repeat(self, token: Any, began: float) -> None:
        """A cached answer was sent again."""
        column, seconds = self._column, self._clock() - began  # written out, because most requests take this path
        column[token] += 1
        column[_REPEATS] += 1
        column[_NANOSECONDS] += int(seconds * 1e9)
        column[bisect_left(BUCKETS, seconds) + _LATENCIES] += 1
