"""Candidates and entries of a list on disk: there may be millions.

    candidate     a local part (or a beginning) that is worth asking about
    entry         what is in the list: accepted, or unknown; of an exact survey all that differs from what covers it
    place         a domain, and what becomes of addresses that it does not list (exact surveys)

The database is a file in a directory for temporary files ($TMPDIR); it holds addresses and nothing secret.  It has no
journal: a pass that is killed begins anew with another file.

Invariants: memory does not grow with the number of rows.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final, Self

from cvm_qmail.cvmctl.listing.entries import Candidate, Entry, Place

ACCEPTED: Final = 0
UNKNOWN: Final = 1
REJECTED: Final = 2
OUT_OF_SCOPE: Final = 3
DOUBT: Final = 4
"""A pattern of which a plug-in judges each address."""

_SCHEMA = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE candidate (alike BLOB, local BLOB, pattern INTEGER, PRIMARY KEY (alike, local, pattern))
        WITHOUT ROWID;
    CREATE TABLE entry (domain BLOB, wild INTEGER, local BLOB, pattern INTEGER, kind INTEGER,
        PRIMARY KEY (domain, wild, local, pattern)) WITHOUT ROWID;
    CREATE TABLE place (domain BLOB, wild INTEGER, scope TEXT, percenthack INTEGER, PRIMARY KEY (domain, wild))
        WITHOUT ROWID;
"""

# joe-default@ is the notation of the pattern joe-: of the two only the pattern stays.
_DROP_TWINS = """
    DELETE FROM entry WHERE NOT pattern AND substr(local, -7) = X'64656661756c74' AND EXISTS (
        SELECT 1 FROM entry AS twin
        WHERE twin.domain = entry.domain AND twin.wild = entry.wild AND twin.pattern
          AND twin.local = substr(entry.local, 1, length(entry.local) - 7))
"""


class Store:
    """One list."""

    def __init__(self, path: str) -> None:
        """`path`: a file that is made if it is missing, and stays."""
        self.path = path
        self._database = sqlite3.connect(path, isolation_level=None)
        if not self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")

    @classmethod
    def made_in(cls, directory: str) -> Self:
        """An empty one, in a new file there."""
        fd, path = tempfile.mkstemp(dir=directory)
        os.close(fd)
        return cls(path)

    def close(self) -> None:
        """Keeps what was added."""
        self._database.execute("COMMIT")
        self._database.close()

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Each counts once, however often it is added."""
        rows = ((alike(local), local, pattern) for local, pattern in candidates)
        self._database.executemany("INSERT OR IGNORE INTO candidate VALUES (?, ?, ?)", rows)

    def at(self, place: Place) -> Iterator[Candidate]:
        """The candidates as addresses of this place are written: without what it prepends."""
        if place.prepend is None:
            yield from self._candidates("", ())
            return
        start = alike(place.prepend.lower() + b"-")
        end = start[:-1] + b"."  # what follows all that begins with it
        if any(self._is_pattern(start[:end]) for end in range(len(start))):
            yield Candidate(b"", True)
        for local, pattern in self._candidates("WHERE alike >= ? AND alike < ?", (start, end)):
            yield Candidate(local[len(start) :], pattern)

    def _candidates(self, where: str, arguments: tuple[bytes, ...]) -> Iterator[Candidate]:
        query = f"SELECT local, pattern FROM candidate {where} ORDER BY alike, local, pattern"  # noqa: S608  ours
        for local, pattern in self._database.execute(query, arguments):
            yield Candidate(local, bool(pattern))

    def _is_pattern(self, alike: bytes) -> bool:
        query = "SELECT 1 FROM candidate WHERE alike = ? AND pattern LIMIT 1"
        return self._database.execute(query, (alike,)).fetchone() is not None

    def add(self, entry: Entry, kind: int) -> None:
        """An entry that is `ACCEPTED` or `UNKNOWN`, or whatever it is in an exact survey."""
        row = (entry.domain, entry.wild, entry.local, entry.pattern, kind)
        self._database.execute("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?)", row)

    def replace(self, entry: Entry, kind: int) -> None:
        """The same, whatever was said of it before."""
        row = (entry.domain, entry.wild, entry.local, entry.pattern, kind)
        self._database.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", row)

    def add_place(self, domain: bytes, *, wild: bool, scope: str, percenthack: bool) -> None:
        """A domain of an exact survey."""
        self._database.execute("INSERT INTO place VALUES (?, ?, ?, ?)", (domain, wild, scope, percenthack))

    def settle(self, *, include_unknown: bool) -> None:
        """From now on the entries are those of the list: each once, in whatever way it is written."""
        if not include_unknown:
            self._database.execute("DELETE FROM entry WHERE kind = ?", (UNKNOWN,))
        self._database.execute(_DROP_TWINS)

    def entries(self) -> Iterator[Entry]:
        """In the order of domains, then of local parts."""
        query = "SELECT local, pattern, domain, wild FROM entry ORDER BY domain, wild, local, pattern"
        for local, pattern, domain, wild in self._database.execute(query):
            yield Entry(local, bool(pattern), domain, bool(wild))


def alike(local: bytes) -> bytes:
    """A dot and a colon are the same in the name of a .qmail file."""
    return local.replace(b":", b".")
