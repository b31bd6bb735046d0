"""Limits of a domain, from a file and from a row."""

from __future__ import annotations

import re

import pytest
from hosts import CORPUS, as_bytes, load
from hypothesis import given
from hypothesis import strategies as st

from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.rules.limits import Limits, from_row, parse

NAMES = {
    b"disable_pop": Flag.NO_POP,
    b"disable_imap": Flag.NO_IMAP,
    b"disable_smtp": Flag.NO_SMTP,
    b"disable_webmail": Flag.NO_WEBMAIL,
    b"disable_external_relay": Flag.NO_RELAY,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("after", [b"", b"\n", b" 0\n", b": 0", b"\t1", b":", b"\r\n", b"\r", b" #x\n", b"\0x"])
def test_the_mere_presence_of_a_name_counts(name: bytes, after: bytes) -> None:
    assert parse(name + after) == Limits(flags=NAMES[name])


@pytest.mark.parametrize("before", [b"#", b"# ", b" ", b"\t", b":", b"x", b"\0"])
def test_it_counts_only_at_the_beginning_of_its_line(before: bytes) -> None:
    assert parse(before + b"disable_pop\n") == Limits()


@pytest.mark.parametrize("line", [b"Disable_pop", b"disable_pops", b"disable_po", b"disable_pop#", b"disable_pop=1"])
def test_it_is_exact(line: bytes) -> None:
    assert parse(line) == Limits()


def test_flags_add_up() -> None:
    assert parse(b"\n".join(NAMES)).flags == sum(NAMES.values())
    assert parse(b"disable_pop\ndisable_pop\n").flags == Flag.NO_POP


@pytest.mark.parametrize(
    ("line", "megabytes"),
    [
        (b"quota 100", 100),
        (b"quota: 100", 100),
        (b"quota\t\t:100MB", 100),
        (b"quota", 0),
        (b"quota:", 0),
        (b"quota: none", 0),
        (b"quota -1", 0),
        (b"quota 1\nquota 2", 2),
        (b"quota 1\nquota", 1),
        (b"quota 1\nquota ", 0),
        (b"default_quota 1", 0),
        (b"diskquota 1", 0),
        (b"#quota 1", 0),
    ],
)
def test_the_quota_is_a_number_of_megabytes(line: bytes, megabytes: int) -> None:
    assert parse(line) == Limits(diskquota=megabytes)


def test_messages_are_counted_apart() -> None:
    assert parse(b"quota: 1\nmaxmsgcount: 2\ndefault_maxmsgcount: 3\n") == Limits(0, 1, 2)
    assert parse(b"maxmsgcount: " + b"9" * 100) == Limits(maxmsgcount=2**63 - 1)


def test_nothing_beyond_the_first_2048_bytes_is_seen() -> None:
    line = b"disable_pop\n"
    assert parse(b"#" * (2047 - len(line)) + b"\n" + line[:-1]).flags == Flag.NO_POP, "2047 bytes: the last line counts"
    assert parse(b"#" * (2047 - len(line)) + b"\n" + line).flags == Flag.NO_POP, "2048 bytes, and it ends there"
    assert parse(b"#" * (2048 - len(line)) + b"\n" + line).flags == 0
    assert parse(b"#" * (2048 - len(line)) + b"\n" + line[:-1]).flags == 0, "2048 bytes, and it does not end there"
    assert parse(line + b"#" * 3000).flags == Flag.NO_POP
    assert parse(b"#" * 3000 + b"\n" + line).flags == 0


def test_nothing_after_a_nul_is_seen() -> None:
    assert parse(b"quota 1\nmaxmsgcount 2\0\ndisable_pop\n") == Limits(0, 1, 2)
    assert parse(b"quota 1\nmaxmsgcount 2\0\n" + b"#" * 3000) == Limits(0, 1, 0)


@given(st.one_of(st.binary(max_size=200), st.text("disable_pop quota:\n\r\t #-019\0").map(str.encode)))
def test_any_text_is_a_text_of_limits(text: bytes) -> None:
    limits = parse(text)
    assert limits.flags & ~sum(NAMES.values()) == 0
    assert limits.diskquota >= 0
    assert limits.maxmsgcount >= 0
    assert parse(b"disable_imap\n" + text).flags == limits.flags | Flag.NO_IMAP


def files(name: str) -> list[bytes]:
    """The texts of limits in a system of the corpus."""
    found = load(CORPUS / f"vpopmail/{name}.json")["files"]
    return [as_bytes(file["text"]) for file in found if "limits" in file["path"]]


def test_the_default_file_of_vpopmail_limits_nothing_before_it_is_edited() -> None:
    (text,) = (text for text in files("flags") if text.startswith(b"# Default limits file"))
    assert parse(text) == Limits()
    assert parse(re.sub(rb"(?m)^#(?=disable_|quota)", b"", text)) == Limits(sum(NAMES.values()), 100, 0)


def test_the_files_of_the_corpus_say_what_they_are_there_for() -> None:
    assert sorted({parse(text)[1:] for text in files("domain-quotas")}) == [(0, 0), (0, 2), (0, 500), (1, 0), (1, 1)]
    assert {parse(text).flags for text in files("limits")} == {
        0,
        Flag.NO_POP,
        Flag.NO_SMTP,
        Flag.NO_SMTP | Flag.NO_IMAP | Flag.NO_WEBMAIL,
        sum(NAMES.values()),
    }


# -- rows ---------------------------------------------------------------------------------------------

ROW = dict.fromkeys(
    ["maxpopaccounts", "maxaliases", "maxforwards", "maxautoresponders", "maxmailinglists"], -1
) | dict.fromkeys(
    [
        *("diskquota", "maxmsgcount", "defaultquota", "defaultmaxmsgcount"),
        *("disable_pop", "disable_imap", "disable_dialup", "disable_passwordchanging", "disable_webmail"),
        *("disable_relay", "disable_smtp", "disable_spamassassin", "delete_spam", "disable_maildrop"),
        *("perm_account", "perm_alias", "perm_forward", "perm_autoresponder", "perm_maillist", "perm_quota"),
        "perm_defaultquota",
    ],
    0,
)


def test_in_a_row_0_means_no_and_so_does_null() -> None:
    assert from_row(ROW) == Limits()
    assert from_row(dict.fromkeys(ROW)) == Limits()
    assert from_row({}) == Limits()


@pytest.mark.parametrize("value", [1, -1, 2])
def test_in_a_row_any_other_number_means_yes(value: int) -> None:
    columns = {name.decode().replace("external_", ""): flag for name, flag in NAMES.items()}
    for column, value_before in ROW.items():
        if column not in {"diskquota", "maxmsgcount"}:
            assert value_before in {0, -1}
            assert from_row(ROW | {column: value}) == Limits(columns.get(column, 0)), column


def test_in_a_row_the_numbers_have_names_of_their_own() -> None:
    assert from_row(ROW | {"diskquota": 5, "maxmsgcount": 7}) == Limits(0, 5, 7)
    assert from_row(ROW | {"diskquota": -5, "maxmsgcount": None}) == Limits()
    assert from_row(ROW | {"quota": 5}) == Limits()
