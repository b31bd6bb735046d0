"""What counting costs a request: microseconds of processor time, the best of several rounds.

.venv/bin/python benchmarks/counters.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cvm_qmail.answer import Answer, Verdict
from cvm_qmail.observe.counters import WORDS, Counters
from cvm_qmail.observe.stats import About, StatsFile
from cvm_qmail.service.events import NO_QUERY, Event, Sinks

REQUESTS = 200_000
ROUNDS = 7


def best(count: Callable[[], object]) -> float:
    """Microseconds for one call."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REQUESTS):
            count()
        found.append((time.process_time() - began) / REQUESTS * 1e6)
    return min(found)


class Nothing:
    """A sink that costs nothing."""

    def request(self, event: Event) -> object:
        """Notes nothing."""

    def repeat(self, token: object, began: float) -> None:
        """Notes nothing."""


def main() -> None:
    """Prints a line for a first answer, one for an answer from the cache, and what both add beside the log."""
    with tempfile.TemporaryDirectory() as directory:
        about = About("cvm-qmail", "0", "/s", os.getpid(), 0.0, "cvm", "auto", 1, {}, WORDS)
        counters = Counters(StatsFile(str(Path(directory) / "s"), about, 1).column(0), time.monotonic)
        event = Event(NO_QUERY, Answer(Verdict.REJECTED, "no-mailbox"), time.monotonic())
        token = counters.request(event)
        print(f"a first answer: {best(lambda: counters.request(event)):.2f} us")
        print(f"an answer from the cache: {best(lambda: counters.repeat(token, event.began)):.2f} us")
        alone, both = Nothing(), Sinks([Nothing(), counters])
        tokens = both.request(event)
        first = best(lambda: both.request(event)) - best(lambda: alone.request(event))
        again = best(lambda: both.repeat(tokens, event.began)) - best(lambda: alone.repeat(None, event.began))
        print(f"beside another sink: {first:.2f} us, {again:.2f} us")


if __name__ == "__main__":
    main()
