"""What a host would say of each address: the survey of `cvmctl list`, and all that a list leaves out.

    entry       accepted; and what differs from the pattern that covers it: rejected, out of scope, unknown
    place       each domain of the control files, and what becomes of addresses that are not among its entries
    in doubt    a pattern of which a plug-in judges each address, and does not name which there are
    unknown     what is a temporary failure; a pattern, where candidates could not be looked for

Invariants: every verdict is the lookup's own.  Whoever reads this decides what to do with what is unknown.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.listing.entries import Entry, Place
from cvm_qmail.cvmctl.listing.finder import CandidateFinder
from cvm_qmail.cvmctl.listing.places import places
from cvm_qmail.cvmctl.listing.samples import Samples
from cvm_qmail.cvmctl.listing.store import ACCEPTED, DOUBT, OUT_OF_SCOPE, REJECTED, UNKNOWN, Store, alike
from cvm_qmail.cvmctl.listing.survey import Asking
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.plugin import Lookup
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard, Tables
from cvm_qmail.tables.rights import drop_groups

ALL, LISTED, NONE = "all", "listed", "none"
"""Scopes of a place: an address that is no entry is rejected; is judged by other places; is out of scope."""

FULL = frozenset({"over-quota", "quota-count"})
"""Reasons of a mailbox that exists, and takes no mail as long as its owner deletes none."""

_MARKS = {Verdict.ACCEPTED: ACCEPTED, Verdict.REJECTED: REJECTED, Verdict.OUT_OF_SCOPE: OUT_OF_SCOPE}


class Found(NamedTuple):
    """What was asked about; the entries and places are in the store."""

    path: str
    """The file of the `Store`."""
    unknown: Samples[tuple[Entry, Unavailable]]
    full: int
    """Mailboxes that take no mail now, and count as accepted."""


def survey(
    settings: Settings, directory: str, only: Collection[bytes] = (), hang_guard: HangGuard | None = None
) -> Found:
    """What there is, of all domains or of `only` these, in a new file in `directory`.  Raises `Unavailable`.

    A domain is named as the control files name it: one that stands for many begins with a dot, or is empty.
    """
    drop_groups()
    tables = Tables(settings, hang_guard=hang_guard)
    lookup = make_lookup(tables, qmail(tables, settings))
    here, _ = places(tables, settings)
    controls = _Controls(tables, settings)
    wanted = frozenset(only)
    first = {(place.domain, place.wild): place for place in reversed(here)}  # locals come first, and count
    where = [place for place in first.values() if not wanted or place.domain in wanted]
    whole = [address for address in controls.whole if not wanted or address.rpartition(b"@")[2] in wanted]
    store = Store.made_in(directory)
    for (domain, wild), scope in controls.scopes(here).items():
        if not wanted or domain in wanted:
            store.add_place(domain, wild=wild, scope=scope, percenthack=not wild and domain in controls.percenthack)
    finder = CandidateFinder(tables, settings, closed=True)
    store.add_candidates(finder.candidates())
    asking = ExactAsking(lookup, store, finder)
    for place in where:
        asking.place(place)
    for address in whole:
        account, _, host_name = address.rpartition(b"@")
        asking.whole(Entry(account, False, host_name, False))
    path = store.path
    store.close()
    return Found(path, asking.unknown, asking.full)


class _Controls:
    """What virtualdomains and percenthack say beside the places."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        virtual = files.virtual_entries(tables, settings)
        self._elsewhere = [entry.name for entry in virtual if not entry.prepend and b"@" not in entry.name]
        self.whole = [entry.name for entry in virtual if b"@" in entry.name]
        hack = files.control_lines(tables, settings, "percenthack") or ()
        self.percenthack = frozenset(line.value.lower() for line in hack)

    def scopes(self, here: Collection[Place]) -> dict[tuple[bytes, bool], str]:
        """The scope of each domain that the control files name, and whether it stands for many."""
        named = [address.rpartition(b"@")[2] for address in self.whole]
        found = dict.fromkeys([(domain, False) for domain in [*self.percenthack, *named]], LISTED)
        found.update({(domain, domain[:1] in (b"", b".")): NONE for domain in self._elsewhere})
        found.update({(place.domain, place.wild): ALL for place in here})
        return found


class ExactAsking(Asking):
    """Asks about candidates, and keeps what a reader could not know by the patterns alone."""

    def __init__(self, lookup: Lookup, store: Store, finder: CandidateFinder) -> None:
        super().__init__(lookup, store, finder)
        self.full = 0
        self._covers: list[tuple[bytes, int]] = []
        """The patterns that cover the current entry, the longest last, with what they say."""

    def place(self, place: Place) -> None:
        """All that may be there."""
        self._covers = []
        start = b"" if place.prepend is None else place.prepend + b"-"
        everything = self._ask(Entry(b"", True, place.domain, place.wild), start, place.example)
        for local, pattern in self._store.at(place):
            if local:
                self._ask(Entry(local, pattern, place.domain, place.wild), start + local, place.example)
        self._covers = [(b"", everything)]
        self._ask(Entry(b"", False, place.domain, place.wild), start, place.example)
        self._missed(place, alike(start.lower()))

    def _missed(self, place: Place, start: bytes) -> None:
        """The patterns where candidates could not be looked for."""
        for prefix, error in self._finder.failed.items():
            missed = alike(prefix)
            if missed.startswith(start) or start.startswith(missed):
                entry = Entry(missed[len(start) :], True, place.domain, place.wild)
                self._store.replace(entry, UNKNOWN)
                self.unknown.add((entry, error))

    def whole(self, entry: Entry) -> None:
        """A whole address that virtualdomains names: it comes before what covers it."""
        self._covers = [(b"", -1)]
        self._ask(entry, entry.local, entry.domain)

    def _ask(self, entry: Entry, whole_local: bytes, domain: bytes) -> int:
        """Asks about one, and keeps it if a reader would not know."""
        name = alike(entry.local)
        while self._covers and not name.startswith(self._covers[-1][0]):
            self._covers.pop()
        kind, where = self._kind(entry, whole_local.lower(), domain)
        if kind == ACCEPTED or kind != (self._covers[-1][1] if self._covers else REJECTED):
            self._store.replace(entry, kind)
            if b":" in where:
                self._with_colons(entry, kind, where.rpartition(b"/")[2])
        if entry.pattern:
            self._covers.append((name, kind))
        return kind

    def _with_colons(self, entry: Entry, kind: int, file: bytes) -> None:
        """A dot of an address is a colon in the name of its .qmail file, and so is a colon."""
        if entry.pattern or not file.endswith(b"default"):
            parts = entry.local.rsplit(b".", file.count(b":"))
            self._store.replace(entry._replace(local=b":".join(parts)), kind)

    def _kind(self, entry: Entry, whole_local: bytes, domain: bytes) -> tuple[int, bytes]:
        """What is kept of it, and the deciding file."""
        kind, outcome = _judged(self._lookup, Recipient(entry.example, domain))
        if isinstance(outcome, Unavailable):
            if kind == UNKNOWN:
                self.unknown.add((entry, outcome))
        elif entry.pattern and outcome.reason != "lookaside" and self._some_may_exist(outcome, whole_local):
            kind = DOUBT
        self.full += outcome.reason in FULL
        return kind, outcome.where


def _judged(lookup: Lookup, recipient: Recipient) -> tuple[int, Answer | Unavailable]:
    """What is kept of an address, and why."""
    try:
        answer = lookup(recipient)
    except Unavailable as error:
        return (ACCEPTED if error.reason in FULL else UNKNOWN), error
    return (ACCEPTED if answer.reason in FULL else _MARKS[answer.verdict]), answer


def judged(settings: Settings, account: bytes, domain: bytes, hang_guard: HangGuard | None = None) -> int:
    """What a survey would say of one address."""
    drop_groups()
    tables = Tables(settings, hang_guard=hang_guard)
    lookup = make_lookup(tables, qmail(tables, settings))
    return _judged(lookup, Recipient(account, domain))[0]
