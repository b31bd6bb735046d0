"""What the exit status of a program means to qmail-local.

Source: qmail-command(8), qmail-local.c (mailprogram).
"""

from typing import NamedTuple

from cvm_qmail.answer import Answer, Unavailable, Verdict

BOUNCES = frozenset({64, 65, 70, 76, 77, 78, 100, 112})
"""Statuses of a program with which the message bounces."""

STOP = 99
"""Status with which a program ends the delivery successfully."""

DEFER = 111
"""Status with which a program asks to be tried again later."""

NOT_FOUND = 127
"""Status of the shell for a program that does not exist."""


class Ran(NamedTuple):
    """What running a program would result in."""

    status: int | None
    """Its exit status; None if it is not known without a run."""
    reason: str = ""
    """The reason word of an answer that depends on it."""
    where: bytes = b""
    """The file that decided."""
    detail: str = ""
    forwards: tuple[bytes, ...] | None = None
    """The addresses to which it forwards, if it does nothing else with the message; None: it may."""


def may_defer(ran: Ran) -> None:
    """Raises `Unavailable` for a status with which the message is deferred."""
    if ran.status not in (None, 0, STOP) and ran.status not in BOUNCES:
        raise Unavailable(ran.reason or "program-defers", ran.detail or f"exit {ran.status}", ran.where)


def answer(ran: Ran | None) -> Answer | None:
    """The answer for a delivery that this decides; None if the plug-ins do not decide.

    Without a reason it is the file's own.
    """
    if ran is None or (ran.status in (None, 0) and not ran.reason and not ran.forwards):
        return None
    if ran.status in BOUNCES:
        return Answer(Verdict.REJECTED, ran.reason or "program-bounces", where=ran.where)
    reason = ran.reason or ("" if ran.status == 0 else "program")
    return Answer(Verdict.ACCEPTED, reason, where=ran.where, forwards=ran.forwards or ())
