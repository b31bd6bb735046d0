"""Files of any size and in any compression, read once from their beginning.

Invariants: compression is recognized by the first bytes, not by the name: multilog's processors leave compressed files
under plain names.  Memory is bounded for any file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, NamedTuple

from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, text

DAMAGE = (EOFError, zlib.error, lzma.LZMAError)
"""What a damaged compressed file raises, besides OSError."""


def readable(lines: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The lines of a file.  Raises `Failure`, with the file's name, where it cannot be read on."""
    try:
        yield from lines
    except (OSError, *DAMAGE) as damage:
        raise Failure(f"{name}: {getattr(damage, 'strerror', None) or damage}", TEMPORARY) from None


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
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]  # a raw file where it is no BufferedReader
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
