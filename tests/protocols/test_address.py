"""Addresses: bare, and undone from the quoted form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.address import recipient, unquoted


@pytest.mark.parametrize(
    ("quoted", "bare"),
    [
        (b'"a b"@ours.test', b"a b@ours.test"),
        (b'""@ours.test', b"@ours.test"),
        (b'"a@b"@ours.test', b"a@b@ours.test"),
        (b'"a\\"b"@ours.test', b'a"b@ours.test'),
        (b'"a\\\\b"@ours.test', b"a\\b@ours.test"),
        (b'"joe"@ours.test', b"joe@ours.test"),
        (b'"joe"', b"joe"),
        (b'""', b""),
        (b'"a/../b"@ours.test', b"a/../b@ours.test"),
        (b'"\xe9"@ours.test', b"\xe9@ours.test"),
        (b'"\\\xe9"@ours.test', b"\xe9@ours.test"),
    ],
)
def test_a_quoted_local_part_is_undone(quoted: bytes, bare: bytes) -> None:
    assert unquoted(quoted) == bare


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"joe",
        b"joe@ours.test",
        b'a"b@ours.test',
        b'"a"b@ours.test',
        b'"a',
        b'"a\\',
        b'"',
        b'"a"@b@c',
        b"a b@c",
        b"\\",
    ],
)
def test_what_is_no_quoted_string_stays_as_it_is(address: bytes) -> None:
    assert unquoted(address) == address


def quoted(local: bytes) -> bytes:
    """The quoted form, as RFC 5321 has it."""
    return b'"%s"' % b"".join(b"\\%c" % byte if byte in b'"\\' else b"%c" % byte for byte in local)


@given(st.binary(), st.binary().filter(lambda domain: b"@" not in domain))
def test_quoting_is_undone_whatever_is_in_it(local: bytes, domain: bytes) -> None:
    assert unquoted(quoted(local) + b"@" + domain) == local + b"@" + domain


@given(st.binary())
def test_an_address_is_split_and_joined(address: bytes) -> None:
    assert recipient(address).address == address
    assert b"@" not in (recipient(address).domain or b"")


def test_the_domain_begins_behind_the_last_at() -> None:
    assert recipient(b"a@b@c") == Recipient(b"a@b", b"c")
    assert recipient(b"joe@") == Recipient(b"joe", b"")
    assert recipient(b"joe") == Recipient(b"joe", None)
    assert recipient(b"") == Recipient(b"", None)
