"""Constant databases: sound ones against cdblib and a dict, damaged ones against nothing but reason."""

from __future__ import annotations

import os

import cdblib
import strategies
from hosts import cdb_bytes, temporary_directory
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.cdb import Damaged, Database, InFile, seek
from cvm_qmail.tables.cdb_hash import hash_in_python


def first_of_each(records: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    for key, data in records:
        table.setdefault(key, data)
    return table


@given(strategies.records, st.lists(strategies.keys))
def test_a_sound_database_says_what_cdblib_and_a_dict_say(
    records: list[tuple[bytes, bytes]], others: list[bytes]
) -> None:
    data = cdb_bytes(records)
    table = first_of_each(records)
    reader = cdblib.Reader(data)
    database = Database(data, b"")
    for key in [*table, *others]:
        assert seek(data, key) == database.get(key) == reader.get(key) == table.get(key)


@given(strategies.keys)
def test_the_hash_in_python_is_that_of_cdblib(key: bytes) -> None:
    assert hash_in_python(key) == cdblib.djb_hash(key) & 0xFFFFFFFF


class Counted:
    """Bytes that count how often they are looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.slices = 0

    def __getitem__(self, part: slice) -> bytes:
        self.slices += 1
        return self.data[part]


def outcome(data: bytes, key: bytes) -> object:
    """A value, None, or `Damaged`; and the search ends after as many slots as the file can hold."""
    counted = Counted(data)
    try:
        return seek(counted, key)
    except Damaged:
        return Damaged
    finally:
        assert counted.slices <= len(data) // 8 * (2 + len(key) // 32 + 1) + 4


full = st.builds(  # a table without an empty slot, which cdblib would go round for ever
    lambda key, hashes: (
        b"".join(
            (2048).to_bytes(4, "little") + len(hashes).to_bytes(4, "little")
            if number == cdblib.djb_hash(key) & 255
            else bytes(8)
            for number in range(256)
        )
        + b"".join(hashed.to_bytes(4, "little") + b"\1\0\0\0" for hashed in hashes)
    ),
    strategies.keys,
    st.lists(st.integers(0, 2**32 - 1), max_size=20),
)


@given(st.one_of(strategies.damaged(strategies.databases), full, st.binary(max_size=3000)), st.lists(strategies.keys))
def test_a_damaged_database_is_a_value_or_nothing_or_a_temporary_failure_and_ends(
    data: bytes, keys: list[bytes]
) -> None:
    for key in [b"", b"!joe\0", *keys]:
        value = outcome(data, key)
        assert value is None or value is Damaged or (isinstance(value, bytes) and value in data)


@st.composite
def filled(draw: st.DrawFn) -> bytes:
    """A sound database with a stretch of one byte in it, which hits headers and tables as well."""
    data = bytearray(draw(strategies.databases))
    start = draw(st.integers(0, len(data)))
    length = draw(st.integers(0, len(data) - start))
    data[start : start + length] = bytes([draw(st.sampled_from([0, 1, 7, 255]))]) * length
    return bytes(data)


@given(filled(), strategies.keys)
def test_a_database_with_a_hole_ends_as_well(data: bytes, key: bytes) -> None:
    value = outcome(data, key)
    assert value is None or value is Damaged or isinstance(value, bytes)


@given(strategies.records, st.integers(0, 4000))
def test_what_a_cut_takes_away_is_never_taken_for_missing(records: list[tuple[bytes, bytes]], length: int) -> None:
    table = first_of_each(records)
    data = cdb_bytes(records)[: length + 1]
    for key, value in table.items():
        assert outcome(data, key) in (value, Damaged)


@given(st.one_of(filled(), strategies.damaged(strategies.databases)), st.lists(strategies.keys), st.integers(0, 600))
def test_a_file_read_in_blocks_says_what_the_same_bytes_say(data: bytes, keys: list[bytes], cut: int) -> None:
    with temporary_directory() as directory:
        path = directory / "cdb"
        path.write_bytes(data)
        size = len(data)
        file = InFile(os.open(path, os.O_RDONLY), size)
        os.truncate(path, max(0, size - cut))  # it shrinks after it was opened
        database = Database(file, b"")
        for key in [b"!joe\0", *filter(None, keys)]:
            try:
                said: object = database.get(key)
            except Unavailable:
                said = Damaged
            assert said in ((outcome(data, key), Damaged) if cut else (outcome(data, key),))
