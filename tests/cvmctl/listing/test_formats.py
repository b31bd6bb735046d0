"""Forms of a list of addresses."""

from __future__ import annotations

import io
import re

import pytest

from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.formats import FORMATS, notation, write_regexp


@pytest.mark.parametrize(
    ("entry", "written", "held"),
    [
        (Entry(b"joe", False, b"a.b", False), b"joe@a.b", {"text", "postfix", "validrcptto", "cdb"}),
        (Entry(b"joe-", True, b"a.b", False), b"joe-default@a.b", {"text", "validrcptto", "cdb"}),
        (Entry(b"joe+", True, b"a.b", False), b"joe+*@a.b", {"text"}),
        (Entry(b"", True, b"a.b", False), b"@a.b", {"text", "postfix", "validrcptto", "cdb"}),
        (Entry(b"joe", False, b".a.b", True), b"joe@*.a.b", {"text"}),
        (Entry(b"", True, b"", True), b"@*", {"text"}),
        (Entry(b"a b", False, b"a.b", False), b"a b@a.b", {"text"}),
        (Entry(b"#a", False, b"a.b", False), b"#a@a.b", {"text"}),
        (Entry(b"\xe9", False, b"a.b", False), b"\xe9@a.b", {"text"}),
    ],
)
def test_each_form_says_what_it_can_hold(entry: Entry, written: bytes, held: set[str]) -> None:
    assert notation(entry) == written
    assert {name for name, form in FORMATS.items() if form.holds(entry)} == held


def test_regular_expressions_match_what_they_stand_for() -> None:
    odd = Entry(b"a.b+c$(d)", True, b".w.example", True)
    out = io.BytesIO()
    write_regexp([odd], out)
    expression = out.getvalue()[1:].rpartition(b"/ OK")[0]
    assert re.search(expression, b"a.b+c$(d)x@y.w.example")
    assert not re.search(expression, b"a.bbc$(d)x@y.w.example")
    assert not re.search(expression, b"xa.b+c$(d)x@y.w.example")
    assert not re.search(expression, b"a.b+c$(d)x@y.w.example.org")
