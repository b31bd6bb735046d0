"""Postfix's socketmap, whole and in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pieces import ANY, PIECES, cut, said

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.question import Immediate, Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.protocols.socketmap import LIMIT, Socketmap, netstring
from cvm_qmail.reasons import Outcome, Rejection

KEYS = st.lists(st.binary(max_size=60).filter(lambda key: not key.startswith(b'"')), max_size=5)


@given(KEYS, PIECES)
def test_socketmap_finds_every_request_in_any_pieces(keys: list[bytes], places: list[int]) -> None:
    data = b"".join(netstring(b"rcpt " + key) for key in keys)
    asked = said(Socketmap(), cut(data, places))
    assert [question.recipient.address for question in asked if isinstance(question, Question)] == [
        key.lower() for key in keys
    ]


@given(st.binary(max_size=200), PIECES)
def test_socketmap_says_the_same_of_anything_in_any_pieces(data: bytes, places: list[int]) -> None:
    assert said(Socketmap(), cut(data, places)) == said(Socketmap(), [data])


@pytest.mark.parametrize(
    "data",
    [b"x", b":", b",", b"-1:x,", b" 1:x,", b"1x:", b"4:rcpt;", b"0000000000001:x,", b"99999:", b"hello\n", b"1:xx"],
)
def test_socketmap_refuses_what_is_no_netstring(data: bytes) -> None:
    (bad,) = said(Socketmap(), [data])
    assert isinstance(bad, str)


def test_socketmap_takes_no_more_than_its_limit() -> None:
    largest = netstring(b"rcpt " + b"x" * (LIMIT - 5))
    assert said(Socketmap(), [largest]) == [Question(Recipient(b"x" * (LIMIT - 5), None))]
    assert said(Socketmap(), [largest[:-1]]) == []
    (bad,) = said(Socketmap(), [b"%d:" % (LIMIT + 1)])
    assert isinstance(bad, str)


@pytest.mark.parametrize(("digits", "refused"), [(9, False), (10, True)])
def test_socketmap_waits_for_no_more_than_nine_digits(digits: int, refused: bool) -> None:
    assert bool(said(Socketmap(), [b"0" * digits])) is refused
    assert bool(said(Socketmap(), [b"6:rcpt x,".rjust(digits + 8, b"0")[:-1]])) is refused


def test_socketmap_takes_leading_zeros_and_any_name() -> None:
    asked = said(Socketmap(), [b"0019:anything joe@o.test,"])
    assert asked == [Question(Recipient(b"joe", b"o.test"))]


@pytest.mark.parametrize("payload", [b"", b"rcpt", b" joe@ours.test"])
def test_socketmap_says_that_a_key_is_missing(payload: bytes) -> None:
    (reply,) = said(Socketmap(), [netstring(payload)])
    assert isinstance(reply, Immediate)
    assert b":PERM " in reply.reply


@given(st.sampled_from(Outcome), st.text(), st.sampled_from([None, *Rejection]))
def test_socketmap_never_says_ok_without_a_text(outcome: Outcome, reason: str, rejection: Rejection | None) -> None:
    for setting in ("notfound", "ok", "temporary"):
        reply = Socketmap(setting).reply(ANY, Result(outcome, reason, rejection))
        length, _, rest = reply.partition(b":")
        assert rest[int(length) :] == b","
        word, blank, text = rest[:-1].partition(b" ")
        assert blank
        assert word in (b"OK", b"NOTFOUND", b"TEMP")
        assert text or word == b"NOTFOUND"
        assert (word == b"TEMP") == (outcome is Outcome.TEMPORARY_FAILURE) or outcome is Outcome.OUT_OF_SCOPE
