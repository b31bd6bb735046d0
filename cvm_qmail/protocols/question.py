"""The question of a front end, in any protocol."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cvm_qmail.answer import Recipient


class Stage(Enum):
    """The point in the SMTP dialogue at which the question is asked."""

    RECIPIENT = "RCPT"
    """The question is whether mail for the recipient may be accepted."""
    MESSAGE = "DATA"
    """The question is whether the message may be accepted; its recipients were asked about before."""


class Question(NamedTuple):
    """One question.  None: the protocol does not send it; ``sender`` empty: the null sender."""

    recipient: Recipient
    sender: bytes | None = None
    client: bytes | None = None
    """The IP address of the SMTP client, as text."""
    message: bytes | None = None
    """The same for all recipients of one message, and for its `Stage.MESSAGE`."""
    stage: Stage = Stage.RECIPIENT


class Immediate(NamedTuple):
    """A request whose reply is known without asking a module."""

    reply: bytes
    malformed: bool = False
    """Whether the protocol does not allow such a request."""


class Malformed(Exception):
    """The client does not speak the protocol: `reply` is sent to it, and its connection is closed."""

    def __init__(self, message: str, reply: bytes = b"") -> None:
        super().__init__(message)
        self.reply = reply
