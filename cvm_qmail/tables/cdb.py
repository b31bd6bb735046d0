"""Constant databases, read as qmail's cdb_seek reads them.

    0..2047    256 pairs (position, slots) of hash tables
    a slot     (hash, position of the record; 0: empty)
    a record   (key length, data length), key, data             all numbers 32 bits, little-endian

Invariants: only what a search visits is read, and reading past the end of the file is an error, not a
"not found"; a damaged part that is not visited does no harm.  The search is our own and not
cdblib's, whose `get` loops for ever on a table without an empty slot, reads the data of a record before it compares
the key, and requires a complete header; the hash function is cdblib's, where it is installed.

Source: cdb(5), cdb_seek.c, cdb_hash.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from struct import Struct
from struct import error as TooShort  # noqa: N812 its meaning here
from typing import BinaryIO, Protocol

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.calls import READ_LIMIT, read_all
from cvm_qmail.tables.cdb_hash import djb_hash
from cvm_qmail.tables.errors import describe

WHOLE = 1 << 22
"""Bytes up to which a database is kept in memory."""

_AHEAD = 512
"""Bytes read at once from a larger database."""

HEADER = 2048
"""Bytes of the table of hash tables."""

_PAIR = Struct("<LL")
_pair = _PAIR.unpack
_EMPTY = _PAIR.pack(HEADER, 0) * 256
"""The header of a database without a record."""


class Damaged(Exception):
    """The search reached a part of the file that does not exist."""


class Slices(Protocol):
    """Bytes, or something that is sliced like bytes: a slice beyond the end is short."""

    def __getitem__(self, part: slice, /) -> bytes:
        """The bytes of ``[start:stop]``."""
        ...


def seek(data: Slices, key: bytes) -> bytes | None:
    """The data of the first record with `key`.  Raises `Damaged`."""
    hashed = djb_hash(key) & 0xFFFFFFFF
    try:
        at = (hashed & 255) * 8
        table, slots = _pair(data[at : at + 8])
        if not slots:
            return None
        slot = (hashed >> 8) % slots
        for _ in range(slots):
            at = table + slot * 8
            slot_hash, at = _pair(data[at : at + 8])
            if not at:
                return None
            if slot_hash == hashed:
                key_length, length = _pair(data[at : at + 8])
                if key_length == len(key) and _matches(data, at + 8, key):
                    at += 8 + key_length
                    found = data[at : at + length]
                    if len(found) != length:
                        raise Damaged
                    return found
            slot = (slot + 1) % slots
    except TooShort:
        raise Damaged from None
    return None


def _matches(data: Slices, at: int, key: bytes) -> bool:
    """Compares in pieces of 32 bytes, as qmail does: a mismatch in one hides that a later piece is missing."""
    if data[at : at + len(key)] == key:
        return True
    for start in range(0, len(key), 32):
        piece = key[start : start + 32]
        found = data[at + start : at + start + len(piece)]
        if len(found) != len(piece):
            raise Damaged
        if found != piece:
            return False
    return True


class InFile:
    """An open database that is read a block at a time; it is closed when it is no longer used."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._header = os.pread(fd, HEADER, 0)
        self._start = 0
        self._block = b""

    def __getitem__(self, part: slice, /) -> bytes:
        """The bytes of ``[start:stop]``; fewer at the end of the file.  Raises OSError."""
        start, stop = part.start, min(part.stop, self._size)
        if stop <= HEADER:
            return self._header[start:stop]
        if stop - start > READ_LIMIT:
            raise OSError(errno.EFBIG, f"a record of more than {READ_LIMIT} bytes")
        at = start - self._start
        if at < 0 or stop - self._start > len(self._block):
            if start >= stop:
                return b""
            self._block = os.pread(self._fd, max(stop - start, _AHEAD), start)
            self._start, at = start, 0
        return self._block[at : at + stop - start]

    def __del__(self) -> None:
        os.close(self._fd)


class Database:
    """A constant database that is open or held in memory: a Table of bytes."""

    def __init__(self, data: Slices, path: bytes) -> None:
        self._data = data
        self._path = path
        self._breaks: tuple[bytes | None] | None = None
        self.sound = False
        """Whether the file as a whole looks like a constant database; False: not checked."""

    @property
    def header(self) -> bytes:
        """The table of hash tables."""
        return self._data[0:HEADER]

    def get(self, key: bytes, /) -> bytes | None:
        """The data of the first record with `key`; None if there is none.  Raises `Unavailable`."""
        try:
            if key:
                return seek(self._data, key)
            if self._breaks is None:  # users/cdb: used by every lookup, and small
                self._breaks = (seek(self._data, key),)
            return self._breaks[0]
        except Damaged:
            raise Unavailable("cdb-damaged", "ends before the record sought", self._path) from None
        except OSError as error:
            raise Unavailable("cdb-unreadable", describe(error), self._path, errno=error.errno) from None


def open_database(fd: int, size: int, path: bytes, *, whole: int = WHOLE, sound: bool = False) -> Database:
    """The database in the open file `fd`, which it takes over; in memory if it has at most `whole` bytes.

    Raises OSError; `Unavailable` if it has to be `sound` and is no constant database as a whole.
    """
    if size > whole:
        database = Database(InFile(fd, size), path)
    else:
        try:
            database = Database(read_all(fd, size), path)
        finally:
            os.close(fd)
    database.sound = _is_sound(database.header, size)
    if sound and not database.sound:
        raise Unavailable("cdb-damaged", "is not a whole constant database", path)
    return database


def records(file: BinaryIO, size: int, path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and data of an open database of `size` bytes, in their order, a record at a time.

    Raises OSError; `Unavailable` for `path` if it is not whole.
    """
    header = file.read(HEADER)
    if len(header) < HEADER:
        raise Unavailable("cdb-damaged", f"{len(header)} bytes, expected at least {HEADER}", path)
    heads = list(_PAIR.iter_unpack(header))
    end = min(position for position, _ in heads)
    if any(position + slots * 8 > size for position, slots in heads if slots) or not HEADER <= end <= size:
        raise Unavailable("cdb-damaged", "ends before its hash tables do", path)
    at = HEADER
    while at < end:
        lengths = file.read(8)
        key_length, length = _pair(lengths) if len(lengths) == 8 else (end, end)
        after = at + 8 + key_length + length
        if after > end:
            raise Unavailable("cdb-damaged", f"half a record at byte {at}", path)
        if key_length + length > READ_LIMIT:
            raise Unavailable("cdb-damaged", f"a record of more than {READ_LIMIT} bytes at byte {at}", path)
        record = file.read(key_length + length)
        if len(record) < key_length + length:
            raise Unavailable("cdb-damaged", f"half a record at byte {at}", path)
        yield record[:key_length], record[key_length:]
        at = after


def file_records(file: BinaryIO, path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The same of a file, which is closed at the end.  Raises `Unavailable` for errors of reading as well."""
    with file:
        try:
            yield from records(file, os.fstat(file.fileno()).st_size, path)
        except OSError as error:
            raise Unavailable("cdb-unreadable", describe(error), path, errno=error.errno) from None


def _is_sound(header: bytes, size: int) -> bool:
    """Whether the hash tables lie one behind the other, from the end of the records to the end of the file."""
    if len(header) != HEADER:
        return False
    tables = [(start, slots) for start, slots in _PAIR.iter_unpack(header) if slots]
    if not tables:  # a file of zeros, as a crash leaves it, is no empty database
        return size == HEADER and header == _EMPTY
    end = tables[0][0]
    for start, slots in tables:
        if start != end:
            return False
        end = start + slots * 8
    return bool(end == size and tables[0][0] > HEADER)
