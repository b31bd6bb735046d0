"""Log files of any program and in any compression: lines, each with its time.

    @400000006b0129ed26b080bc new msg 7                      multilog t, svlogd -t
    2026-11-21_05:19:31.64906 new msg 7                      svlogd -tt (with T: -ttt); with a blank: tai64nlocal
    Nov 21 05:19:31 mx1 qmail: 1795238371.650083 new msg 7   splogger through a syslog daemon
    Nov 21 05:19:31 mx1 qmail-send[9]: new msg 7             without splogger, through systemd's journal, say
    1795238371.650083 new msg 7                              splogger, without what the daemon adds
    new msg 7                                                as it was printed

splogger cuts long lines: a ``+`` instead of the blank after its stamp continues the line before.

Invariants: memory is bounded for any file; nothing is skipped silently: lines of other programs, lines that are too
long, and damaged files are counted or reported.  Compression is recognized by the first bytes, not by the name:
multilog's processors leave compressed files under plain names.

Source: multilog(8), svlogd(8), splogger(8), tai64nlocal(8).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from calendar import timegm
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import IO, NamedTuple

from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure, text

LINE_LIMIT = 1 << 16
"""Bytes of a line that are read; a longer one is counted as too long, and its end is ignored."""

TAI_OFFSET = (1 << 62) + 10
"""The TAI64N label of 1970-01-01 00:00:00 UTC, by multilog's clock."""

LATEST = 1 << 35
"""Seconds since 1970 beyond which a time is not plausible."""

_TAI = re.compile(rb"@([0-9a-f]{16})[0-9a-f]{8} ?")
_DATE = re.compile(rb"(\d{4}-\d\d-\d\d)[_T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?: |(?=Z|[+-]))")
_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:?\d\d)) "
)
_TAGGED = re.compile(rb"\S+ qmail(?:-send)?(?:\[\d+\])?: ")
_SPLOGGER = re.compile(rb"(?:\S+ [^\s:]+: )?(\d{9,11})\.\d{6}([ +])")

_NOT_LOGS = frozenset({b"lock", b"state", b"newstate", b"processed", b"config"})
"""Other files of multilog and svlogd in their directories."""

DAMAGE = (EOFError, zlib.error, lzma.LZMAError)
"""What a damaged compressed file raises, besides OSError."""

_FIRST_LINES = 10_000
"""The number of lines in which the time of a file is searched."""


class Line(NamedTuple):
    """A log line without its timestamp prefix."""

    when: int | None
    """Seconds since 1970, UTC (or local time, if the log has that); None: it has no time."""
    text: bytes
    continues: bool = False
    """Whether this is the continuation of the line before."""


def strip_timestamp(line: bytes) -> Line | None:
    """A line of a log file without its end; None: another program's."""
    if match := _TAI.match(line):
        return Line(_sane(int(match[1], 16) - TAI_OFFSET), line[match.end() :])
    syslog = _SYSLOG.match(line)
    if syslog is None and (match := _DATE.match(line)):
        return Line(_seconds(*match.groups()), line[match.end() :])
    begin = syslog.end() if syslog else 0
    if match := _SPLOGGER.match(line, begin):
        return Line(_sane(int(match[1])), line[match.end() :], continues=match[2] == b"+")
    if syslog is None:
        return Line(None, line)
    match = _TAGGED.match(line, begin)
    if match is None:
        return None
    date = _DATE.match(line)  # the other kind has no year
    return Line(_seconds(*date.groups()) if date else None, line[match.end() :])


def time_of(line: bytes) -> int | None:
    """When a line of any program was written, in seconds since 1970 by its own clock; None: it does not show that.

    A date without a year is not enough.
    """
    if match := _TAI.match(line):
        return _sane(int(match[1], 16) - TAI_OFFSET)
    match = _DATE.match(line)
    return _seconds(*match.groups()) if match else None


def _sane(seconds: int) -> int | None:
    return seconds if 0 <= seconds < LATEST else None


def _seconds(date: bytes, hour: bytes, minute: bytes, second: bytes) -> int | None:
    midnight = _midnight(date)
    return None if midnight is None else midnight + int(hour) * 3600 + int(minute) * 60 + int(second)


@lru_cache(maxsize=64)
def _midnight(date: bytes) -> int | None:
    year, month, day = map(int, date.split(b"-"))
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    return timegm((year, month, day, 0, 0, 0))


class Source(NamedTuple):
    """A log file: its name for messages, and how to open it."""

    path: bytes
    inode: tuple[int, int] | None = None
    """Device and inode with which it was found in a directory; None: it was named."""

    @property
    def name(self) -> str:
        """Its name for messages."""
        return text(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, uncompressed.  Raises OSError, or `Failure` for an unknown compression."""
        if self.path == b"-":
            yield _uncompressed(self.name, sys.stdin.buffer)
            return
        # A directory may belong to the log's user: follow no links out of it, and do not block on a FIFO.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (os.O_NOFOLLOW if self.inode else 0)
        with open(self.path, "rb", opener=lambda path, _: os.open(path, flags)) as file:
            status = os.fstat(file.fileno())
            if self.inode not in (None, (status.st_dev, status.st_ino)):
                raise OSError("another file has taken its place since the directory was read: run this again")
            os.set_blocking(file.fileno(), True)
            yield _uncompressed(self.name, file)

    @property
    def regular(self) -> bool:
        """Whether it can be read twice."""
        if self.path == b"-" or self.inode is not None:
            return self.path != b"-"
        try:
            return stat.S_ISREG(os.stat(self.path).st_mode)
        except OSError:
            return False  # the error is reported when the file is read

    @property
    def size(self) -> int | None:
        """Its size in bytes; None: unknown, because it is compressed or a pipe, or cannot be read."""
        if not self.regular:
            return None
        try:
            with self.open() as file:
                return plain_size(file)
        except (OSError, Failure):
            return None


def plain_size(file: IO[bytes]) -> int | None:
    """The size of an open regular file; None: unknown."""
    if not isinstance(getattr(file, "raw", None), io.FileIO):
        return None
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _uncompressed(name: str, raw: IO[bytes]) -> IO[bytes]:
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]  # no other kind
    start = buffered.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=buffered))
    if start.startswith(b"BZh"):
        return bz2.BZ2File(buffered)
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(buffered)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(name, buffered)
    return buffered


def _zstd(name: str, raw: IO[bytes]) -> IO[bytes]:
    try:
        decompressor = import_module("zstandard").ZstdDecompressor()
    except ImportError:
        raise Failure(
            f"{name}: compressed with zstd: found no Python package zstandard to read it with;"
            " install that, or unpack it:  zstdcat FILE | cvmctl ... -",
            PERMANENT,
        ) from None
    reader: IO[bytes] = io.BufferedReader(decompressor.stream_reader(raw, read_across_frames=True))
    return reader


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
        for line in self._undressed():
            if line.continues and held is not None and held.when == line.when and len(held.text) < LINE_LIMIT:
                held = held._replace(text=held.text + line.text)
                continue
            if held is not None:
                yield held
            held = line
        if held is not None:
            yield held

    def _undressed(self) -> Iterator[Line]:
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
