"""Accounts of the cdb back end: ``vpasswd.cdb`` of each domain, or ``vpasswd`` where that cannot be opened.

Law: the cdb decides, however old.  One that is missing or refused sends vpopmail to vpasswd, from
which it would build a new one; this only reads it.  For logins that is so only of one that is missing: vchkpw is
root, whom none is refused.  One that is not sound is a trouble, never "no such user".

Source: vcdb.c (vauth_getpw, vopen_vpasswd, make_vpasswd_cdb).
"""

from __future__ import annotations

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.tables import Looks
from cvm_qmail.tables.errors import REFUSED
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.tables import Guess
from cvm_vpopmail.vpasswd import parse


class CdbAccounts:
    """A Table of accounts by domain and name in lower case."""

    def __init__(self, looks: Looks, *, clear: bool, login: bool = False, guess: Guess | None = None) -> None:
        """`looks`: as the domains' owner.  `clear`: whether vpopmail was built with clear passwords.

        `guess`: that accounts are here, if nobody said so.
        """
        self._looks = looks
        self._guess = guess
        self._login = login
        self._clear = clear

    def get(self, key: tuple[Domain, bytes], /) -> Account | None:
        """The account; None if there is none.  Raises `Unavailable`."""
        domain, name = key
        if not name:
            return None
        cdb = self._database(domain.directory + b"/vpasswd.cdb")
        text = None
        if cdb is not None:
            value = cdb.get(name)
        else:
            text = self._looks.file(domain.directory + b"/vpasswd", secret=True)
            value = None if text is None else _in_text(text, name)
        if value is not None:
            return parse(name, value, clear=self._clear)
        if self._guess is not None:
            self._guess.confirm(files=cdb is not None or text is not None)
        return None

    def _database(self, path: bytes) -> Table[bytes, bytes] | None:
        try:
            return self._looks.cdb(path, secret=True, sound=True)
        except Unavailable as trouble:
            if trouble.errno in REFUSED and self._looks.exact and not self._login:
                return None
            raise


def _in_text(text: bytes, name: bytes) -> bytes | None:
    """The rest of the first line of this name."""
    wanted = name + b":"
    if text.startswith(wanted):
        at = 0
    else:
        at = text.find(b"\n" + wanted) + 1
        if not at:
            return None
    return text[at + len(wanted) :].partition(b"\n")[0]
