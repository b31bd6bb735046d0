"""Answers given a moment ago, for as long as all that they rest on is the same.

Law: an answer is reused only when everything it rested on is vouched for: control files, users/cdb,
password file and the folders on the way by the stamp of `Changes`; the home and the deciding .qmail
file by their identity, looked at again (a name that was missing from a home is still missing while
the home's mtime is the same).  Where one of these cannot be vouched for, there is no evidence and the
answer is not kept; troubles never are.  Bounded, and kept only when an address is asked for the second
time: a dictionary attack changes nothing.
"""

from __future__ import annotations

from cvm_qmail.answer import Answer, Recipient
from cvm_qmail.tables import Evidence, Tables

LIMIT = 8192
"""Answers that are kept; one takes something less than a kilobyte."""


class Recent:
    """See the head of this file."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._answers: dict[Recipient, tuple[Evidence, Answer]] = {}
        self._asked_once: set[int] = set()
        """Hashes of addresses that were asked for once, and may be asked for again."""

    def get(self, recipient: Recipient) -> Answer | None:
        """The answer given before, if it still holds."""
        known = self._answers.get(recipient)
        if known is None:
            return None
        if self._tables.holds(known[0]):
            return known[1]
        del self._answers[recipient]
        return None

    def put(self, recipient: Recipient, answer: Answer) -> None:
        """Keeps the answer to the request in hand, if it was asked for before and there is evidence for it."""
        number = hash(recipient)
        if number not in self._asked_once:
            if len(self._asked_once) >= LIMIT:
                self._asked_once.clear()
            self._asked_once.add(number)
            return
        evidence = self._tables.evidence()
        if evidence is not None:
            if len(self._answers) >= LIMIT:
                del self._answers[next(iter(self._answers))]
            self._answers[recipient] = evidence, answer
