"""Lines of vpasswd, and values of vpasswd.cdb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.plugin import Challenge, Password
from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.vpasswd import parse

CORPUS = Path(__file__).parents[1] / "corpus/vpopmail"

MD5 = b"$1$saltsalt$2UdByIBJS5/lBJ.skNN3J1"  # Correct1Horse
RIGHT = Password(b"Correct1Horse")
LINE = MD5 + b":1:2064:Bob B.:/v/domains/example.com/bob:1000S,10C"

# RFC 2195, section 2: the password, the challenge, and the answer to it.
CLEAR = b"tanstaaftanstaaf"
RESPONSE = Challenge(b"<1896.697170952@postoffice.reston.mci.net>", b"b913a602c7eda7a495b4e6e7334d3890", b"CRAM-MD5")


def test_a_line_is_an_account() -> None:
    account = parse(b"bob", LINE, clear=False)
    assert account[:5] == (b"bob", 2064, b"Bob B.", b"/v/domains/example.com/bob", b"1000S,10C")
    assert account.flags == Flag.NO_SMTP | Flag.BOUNCE_MAIL
    assert account.secret.verify(RIGHT, "imap")


def test_the_newline_at_the_end_is_no_part_of_it() -> None:
    assert parse(b"bob", LINE + b"\n", clear=False)[:5] == parse(b"bob", LINE, clear=False)[:5]
    assert parse(b"bob", MD5 + b"\n", clear=False).secret.verify(RIGHT, "imap")


def test_the_clear_text_is_all_that_follows_the_quota() -> None:
    account = parse(b"bob", LINE + b":" + CLEAR, clear=True)
    assert account.quota == b"1000S,10C"
    assert account.secret.verify(RESPONSE, "smtp")
    assert not parse(b"bob", LINE + b":x:" + CLEAR, clear=True).secret.verify(RESPONSE, "smtp")


def test_without_clear_passwords_nobody_reads_it_and_the_quota_ends_before_it() -> None:
    account = parse(b"bob", LINE + b":" + CLEAR, clear=False)
    assert account.quota == b"1000S,10C"
    assert not account.secret.verify(RESPONSE, "smtp")


@pytest.mark.parametrize("count", range(7))
def test_fields_that_are_missing_are_empty_and_numbers_0(count: int) -> None:
    account = parse(b"bob", b":".join(LINE.split(b":")[:count]), clear=True)
    expected = [2064, b"Bob B.", b"/v/domains/example.com/bob", b"1000S,10C"]
    missing = [0, b"", b"", b""]
    there = max(0, count - 2)
    assert list(account[1:5]) == expected[:there] + missing[there:]
    assert account.secret.verify(RIGHT, "smtp") == (count > 0)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (b"", 0),
        (b"x", 0),
        (b" \t16x", 16),
        (b"+16", 16),
        (b"016", 16),
        (b"0x10", 0),
        (b"1 6", 1),
        (b"-1", 0xFFFFFFFF),
        (b"4294967312", 16),
        (b"9" * 30, 0xFFFFFFFF),
        (b"-" + b"9" * 30, 0),
        (b"9" * 5000, 0xFFFFFFFF),
    ],
)
def test_flags_are_what_atoi_makes_of_them(text: bytes, flags: int) -> None:
    assert parse(b"bob", b"x:1:" + text + b":::", clear=False).flags == flags


def test_a_line_ends_at_a_nul_as_a_string_of_c_does() -> None:
    account = parse(b"bob", b"x:1:16:Bob\0by:/home:5M", clear=False)
    assert account[1:5] == (16, b"Bob", b"", b"")


@given(st.binary(max_size=60), st.binary(max_size=300), st.booleans())
def test_any_line_is_an_account_and_its_secret_is_not_shown(name: bytes, value: bytes, clear: bool) -> None:
    account = parse(name, value, clear=clear)
    assert account.name == name
    assert 0 <= account.flags < 1 << 32
    assert repr(account.secret) == "StoredPassword(...)"
    assert b"\0" not in account.gecos + account.directory + account.quota
    assert b":" not in account.gecos + account.directory + account.quota


fields = st.binary(max_size=20).map(lambda field: field.translate(None, b":\n\0"))


@given(st.lists(fields, min_size=6, max_size=6), st.binary(max_size=20).map(lambda text: text.replace(b"\0", b"")))
def test_what_was_written_is_read_again(written: list[bytes], clear: bytes) -> None:
    account = parse(b"bob", b":".join([*written, clear]), clear=True)
    assert [account.gecos, account.directory, account.quota] == written[3:]


def values() -> list[tuple[str, str, str]]:
    """Of each system of the corpus that has a sound vpasswd.cdb: a name and its value."""
    found = []
    for path in sorted(CORPUS.glob("*.json")):
        for file in json.loads(path.read_bytes())["files"]:
            if file["path"].endswith("/vpasswd.cdb"):
                found += [(path.stem, *record) for record in file.get("records", [])]
    return found


def test_the_lines_of_the_corpus_have_a_quota_and_a_home_of_the_same_name() -> None:
    lines = values()
    assert len(lines) > 700
    odd = set()
    for system, name, value in lines:
        account = parse(name.encode("latin-1"), value.encode("latin-1"), clear=system == "clear-text")
        if not account.directory.endswith(account.name) or not account.quota:
            odd.add((system, name))
    assert odd == {
        ("damage", "Bob"),
        ("damage", "few"),
        ("damage", "more"),
        *(("quota", name) for name in ("lower", "odd1", "zero")),
        *(("user-dotqmail", name) for name in ("emptydir", "emptynew", "reldir", "shareddir")),
    }
