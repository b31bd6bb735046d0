"""What all workers of a server know together of its databases, and what is said about it on standard error.

    per kind of trouble     when it was said last: once a minute, whichever worker meets it
    per server, or table    since when it is in trouble, and until when it is left alone

Law: the memory is shared by being there before the workers are forked, which is when this module is
imported.  Nobody locks it: a value that two write at once costs a line said twice, or a question too
many.  A line that standard error does not take at once is dropped: nobody waits for it.
"""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct

from cvm_qmail.log import escape_text

EVERY = 60.0
"""Seconds between two lines of a kind."""

_KINDS = 64
_ENTRY = Struct("<8sd")
_NOTHING = bytes(_ENTRY.size * _KINDS)
_NOBODY = bytes(8)
_LINE_LIMIT = 1000


class Board:
    """Entries of 8 bytes for what, and a number for when."""

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


def to_standard_error(line: str) -> None:
    """Writes the line if standard error takes it at once."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"cvm-vpopmail: {escape_text(line)[:_LINE_LIMIT]}\n".encode())
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
        self._rest = Board()
        self._in_trouble = Board()
        self.seen = Board()
        """Tables that were there."""
        self._say = say
        self._clock = clock

    # -- lines ------------------------------------------------------------------------------------

    def say(self, kind: str, text: str) -> None:
        """Says it, if nothing of this kind was said for a minute."""
        now = self._clock()
        last = self._said.get(kind)
        if not last or now - last >= EVERY:
            self._said.put(kind, now)
            self._say(text)

    # -- servers and tables ---------------------------------------------------------------------------

    @property
    def calm(self) -> bool:
        """Whether nothing is in trouble."""
        return self._in_trouble.empty

    def trouble(self, place: str, reason: str, text: str, rest: float) -> None:
        """A place could not be used: it is left alone for `rest` seconds."""
        now = self._clock()
        self._rest.put(place, now + rest)
        if not self._in_trouble.get(place):
            self._in_trouble.put(place, now)
        self.say(f"{place} {reason}", f"{place}: {text}")

    def resting(self, place: str) -> bool:
        """Whether the place is left alone now."""
        return self._clock() < self._rest.get(place)

    def troubled(self, place: str) -> bool:
        """Whether it was in trouble when somebody tried last."""
        return self._in_trouble.get(place) > 0.0

    def try_again(self, place: str, seconds: float) -> None:
        """The caller tries for so long: the others need not."""
        self._rest.put(place, self._clock() + seconds)

    def well(self, place: str) -> None:
        """It works."""
        since = self._in_trouble.get(place)
        if since:
            self._in_trouble.put(place, 0.0)
            self._rest.put(place, 0.0)
            self._say(f"{place}: works again, after {self._clock() - since:.1f} seconds")


SHARED = Notices()
"""This server's: made before its workers are forked."""
