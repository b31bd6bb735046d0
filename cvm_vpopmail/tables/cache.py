"""Answers of a database, given again for a while: off by default, and never for logins.

    found           for CVM_VPOPMAIL_CACHE seconds
    not found       for CVM_VPOPMAIL_CACHE_NEGATIVE seconds
    past its time   what was found, for CVM_VPOPMAIL_CACHE_STALE seconds more, but only while the database
                    cannot be asked; said on standard error

Law: a trouble is never kept.  There are never more than CVM_VPOPMAIL_CACHE_SIZE answers; the one asked for
longest ago goes.  Nothing of this is fresh: whoever switches it on has chosen so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cvm_qmail.answer import Table, Unavailable
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Options

K = TypeVar("K")
V = TypeVar("V")

NOT_REACHED = frozenset({"database-down", "database-slow", "database-full", "database-refused", "shunned"})
"""Troubles in which the database cannot be asked."""


class Cached(Generic[K, V]):
    """A Table that keeps what another one said."""

    def __init__(
        self,
        table: Table[K, V],
        options: Options,
        lasts: Callable[[float], None],
        notices: Notices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lasts` is told until when an answer that was kept holds."""
        self._table = table
        self._options = options
        self._lasts = lasts
        self._notices = notices
        self._clock = clock
        self._kept: dict[K, tuple[float, V | None]] = {}

    def get(self, key: K, /) -> V | None:
        """What the table says, or said a while ago.  Raises `Unavailable`."""
        now = self._clock()
        kept = self._kept.pop(key, None)
        if kept is not None:
            until, value = kept
            if now < until:
                self._kept[key] = kept  # the one used last stands last
                self._lasts(until)
                return value
        try:
            value = self._table.get(key)
        except Unavailable as trouble:
            if kept is None or kept[1] is None or now >= kept[0] + self._options.cache_stale:
                raise
            self._kept[key] = kept
            if trouble.reason not in NOT_REACHED:
                raise
            self._notices.say("stale", "the database cannot be asked: answers past their time are given again")
            self._lasts(now)
            return kept[1]
        lifetime = self._options.cache_negative if value is None else self._options.cache
        if lifetime:
            self._kept[key] = now + lifetime, value
            if len(self._kept) > self._options.cache_size:
                del self._kept[next(iter(self._kept))]
        return value
