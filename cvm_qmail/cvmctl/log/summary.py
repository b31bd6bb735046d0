"""A day of a log in one page: for a terminal, as a mail in plain text, or as the HTML body of one.

Invariants: memory is bounded: of domains and addresses the most frequent `KEPT` are counted, others together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape as quoted
from typing import TypeVar

from cvm_qmail.cvmctl.host.log_entries import Entry
from cvm_qmail.cvmctl.ui.output import counted
from cvm_qmail.reasons import WORDS

K = TypeVar("K")

KEPT = 10_000
TOP = 10
SHARES = (0.5, 0.9, 0.99)

Section = tuple[str, list[tuple[str, str]]]


class Summary:
    """What entries come to."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._domains: Counter[str] = Counter()
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._times: Counter[int] = Counter()
        for entry in entries:
            self.outcomes[entry.outcome] += 1
            self._reasons[entry.outcome, entry.reason] += 1
            self._times[_rounded(entry.microseconds)] += 1
            if entry.outcome == "rejected":
                _add(self._domains, entry.domain or "(none)")
            if entry.outcome == "temporary failure":
                _add(self._waiting, (entry.reason, entry.where))

    @property
    def total(self) -> int:
        """Requests."""
        return self.outcomes.total()

    def sections(self) -> Iterator[Section]:
        """A title each, with rows of a number and what it counts."""
        yield (
            counted(self.total, "request"),
            [(f"{count:,}", outcome) for outcome, count in self.outcomes.most_common()],
        )
        if not self.total:
            return
        times = ", ".join(f"{share:.0%} within {self._within(share)} us" for share in SHARES)
        yield "Time to an answer", [("", times)]
        yield (
            "Reasons",
            [
                (f"{count:,}", f"{outcome}: {reason}{_meaning(reason, outcome)}")
                for (outcome, reason), count in self._reasons.most_common(TOP)
            ],
        )
        yield "Domains of rejected addresses", [(f"{count:,}", name) for name, count in self._domains.most_common(TOP)]
        yield (
            "Temporary failures: mail waits for these",
            [
                (f"{count:,}", f"{reason} {where}{_advice(reason)}")
                for (reason, where), count in self._waiting.most_common(TOP)
            ],
        )

    def _within(self, share: float) -> int:
        left = self.total * share
        for microseconds in sorted(self._times):
            left -= self._times[microseconds]
            if left <= 0:
                return microseconds
        return 0


def _add(counter: Counter[K], key: K) -> None:
    """One more of `key`; of a key that is new when there are too many, nothing."""
    if key in counter or len(counter) < KEPT:
        counter[key] += 1


def _rounded(microseconds: int) -> int:
    """Two digits are enough, and bound the memory."""
    scale = int(10 ** max(0, len(str(microseconds)) - 2))
    return -(-microseconds // scale) * scale


def _meaning(word: str, outcome: str) -> str:
    found = [row.meaning for row in WORDS.get(word, ()) if row.outcome.value == outcome]
    return f" ({found[0]})" if found else ""


def _advice(word: str) -> str:
    found = [row.advice for row in WORDS.get(word, ()) if row.outcome.value == "temporary failure" and row.advice]
    return f": {found[0]}" if found else ""


def as_text(summary: Summary) -> Iterator[str]:
    """Lines for people, and for a mail in plain text."""
    for title, rows in summary.sections():
        yield title
        for number, text in rows or [("", "none")]:
            yield f"{number:>10}  {text}".rstrip()
        yield ""


_STYLE = "font-family:sans-serif;font-size:14px;border-collapse:collapse"


def as_html(summary: Summary) -> Iterator[str]:
    """Lines of the HTML body of a mail: nothing from elsewhere, everything quoted."""
    yield f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>cvm-qmail</title></head><body style="{_STYLE}">'
    for title, rows in summary.sections():
        yield f"<h3>{quoted(title)}</h3><table>"
        for number, text in rows or [("", "none")]:
            yield (
                f'<tr><td style="text-align:right;padding:1px 12px 1px 0">{quoted(number)}</td>'
                f"<td>{quoted(text)}</td></tr>"
            )
        yield "</table>"
    yield "</body></html>"
