"""The result of a delivery, or of one of its lines, and what the exit status of a program means for it."""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.answer import Answer
from cvm_qmail.rules import exit_status
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.rules import shell


class Outcome(NamedTuple):
    """The result of vdelivermail, and whose mail it is."""

    answer: Answer
    stops: bool = False
    """Whether a program ended the whole delivery successfully."""
    account: Account | None = None
    domain: Domain | None = None


def of_program(command: bytes) -> Outcome | None:
    """What a program line's exit status means, if it is known without a run; None: the next line follows."""
    return of_status(exit_status.Ran(shell.exit_status(command)))


def of_status(ran: exit_status.Ran | None) -> Outcome | None:
    """The result that ends a delivery; None: the next line follows.  Raises `Unavailable` where it is deferred."""
    if ran is None or not ran.status:
        return None
    exit_status.may_defer(ran)
    answer = exit_status.answer(ran)
    return None if answer is None else Outcome(answer, stops=ran.status == exit_status.STOP)
