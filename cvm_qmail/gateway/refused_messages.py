"""Messages with a recipient that does not exist, whose recipients were all accepted (CVM_GATEWAY_DENY_ALL).

Invariants: bounded; a message is forgotten when it is too old, not when it was asked about: a mail server may ask at
DATA and again at its end.

Source: QMAILRRTDENYALL of notqmail's rejectutils; VERIFY=DEFER of qmail-verify.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEPT = 20_000
SECONDS = 3600.0
"""Seconds for which a message is remembered: longer than any SMTP session waits between RCPT and DATA."""


class RefusedMessages:
    """The names of messages that are to be rejected at DATA."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._messages: OrderedDict[bytes, float] = OrderedDict()

    def add(self, message: bytes) -> None:
        """A recipient of this message does not exist."""
        now = self._clock()
        self._messages[message] = now
        self._messages.move_to_end(message)
        while len(self._messages) > KEPT or next(iter(self._messages.values())) < now - SECONDS:
            self._messages.popitem(last=False)

    def __contains__(self, message: bytes) -> bool:
        return self._messages.get(message, float("-inf")) >= self._clock() - SECONDS
