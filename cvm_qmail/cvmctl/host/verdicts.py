"""The outcomes of lookups, as every subcommand shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import TEMPORARY_FAILURE, Outcome, Unavailable, Verdict

T = TypeVar("T")

FAILED = "?"
"""The mark of a temporary failure; the others are the values of `Verdict`."""


class Shown(NamedTuple):
    """How an outcome is shown."""

    word: str
    style: str
    """A style of `ui.output`."""


SHOWN = {
    Verdict.ACCEPTED.value: Shown(Verdict.ACCEPTED.word, "yes"),
    Verdict.REJECTED.value: Shown(Verdict.REJECTED.word, "no"),
    Verdict.OUT_OF_SCOPE.value: Shown(Verdict.OUT_OF_SCOPE.word, "pass"),
    FAILED: Shown(TEMPORARY_FAILURE, "failure"),
}
"""By mark."""

ORDER = "-?+="
"""Marks in the order of a summary: what needs attention comes first."""

WORDS = {mark: shown.word for mark, shown in SHOWN.items()}
OUTCOME_STYLES = {shown.word: shown.style for shown in SHOWN.values()}

PROBE = b"zz9cvmctlprobe"
"""A local part that does not exist: only a pattern accepts it."""


def mark_of(outcome: Outcome) -> str:
    """The mark of an outcome."""
    return FAILED if isinstance(outcome, Unavailable) else outcome.verdict.value


def or_none(look: Callable[[], T]) -> T | None:
    """The result of `look`; None if it raises `Unavailable`."""
    try:
        return look()
    except Unavailable:
        return None
