"""Qmail::Deliverable's HTTP, and the JSON of /v1."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.protocols import deliverable, http
from cvm_qmail.protocols.http import Request
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection


@given(st.binary().filter(lambda address: not address.startswith(b'"')))
def test_any_bytes_can_be_asked_for(address: bytes) -> None:
    encoded = quote_from_bytes(address, safe="").encode()
    asked = deliverable.question(Request(b"GET", b"/qd1/deliverable?" + encoded))
    assert asked is not None
    assert asked.recipient.address == address
    named = http.question(b"/v1/recipients/" + encoded)
    assert named is not None
    assert named.recipient.address == address


@given(st.binary(max_size=60))
def test_any_target_is_understood_or_not(target: bytes) -> None:
    for method in (b"GET", b"POST", target):
        deliverable.question(Request(method, target))
    http.question(target)
    http.question(b"/v1/recipients/" + target)


@pytest.mark.parametrize("target", [b"/", b"/qd1/qmail_local?x", b"/qd1/deliverablex", b"/qd1/", b"*"])
def test_other_targets_are_unknown(target: bytes) -> None:
    assert deliverable.question(Request(b"GET", target)) is None
    assert deliverable.question(Request(b"POST", b"/qd1/deliverable?x")) is None


@given(st.sampled_from(Outcome), st.text(), st.sampled_from([None, *Rejection]))
def test_a_number_comes_with_200_only(outcome: Outcome, reason: str, rejection: Rejection | None) -> None:
    response = deliverable.reply(Result(outcome, reason, rejection))
    assert response.body
    if outcome is Outcome.TEMPORARY_FAILURE:
        assert response.status == 503
        assert not response.body.strip().isdigit()
    else:
        assert response.status == 200
        number = int(response.body)
        assert (outcome is Outcome.ACCEPTED) == (0xF1 <= number <= 0xF6)
        assert (outcome is Outcome.REJECTED) == (number == 0)


@given(st.binary(max_size=80), st.sampled_from(Outcome), st.text(), st.sampled_from([None, *Rejection]))
def test_json_of_any_address_is_ascii(
    address: bytes, outcome: Outcome, reason: str, rejection: Rejection | None
) -> None:
    asked = http.question(b"/v1/recipients/" + quote_from_bytes(address).encode())
    assert asked is not None
    response = http.reply(asked, Result(outcome, reason, rejection))
    assert response.body.isascii()
    assert json.loads(response.body)["outcome"] == outcome.name.lower()
    assert (response.status == 503) == (outcome is Outcome.TEMPORARY_FAILURE)
