"""Constant databases of many records: the same bytes as cdblib writes, with eight bytes of memory for each record.

Source: cdb(5).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from struct import Struct
from typing import BinaryIO

from cvm_qmail.tables.cdb_hash import djb_hash

_HEADER = 2048
_PAIR = Struct("<LL")
_MOST = 0xFFFFFFFF
"""Positions have 32 bits."""


class TooLarge(Exception):
    """More than a constant database can hold."""


def write_cdb(out: BinaryIO, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Writes a database of `records`, keys and data, to a file that can seek.  Raises `TooLarge`."""
    start = out.tell()
    out.write(bytes(_HEADER))
    at = _HEADER
    hashes = [array("I") for _ in range(256)]
    positions = [array("I") for _ in range(256)]
    for key, data in records:
        hashed = djb_hash(key) & _MOST
        hashes[hashed & 255].append(hashed)
        positions[hashed & 255].append(at)
        out.write(_PAIR.pack(len(key), len(data)) + key + data)
        at += 8 + len(key) + len(data)
        if at > _MOST:
            raise TooLarge
    heads = []
    for table in range(256):
        slots = 2 * len(hashes[table])
        heads.append(_PAIR.pack(at, slots))
        out.write(_table(hashes[table], positions[table], slots))
        at += 8 * slots
    if at > _MOST:
        raise TooLarge
    end = out.tell()
    out.seek(start)
    out.write(b"".join(heads))
    out.seek(end)


def _table(hashes: array[int], positions: array[int], slots: int) -> bytes:
    """A hash table with open addressing; half of the slots stay empty."""
    table = bytearray(8 * slots)
    for hashed, position in zip(hashes, positions, strict=True):
        slot = (hashed >> 8) % slots
        while _PAIR.unpack_from(table, 8 * slot)[1]:
            slot = (slot + 1) % slots
        _PAIR.pack_into(table, 8 * slot, hashed, position)
    return bytes(table)
