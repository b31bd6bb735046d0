"""Which addresses a host would accept: the server's own lookup is asked about each candidate.

Invariants: failures and unknown addresses are kept separately, never left out silently.
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.listing.entries import Entry, Place
from cvm_qmail.cvmctl.listing.finder import CandidateFinder
from cvm_qmail.cvmctl.listing.places import of_domain, places
from cvm_qmail.cvmctl.listing.samples import Samples
from cvm_qmail.cvmctl.listing.store import ACCEPTED, UNKNOWN, Store
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.plugin import Lookup
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard, Tables
from cvm_qmail.tables.rights import drop_groups

QMAILS_OWN = frozenset({"no-mailbox", "home-not-absolute"})
"""Reasons of rejections that apply to all addresses of a pattern; others are a plug-in's."""


class Found(NamedTuple):
    """What was asked about; the entries are in the store."""

    path: str
    """The file of the `Store`."""
    failures: Samples[Unavailable]
    """Failures in the search for candidates."""
    unknown: Samples[tuple[Entry, Unavailable]]
    unlisted: Samples[tuple[Entry, Answer]]
    """Patterns whose addresses a plug-in judges but cannot list, or another module judges (CVM_QMAIL_LOOKASIDE)."""


def survey(
    settings: Settings, directory: str, domain: bytes | None = None, hang_guard: HangGuard | None = None
) -> Found:
    """The addresses that would be accepted, in `domain` or everywhere, in a new file in `directory`.

    Raises `Unavailable`.
    """
    drop_groups()
    tables = Tables(settings, hang_guard=hang_guard)
    lookup = make_lookup(tables, qmail(tables, settings))
    where, whole = places(tables, settings)
    if domain is not None:
        where = of_domain(where, domain)
        whole = [address for address in whole if address.rpartition(b"@")[2] == domain]
    store = Store.made_in(directory)
    finder = CandidateFinder(tables, settings)
    store.add_candidates(finder.candidates())
    asking = Asking(lookup, store, finder)
    for place in where:
        asking.place(place)
    for address in whole:
        account, _, host_name = address.rpartition(b"@")
        asking.entry(Entry(account, False, host_name, False), account, host_name)
    store.close()
    return Found(store.path, finder.failures, asking.unknown, asking.unlisted)


class Asking:
    """Asks about candidates, and puts those that are accepted into the store."""

    def __init__(self, lookup: Lookup, store: Store, finder: CandidateFinder) -> None:
        self._lookup = lookup
        self._store = store
        self._finder = finder
        self.unknown: Samples[tuple[Entry, Unavailable]] = Samples()
        self.unlisted: Samples[tuple[Entry, Answer]] = Samples()

    def place(self, place: Place) -> None:
        """All that may be there."""
        start = b"" if place.prepend is None else place.prepend + b"-"
        for local, pattern in self._store.at(place):
            if local or pattern:  # without a local part the mail would be thrown away, or it means the whole domain
                entry = Entry(local, pattern, place.domain, place.wild)
                self.entry(entry, (start + local).lower(), place.example)

    def entry(self, entry: Entry, whole_local: bytes, domain: bytes) -> None:
        """`whole_local`: with what virtualdomains prepends.  `domain`: one that the entry stands for."""
        try:
            answer = self._lookup(Recipient(entry.example, domain))
        except Unavailable as error:
            self._store.add(entry, UNKNOWN)
            self.unknown.add((entry, error))
            return
        if answer.verdict is Verdict.ACCEPTED:
            self._store.add(entry, ACCEPTED)
        elif answer.reason == "lookaside" or (entry.pattern and self._some_may_exist(answer, whole_local)):
            self.unlisted.add((entry, answer))

    def _some_may_exist(self, answer: Answer, whole_local: bytes) -> bool:
        """Whether a plug-in rejected this one: it may accept another address of the same pattern."""
        by_plugin = answer.verdict is Verdict.REJECTED and answer.reason not in QMAILS_OWN
        return by_plugin and not self._finder.claimed(whole_local, answer.user)
