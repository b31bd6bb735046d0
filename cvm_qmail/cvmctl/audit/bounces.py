"""Why a delivery program bounced a message, from its output.

Invariants: a text that is not known here gives no reason: it is counted as another bounce, never as a missing
mailbox. Only the end of a report is used: a program that printed something and let the next one continue is not the
one that bounced.

Source: the texts of qmail-local.c, fastforward.c, vdelivermail.c (vpopmail 5.4 and before), the
.qmail files that vpopmail's tools write with bouncesaying, vdeliver.cc, dovecot-lda(1), maildrop(1);
qmail-send.c writes a blank as ``_`` and a line end as ``/``.
"""

from __future__ import annotations

import re

from cvm_qmail.reasons import Rejection

_TEXTS: tuple[tuple[Rejection, str], ...] = (
    (Rejection.MISSING, r"sorry, no mailbox here by that name\b"),  # qmail-local, fastforward, vdelivermail
    (Rejection.MISSING, r"this address no longer accepts mail\."),  # vpopmail's tools, through bouncesaying
    (Rejection.MISSING, r"invalid or unknown (?:base|virtual) user"),  # vdeliver
    (Rejection.MISSING, r"(?:user doesn't exist|user unknown|unknown user)\b"),  # dovecot-lda
    (Rejection.MISSING, r"invalid user specified"),  # maildrop
    (Rejection.FULL, r"(?:user|domain|maildir|mailbox|account) is over quota"),  # vdelivermail
    (Rejection.FULL, r"(?:maildir|mail quota) (?:is )?over ?quota"),  # maildrop
    (Rejection.FULL, r"(?:recipient's )?mailbox is full"),  # vdelivermail, vdeliver
    (Rejection.FULL, r"quota exceeded"),  # dovecot-lda
    (Rejection.FULL, r"disk quota exceeded"),  # vdeliver: EDQUOT
    (Rejection.DISABLED, r"account is (?:locked|disabled|suspended)"),  # vdelivermail
    (Rejection.DISABLED, r"mailbox (?:is )?disabled"),  # vdeliver
)

_KNOWN = re.compile("|".join(f"(?P<t{at}>{pattern})" for at, (_, pattern) in enumerate(_TEXTS)), re.IGNORECASE)

TAIL = 400
"""Bytes at the end of a report that are used."""


def bounce_of(report: bytes) -> Rejection | None:
    """The reason in a report of a failed delivery; None if it is not about the mailbox.

    `report`: as qmail-send logs it.
    """
    lines = [line for line in report[-TAIL:].decode("latin-1").replace("_", " ").split("/") if line.strip()]
    if not lines:
        return None
    found = _KNOWN.search(lines[-1])
    if found is None or found.lastgroup is None:
        return None
    return _TEXTS[int(found.lastgroup[1:])][0]
