"""Answers given a moment ago, for as long as all that they rest on is the same.

Law: an answer is given again only to the very same packet, and only when everything it rested on is
vouched for: control files, users/cdb, password file and the folders on the way by the stamp of
`Changes`; the home and the deciding .qmail file by their identity, looked at again (a name that was
missing from a home is still missing while the home's mtime is the same).  Where one of these cannot
be vouched for, there is no evidence and the answer is not kept; troubles never are, nor is a request
with a password.  Bounded, and kept only when something is asked for the second time: a dictionary
attack changes nothing.
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.responder import Noted
from cvm_qmail.tables import Evidence, Tables

LIMIT = 8192
"""Answers that are kept; one takes something less than a kilobyte."""

ONCE_LIMIT = 4096
"""Packets of which it is known that they came once."""


class Recent:
    """A `responder.Memory`; see the head of this file."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._answers: dict[bytes, tuple[Evidence, tuple[bytes, Noted]]] = {}
        self._asked_once: set[int] = set()
        """Hashes of packets that came once, and may come again."""

    def get(self, packet: bytes) -> tuple[bytes, Noted] | None:
        """The response given before and what was noted of it, if it still holds."""
        self._tables.begin()
        known = self._answers.get(packet)
        if known is None:
            self._tables.collecting = hash(packet) in self._asked_once
            return None
        evidence, answer = known
        try:
            if self._tables.holds(evidence):
                return answer
        except Unavailable:
            pass  # the look-up will meet it, and say so
        self._tables.collecting = True
        del self._answers[packet]
        return None

    def put(self, packet: bytes, response: bytes, noted: Noted) -> None:
        """Keeps the response in hand, if it was asked for before and there is evidence for it."""
        number = hash(packet)
        if number not in self._asked_once:
            if len(self._asked_once) >= ONCE_LIMIT:
                self._asked_once.clear()
            self._asked_once.add(number)
            return
        evidence = self._tables.evidence()
        if evidence is not None:
            if len(self._answers) >= LIMIT:
                del self._answers[next(iter(self._answers))]
            self._answers[packet] = evidence, (response, noted)
