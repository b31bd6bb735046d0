"""The registry of reason words."""

from __future__ import annotations

from collections import Counter

import pytest

from cvm_qmail.answer import TEMPORARY_FAILURE, Verdict
from cvm_qmail.reasons import REASONS, WORDS, Outcome, Reason, Rejection, reason_of, rejection_of


def test_outcomes_are_called_as_verdicts_are() -> None:
    assert {outcome.value for outcome in Outcome} == {*(verdict.word for verdict in Verdict), TEMPORARY_FAILURE}


def test_a_word_has_one_row_for_each_outcome() -> None:
    assert [pair for pair, n in Counter((row.word, row.outcome) for row in REASONS).items() if n > 1] == []


@pytest.mark.parametrize("reason", REASONS, ids=lambda row: f"{row.word} {row.outcome.value}")
def test_rejections_have_a_class_and_nothing_else_has(reason: Reason) -> None:
    assert (reason.rejection is not None) == (reason.outcome is Outcome.REJECTED)
    assert reason.meaning


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("no-mailbox", Rejection.MISSING),
        ("over-quota", Rejection.FULL),
        ("locked", Rejection.DISABLED),
        ("program-bounces", Rejection.BLOCKED),
        ("a-word-of-a-plug-in", Rejection.MISSING),
    ],
)
def test_a_rejection_has_the_class_of_its_word(word: str, kind: Rejection) -> None:
    assert rejection_of(word) is kind


def test_a_word_may_have_several_outcomes() -> None:
    assert {row.outcome for row in WORDS["over-quota"]} == {Outcome.REJECTED, Outcome.TEMPORARY_FAILURE}
    full = reason_of("over-quota", Outcome.TEMPORARY_FAILURE)
    assert full is not None
    assert full.rejection is None
