"""Constant databases, sound and damaged, in memory and in a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

import cdblib
import pytest
from hosts import CORPUS, cdb_bytes, load, temporary_directory

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.cdb import WHOLE, Damaged, Database, InFile, open_database, seek


@contextmanager
def opened(data: bytes) -> Iterator[tuple[int, Path]]:
    """A file of these bytes, open; whoever gets the descriptor closes it."""
    with temporary_directory() as directory:
        path = directory / "cdb"
        path.write_bytes(data)
        yield os.open(path, os.O_RDONLY), path


SOUND = cdb_bytes([(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"", b"-"), (b"long" * 20, b"x" * 100), (b"e", b"")])


@pytest.mark.parametrize(
    ("key", "data"),
    [(b"a", b"1"), (b"b", b"2"), (b"", b"-"), (b"long" * 20, b"x" * 100), (b"e", b""), (b"c", None), (b"A", None)],
)
def test_the_first_record_of_a_key_counts(key: bytes, data: bytes | None) -> None:
    assert seek(SOUND, key) == data


def test_an_empty_database_has_nothing() -> None:
    assert seek(cdb_bytes([]), b"a") is None


def test_a_table_without_slots_and_a_slot_without_a_record_end_the_search() -> None:
    assert seek(bytes(2048), b"a") is None
    assert seek(slots(b"a", []), b"a") is None
    assert seek(slots(b"a", [(0, 0)]), b"a") is None


def slots(key: bytes, pairs: list[tuple[int, int]]) -> bytes:
    """A header and the one table in which `key` is sought, right behind it."""
    number = cdblib.djb_hash(key) & 255
    header = bytearray(2048)
    header[number * 8 : number * 8 + 8] = pack("<LL", 2048, len(pairs))
    return bytes(header) + b"".join(pack("<LL", *pair) for pair in pairs)


def test_a_full_round_without_a_hit_is_not_found_where_cdblib_goes_round_for_ever() -> None:
    full = slots(b"a", [(1, 2048), (2, 2048), (3, 2048)])

    class Enough(Exception):
        pass

    class Bounded(bytes):
        """Counts the slices that are taken of it."""

        left = 1000 + 256

        def __getitem__(self, where: slice) -> bytes:
            self.left -= 1
            if not self.left:
                raise Enough
            return bytes.__getitem__(self, where)

    with pytest.raises(Enough):
        cdblib.Reader(Bounded(full)).get(b"a")
    assert seek(full, b"a") is None


def test_the_round_begins_at_the_keys_own_slot_and_wraps() -> None:
    hashed = cdblib.djb_hash(b"a") & 0xFFFFFFFF
    first = (hashed >> 8) % 3
    pairs = [(1, 2048)] * 3
    pairs[(first + 2) % 3] = (hashed, 2048 + 24)
    data = slots(b"a", pairs) + pack("<LL", 1, 1) + b"aX"
    assert seek(data, b"a") == b"X"
    pairs[(first + 1) % 3] = (0, 0)
    assert seek(slots(b"a", pairs) + pack("<LL", 1, 1) + b"aX", b"a") is None


@pytest.mark.parametrize("length", [0, 7, 1000, 2047])
def test_a_header_that_is_not_all_there_is_a_temporary_failure_where_it_is_needed(length: int) -> None:
    key = next(key for key in (bytes([n]) for n in range(256)) if (cdblib.djb_hash(key) & 255) * 8 >= length // 8 * 8)
    with pytest.raises(Damaged):
        seek(bytes(length), key)


def test_a_header_that_is_not_all_there_does_no_harm_elsewhere() -> None:
    key = next(key for key in (bytes([n]) for n in range(256)) if (cdblib.djb_hash(key) & 255) * 8 < 992)
    assert seek(bytes(1000), key) is None


def test_data_that_is_cut_short_is_a_temporary_failure() -> None:
    hashed = cdblib.djb_hash(b"a") & 0xFFFFFFFF
    data = slots(b"a", [(hashed, 2056)]) + pack("<LL", 1, 5) + b"a1234"
    with pytest.raises(Damaged):
        seek(data, b"a")
    assert seek(data + b"5", b"a") == b"12345"


def test_a_mismatch_in_one_piece_of_a_key_hides_that_a_later_one_is_missing() -> None:
    key = b"k" * 64
    hashed = cdblib.djb_hash(key) & 0xFFFFFFFF
    head = slots(key, [(hashed, 2056)]) + pack("<LL", 64, 0)
    assert seek(head + b"x" * 32, key) is None
    with pytest.raises(Damaged):
        seek(head + b"k" * 32, key)
    with pytest.raises(Damaged):
        seek(head + b"x" * 31, key)


def test_the_length_of_a_key_is_compared_before_the_key() -> None:
    hashed = cdblib.djb_hash(b"a") & 0xFFFFFFFF
    assert seek(slots(b"a", [(hashed, 2056)]) + pack("<LL", 2, 0), b"a") is None


# -- in a file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"a", b"b", b"c", b"", b"long" * 20])
def test_a_file_read_in_blocks_says_the_same(key: bytes) -> None:
    with opened(SOUND) as (fd, _):
        assert seek(InFile(fd, len(SOUND)), key) == seek(SOUND, key)


def test_a_file_cut_short_while_it_is_open_is_a_temporary_failure() -> None:
    with opened(SOUND) as (fd, path):
        read = InFile(fd, len(SOUND))
        os.truncate(path, 2048)
        with pytest.raises(Damaged):
            seek(read, b"a")


@pytest.mark.parametrize(
    "part", [(0, 8), (2040, 2048), (2044, 2060), (2048, 2056), (3000, 3001), (-2, -1), (-1, 1), (0, 9)]
)
def test_a_file_is_sliced_like_bytes(part: tuple[int, int]) -> None:
    data = SOUND + bytes(range(256)) * 20
    start, stop = (place if place >= 0 else len(data) + place for place in part)
    stop = stop if stop > start else start + 9
    with opened(data) as (fd, _):
        file = InFile(fd, len(data))
        assert file[start:stop] == data[start:stop]
        assert file[start : start + 5000] == data[start : start + 5000]
        assert file[start:stop] == data[start:stop]
        assert file[len(data) + 7 : len(data) + 15] == b""


def test_nothing_is_read_beyond_the_size_that_the_file_had() -> None:
    with opened(SOUND + b"more") as (fd, _):
        assert InFile(fd, len(SOUND))[len(SOUND) - 1 : len(SOUND) + 4] == SOUND[-1:]


def test_a_record_of_gigabytes_is_a_temporary_failure_before_it_is_read() -> None:
    hashed = cdblib.djb_hash(b"a") & 0xFFFFFFFF
    with opened(slots(b"a", [(hashed, 2056)]) + pack("<LL", 1, 1 << 30) + b"a") as (fd, path):
        os.truncate(path, 2 << 30)  # a hole
        with pytest.raises(OSError, match="record of more than") as error:
            seek(InFile(fd, 2 << 30), b"a")
    assert error.value.errno == errno.EFBIG


@pytest.mark.parametrize("more", [0, WHOLE], ids=["small", "large"])
def test_an_open_database_is_a_table_and_closes_its_file(more: int) -> None:
    data = SOUND + bytes(more)
    with opened(data) as (fd, path):
        database = open_database(fd, len(data), os.fsencode(path))
        assert [database.get(key) for key in (b"a", b"", b"", b"c")] == [b"1", b"-", b"-", None]
        del database
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_damaged_database_names_itself() -> None:
    with pytest.raises(Unavailable) as error:
        Database(b"", b"/users/cdb").get(b"a")
    assert (error.value.reason, error.value.where) == ("cdb-damaged", b"/users/cdb")


class Failing:
    """Bytes whose first slice fails."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def __getitem__(self, part: slice) -> bytes:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return SOUND[part]


def test_a_database_that_cannot_be_read_names_itself() -> None:
    with pytest.raises(Unavailable) as error:
        Database(Failing(OSError(errno.EIO, "Input/output error")), b"/users/cdb").get(b"a")
    assert (error.value.reason, error.value.where) == ("cdb-unreadable", b"/users/cdb")


@pytest.mark.parametrize("key", [b"", b"a"])
def test_an_error_is_not_remembered(key: bytes) -> None:
    database = Database(Failing(Damaged()), b"")
    with pytest.raises(Unavailable):
        database.get(key)
    assert database.get(key) == {b"": b"-", b"a": b"1"}[key]


# -- what qmail's own compiler makes ------------------------------------------------------------------


def compiled() -> list[Path]:
    return [path for path in sorted((CORPUS / "qmail").glob("cdb-*.json")) if load(path).get("cdb_b64")]


@pytest.mark.parametrize("path", compiled(), ids=lambda path: path.stem)
def test_what_qmail_newu_wrote_is_read(path: Path) -> None:
    import base64

    system = load(path)
    data = base64.b64decode(system["cdb_b64"])
    wanted: dict[bytes, bytes] = {}
    for key, value in cdblib.Reader(data).items():
        wanted.setdefault(key, value)
    assert wanted
    assert {key: seek(data, key) for key in wanted} == wanted


def test_there_are_databases_of_qmail_newu() -> None:
    assert len(compiled()) >= 10


# -- databases that must be sound as a whole --------------------------------------------------------

FORTY = cdb_bytes([(b"k%d" % n, b"v" * n) for n in range(40)])


def whole(data: bytes, tmp_path: Path) -> Database:
    file = tmp_path / "db"
    file.write_bytes(data)
    return open_database(os.open(file, os.O_RDONLY), len(data), bytes(file), sound=True)


@pytest.mark.parametrize("records", [[], [(b"", b"")], [(b"joe", b"x")]])
def test_a_sound_database_is_opened(records: list[tuple[bytes, bytes]], tmp_path: Path) -> None:
    database = whole(cdb_bytes(records), tmp_path)
    assert [database.get(key) for key, _ in records] == [value for _, value in records]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        FORTY[:2047],
        FORTY[:2048],
        FORTY[:-1],
        FORTY[: len(FORTY) // 2],
        FORTY + b"x",
        bytes(range(256)) * 16,
        bytes(len(FORTY)),
        bytes(2048),
    ],
    ids=[
        "empty",
        "short",
        "header cut",
        "header only",
        "a byte short",
        "half",
        "a byte more",
        "garbage",
        "zeros",
        "a header of zeros",
    ],
)
def test_damage_is_seen_when_it_is_opened_wherever_it_is(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        whole(data, tmp_path)
    assert caught.value.reason == "cdb-damaged"
