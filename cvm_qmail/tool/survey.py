"""Which addresses a host would accept: what is worth asking about, and what the look-up said.

Law: control files, users/cdb, accounts, homes and plug-ins are read only for what is worth asking about;
each candidate is asked of the server's own look-up.  What could not be looked at, or told, is kept
apart, never left out in silence.

Source: dot-qmail(5), qmail-users(5), qmail-send(8).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.lookups import Lookup, qmail
from cvm_qmail.rules import users
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Hazards, Rights, Tables
from cvm_qmail.tool import host
from cvm_qmail.tool.helpers import helpers

PROBE = b"zz9cvmctlprobe"
"""Stands for anything in a pattern: nobody has it, so only a pattern takes it."""


class Candidate(NamedTuple):
    """What qmail-lspawn might be asked for."""

    local: bytes
    pattern: bool
    """Whether it stands for all that begins so."""


class Place(NamedTuple):
    """A domain with what virtualdomains prepends to its local parts."""

    domain: bytes
    """One of virtualdomains that begins with a dot, or is empty, stands for many."""
    prepend: bytes | None
    """None: a local domain."""

    @property
    def wild(self) -> bool:
        """Whether it stands for many."""
        return self.prepend is not None and self.domain[:1] in (b"", b".")

    @property
    def example(self) -> bytes:
        """One that it stands for."""
        return PROBE + (self.domain or b".invalid") if self.wild else self.domain


class Entry(NamedTuple):
    """A line of the list."""

    local: bytes
    pattern: bool
    domain: bytes
    wild: bool


class Found(NamedTuple):
    """All that was asked about."""

    entries: list[Entry]
    unknown: list[tuple[Entry, Unavailable]]
    unlisted: list[tuple[Entry, Answer]]
    """Patterns of which a plug-in judges each address by itself, and does not tell which there are; and what
    another module is to judge (CVM_QMAIL_LOOKASIDE)."""
    troubles: list[Unavailable]
    """Where candidates could not be looked for."""


# -- what is worth asking about -----------------------------------------------------------------------


class Survey:
    """The local parts that a host might know."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self._tables = tables
        self._settings = settings
        self._names: dict[bytes, list[bytes]] = {}
        self.troubles: list[Unavailable] = []
        self.claimed: set[bytes] = set()
        """Beginnings of local parts below which a plug-in has named all that it knows."""

    def candidates(self) -> set[Candidate]:
        """All of them.  Raises `Unavailable` where none can be found at all."""
        records = host.users_cdb(self._tables, self._settings)
        found = {candidate for key, data in records or () for candidate in self._assigned(key, data)}
        if records is None or all(key != b"!" for key, _ in records):  # else the password file is never asked
            for name, account in host.accounts(self._tables, self._settings).items():
                found.update(self._account(name, account))
        return found

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
            return  # the look-up will say so
        if user is not None:
            yield from self._below(prefix, user)
            yield from self._of_plugins(prefix, user)

    def _of_plugins(self, prefix: bytes, user: users.User) -> Iterator[Candidate]:
        """The names that plug-ins know below an entry of users/cdb."""
        for helper in helpers():
            try:
                named = helper.names(self._tables, self._settings, user)
                if named is not None:
                    self.claimed.add(prefix.lower())
                    for local, pattern in named:
                        yield Candidate(prefix + local, pattern)
            except Unavailable as trouble:
                self.troubles.append(trouble)

    def _account(self, name: bytes, account: users.Account) -> Iterator[Candidate]:
        """Those of an account; the account alias has what nobody else has as well."""
        settings = self._settings
        user = users.User(name, *account, b"-", b"")
        if name == settings.alias:
            yield from self._below(b"", user)
        yield Candidate(name, False)
        try:
            owned = account.uid and self._tables.owners().get(account.home) == account.uid
        except Unavailable as trouble:
            self.troubles.append(trouble)
            return
        if owned:
            yield from self._below(name + settings.breakchar, user)

    def _below(self, start: bytes, user: users.User) -> Iterator[Candidate]:
        """`start` with each extension that a .qmail file of `user` has."""
        ext = user.ext.lower().replace(b".", b":")
        for safe in self._extensions(user):
            if safe.startswith(ext):
                yield Candidate(start + safe[len(ext) :].replace(b":", b"."), False)
            stem = safe.removesuffix(b"default")
            if stem != safe and (not stem or stem.endswith(b"-")):
                if stem.startswith(ext):
                    yield Candidate(start + stem[len(ext) :].replace(b":", b"."), True)
                elif ext.startswith(stem):
                    yield Candidate(start, True)

    def _extensions(self, user: users.User) -> list[bytes]:
        """What follows .qmail and the dash in the names of the home, where an address can reach it."""
        if not user.home.startswith(b"/"):
            return []
        if user.home not in self._names:
            try:
                rights = Rights(user.uid, user.gid)
                self._names[user.home] = host.dotqmail_names(self._tables, user.home, rights)
            except Unavailable as trouble:
                self._names[user.home] = []
                self.troubles.append(trouble)
        start = b".qmail" + user.dash
        rests = [name[len(start) :] for name in self._names[user.home] if name.startswith(start)]
        return [rest for rest in rests if rest == rest.lower() and b"." not in rest]


def places(tables: Tables, settings: Settings) -> tuple[list[Place], list[bytes]]:
    """The domains of the control files, and the whole addresses in virtualdomains.  Raises `Unavailable`."""
    tables.controls()  # all or nothing
    found = [Place(line.value.lower(), None) for line in host.local_lines(tables, settings)]
    virtual: dict[bytes, bytes] = {}
    for line in host.control_lines(tables, settings, "virtualdomains") or ():
        name, colon, prepend = line.value.partition(b":")
        if colon:
            virtual[name.lower()] = prepend
    whole = [name for name, prepend in virtual.items() if b"@" in name and prepend]
    found += [Place(name, prepend) for name, prepend in virtual.items() if b"@" not in name and prepend]
    return list(dict.fromkeys(found)), whole


def of_domain(all_places: Iterable[Place], domain: bytes) -> list[Place]:
    """The one place that `domain` has."""
    by_name: dict[bytes, Place] = {}
    for place in all_places:
        by_name.setdefault(place.domain, place)  # locals come first
    at = 0
    name = domain
    while name not in by_name:
        at = domain.find(b".", at + 1) if at >= 0 else -1
        if at < 0 and not name:
            return []
        name = domain[at:] if at >= 0 else b""
    return [Place(domain, by_name[name].prepend)] if name == domain or by_name[name].wild else []


class Index:
    """Candidates, to be found by what their local parts begin with: there may be many, and many places."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._all = sorted((_alike(local), local, pattern) for local, pattern in candidates)
        self._patterns = {alike for alike, _, pattern in self._all if pattern}

    def at(self, place: Place) -> Iterator[Candidate]:
        """The candidates as addresses of this place are written: without what it prepends."""
        if place.prepend is None:
            yield from (Candidate(local, pattern) for _, local, pattern in self._all)
            return
        start = _alike(place.prepend.lower() + b"-")
        for at in range(bisect_left(self._all, (start,)), len(self._all)):
            alike, local, pattern = self._all[at]
            if not alike.startswith(start):
                break
            yield Candidate(local[len(start) :], pattern)
        if any(start[:end] in self._patterns for end in range(len(start))):
            yield Candidate(b"", True)


def _alike(local: bytes) -> bytes:
    """A dot and a colon are the same in the name of a .qmail file."""
    return local.replace(b":", b".")


# -- asking -------------------------------------------------------------------------------------------


def survey(settings: Settings, domain: bytes | None = None, hazards: Hazards | None = None) -> Found:
    """What would be accepted, in `domain` or everywhere.  Raises `Unavailable`."""
    host.open_tables(settings)  # drops groups
    tables = Tables(settings, hazards=hazards)
    lookup = qmail(tables, settings).lookup
    where, whole = places(tables, settings)
    if domain is not None:
        where = of_domain(where, domain)
        whole = [address for address in whole if address.rpartition(b"@")[2] == domain]
    names = Survey(tables, settings)
    candidates = Index(names.candidates())
    found = Found([], [], [], names.troubles)
    for place in where:
        start = b"" if place.prepend is None else place.prepend + b"-"
        for local, pattern in sorted(set(candidates.at(place))):
            if local or pattern:  # without a local part it would be thrown away, or means the whole domain
                claimed = (start + local).lower().startswith(tuple(names.claimed))
                _ask(lookup, Entry(local, pattern, place.domain, place.wild), place.example, found, claimed=claimed)
    for address in whole:
        account, _, host_name = address.rpartition(b"@")
        _ask(lookup, Entry(account, False, host_name, False), host_name, found)
    return found


QMAILS_OWN = frozenset({"no-mailbox", "home-not-absolute"})
"""Reasons of rejections that hold for all that a pattern stands for; others are a plug-in's."""


def _ask(lookup: Lookup, entry: Entry, domain: bytes, found: Found, *, claimed: bool = False) -> None:
    try:
        answer = lookup(Recipient(entry.local + PROBE if entry.pattern else entry.local, domain))
    except Unavailable as trouble:
        found.unknown.append((entry, trouble))
        return
    if answer.verdict is Verdict.ACCEPT:
        found.entries.append(entry)
    elif answer.reason == "lookaside" or (entry.pattern and not claimed and _by_plugin(answer)):
        found.unlisted.append((entry, answer))


def _by_plugin(answer: Answer) -> bool:
    """Whether a plug-in refused: another address of the same pattern may be taken."""
    return answer.verdict is Verdict.REJECT and answer.reason not in QMAILS_OWN
