"""Constant databases of many records: the same bytes as cdblib's."""

from __future__ import annotations

import io

import cdblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.listing.cdb_writer import write_cdb

RECORDS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=5)), max_size=60)


def cdblibs(records: list[tuple[bytes, bytes]]) -> bytes:
    out = io.BytesIO()
    with cdblib.Writer(out) as writer:
        for key, data in records:
            writer.put(key, data)
    return out.getvalue()


def ours(records: list[tuple[bytes, bytes]]) -> bytes:
    out = io.BytesIO()
    write_cdb(out, records)
    return out.getvalue()


@given(RECORDS)
def test_the_bytes_are_those_of_cdblib(records: list[tuple[bytes, bytes]]) -> None:
    assert ours(records) == cdblibs(records)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_every_record_is_found(count: int) -> None:
    keys = [b"user%d@example.org" % number for number in range(count)]
    found = cdblib.Reader(ours([(key, b"") for key in keys]))
    assert [key for key in keys if found.get(key) != b""] == []
    assert found.get(b"nobody@example.org") is None
