"""The JSON of an answer, read by another gateway."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.protocols import http
from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome, Rejection

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["address", "outcome", "class", "reason"]) | st.text(), inner)
    ),
)

RESULTS = st.sampled_from(
    [
        *(
            Result(outcome, reason)
            for outcome in Outcome
            for reason in ("", "mailbox")
            if outcome is not Outcome.REJECTED
        ),
        *(Result(Outcome.REJECTED, reason, kind) for kind in Rejection for reason in ("", "no-mailbox")),
        Result(Outcome.TEMPORARY_FAILURE, "over-quota", Rejection.FULL),
    ]
)
"""All but the user, which is not sent."""


@given(st.binary(max_size=40), RESULTS)
def test_what_one_gateway_says_the_other_reads(address: bytes, result: Result) -> None:
    asked = recipient(address)
    question = http.question(http.path_of(asked).encode())
    assert question == Question(asked)
    assert http.result_of(asked, json.loads(http.reply(question, result).body)) == result


@given(JSON)
def test_any_json_is_a_result_or_none(value: object) -> None:
    with suppress(ValueError):
        http.result_of(recipient(b""), value)


@pytest.mark.parametrize(
    "changed", [{"address": "ann@ours.test"}, {"outcome": "yes"}, {"outcome": None}, {"class": "x"}]
)
def test_an_answer_to_another_question_is_none(changed: dict[str, object]) -> None:
    said = {"address": "joe@ours.test", "outcome": "accepted", "class": None, "reason": "mailbox"}
    assert http.result_of(recipient(b"joe@ours.test"), said).reason == "mailbox"
    with pytest.raises(ValueError, match=r"not an answer|not a valid"):
        http.result_of(recipient(b"joe@ours.test"), said | changed)


@pytest.mark.parametrize("reason", ["<b>", "a b", "x" * 65, "\u00e4", 7, ["no-mailbox"]])
def test_a_reason_is_a_word_or_nothing(reason: object) -> None:
    said = {"address": "joe@ours.test", "outcome": "rejected", "reason": reason}
    assert http.result_of(recipient(b"joe@ours.test"), said) == Result(Outcome.REJECTED, "", Rejection.MISSING)
