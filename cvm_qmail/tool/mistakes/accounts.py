"""Mistakes in the system's accounts.

Source: qmail-getpw(8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from cvm_qmail.rules import users
from cvm_qmail.tables.passwd import PASSWD
from cvm_qmail.tool import host
from cvm_qmail.tool.mistakes.sight import Finding, Sight
from cvm_qmail.tool.show import text

PEOPLE = range(1000, 60_000)
"""Uids of accounts that are people's: of the system's own nobody expects a mailbox."""

QMAILS = frozenset({b"qmaild", b"qmaill", b"qmailp", b"qmailq", b"qmailr", b"qmails"})
"""Qmail's own accounts, which get no mail."""


def accounts(sight: Sight) -> Iterator[Finding]:
    """Accounts that qmail passes over, though somebody may expect mail there."""
    settings = sight.settings
    known = host.accounts(sight.tables, settings)
    if settings.alias not in known:
        what = f"no account {text(settings.alias)}"
        consequence = "mail for unknown names waits instead of bouncing"
        yield Finding(
            "no-alias", *_account(sight, settings.alias), what, consequence, "make it, with a home of its own"
        )
    if any(key == b"!" for key, _ in sight.records):
        return  # nobody asks the password file
    for name, account in sorted(known.items()):
        what = _why_passed_over(sight, name, account)
        if what:
            consequence = "qmail passes the account over: its mail bounces, or goes to alias"
            remedy = "chown the home" if what.startswith("home") else "give it a line in users/assign"
            yield Finding("account-passed-over", *_account(sight, name), what, consequence, remedy)


def _why_passed_over(sight: Sight, name: bytes, account: users.Account) -> str:
    """Why a person's account gets no mail; empty: it does, or is no person's."""
    if account.uid not in PEOPLE or name in QMAILS:
        return ""
    if name != name.lower():
        return f"account {text(name)} has a capital letter"
    if len(name) >= users.NAME_LIMIT:
        return f"account {text(name)} has more than {users.NAME_LIMIT - 1} letters"
    status = sight.told(partial(sight.tables.status, account.home))
    if status is not None and status.uid != account.uid:
        return f"home {text(account.home)} of account {text(name)} belongs to uid {status.uid}, not to {account.uid}"
    return ""


def _account(sight: Sight, name: bytes) -> tuple[bytes, int | None]:
    """The password file, and the line of an account if it is there."""
    path = os.fsencode(sight.settings.passwd or PASSWD)
    lines = (sight.told(partial(sight.tables.file, path)) or b"").split(b"\n")
    return path, next((at for at, line in enumerate(lines, 1) if line.startswith(name + b":")), None)
