"""The corpus of programs through the rules with plain dicts: no file is opened, nobody's rights are taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import as_bytes, load
from phosts import (
    BRANCHING,
    SYSTEMS,
    TEMPORARY_INSTEAD_OF_BOUNCED,
    Case,
    deviates,
    from_corpus,
    odd,
    odd_answer,
    runs_of,
)

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Lookup

WORDS = {Verdict.ACCEPTED: "deliver", Verdict.REJECTED: "no-mailbox", Verdict.OUT_OF_SCOPE: "remote"}


def said(lookup: Lookup, case: Case) -> str:
    domain = None if case["domain"] is None else as_bytes(case["domain"])
    try:
        return WORDS[lookup(Recipient(as_bytes(case["local"]), domain)).verdict]
    except Unavailable:
        return "defer"


@pytest.mark.parametrize(("path", "branch"), runs_of(SYSTEMS))
def test_every_verdict_is_the_programs(path: Path, branch: str) -> None:
    system = load(path)
    lookup = from_corpus(system).lookup(CVM_QMAIL_BRANCH=branch)
    assert (
        list(filter(None, (odd_answer(system, said(lookup, case), case) for case in BRANCHING[branch](system)))) == []
    )


def test_eighteen_answers_are_the_specifications_and_not_the_corpuss() -> None:
    """As docs/differences.md says, with this number: all that is not as the corpus's README demands."""
    differ: list[tuple[str, str, str]] = []
    for path in SYSTEMS:
        system = load(path)
        lookup = from_corpus(system).lookup(CVM_QMAIL_BRANCH="1" if "branch" in path.stem else "0")
        for case in system["cases"]:
            answer = said(lookup, case)
            if odd(answer, case):
                differ.append((case["expect"], answer, case["why"]))
                assert deviates(system, case), case
    assert len(differ) == sum(map(len, TEMPORARY_INSTEAD_OF_BOUNCED.values())) == 18
    assert {(expected, answer) for expected, answer, _ in differ} == {("no-mailbox", "defer")}
