"""The domains that a host delivers to, from its control files.

Source: qmail-control(5), qmail-send(8).
"""

from __future__ import annotations

from collections.abc import Iterable

from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.listing.entries import Place
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables


def places(tables: Tables, settings: Settings) -> tuple[list[Place], list[bytes]]:
    """The domains of the control files, and the whole addresses in virtualdomains.  Raises `Unavailable`."""
    tables.controls()  # all or nothing
    found = [Place(line.value.lower(), None) for line in files.local_lines(tables, settings)]
    virtual = [entry for entry in files.virtual_entries(tables, settings) if entry.prepend]
    whole = [entry.name for entry in virtual if b"@" in entry.name]
    found += [Place(entry.name, entry.prepend) for entry in virtual if b"@" not in entry.name]
    return list(dict.fromkeys(found)), whole


def of_domain(all_places: Iterable[Place], domain: bytes) -> list[Place]:
    """The one place of `domain`, as qmail-send finds it; empty: it has none."""
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
