"""What is to be published, on disk: what a survey has found, and of one domain at a time the rows of the directory.

    domain      summed up from what was found, without a look at each address in Python: most domains have not changed
    rows        in the spelling of the directory and in its order, for a domain that has

Invariants: memory does not grow with the number of addresses.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from cvm_directory import rules
from cvm_directory.notation import ANYTHING, ending, of_domain, of_local
from cvm_qmail.cvmctl.listing import store

MARKS = {
    store.ACCEPTED: rules.ACCEPTED,
    store.REJECTED: rules.REJECTED,
    store.OUT_OF_SCOPE: rules.OUT_OF_SCOPE,
    store.UNKNOWN: rules.UNKNOWN,
    store.DOUBT: rules.DOUBT,
}

_SCHEMA = """
    CREATE TABLE domain (name TEXT PRIMARY KEY, raw BLOB, wild INTEGER, scope TEXT, percenthack TEXT) WITHOUT ROWID;
    CREATE TEMPORARY TABLE address (local TEXT PRIMARY KEY, verdict TEXT) WITHOUT ROWID;
"""

_AFTER = "FROM entry WHERE domain = ? AND wild = ? AND (local, pattern) > (?, ?)"
_LAST_OF = f"SELECT local, pattern {_AFTER} ORDER BY local, pattern LIMIT 1 OFFSET ?"
# Making strings is what costs: a name that is accepted, as nearly all are, is taken as it is.  Any other row, and a
# name with a NUL, is quoted after a NUL, so that different rows never give the same text.  Rows come in the order of
# the key; if they ever did not, the domain would be compared with what is published, and no more.
_ROW = f"""iif(
    kind <> {store.ACCEPTED} OR pattern OR instr(local, x'00'), char(0) || quote(local) || pattern || kind, local)"""
_SUM_OF = f"""
    SELECT count(*), total(kind = {store.UNKNOWN}), CAST(group_concat({_ROW}, x'000a') AS BLOB)
    {_AFTER} AND (local, pattern) <= (?, ?)
"""

_AT_ONCE = 10_000
"""Addresses that are summed up together."""


class Address(NamedTuple):
    """A row of cvm_address, without its domain."""

    local: str
    verdict: str


class Domain(NamedTuple):
    """A row of cvm_domain, as far as it is this host's to say."""

    name: str
    scope: str
    percenthack: str
    addresses: int
    digest: str
    unknown: int
    """How many of its rows are temporary failures."""


class Publication:
    """What a survey has found, in the same file."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        define = self._database.create_function
        define("of_local", 2, lambda local, pattern: of_local(local, pattern=bool(pattern)), deterministic=True)
        define("of_domain", 2, lambda domain, wild: of_domain(domain, wild=bool(wild)), deterministic=True)
        define("mark", 1, MARKS.__getitem__, deterministic=True)
        self._database.execute(
            "INSERT INTO domain"
            " SELECT of_domain(domain, wild), domain, wild, scope, CAST(percenthack AS TEXT) FROM place"
        )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def has(self, domain: str) -> bool:
        """Whether there is such a domain."""
        return self._database.execute("SELECT 1 FROM domain WHERE name = ?", (domain,)).fetchone() is not None

    def domains(self) -> Iterator[Domain]:
        """All domains, each with what sums up its addresses."""
        query = "SELECT name, raw, wild, scope, percenthack FROM domain ORDER BY name"
        for name, raw, wild, scope, hack in self._database.execute(query):
            digest = blake2b(f"{name} {scope} {hack}\n".encode(), digest_size=16)
            count = unknown = 0
            for some, unknown_ones, text in self._sums(raw, wild):
                count += some
                unknown += int(unknown_ones)
                digest.update(text + b"\0\n")
            yield Domain(name, scope, hack, count, digest.hexdigest(), unknown)

    def _sums(self, raw: bytes, wild: int) -> Iterator[tuple[int, float, bytes]]:
        """Number, number of unknown ones, and all bytes of some addresses after the other."""
        start: tuple[bytes, int] | None = (b"", -1)
        while start is not None:
            here = (raw, wild, *start)
            last = self._database.execute(_LAST_OF, (*here, _AT_ONCE - 1)).fetchone()
            end = (b"\xff" * 1024, 1) if last is None else last
            count, unknown, text = self._database.execute(_SUM_OF, (*here, *end)).fetchone()
            if count:
                yield count, unknown, text
            start = last

    # -- one domain -------------------------------------------------------------------------------

    def take(self, domain: str) -> None:
        """From now on the addresses are those of this domain."""
        self._database.execute("DELETE FROM temp.address")
        self._database.execute(
            "INSERT OR IGNORE INTO temp.address SELECT of_local(local, pattern), mark(kind) FROM entry"
            " WHERE (domain, wild) = (SELECT raw, wild FROM domain WHERE name = ?)",
            (domain,),
        )

    def addresses(self) -> Iterator[Address]:
        """The rows, in the order of their names."""
        return map(Address._make, self._database.execute("SELECT local, verdict FROM temp.address ORDER BY local"))

    def endings(self) -> str:
        """With what the patterns end."""
        patterns = self._database.execute("SELECT local FROM temp.address WHERE substr(local, -1) = ?", (ANYTHING,))
        return "".join(sorted({ending(pattern) for (pattern,) in patterns}))

    def longest(self) -> str:
        """The longest name."""
        found = self._database.execute("SELECT local FROM temp.address ORDER BY length(local) DESC LIMIT 1").fetchone()
        return found[0] if found else ""
