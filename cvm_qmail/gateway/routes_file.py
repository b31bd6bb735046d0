"""The file of routes: read at start, and again when it has changed.

Invariants: a mistake in a changed file is logged once, and the old routes stay.  Only a regular file is read,
and of that a bounded part; opening it never waits.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from cvm_qmail.escape import escape_text
from cvm_qmail.protocols.routes import Mistakes, Routes, parse

LIMIT = 16 << 20
"""Bytes of a file: about 200,000 domains."""

SHOWN = 5
"""The number of mistakes in a message."""


class BadRoutes(Exception):
    """The file cannot be used; the message is the cause."""


class RoutesFile:
    """A file, and its identity when it was last read, or could not be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity: tuple[int, ...] | None = None

    def read(self) -> Routes:
        """The routes.  Raises `BadRoutes`."""
        try:
            text = self._bytes()
        except OSError as error:
            self._identity = self._there()
            raise BadRoutes(f"{escape_text(self.path)}: {error.strerror or error}") from None
        try:
            return parse(text)
        except Mistakes as mistakes:
            shown = "; ".join(escape_text(str(mistake)) for mistake in mistakes.found[:SHOWN])
            more = f"; and {len(mistakes.found) - SHOWN} more" if len(mistakes.found) > SHOWN else ""
            raise BadRoutes(f"{escape_text(self.path)}: {shown}{more}") from None

    def changed(self) -> bool:
        """Whether the file has changed since it was read."""
        return self._there() != self._identity

    def _there(self) -> tuple[int, ...] | None:
        """The identity of what is at the path; None: nothing that can be found."""
        with suppress(OSError):
            return _identity(os.stat(self.path))
        return None

    def _bytes(self) -> bytes:
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a regular file")
            self._identity = _identity(status)
            text = file.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise OSError(0, f"more than {LIMIT} bytes")
        return text


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
