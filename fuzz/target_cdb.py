"""Any bytes as a constant database: a lookup gives a part of the file, None, or `Damaged`, and ends.

It looks at no more slots than the file can hold.  Read in blocks from a file, it says the same; and what
users/cdb says so is a user, nobody, or an error.
"""

from __future__ import annotations

import os
import tempfile

from hosts import cdb_bytes

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.users import assigned
from cvm_qmail.tables.cdb import Damaged, Database, InFile, seek

JOE = b"joe\x005001\x005001\0/home/joe\0-\0"
SOUND = cdb_bytes([(b"!joe-", JOE), (b"!joe\0", JOE), (b"!joe\0", b""), (b"k" * 70, b"x" * 99), (b"", b"-+")])
KEYS = (b"", b"!joe\0", b"!joe-", b"!", b"k" * 70)

SEEDS = [SOUND, SOUND[:2048], SOUND[:-40], cdb_bytes([]), bytes(2048), b"\xff" * 2100, b""]


class Counted:
    """Bytes that break when they are looked at more often than a search can have reason to."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = len(data) + 32

    def __getitem__(self, part: slice) -> bytes:
        self.left -= 1
        assert self.left, "the search does not end"
        return self.data[part]


def check(data: bytes) -> None:
    """See the head of this file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        in_file = InFile(os.dup(file.fileno()), len(data))
        for key in KEYS:
            value = said(Counted(data), key)
            assert value in (None, Damaged) or (isinstance(value, bytes) and value in data)
            assert said(in_file, key) == value
    try:
        assigned(b"joe-Foo", Database(data, b"users/cdb"))
    except Unavailable:
        pass


def said(data: Counted | InFile, key: bytes) -> object:
    """What a search says; `Damaged` itself if it is raised."""
    try:
        return seek(data, key)
    except Damaged:
        return Damaged
