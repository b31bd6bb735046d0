"""The sink of command mode: temporary failures and dry runs on standard error.

Standard output is the client's.  A temporary failure, or a rejection that a dry run accepted, should still be in the
client's log.
"""

from __future__ import annotations

import time

from cvm_qmail.answer import Unavailable
from cvm_qmail.exits import complain
from cvm_qmail.service.events import Event


class Failures:
    """Prints temporary failures, and answers with a detail.  A `Sink`."""

    def request(self, event: Event) -> None:
        """Prints the line of `event` if it is one of these."""
        if isinstance(event.outcome, Unavailable) or event.outcome.detail:
            from cvm_qmail.observe.log import as_line  # most requests do not need it

            complain(as_line(event, time.monotonic() - event.began))

    def repeat(self, token: object, began: float) -> None:
        """Nothing is cached in command mode."""
