"""Lookups from the client's end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import module, responding, small

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import lookup, packets
from cvm_qmail.protocols.cvm.lookup import NoAnswer, TooLong
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection

FACTS = ((1, b"joe"), (2, b"1"), (3, b"1"), (5, b"/home/joe"))


def result(code: int, *facts: tuple[int, bytes]) -> Result:
    return lookup.result_of(packets.pack_response(2, b"salt", code, facts), b"salt")


def test_our_own_server_says_outcome_reason_and_user() -> None:
    respond = responding(module(small()), [], b"word")

    def ask(account: bytes, domain: bytes | None) -> Result:
        return lookup.result_of(respond(lookup.request(Recipient(account, domain), b"word", b"salt")), b"salt")

    assert ask(b"joe", b"example.org") == Result(Outcome.ACCEPTED, "mailbox", user=b"joe")
    assert ask(b"joe-nope", b"example.org") == Result(Outcome.REJECTED, "no-mailbox", Rejection.MISSING)
    assert ask(b"joe", b"elsewhere.example") == Result(Outcome.OUT_OF_SCOPE, "remote")


def test_a_server_that_knows_no_reason_says_the_outcome() -> None:
    assert result(0, *FACTS) == Result(Outcome.ACCEPTED, user=b"joe")
    assert result(100, (16, b"0")) == Result(Outcome.REJECTED, rejection=Rejection.MISSING)
    assert result(100) == Result(Outcome.REJECTED, rejection=Rejection.MISSING)
    assert result(100, (16, b"1")) == Result(Outcome.OUT_OF_SCOPE)
    assert result(4) == Result(Outcome.TEMPORARY_FAILURE, "backend-error")
    assert result(99) == Result(Outcome.TEMPORARY_FAILURE, "backend-error")


@pytest.mark.parametrize("missing", range(4))
def test_an_acceptance_without_what_clients_demand_is_nonsense(missing: int) -> None:
    with pytest.raises(NoAnswer):
        result(0, *(fact for n, fact in enumerate(FACTS) if n != missing))


@pytest.mark.parametrize("scope", [b"", b"x", b"-1", b"0x1", b" 1"])
def test_a_scope_that_is_no_number_is_nonsense(scope: bytes) -> None:
    with pytest.raises(NoAnswer):
        result(100, (16, scope))


@given(st.binary(max_size=600), st.binary(max_size=8))
def test_any_bytes_are_an_outcome_or_no_answer(data: bytes, nonce: bytes) -> None:
    try:
        found = lookup.result_of(data, nonce)
    except NoAnswer:
        return
    assert packets.parse_response(data).nonce == nonce
    assert found.outcome in Outcome


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_response_is_whole_at_its_last_byte_only(reason: bytes, at: int) -> None:
    packet = packets.pack_response(2, b"", 100, ((16, b"0"), (240, reason)))
    assert lookup.is_whole(packet)
    assert not lookup.is_whole(packet[: at % len(packet)])


@given(st.binary(max_size=400), st.none() | st.binary(max_size=400), st.binary(max_size=255))
def test_an_address_is_asked_as_it_is_or_not_at_all(account: bytes, domain: bytes | None, secret: bytes) -> None:
    try:
        packet = lookup.request(Recipient(account, domain), secret, b"saltsalt")
    except TooLong:
        assert len(account) + len(domain or b"") + len(secret) > 255
        return
    credentials = packets.parse_request(packet).credentials
    assert credentials[1] == account
    assert credentials.get(2) == domain
    assert credentials.get(4, b"") == secret
