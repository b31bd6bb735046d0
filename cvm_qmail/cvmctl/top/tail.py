"""The domains of addresses that were rejected lately, from the end of a log that grows.

Invariants: memory is bounded; a log that is replaced or truncated is read from its beginning.
"""

from __future__ import annotations

import os
from collections import Counter

from cvm_qmail.cvmctl.host.log_entries import LIMIT, parse

BEGIN = 1 << 16
"""Bytes at the end of the log that are read at first."""

KEPT = 10_000
"""Domains that are counted."""


class Tail:
    """A log, and the domains in it."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._path = path
        self._inode, size = _identity(path)
        self._at = max(0, size - BEGIN)
        self._rest = b""
        self.domains: Counter[str] = Counter()

    def look(self) -> None:
        """Reads what is new."""
        try:
            inode, size = _identity(self._path)
            if inode != self._inode or size < self._at:
                self._inode, self._at, self._rest = inode, 0, b""
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read(1 << 22)
        except OSError:
            return  # it is being replaced
        self._at += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LIMIT:]
        for line in lines:
            entry = parse(line.decode("utf-8", "surrogateescape"))
            if entry is not None and entry.outcome == "rejected":
                domain = entry.domain or "(none)"
                if domain in self.domains or len(self.domains) < KEPT:
                    self.domains[domain] += 1


def _identity(path: str) -> tuple[tuple[int, int], int]:
    status = os.stat(path)
    return (status.st_dev, status.st_ino), status.st_size
