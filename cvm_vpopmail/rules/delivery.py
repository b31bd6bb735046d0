"""The outcome of a delivery whose .qmail file runs vdelivermail, and of the file's other lines.

    program     vdelivermail, ``exit N``, or what a plug-in knows; any other is assumed to accept
    maildir     accepts if it could take a message now
    others      an mbox or a forward: accepts

Invariants: nothing found in a file is run.  Lines are processed in order, and the first that fails decides.

Source: dot-qmail(5), qmail-local.c; checked against the running programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvm_qmail.answer import Answer, Unavailable, Verdict
from cvm_qmail.rules import dotqmail, instructions
from cvm_vpopmail.accounts import View
from cvm_vpopmail.rules import shell
from cvm_vpopmail.rules.mailbox import must_take
from cvm_vpopmail.rules.outcome import Outcome, of_program, of_status
from cvm_vpopmail.rules.records import is_domain_record
from cvm_vpopmail.rules.vdelivermail import BOUNCE, Places, Vdelivermail, actions_in, join

if TYPE_CHECKING:
    from cvm_qmail.plugin import Delivery
    from cvm_vpopmail.settings import Vpopmail


def judge(delivery: Delivery, places: Places, policy: Vpopmail) -> Outcome | None:
    """The outcome of the deciding .qmail file; None if vpopmail does not decide it.

    Raises `Unavailable` where the delivery would be deferred.
    """
    content = delivery.file.file.content
    if content is None:
        raise Unavailable("dotqmail-unread", "its lines decide, but cannot be read", delivery.file.name)
    whole = is_domain_record(delivery.user, delivery.local)
    vdelivermail = Vdelivermail(delivery, places, policy)
    lines = [line.rstrip(b" \t") for line in vdelivermail.actions(actions_in(content))]
    if whole and policy.only_bouncing and delivery.file.name == b".qmail-default" and not _bounces(lines):
        return Outcome(Answer(Verdict.ACCEPTED, "unchecked"))
    outcome: Outcome | None = None
    course = instructions.Course(content, branch=places.branch)
    for line, label in course:
        arguments = shell.vdelivermail(line[1:]) if line.startswith(b"|") else None
        ended: Outcome | None = None
        if arguments is not None:
            ended = outcome = vdelivermail.run(arguments)
        elif whole or (delivery.runs and line.startswith(b"|")):
            ended = _line_of_qmail_local(line, delivery, places.view)
        if ended is None or (ended is outcome and not ended.stops and ended.answer.verdict is Verdict.ACCEPTED):
            continue
        if ended.stops and label is not None:
            course.go(label)
        else:
            return ended
    if whole and not content:
        must_take(b"%s/Maildir" % delivery.user.home, places.view)
    if outcome is None and whole:
        return Outcome(Answer(Verdict.ACCEPTED, "dotqmail-default" if delivery.file.default else "dotqmail"))
    if outcome is not None and outcome.answer.forwards and len(dotqmail.lines(content)) > 1:
        return outcome._replace(answer=outcome.answer._replace(forwards=()))  # other lines accept the message, too
    return outcome


def _bounces(lines: Sequence[bytes]) -> bool:
    """Whether vdelivermail is to bounce mail for unknown names."""
    return any(line.startswith(b"|") and (shell.vdelivermail(line[1:]) or ())[1:] == (BOUNCE,) for line in lines)


def _line_of_qmail_local(line: bytes, delivery: Delivery, view: View) -> Outcome | None:
    """The result of one line that is not vdelivermail's; None: the next line follows."""
    if line.startswith(b"|"):
        return of_program(line[1:]) or of_status(delivery.shell(line[1:]))
    if line.startswith((b"/", b".")) and line.endswith(b"/"):
        must_take(join(delivery.user.home, line.partition(b"\0")[0]), view)
    return None
