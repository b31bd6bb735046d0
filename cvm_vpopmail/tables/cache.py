"""Cached answers of a database: off by default, and never for logins.

    found           for CVM_VPOPMAIL_CACHE seconds
    not found       for CVM_VPOPMAIL_CACHE_NEGATIVE seconds
    expired         found entries, for CVM_VPOPMAIL_CACHE_STALE seconds more, but only while the database
                    is unavailable, with a message on standard error

Invariants: a failure is never cached.  There are never more than CVM_VPOPMAIL_CACHE_SIZE answers; the least recently
used one is dropped.  A cached answer may be out of date: the administrator chooses that by enabling the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cvm_qmail.answer import Table, Unavailable
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Lifetimes

K = TypeVar("K")
V = TypeVar("V")

UNAVAILABLE = frozenset({"database-down", "database-slow", "database-full", "database-refused", "hang-backoff"})
"""Reasons for which stale entries are served."""


class Cached(Generic[K, V]):
    """A Table that caches the answers of another one."""

    def __init__(
        self,
        table: Table[K, V],
        lifetimes: Lifetimes,
        valid_until: Callable[[float], None],
        notices: Notices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`valid_until`: called with the time until which a cached answer is valid."""
        self._table = table
        self._lifetimes = lifetimes
        self._valid_until = valid_until
        self._notices = notices
        self._clock = clock
        self._kept: dict[K, tuple[float, V | None]] = {}

    def get(self, key: K, /) -> V | None:
        """The value, perhaps from the cache; None: not found.  Raises `Unavailable`."""
        now = self._clock()
        kept = self._kept.pop(key, None)
        if kept is not None:
            until, value = kept
            if now < until:
                self._kept[key] = kept  # the most recently used is the last
                self._valid_until(until)
                return value
        try:
            value = self._table.get(key)
        except Unavailable as error:
            if kept is None or kept[1] is None or now >= kept[0] + self._lifetimes.stale:
                raise
            self._kept[key] = kept
            if error.reason not in UNAVAILABLE:
                raise
            self._notices.say("stale", "database unavailable: serving stale cache entries")
            self._valid_until(now)
            return kept[1]
        lifetime = self._lifetimes.not_found if value is None else self._lifetimes.found
        if lifetime:
            self._kept[key] = now + lifetime, value
            if len(self._kept) > self._lifetimes.size:
                del self._kept[next(iter(self._kept))]
        return value
