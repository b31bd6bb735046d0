"""Odd bytes and characters made visible."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.escape import escape_text, escape_unprintable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jörg@exämple.org", "jörg@exämple.org"),
        ("\N{GREEK SMALL LETTER PI}, \N{HIRAGANA LETTER A}, \N{GRINNING FACE}", "π, あ, 😀"),
        ("plain text stays", "plain text stays"),
        ("a\\b", "a\\x5cb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\x85b", "a\\xc2\\x85b"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b", "a\\xe2\\x80\\xaeb"),
        ("a\N{LEFT-TO-RIGHT ISOLATE}b", "a\\xe2\\x81\\xa6b"),
        ("a\N{ZERO WIDTH SPACE}b", "a\\xe2\\x80\\x8bb"),
        ("a\N{SOFT HYPHEN}b", "a\\xc2\\xadb"),
        ("a\N{NO-BREAK SPACE}b", "a\\xc2\\xa0b"),
        ("a\N{LINE SEPARATOR}b", "a\\xe2\\x80\\xa8b"),
        ("a\N{HANGUL FILLER}b", "a\\xe3\\x85\\xa4b"),
        ("a\N{VARIATION SELECTOR-16}b", "a\\xef\\xb8\\x8fb"),
        ("a\N{BRAILLE PATTERN BLANK}b", "a\\xe2\\xa0\\x80b"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
    ],
)
def test_printable_characters_stay_and_no_others(text: str, shown: str) -> None:
    assert escape_unprintable(text) == shown


@given(st.text())
def test_what_is_shown_is_printable_and_changes_no_direction(text: str) -> None:
    shown = escape_unprintable(text)
    assert shown.isprintable()
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_is_as_in_the_log(text: str) -> None:
    assert escape_unprintable(text) == escape_text(text)
