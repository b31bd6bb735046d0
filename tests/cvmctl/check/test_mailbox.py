"""Addresses in lists and mailboxes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.check.mailbox import LINE_LIMIT, Found, addresses, in_list, in_mbox, is_mbox, lines_of

MBOX = b"""\
From joe@far.test Sat Nov 21 05:19:31 2026
Delivered-To: joe-bob@v.example
Received: from far.test; to: nobody@example.org
From: Joe <joe@far.test>
To: "Bob, the first" <bob@v.example>,
\tann@example.org (Ann <no@comment>)
Cc: team: a@example.org, b@example.org;
Subject: mail for not@this.example

From here on it is text.
To: not@this.example

>From no@where

From bob@v.example Sat Nov 21 05:20:00 2026
to : ANN@example.org
To: ann@example.org

end
"""


def found(text: bytes, **how: object) -> list[bytes]:
    return [one.address for one in in_mbox(lines_of(io.BytesIO(text), lambda _: None), **how)]


def listed(text: bytes) -> list[Found]:
    return list(in_list(lines_of(io.BytesIO(text), lambda _: None)))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"joe@example.org", [b"joe@example.org"]),
        (b" a@x , b@y;c@z,", [b"a@x", b"b@y", b"c@z"]),
        (b"Joe Doe <joe@example.org>", [b"joe@example.org"]),
        (b'"joe doe"@example.org', [b"joe doe@example.org"]),
        (rb'"joe \"x\" doe" <"a\"b"@example.org>', [b'a"b@example.org']),
        (b'"a@b" <joe@example.org>', [b"joe@example.org"]),
        (b"joe@example.org (a (nested) comment, with@at)", [b"joe@example.org"]),
        (b"<@a.example,@b.example:joe@example.org>", [b"joe@example.org"]),
        (b"undisclosed recipients:;", []),
        (b"team: a@x, B <b@x>;, c@x", [b"a@x", b"b@x", b"c@x"]),
        (b"root, <>, postmaster", []),
        (b"< joe @ example.org >", [b"joe@example.org"]),
        (b"joe@[192.0.2.1]", [b"joe@[192.0.2.1]"]),
        (b"<joe@example.org", [b"joe@example.org"]),
        (b"j\xf6e@example.org", [b"j\xf6e@example.org"]),
    ],
)
def test_addresses_of_a_header(header: bytes, expected: list[bytes]) -> None:
    assert list(addresses(header)) == expected


@given(st.lists(st.sampled_from([b'"', b"\\", b"(", b")", b"<", b">", b",", b":", b"@", b"a", b" "])).map(b"".join))
def test_no_header_is_too_odd(header: bytes) -> None:
    assert all(b"@" in address for address in addresses(header))


def test_an_age_of_brackets_takes_no_age() -> None:
    assert list(addresses(b"(" * LINE_LIMIT)) == []
    assert list(addresses(b"<" * LINE_LIMIT)) == []
    assert list(addresses(b'"' + b"\\" * (LINE_LIMIT - 1))) == []


def test_a_mailbox_gives_each_address_of_its_headers_once() -> None:
    assert found(MBOX) == [
        b"joe-bob@v.example",
        b"joe@far.test",
        b"bob@v.example",
        b"ann@example.org",
        b"a@example.org",
        b"b@example.org",
        b"ANN@example.org",
    ]


def test_only_the_headers_asked_for_count() -> None:
    assert found(MBOX, names=["CC"]) == [b"a@example.org", b"b@example.org"]


def test_delivered_to_is_taken_back_to_the_envelope() -> None:
    assert found(MBOX, names=["Delivered-To"], original_address=lambda it: it.removeprefix(b"joe-")) == [
        b"bob@v.example"
    ]


def test_a_mailbox_is_recognized_by_its_first_line() -> None:
    assert is_mbox(MBOX)
    assert not is_mbox(b"From: joe@example.org\n")
    assert not is_mbox(b"joe@example.org\n")


def test_a_list_has_an_address_on_each_line() -> None:
    text = b"joe@example.org\r\n\n# a comment\n  ann@example.org\t\n<bob@example.org>\njoe doe@example.org"
    assert listed(text) == [
        Found(b"joe@example.org", 1),
        Found(b"ann@example.org", 4),
        Found(b"bob@example.org", 5),
        Found(b"joe doe@example.org", 6),
    ]


def test_what_is_too_long_is_reported_and_does_not_fill_the_memory() -> None:
    long = b"x" * (3 * LINE_LIMIT)
    first, second = listed(long + b"@example.org\njoe@example.org\n")
    assert first.too_long
    assert len(first.address) <= LINE_LIMIT
    assert second == Found(b"joe@example.org", 2)
    mbox = b"From x Sat Nov 21 05:19:31 2026\nTo: " + b"a@x,\n " * LINE_LIMIT + b"\n\n"
    (cut,) = in_mbox(io.BytesIO(mbox))
    assert cut.too_long
    assert len(cut.address) < 2 * LINE_LIMIT


def test_the_bytes_read_are_counted() -> None:
    counts: list[int] = []
    text = b"a@x\n" + b"y" * (2 * LINE_LIMIT) + b"\nb@x"
    assert len(list(lines_of(io.BytesIO(text), counts.append))) == 3
    assert sum(counts) == len(text)
