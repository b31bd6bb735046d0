"""Candidates for local parts: those that accounts, users/cdb, homes and plug-ins name.

Invariants: nothing is decided here; the lookup is asked about each candidate.  If candidates cannot be found, the
failure is recorded, never left out silently.

Source: dot-qmail(5), qmail-users(5).
"""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import extensions
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.listing.entries import Candidate
from cvm_qmail.cvmctl.listing.samples import Samples
from cvm_qmail.rules import users
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables


class CandidateFinder:
    """The local parts that may exist on a host."""

    def __init__(self, tables: Tables, settings: Settings, *, closed: bool = False) -> None:
        """`closed`: also what may be closed to the addresses of others, as all below an account is."""
        self._closed = closed
        self._tables = tables
        self._settings = settings
        self._names: dict[bytes, list[bytes]] = {}
        self._unlistable: dict[bytes, Unavailable] = {}
        self.failures: Samples[Unavailable] = Samples()
        """Failures in the search for candidates."""
        self.failed: dict[bytes, Unavailable] = {}
        """The same, by what the local parts begin with that might be there."""
        self._claims: dict[bytes, set[bytes]] = {}
        """Beginnings of local parts, with the users below whom a plug-in has named all that it knows."""

    def candidates(self) -> Iterator[Candidate]:
        """All of them, some more than once.  Raises `Unavailable` where none can be found at all."""
        records = files.users_cdb(self._tables, self._settings)
        for key, data in records or ():
            yield from self._assigned(key, data)
        if records is None or all(key != b"!" for key, _ in records):  # else the password file is never asked
            for name, account in files.accounts(self._tables, self._settings).items():
                yield from self._account(name, account)

    def claimed(self, local: bytes, user: bytes) -> bool:
        """Whether plug-ins have named all that they know below `user` for a local part that begins so."""
        return any(user in self._claims.get(local[:end], ()) for end in range(len(local) + 1))

    def _assigned(self, key: bytes, data: bytes) -> Iterator[Candidate]:
        """Those of an entry of users/cdb."""
        if not key.startswith(b"!"):
            return
        if key.endswith(b"\0"):
            yield Candidate(key[1:-1], False)
            return
        prefix = key[1:]
        yield Candidate(prefix, False)
        yield Candidate(prefix, True)
        try:
            user = users.assigned(prefix, {b"": prefix[-1:], key: data})
        except Unavailable:
            return  # the lookup will report it
        if user is not None:
            yield from self._below(prefix, user)
            yield from self._of_plugins(prefix, user)

    def _of_plugins(self, prefix: bytes, user: users.User) -> Iterator[Candidate]:
        """The names that plug-ins know below an entry of users/cdb."""
        for extension in extensions():
            try:
                named = extension.names(self._tables, self._settings, user)
                if named is not None:
                    self._claims.setdefault(prefix.lower(), set()).add(user.name)
                    for local, pattern in named:
                        yield Candidate(prefix + local, pattern)
            except Unavailable as error:
                self._fails(prefix, error)

    def _fails(self, start: bytes, error: Unavailable) -> None:
        """Candidates that begin so could not be looked for."""
        self.failures.add(error)
        self.failed[start.lower()] = error

    def _account(self, name: bytes, account: users.Account) -> Iterator[Candidate]:
        """The candidates of an account; the account alias also has those that no other user controls."""
        settings = self._settings
        user = users.User(name, *account, b"-", b"")
        if name == settings.alias:
            yield from self._below(b"", user)
            yield from self._of_plugins(b"", user)
        yield Candidate(name, False)
        try:
            owned = account.uid and self._tables.owners().get(account.home) == account.uid
        except Unavailable as error:
            self._fails(name + settings.breakchar, error)
            return
        if owned:
            if self._closed:
                yield Candidate(name + settings.breakchar, True)
            yield from self._below(name + settings.breakchar, user)
            yield from self._of_plugins(name + settings.breakchar, user)

    def _below(self, start: bytes, user: users.User) -> Iterator[Candidate]:
        """`start` with each extension that a .qmail file of `user` has."""
        ext = user.ext.lower().replace(b".", b":")
        for safe in self._extensions(user, start):
            if safe.startswith(ext):
                yield Candidate(start + safe[len(ext) :].replace(b":", b"."), False)
            stem = safe.removesuffix(b"default")
            if stem != safe and (not stem or stem.endswith(b"-")):
                if stem.startswith(ext):
                    yield Candidate(start + stem[len(ext) :].replace(b":", b"."), True)
                elif ext.startswith(stem):
                    yield Candidate(start, True)

    def _extensions(self, user: users.User, start: bytes) -> list[bytes]:
        """What follows .qmail and the dash in the names of the home, where an address can reach it: after `start`."""
        if not user.home.startswith(b"/"):
            return []
        if user.home not in self._names:
            try:
                rights = Rights(user.uid, user.gid)
                self._names[user.home] = files.dotqmail_names(self._tables, user.home, rights)
            except Unavailable as error:
                self._names[user.home] = []
                self._unlistable[user.home] = error
                self.failures.add(error)
        if user.home in self._unlistable:
            self.failed[start.lower()] = self._unlistable[user.home]
        first = b".qmail" + user.dash
        rests = [name[len(first) :] for name in self._names[user.home] if name.startswith(first)]
        return [rest for rest in rests if rest == rest.lower() and b"." not in rest]
