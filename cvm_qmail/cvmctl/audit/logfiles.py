"""The files of qmail-send's log, of any logger and in any compression: lines, each with its time.

Invariants: memory is bounded for any file; nothing is skipped silently: lines of other programs, lines that are too
long, and damaged files are counted or reported.

Source: multilog(8), svlogd(8).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from cvm_qmail.cvmctl.host.sources import DAMAGE, Source
from cvm_qmail.cvmctl.host.timestamps import LATEST, Line, strip_timestamp
from cvm_qmail.cvmctl.ui.output import text

LINE_LIMIT = 1 << 16
"""Bytes of a line that are read; a longer one is counted as too long, and its end is ignored."""

_NOT_LOGS = frozenset({b"lock", b"state", b"newstate", b"processed", b"config"})
"""Other files of multilog and svlogd in their directories."""

_FIRST_LINES = 10_000
"""The number of lines in which the time of a file is searched."""


class LogFiles:
    """The lines of several files of one log, oldest first, and the problems in them."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        self.sources: list[Source] = []
        self.passed_over: list[str] = []
        """Files in a directory that are not logs."""
        self.damaged: list[tuple[str, str]] = []
        """Files that could not be read to their end, with the cause."""
        self.lines = 0
        self.foreign = 0
        """Lines of other programs in a syslog."""
        self.too_long = 0
        self.bytes_read = 0
        self.overlaps: list[str] = []
        """Files that begin before the one read before them ends."""
        for path in paths:
            self._add(path)
        self.sources = self._in_order()

    def _add(self, path: bytes) -> None:
        if path == b"-" or not os.path.isdir(path):
            self.sources.append(Source(path))
            return
        names = map(os.fsencode, os.listdir(os.fsdecode(path)))
        for name in sorted(names, key=lambda name: (name == b"current", name)):
            if name in _NOT_LOGS or name.startswith(b".") or name.endswith(b".t"):
                continue
            inside = os.path.join(path, name)
            try:
                status = os.lstat(inside)
            except FileNotFoundError:
                self.damaged.append((text(inside), "it has gone since the directory was read: run this again"))
                continue
            if stat.S_ISREG(status.st_mode):
                self.sources.append(Source(inside, (status.st_dev, status.st_ino)))
            else:
                self.passed_over.append(text(inside))

    def _in_order(self) -> list[Source]:
        """Sorts them by the time of their first lines, if all have one: numbers of messages are reused."""
        firsts = [self._first_time(source) for source in self.sources]
        if None in firsts:
            return self.sources
        return [source for _, _, source in sorted(zip(firsts, range(len(firsts)), self.sources, strict=True))]

    def _first_time(self, source: Source) -> int | None:
        if not source.regular:
            return None
        try:
            with source.open() as file:
                for _ in range(_FIRST_LINES):
                    raw = file.readline(LINE_LIMIT)
                    if not raw:
                        return LATEST  # it is empty: its place does not matter
                    line = strip_timestamp(raw)
                    if line is not None and line.when is not None:
                        return line.when
        except (OSError, *DAMAGE):
            return LATEST  # the error is reported when the file is read
        return None

    @property
    def size(self) -> int | None:
        """The size of all files in bytes; None: unknown, because one is compressed or a pipe."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(filter(None, sizes))

    def read(self) -> Iterator[Line]:
        """All lines; those that splogger cut are joined."""
        held: Line | None = None
        for line in self._stripped():
            if line.continues and held is not None and held.when == line.when and len(held.text) < LINE_LIMIT:
                held = held._replace(text=held.text + line.text)
                continue
            if held is not None:
                yield held
            held = line
        if held is not None:
            yield held

    def _stripped(self) -> Iterator[Line]:
        last = 0
        for source in self.sources:
            first = True
            for raw in self._raw(source):
                self.lines += 1
                line = strip_timestamp(raw)
                if line is None:
                    self.foreign += 1
                    continue
                if line.when is not None:
                    if first and line.when < last:
                        self.overlaps.append(source.name)
                    first = False
                    last = line.when
                yield line

    def _raw(self, source: Source) -> Iterator[bytes]:
        try:
            with source.open() as file:
                while raw := file.readline(LINE_LIMIT):
                    self.bytes_read += len(raw)
                    if raw.endswith(b"\n"):
                        yield raw[:-1]
                    elif len(raw) < LINE_LIMIT:  # the last line, perhaps not written to its end yet
                        yield raw
                    else:
                        self.lines += 1
                        self.too_long += 1
                        while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                            pass
        except (OSError, *DAMAGE) as damage:
            self.damaged.append((source.name, (damage.strerror if isinstance(damage, OSError) else "") or str(damage)))
