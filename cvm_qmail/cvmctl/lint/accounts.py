"""Mistakes in the system's accounts.

Source: qmail-getpw(8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.rules import users
from cvm_qmail.tables.passwd import PASSWD

PEOPLE = range(1000, 60_000)
"""Uids of people's accounts: the system's own accounts need no mailbox."""

QMAILS = frozenset({b"qmaild", b"qmaill", b"qmailp", b"qmailq", b"qmailr", b"qmails"})
"""Qmail's own accounts, which get no mail."""


def accounts(context: LintContext) -> Iterator[Finding]:
    """Accounts that qmail skips, though somebody may expect mail there."""
    settings = context.settings
    known = files.accounts(context.tables, settings)
    if settings.alias not in known:
        what = f"no account {text(settings.alias)}"
        consequence = "mail for unknown names waits instead of bouncing"
        yield Finding("no-alias", *_account(context, settings.alias), what, consequence, "create it, with its own home")
    if any(key == b"!" for key, _ in context.records):
        return  # users/cdb has a catch-all, so qmail never reads the password file
    for name, account in sorted(known.items()):
        what = _why_passed_over(context, name, account)
        if what:
            consequence = "qmail skips the account: its mail bounces, or goes to alias"
            remedy = "chown the home" if what.startswith("home") else "give it a line in users/assign"
            yield Finding("account-skipped", *_account(context, name), what, consequence, remedy)


def _why_passed_over(context: LintContext, name: bytes, account: users.Account) -> str:
    """Why a person's account gets no mail; empty: it gets mail, or is not a person's."""
    if account.uid not in PEOPLE or name in QMAILS:
        return ""
    if name != name.lower():
        return f"account {text(name)} has a capital letter"
    if len(name) >= users.NAME_LIMIT:
        return f"account {text(name)} has more than {users.NAME_LIMIT - 1} letters"
    status = context.or_none_reported(partial(context.tables.status, account.home))
    if status is not None and status.uid != account.uid:
        return f"home {text(account.home)} of account {text(name)} belongs to uid {status.uid}, not to {account.uid}"
    return ""


def _account(context: LintContext, name: bytes) -> tuple[bytes, int | None]:
    """The password file, and the line of an account if it is there."""
    path = os.fsencode(context.settings.passwd or PASSWD)
    lines = (context.or_none_reported(partial(context.tables.file, path)) or b"").split(b"\n")
    return path, next((at for at, line in enumerate(lines, 1) if line.startswith(name + b":")), None)
