"""How names are written: printable, and never two names alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cvm_directory.notation import ANYTHING, ending, of_domain, of_local, units, written

NAMES = st.binary(max_size=20) | st.text("ab-*\\x. 2", max_size=12).map(str.encode)


@given(NAMES, NAMES)
def test_different_names_are_written_differently(one: bytes, other: bytes) -> None:
    assert (written(one) == written(other)) == (one == other)
    assert of_local(one, pattern=True) != of_local(other, pattern=False)
    assert of_domain(one, wild=True) != of_domain(other, wild=False)


@given(NAMES)
def test_any_client_can_read_them(name: bytes) -> None:
    text = of_local(name, pattern=True)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert text.count(ANYTHING) == 1


@given(st.binary(min_size=1, max_size=20))
def test_a_unit_stands_for_a_byte(name: bytes) -> None:
    assert len(units(written(name))) == len(name)
    assert ending(of_local(name, pattern=True)) == written(name[-1:])


def test_what_people_see() -> None:
    assert of_local(b"joe-", pattern=True) == "joe-*"
    assert of_local(b"", pattern=True) == "*"
    assert of_local(b"a*b c\\", pattern=False) == r"a\x2ab\x20c\x5c"
    assert of_domain(b".w.example", wild=True) == "*.w.example"
    assert ending("*") == ""
