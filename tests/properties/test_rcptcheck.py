"""cvm-rcptcheck makes of any answer what the gateway makes of it, which is another code."""

from __future__ import annotations

import strategies
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway import rcptcheck
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.lookup import NoAnswer, result_of
from cvm_qmail.protocols.cvm.packets import Fact
from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import REPLIES, Result, smtp_reply
from cvm_qmail.reasons import REASONS, Outcome, Rejection

STATUSES = {
    250: rcptcheck.ACCEPTED,
    "5.1.1": rcptcheck.MISSING,
    "5.2.2": rcptcheck.FULL,
    "5.2.1": rcptcheck.DISABLED,
    "5.7.1": rcptcheck.BLOCKED,
    "4.3.0": rcptcheck.TEMPORARY,
    "4.2.2": rcptcheck.TEMPORARY_FULL,
}

facts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([1, 2, 3, 5]), st.binary(max_size=20)),
        st.tuples(st.just(int(Fact.OUTOFSCOPE)), st.sampled_from([b"0", b"1", b"2", b"", b"00", b"x", b"-1"])),
        st.tuples(st.just(int(Fact.REASON)), st.sampled_from([reason.word.encode() for reason in REASONS])),
        st.tuples(st.integers(1, 255), st.binary(max_size=20)),
    ),
    max_size=10,
)
nonces = st.sampled_from([b"", b"12345678"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Sound answers, answers with a byte changed, cut or added, and any bytes."""
    codes = st.sampled_from([0, 100, 1, 2, 3, 4, 5, 6, 7, 111])
    sound = packets.pack_response(2, draw(nonces), draw(codes), draw(facts))
    at = draw(st.integers(0, len(sound)))
    return draw(
        st.one_of(
            st.just(sound),
            st.just(sound[:at]),
            st.builds(lambda more: sound[:at] + more + sound[at:], st.binary(min_size=1, max_size=3)),
            st.builds(lambda byte: sound[:at] + byte + sound[at + 1 :], st.binary(min_size=1, max_size=1)),
            strategies.packets,
        )
    )


def status_of(result: Result) -> int:
    """Our status for what the gateway says."""
    reply = smtp_reply(result)
    return STATUSES[250 if reply.code == 250 else reply.status]


@given(answers(), nonces)
def test_an_answer_of_a_module_means_what_the_gateway_makes_of_it(answer: bytes, nonce: bytes) -> None:
    try:
        said = status_of(result_of(answer, nonce))
    except NoAnswer:
        said = rcptcheck.TEMPORARY
    try:
        ours = rcptcheck._judge(answer, nonce)
    except rcptcheck.CannotTell:
        ours = rcptcheck.TEMPORARY
    assert ours == said


@given(st.sampled_from(list(REPLIES)), st.sampled_from([reason.word for reason in REASONS]))
def test_an_answer_of_the_policy_listener_means_what_it_was_made_of(
    kind: tuple[Outcome, Rejection | None], reason: str
) -> None:
    question = Question(Recipient(b"joe", b"ours.test"))
    result = Result(kind[0], reason, kind[1])
    block = Policy().reply(question, result).removesuffix(b"\n\n")
    assert rcptcheck._policy_outcome(block) == status_of(result)


@given(st.binary(max_size=80))
def test_any_answer_of_a_policy_service_is_an_outcome_or_none(block: bytes) -> None:
    try:
        status = rcptcheck._policy_outcome(block)
    except rcptcheck.CannotTell:
        return
    if status == rcptcheck.ACCEPTED:
        assert b"dunno" in block.lower()
    elif status in (rcptcheck.MISSING, rcptcheck.FULL, rcptcheck.DISABLED, rcptcheck.BLOCKED):
        assert b"action=" in block
        assert b"5" in block
