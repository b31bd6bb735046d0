"""Whether mail that is only forwarded reaches nobody, so that it would bounce.

Invariants: the answer is yes only if every address that is forwarded to is rejected on this host, or is
itself only forwarded, to nobody.  An address elsewhere, one that cannot be judged now, a loop, more than
`STEPS` steps or `ADDRESSES` addresses: no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cvm_qmail.answer import Answer, Verdict

STEPS = 10
"""The number of steps (forwards of forwards) that are followed."""

ADDRESSES = 50
"""The number of addresses that are looked up for one address."""

Judge = Callable[[bytes], "Answer | None"]
"""The answer for an address without following it; None: it is not certain."""


def reach_nobody(start: bytes, forwards: Sequence[bytes], judge: Judge) -> bool:
    """Whether all mail to `start`, which is only forwarded to `forwards`, would bounce."""
    return _Following(judge).all_rejected(forwards, (_same(start),))


class _Following:
    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._asked = 0
        self._rejected: set[bytes] = set()

    def all_rejected(self, addresses: Sequence[bytes], way: tuple[bytes, ...]) -> bool:
        if len(way) > STEPS or len(addresses) > ADDRESSES:
            return False
        return bool(addresses) and all(self._is_rejected(address, way) for address in addresses)

    def _is_rejected(self, address: bytes, way: tuple[bytes, ...]) -> bool:
        key = _same(address)
        if key in self._rejected:
            return True
        self._asked += 1
        if key in way or self._asked > ADDRESSES:
            return False
        answer = self._judge(address)
        if answer is None or answer.verdict is Verdict.OUT_OF_SCOPE:
            return False
        if answer.verdict is Verdict.ACCEPTED and not self.all_rejected(answer.forwards, (*way, key)):
            return False
        self._rejected.add(key)
        return True


def _same(address: bytes) -> bytes:
    """The key of an address: addresses with the same key are the same."""
    local, at, domain = address.rpartition(b"@")
    return local + at + domain.lower() if at else address
