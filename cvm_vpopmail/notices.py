"""What all workers of a server share about its databases, and the messages about them on standard error.

    per kind of error       when it was logged last: once a minute, whichever worker meets it
    per server, or table    since when it fails, and until when it is not asked

Invariants: the memory is made before the workers are forked, when this module is imported, and so is shared.  There
is no lock: if two workers write a value at once, a message may appear twice, or a question is asked too often.  A
line that standard error does not take at once is dropped.
"""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct

from cvm_qmail.escape import escape_text

EVERY = 60.0
"""Seconds between two lines of a kind."""

_KINDS = 64
_ENTRY = Struct("<8sd")
_NOTHING = bytes(_ENTRY.size * _KINDS)
_NOBODY = bytes(8)
_LINE_LIMIT = 1000


class Board:
    """Entries: 8 bytes that identify a thing, and a number for a time."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ENTRY.size * _KINDS)

    @property
    def empty(self) -> bool:
        """Whether no number was noted."""
        return self._memory[:] == _NOTHING

    def get(self, what: str) -> float:
        """The number noted for `what`; 0: none."""
        at = self._find(_key(what))
        return 0.0 if at is None else float(_ENTRY.unpack_from(self._memory, at)[1])

    def put(self, what: str, number: float) -> None:
        """Notes a number; 0 forgets.  When there is no room, the least number goes."""
        key = _key(what)
        at = self._find(key)
        if at is None:
            if not number:
                return
            entries = range(0, _ENTRY.size * _KINDS, _ENTRY.size)
            at = min(entries, key=lambda at: float(_ENTRY.unpack_from(self._memory, at)[1]))
        _ENTRY.pack_into(self._memory, at, key if number else _NOBODY, number)

    def _find(self, key: bytes) -> int | None:
        at = self._memory.find(key)
        while at >= 0 and at % _ENTRY.size:
            at = self._memory.find(key, at + 1)
        return at if at >= 0 else None


def _key(what: str) -> bytes:
    return blake2b(what.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def to_standard_error(line: str, program: str = "cvm-vpopmail") -> None:
    """Writes the line, if standard error takes it at once."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{program}: {escape_text(line)[:_LINE_LIMIT]}\n".encode())
    except OSError:
        pass


class Notices:
    """See the head of this file."""

    def __init__(
        self,
        say: Callable[[str], None] = to_standard_error,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._said = Board()
        self._paused_until = Board()
        self._failing_since = Board()
        self.seen = Board()
        """Tables that have been seen."""
        self._say = say
        self._clock = clock

    # -- lines ------------------------------------------------------------------------------------

    def say(self, kind: str, text: str) -> None:
        """Writes the text, if nothing of this kind was written for a minute."""
        now = self._clock()
        last = self._said.get(kind)
        if not last or now - last >= EVERY:
            self._said.put(kind, now)
            self._say(text)

    # -- servers and tables ---------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether no server or table is failing."""
        return self._failing_since.empty

    def failed(self, place: str, reason: str, text: str, pause: float) -> None:
        """A server or table could not be used: it is not asked for `pause` seconds."""
        now = self._clock()
        self._paused_until.put(place, now + pause)
        if not self._failing_since.get(place):
            self._failing_since.put(place, now)
        self.say(f"{place} {reason}", f"{place}: {text}")

    def paused(self, place: str) -> bool:
        """Whether the server or table is not to be asked now."""
        return self._clock() < self._paused_until.get(place)

    def failing(self, place: str) -> bool:
        """Whether it failed when a worker asked it last."""
        return self._failing_since.get(place) > 0.0

    def pause_others(self, place: str, seconds: float) -> None:
        """The caller asks it for so many seconds; other workers do not."""
        self._paused_until.put(place, self._clock() + seconds)

    def recovered(self, place: str) -> None:
        """It works; writes a message if it had failed."""
        since = self._failing_since.get(place)
        if since:
            self._failing_since.put(place, 0.0)
            self._paused_until.put(place, 0.0)
            self._say(f"{place}: works again, after {self._clock() - since:.1f} seconds")


SHARED = Notices()
"""The instance of this server, made before its workers are forked."""
