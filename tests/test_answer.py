"""The shared words."""

from __future__ import annotations

import pytest

from cvm_qmail import answer, wire
from cvm_qmail.answer import Recipient, Unavailable, Verdict


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


def test_a_trouble_is_input_or_output_unless_it_says_otherwise() -> None:
    assert answer.IO == wire.Code.IO
    assert Unavailable("why").code == wire.Code.IO
    assert Unavailable("why", code=wire.Code.CONFIG).code == wire.Code.CONFIG


def test_a_trouble_says_what_and_where() -> None:
    trouble = Unavailable("why", "in words", b"/where")
    assert (trouble.reason, trouble.detail, trouble.where, trouble.user) == ("why", "in words", b"/where", b"")
    assert "why" in str(trouble)


def test_three_verdicts_are_three() -> None:
    assert len({verdict.value for verdict in Verdict}) == 3
