"""Accounts of the cdb back end: ``vpasswd.cdb`` of each domain, or ``vpasswd`` where that cannot be opened.

Invariants: the cdb decides, however old it is.  If it is missing or access is denied, vpopmail reads vpasswd, from
which it would build a new one; this module only reads it.  For logins only a missing one matters: vchkpw is root, to
whom access is never denied.  A damaged cdb is a temporary failure, never "no such user"; so is a
domain with neither file, which vadddomain always makes: a disk is not mounted, or a restore is half done.

Source: vcdb.c (vauth_getpw, vopen_vpasswd, make_vpasswd_cdb).
"""

from __future__ import annotations

import os

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.tables.backends import Backends, BackendState
from cvm_qmail.tables.door import FileAccess
from cvm_qmail.tables.errors import REFUSED
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.tables.backend_guess import BackendGuess
from cvm_vpopmail.vpasswd import parse


class Watched:
    """Reports the state of the files as back ends: all of them as one, and those that could not be read."""

    def __init__(self, backends: Backends, directory: bytes) -> None:
        """`directory`: vpopmail's."""
        self._backends = backends
        self._all = f"cdb:{os.fsdecode(directory)}"
        self._seen = False
        self._failed: set[bytes] = set()

    def works(self, directory: bytes) -> None:
        """The files of a domain, in this directory, could be read."""
        if not self._seen:
            self._seen = True
            self._backends.saw(self._all, BackendState.UP)
        if directory in self._failed:
            self._failed.discard(directory)
            self._backends.saw(f"cdb:{os.fsdecode(directory)}", BackendState.UP)

    def failed(self, directory: bytes, reason: str) -> None:
        """The files of a domain could not be read."""
        self._failed.add(directory)
        self._backends.saw(f"cdb:{os.fsdecode(directory)}", BackendState.DOWN, reason)


class CdbAccounts:
    """A Table of accounts by domain and name in lower case."""

    def __init__(
        self,
        access: FileAccess,
        *,
        clear: bool,
        login: bool = False,
        guess: BackendGuess | None = None,
        watched: Watched | None = None,
    ) -> None:
        """`access`: with the rights of the domain's owner.  `clear`: whether vpopmail was built with clear passwords.

        `guess`: the assumption that accounts are here, if no setting names a back end.
        """
        self._access = access
        self._guess = guess
        self._watched = watched
        self._login = login
        self._clear = clear

    def get(self, key: tuple[Domain, bytes], /) -> Account | None:
        """The account; None if there is none.  Raises `Unavailable`."""
        domain, name = key
        if not name:
            return None
        if self._watched is None:
            return self._account(domain, name)
        try:
            account = self._account(domain, name)
        except Unavailable as error:
            self._watched.failed(domain.directory, error.reason)
            raise
        self._watched.works(domain.directory)
        return account

    def _account(self, domain: Domain, name: bytes) -> Account | None:
        cdb = self._database(domain.directory + b"/vpasswd.cdb")
        text = None
        if cdb is not None:
            value = cdb.get(name)
        else:
            text = self._access.file(domain.directory + b"/vpasswd", secret=True)
            value = None if text is None else _in_text(text, name)
        if value is not None:
            return parse(name, value, clear=self._clear)
        if self._guess is not None:
            self._guess.confirm(files=cdb is not None or text is not None)
        if cdb is None and text is None:
            raise Unavailable("accounts-gone", "neither vpasswd nor vpasswd.cdb exists", domain.directory)
        return None

    def _database(self, path: bytes) -> Table[bytes, bytes] | None:
        try:
            return self._access.cdb(path, secret=True, sound=True)
        except Unavailable as error:
            if error.errno in REFUSED and self._access.exact and not self._login:
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
