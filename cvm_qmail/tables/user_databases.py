"""Constant databases as a user reads them, without becoming that user again while nothing has changed.

Invariants: a user who could read a file can read it again while the file has the same identity (owner, mode and
access list cannot change without a change of ctime) and the path to it is open: the user has entered the home, the
directories below it have the same identity, and those outside of it are open to everybody.  The identities are from
before the user's read, and old enough that a later change shows.  Only regular files without a link on the path, on
file systems where modes and access lists decide, are remembered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from stat import S_ISLNK

from cvm_qmail.tables.ancestors import Directories
from cvm_qmail.tables.cdb import Database
from cvm_qmail.tables.identity import Identity, identity, is_settled
from cvm_qmail.tables.rights import Rights

LIMIT = 256
"""The number of databases that are remembered."""

Key = tuple[Rights, bytes, bytes]
"""The rights of the reader, the home that was entered, the path."""

Way = list[tuple[bytes, os.stat_result]]
"""The directories below the home on the path to the file, and the file, as lstat(2) returns them."""


class UserDatabases:
    """The databases that were read last."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._known: dict[Key, tuple[list[tuple[bytes, Identity]], Database]] = {}

    def get(self, key: Key) -> Database | None:
        """The database, if it and the path to it are unchanged; None if it has to be read again as the user."""
        known = self._known.get(key)
        if known is None:
            return None
        files, database = known
        way = self._look([path for path, _ in files]) if self._reached(key) else []
        if [identity(st) for _, st in way] != [before for _, before in files]:
            del self._known[key]
            return None
        for path, st in way:
            self._directories.request.depend_on(path, st)
        return database

    def way(self, key: Key) -> Way:
        """The path to the file, read before the user reads it; empty if it cannot be checked again."""
        way = self._look(_parts(*key[1:])) if self._reached(key) else []
        return way if all(self._directories.plain(path, st) for path, st in way) else []

    def _reached(self, key: Key) -> bool:
        """Whether the user can certainly reach the beginning of the path."""
        _, home, path = key
        if path.startswith(home + b"/"):
            return True
        ancestors = self._directories.ancestors(path[: path.rindex(b"/")] or b"/")
        return ancestors is not None and ancestors.open_to_all

    def _look(self, paths: Iterable[bytes]) -> Way:
        """lstat(2) of these paths; empty if that fails, or one is a link."""
        way = []
        try:
            for path in paths:
                st = self._directories.lstat(path)
                if S_ISLNK(st.st_mode):
                    return []
                way.append((path, st))
        except (OSError, ValueError):
            return []
        return way

    def put(self, key: Key, way: Way, database: Database) -> None:
        """Remembers what the user has read after `way` was read."""
        now = time.time_ns()
        if not way or not all(is_settled(st, now) for _, st in way):
            return
        if len(self._known) >= LIMIT:
            self._known.clear()
        self._known[key] = [(path, identity(st)) for path, st in way], database


def _parts(home: bytes, path: bytes) -> Iterator[bytes]:
    """The directories below the home on the way to a file, and the file."""
    below = len(home) + 1 if path.startswith(home + b"/") else path.rindex(b"/") + 1
    part = path[: below - 1]
    for name in path[below:].split(b"/"):
        part += b"/" + (name if name not in (b"", b".", b"..") else b"\0")  # not in its shortest form
        yield part
