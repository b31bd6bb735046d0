"""Constant databases, read as qmail's cdb_seek reads them.

    0..2047    256 pairs (position, slots) of hash tables
    a slot     (hash, position of the record; 0: empty)
    a record   (key length, data length), key, data             all numbers 32 bits, little-endian

Law: only what a search visits is read, and reading past the end of the file is a trouble, not a
"not found"; a damaged part that is not visited does no harm.  The search is our own and not
cdblib's, whose `get` runs for ever round a table without an empty slot, reads the data of a
record before it compares the key, and demands a whole header; the hash function is cdblib's.

Source: cdb(5), cdb_seek.c, cdb_hash.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from struct import Struct

from cdblib import djb_hash

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.files import READ_LIMIT, describe, read_all

WHOLE = 1 << 20
"""Bytes up to which a database is kept in memory."""

_AHEAD = 512
"""Bytes read at once from a database that is not."""

_pair = Struct("<LL").unpack


class Damaged(Exception):
    """The search came to a part of the file that is not there."""


Read = Callable[[int, int], bytes]
"""``read(position, count)``: exactly that many bytes, or `Damaged`."""


def seek(read: Read, key: bytes) -> bytes | None:
    """The data of the first record with `key`."""
    hashed = djb_hash(key) & 0xFFFFFFFF
    table, slots = _pair(read((hashed & 255) * 8, 8))
    if not slots:
        return None
    first = (hashed >> 8) % slots
    for number in range(slots):
        slot_hash, position = _pair(read(table + (first + number) % slots * 8, 8))
        if not position:
            return None
        if slot_hash == hashed:
            key_length, data_length = _pair(read(position, 8))
            if key_length == len(key) and _matches(read, position + 8, key):
                return read(position + 8 + key_length, data_length)
    return None


def _matches(read: Read, position: int, key: bytes) -> bool:
    """Compares in pieces of 32 bytes: a mismatch in one hides that a later one is missing."""
    for start in range(0, len(key), 32):
        piece = key[start : start + 32]
        if read(position + start, len(piece)) != piece:
            return False
    return True


def in_memory(data: bytes) -> Read:
    """Reads from a database held in memory."""

    def read(position: int, count: int) -> bytes:
        found = data[position : position + count]
        if len(found) != count:
            raise Damaged
        return found

    return read


class InFile:
    """Reads from an open database, a block at a time; closes it when nobody needs it any more."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._header = os.pread(fd, 2048, 0)
        self._start = 0
        self._block = b""

    def __call__(self, position: int, count: int) -> bytes:
        """A `Read`."""
        end = position + count
        if end <= 2048:
            found = self._header[position:end]
        else:
            if end > self._size:
                raise Damaged
            if count > READ_LIMIT:
                raise OSError(errno.EFBIG, f"a record of more than {READ_LIMIT} bytes")
            at = position - self._start
            if at < 0 or at + count > len(self._block):
                self._block = os.pread(self._fd, max(count, _AHEAD), position)
                self._start, at = position, 0
            found = self._block[at : at + count]
        if len(found) != count:
            raise Damaged
        return found

    def __del__(self) -> None:
        os.close(self._fd)


class Database:
    """A constant database that is open or held in memory: a Table of bytes."""

    def __init__(self, read: Read, path: bytes) -> None:
        self._read = read
        self._path = path
        self._breaks: tuple[bytes | None] | None = None

    def get(self, key: bytes, /) -> bytes | None:
        """The data of the first record with `key`; None if there is none.  Raises `Unavailable`."""
        try:
            if key:
                return seek(self._read, key)
            if self._breaks is None:  # users/cdb: asked by every look-up, and short
                self._breaks = (seek(self._read, key),)
            return self._breaks[0]
        except Damaged:
            raise Unavailable("cdb-damaged", "ends before the record sought", self._path) from None
        except OSError as error:
            raise Unavailable("cdb-unreadable", describe(error), self._path) from None


def open_database(fd: int, size: int, path: bytes) -> Database:
    """The database in the open file `fd`, which it takes over.  Raises OSError."""
    if size > WHOLE:
        return Database(InFile(fd, size), path)
    try:
        return Database(in_memory(read_all(fd, size)), path)
    finally:
        os.close(fd)
