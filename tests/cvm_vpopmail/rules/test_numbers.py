"""Numbers as C reads them."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvm_vpopmail.rules.numbers import bits, strtol

LIBC = ctypes.CDLL(None)
LIBC.strtoll.restype = ctypes.c_longlong
LIBC.strtoll.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
LIBC.atoi.restype = ctypes.c_uint32

texts = st.text(" \t\n+-0123456789x:", max_size=30).map(str.encode)


@pytest.mark.parametrize(
    ("text", "number"), [(b"", 0), (b"-", 0), (b" \v\f\r\n\t-12x", -12), (b"- 1", 0), (b"007", 7), (b"x7", 0)]
)
def test_blanks_a_sign_and_digits_count(text: bytes, number: int) -> None:
    assert strtol(text) == number


@given(texts)
@example(b"9223372036854775807")
@example(b"9223372036854775808")
@example(b"-9223372036854775808")
@example(b"-9223372036854775809")
@example(b"0" * 5000 + b"1")
@example(b"9" * 5000)
def test_the_c_library_agrees(text: bytes) -> None:
    assert strtol(text) == LIBC.strtoll(text, None, 10)
    assert bits(text) == LIBC.atoi(text)
