"""Recent questions and answers, for /metrics, JSON and the status page.

Invariants: bounded for any questions: a ring of seconds, and the most frequent words and domains of at most `NAMES`.
Bytes from clients are escaped here.  Everything that is shown is made from `Statistics.snapshot`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

from cvm_qmail import __version__
from cvm_qmail.escape import escape
from cvm_qmail.process import sandbox
from cvm_qmail.protocols.result import Result, word
from cvm_qmail.reasons import Outcome

SECONDS = 300
"""The number of seconds that are kept separately."""

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of latencies, in seconds."""

NAMES = 512
"""The number of domains that are counted; a new one replaces the rarest and inherits its count (space saving).

It is also the limit for combinations of listener, outcome and reason; there are fewer of them, unless a module
invents words.
"""

TOP = 10

WHO_LIMIT = 100
"""Bytes of a client's name that are shown."""

_KINDS = tuple(Outcome)
_PLACES = {kind: 1 + at for at, kind in enumerate(_KINDS)}
"""The order of the counts in a second."""
_FIELDS = len(_KINDS) + 3
"""The fields of a second: its number, a count for each kind, the sum of the latencies and the longest one."""


class Second(NamedTuple):
    """The counts of one second."""

    at: int
    """Seconds since 1970."""
    outcomes: dict[str, int]
    latency: float
    """Mean, in seconds."""
    longest: float
    """Seconds."""


class Backend(NamedTuple):
    """The state of a CVM module."""

    module: str
    up: bool | None
    """None: it has not been asked yet."""
    since: float
    """Seconds since 1970; 0: never asked."""
    detail: str
    """Why it is down, in words."""
    asking: int
    """Questions that wait for its answer."""
    failures: dict[str, int]
    """Questions that got no answer, by reason word."""


class Snapshot(NamedTuple):
    """The gateway's counters since its start, and its current state."""

    started: float
    """Seconds since 1970."""
    requests: dict[tuple[str, str, str], int]
    """By listener's protocol, result's word and reason word."""
    latency: dict[str, tuple[float, ...]]
    """By protocol: a count for each of `BUCKETS`, one for longer latencies, and the sum in seconds."""
    domains: list[tuple[str, int]]
    """The domains with most rejections, most first; escaped."""
    seconds: list[Second]
    """Those of the last `SECONDS` seconds that had questions, in their order."""
    events: dict[str, int]
    backends: list[Backend]
    throttled: list[tuple[str, float]]
    """The throttled clients, escaped, and for how many more seconds."""
    connections: int
    now: float
    """Seconds since 1970."""
    process: dict[str, Any]
    """The gateway's pid, and what it says of itself, as the processes of a server do (`observe.stats`)."""

    @property
    def outcomes(self) -> dict[str, int]:
        """Answers by result's word."""
        return self._summed(1)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """The most frequent reason words, most first."""
        return sorted(self._summed(2).items(), key=lambda pair: -pair[1])[:TOP]

    def _summed(self, part: int) -> dict[str, int]:
        sums: dict[str, int] = {}
        for key, count in self.requests.items():
            sums[key[part]] = sums.get(key[part], 0) + count
        return sums

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return {
            "version": __version__,
            "process": self.process,
            "started": self.started,
            "now": self.now,
            "outcomes": self.outcomes,
            "reasons": [{"reason": reason, "count": count} for reason, count in self.reasons],
            "rejected_domains": [{"domain": domain, "count": count} for domain, count in self.domains],
            "seconds": [second._asdict() for second in self.seconds],
            "events": self.events,
            "backends": [backend._asdict() for backend in self.backends],
            "throttled": [{"client": client, "seconds": round(left, 1)} for client, left in self.throttled],
            "connections": self.connections,
        }


class Statistics:
    """Counters of one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._clock = clock
        self._started = clock()
        self._requests: dict[tuple[str, Outcome, str], int] = {}
        self._latency: dict[str, list[float]] = {}
        """For each listener: a count for each bucket, one for longer latencies, and the sum of all."""
        self._domains: dict[bytes, int] = {}
        self._ring: list[list[float]] = [[0.0] * _FIELDS for _ in range(SECONDS)]
        self._events: dict[str, int] = {}
        """Other events: malformed requests, connections that were closed to make room for others."""

    def answered(self, listener: str, result: Result, domain: bytes | None, seconds: float) -> None:
        """One question was answered."""
        key = (listener, result.outcome, result.reason)
        if key not in self._requests and len(self._requests) >= NAMES:
            key = (listener, result.outcome, "other")  # a module that invents words
        self._requests[key] = self._requests.get(key, 0) + 1
        buckets = self._latency.get(listener)
        if buckets is None:
            buckets = self._latency[listener] = [0.0] * (len(BUCKETS) + 2)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        buckets[-1] += seconds
        second = self._second()
        second[_PLACES[result.outcome]] += 1
        second[-2] += seconds
        second[-1] = max(second[-1], seconds)
        if result.outcome is Outcome.REJECTED and domain:
            self._count_domain(domain[:255].lower())

    def happened(self, what: str) -> None:
        """An event that is not an answer; `what` is an identifier."""
        self._events[what] = self._events.get(what, 0) + 1

    def snapshot(self, backends: list[Backend], throttled: list[tuple[bytes, float]], connections: int) -> Snapshot:
        """A snapshot of everything, including what other parts know."""
        clock = self._clock()
        now = int(clock)
        ring = sorted(second for second in self._ring if now - SECONDS < second[0] <= now)
        domains = sorted(self._domains.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP]
        return Snapshot(
            started=self._started,
            requests={(name, word(kind), reason): n for (name, kind, reason), n in self._requests.items()},
            latency={listener: tuple(counts) for listener, counts in self._latency.items()},
            domains=[(escape(domain), n) for domain, n in domains],
            seconds=[_second(fields) for fields in ring],
            events=dict(self._events),
            backends=backends,
            throttled=[(escape(who[:WHO_LIMIT]), left) for who, left in throttled],
            connections=connections,
            now=clock,
            process={"pid": os.getpid(), "about": {"sandbox": sandbox.report()}},
        )

    def _second(self) -> list[float]:
        now = int(self._clock())
        second = self._ring[now % SECONDS]
        if second[0] != now:
            second[:] = [now] + [0.0] * (_FIELDS - 1)
        return second

    def _count_domain(self, domain: bytes) -> None:
        domains = self._domains
        if domain not in domains and len(domains) >= NAMES:
            rarest = min(domains, key=domains.__getitem__)
            domains[domain] = domains.pop(rarest)
        domains[domain] = domains.get(domain, 0) + 1


def _second(fields: list[float]) -> Second:
    counts = [int(count) for count in fields[1:-2]]
    total = sum(counts)
    by_word = {word(kind): count for kind, count in zip(_KINDS, counts, strict=True)}
    return Second(int(fields[0]), by_word, fields[-2] / total if total else 0.0, fields[-1])
