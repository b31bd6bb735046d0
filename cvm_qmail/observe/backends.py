"""The back ends in a column of the server's counters: the last state of each that the column's process saw.

    ENTRIES entries of ENTRY bytes: five 64-bit cells, then the name, padded with zeros

    state      0: no entry; else a `BackendState`
    since      when it became so
    seen       when it was asked last, or something about it was noted
    error      the last error: its number in `About.words`, counted from 1; 0: none
    failed     when that was

Times are milliseconds since 1970.  When it works, `seen` is not written at each request: it is when a connection was
opened, or something else had failed before.

Invariants: one writer; the state of an entry is written last, and 0 while its name changes.  When there is no room the
entry that was seen first goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from cvm_qmail.answer import TEMPORARY_FAILURE
from cvm_qmail.tables.backends import BackendState

ENTRIES = 8
"""The number of entries in a column."""

ENTRY = 256
"""Bytes of an entry."""

BYTES = ENTRIES * ENTRY
"""Bytes of all entries in a column."""

_CELLS = Struct("<5Q")
_STATE, _SINCE, _SEEN, _ERROR, _FAILED = range(5)
_NAME_LIMIT = ENTRY - _CELLS.size


class Backend(NamedTuple):
    """What a process saw of one; times are seconds since 1970."""

    name: str
    state: BackendState
    since: float
    seen: float
    error: str
    """The word of its last error; empty: none."""
    failed: float

    @property
    def bad(self) -> bool:
        """Whether it cannot be used."""
        return self.state in (BackendState.DOWN, BackendState.REFUSED)


class BackendColumn:
    """The back ends of a process that begins: see `tables.backends.Backends`."""

    def __init__(self, memory: memoryview, words: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """`words`: those of `About`; `clock`: seconds since 1970."""
        memory[:] = bytes(BYTES)
        pairs = (word.rpartition("/") for word in words)
        self._numbers = {word: at for at, (kind, _, word) in enumerate(pairs, 1) if kind == TEMPORARY_FAILURE}
        self._memory = memory
        self._cells = memory.cast("Q")
        self._clock = clock
        self._entries: dict[str, int] = {}
        self._expected: dict[int, frozenset[str]] = {}

    def expect(self, owner: object, names: Iterable[str]) -> None:
        """See `Backends`."""
        old, new = self._expected.get(id(owner), frozenset()), frozenset(names)
        if old == new:
            return
        self._expected[id(owner)] = new
        for name in old.difference(*self._expected.values()):
            if (at := self._entries.pop(name, None)) is not None:
                self._cells[at] = 0
        for name in sorted(new):
            if name not in self._entries:
                self.saw(name, BackendState.UNKNOWN)

    def saw(self, name: str, state: BackendState | None, reason: str = "") -> None:
        """See `Backends`."""
        now = int(self._clock() * 1000)
        at = self._entries.get(name)
        if at is None:
            at = self._new(name, now)
        cells = self._cells
        cells[at + _SEEN] = now
        if reason:
            cells[at + _ERROR] = self._numbers.get(reason, self._numbers.get("other", 0))
            cells[at + _FAILED] = now
        if state is not None and cells[at] != state:
            cells[at + _SINCE] = now
            cells[at] = state

    def _new(self, name: str, now: int) -> int:
        """The first cell of an entry for this name."""
        cells, step = self._cells, ENTRY // 8
        places = range(0, BYTES // 8, step)
        at = min(places, key=lambda place: cells[place + _SEEN] if cells[place] else 0)
        self._entries = {known: place for known, place in self._entries.items() if place != at}
        self._entries[name] = at
        cells[at] = 0
        text = name.encode("utf-8", "surrogateescape")[:_NAME_LIMIT]
        self._memory[at * 8 : at * 8 + ENTRY] = _CELLS.pack(0, now, now, 0, 0) + text.ljust(_NAME_LIMIT, b"\0")
        cells[at] = BackendState.UNKNOWN
        return at


def backends_in(data: bytes, start: int, words: Sequence[str]) -> list[Backend]:
    """The back ends that a process recorded."""
    found = []
    for at in range(start, start + BYTES, ENTRY):
        state, since, seen, error, failed = _CELLS.unpack_from(data, at)
        if state in set(BackendState) and error <= len(words):
            name = data[at + _CELLS.size : at + ENTRY].rstrip(b"\0").decode("utf-8", "replace")
            word = words[error - 1].rpartition("/")[2] if error else ""
            found.append(Backend(name, BackendState(state), since / 1000, seen / 1000, word, failed / 1000))
    return found


def latest(seen: Iterable[Backend]) -> list[Backend]:
    """The server's view of each back end: the state that a process saw last, and the last error of all."""
    by_name: dict[str, list[Backend]] = {}
    for backend in seen:
        by_name.setdefault(backend.name, []).append(backend)
    return [_latest(by_name[name]) for name in sorted(by_name)]


def _latest(of_processes: Sequence[Backend]) -> Backend:
    last = max(of_processes, key=lambda backend: (backend.state is not BackendState.UNKNOWN, backend.seen))
    failed, error = max((backend.failed, backend.error) for backend in of_processes)
    agree = [backend for backend in of_processes if backend.state is last.state]
    since = [backend.since for backend in agree]
    if last.state is BackendState.UP and failed:
        # a process that did not ask while it failed does not know of the failure
        since = [moment for backend in agree for moment in (backend.since, backend.seen) if moment >= failed]
    return last._replace(since=min(since, default=last.since), error=error, failed=failed)
