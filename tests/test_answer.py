"""The shared words."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Kind, Recipient, Unavailable, Verdict


@pytest.mark.parametrize(
    ("recipient", "address"),
    [
        (Recipient(b"joe", b"example.org"), b"joe@example.org"),
        (Recipient(b"joe", None), b"joe"),
        (Recipient(b"joe", b""), b"joe@"),
        (Recipient(b"", b"example.org"), b"@example.org"),
        (Recipient(b"%s", b"%d"), b"%s@%d"),
    ],
)
def test_an_address_is_written_as_a_person_writes_it(recipient: Recipient, address: bytes) -> None:
    assert recipient.address == address


def test_a_failure_is_temporary_unless_it_says_otherwise() -> None:
    assert Unavailable("why").kind is Kind.TEMPORARY
    assert Unavailable("why", kind=Kind.MISCONFIGURED).kind is Kind.MISCONFIGURED


def test_outcomes_have_words() -> None:
    assert [verdict.word for verdict in Verdict] == ["accepted", "rejected", "out of scope"]


def test_a_failure_says_what_and_where() -> None:
    error = Unavailable("why", "in words", b"/where")
    assert (error.reason, error.detail, error.where, error.user) == ("why", "in words", b"/where", b"")
    assert "why" in str(error)
