"""A client that asks about many addresses that do not exist gets temporary failures for every address, for a while.

Invariants: without a limit nothing is counted.  At most `KEPT` clients are remembered; the one that was seen least
recently is forgotten.  An address that is asked about several times counts once.

Source: vchkrcpt.sh (its throttle) and jms1's validrcptto (its strikes).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cvm_qmail.gateway.settings import ProbeLimit
from cvm_qmail.protocols.question import Question

KEPT = 10_000
"""The number of clients that are remembered."""


class _Prober:
    __slots__ = ("missing", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        """When the count, or the throttling, ends."""
        self.missing: set[int] = set()
        """Hashes of the addresses that did not exist."""


class ProbeCounts:
    """Counts, for each client, the addresses that do not exist."""

    def __init__(self, limit: ProbeLimit | None, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._probers: OrderedDict[bytes, _Prober] = OrderedDict()

    def throttles(self, question: Question) -> bool:
        """Whether the client has asked about too many addresses."""
        if self._limit is None or (who := prober_of(question)) is None:
            return False
        prober = self._probers.get(who)
        return prober is not None and self._over(prober) and prober.until > self._clock()

    def missing(self, question: Question) -> None:
        """The address of the question does not exist."""
        if self._limit is None or (who := prober_of(question)) is None:
            return
        now = self._clock()
        prober = self._probers.pop(who, None)
        if prober is None or prober.until <= now:
            prober = _Prober(now + self._limit.seconds)
        self._probers[who] = prober
        if len(self._probers) > KEPT:
            self._probers.popitem(last=False)
        if not self._over(prober):
            prober.missing.add(hash(question.recipient.address.lower()))
            if self._over(prober):
                prober.until = now + self._limit.seconds

    def throttled(self) -> list[tuple[bytes, float]]:
        """The clients that are throttled now, and for how many more seconds."""
        now = self._clock()
        return [(who, kept.until - now) for who, kept in self._probers.items() if self._over(kept) and kept.until > now]

    def _over(self, prober: _Prober) -> bool:
        return self._limit is not None and len(prober.missing) > self._limit.addresses


def prober_of(question: Question) -> bytes | None:
    """The client for which a question is counted: its IP address, else the sender; None: neither is known.

    The null sender is used by everyone, and is not counted.
    """
    return question.client or (question.sender and b"<%s>" % question.sender.lower()) or None
