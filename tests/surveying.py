"""`cvmctl list` without its command: the entries of a host, in memory."""

from __future__ import annotations

import tempfile
from typing import NamedTuple

from cvm_qmail.answer import Answer, Unavailable
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.samples import Samples
from cvm_qmail.cvmctl.listing.store import Store
from cvm_qmail.cvmctl.listing.survey import survey
from cvm_qmail.settings import Settings


class Surveyed(NamedTuple):
    """What was found, with the entries that are accepted."""

    entries: list[Entry]
    failures: Samples[Unavailable]
    unlisted: Samples[tuple[Entry, Answer]]


def surveyed(settings: Settings) -> Surveyed:
    """What would be accepted.  Raises `Unavailable`."""
    with tempfile.TemporaryDirectory() as directory:
        found = survey(settings, directory)
        store = Store(found.path)
        store.settle(include_unknown=False)
        return Surveyed(list(store.entries()), found.failures, found.unlisted)
