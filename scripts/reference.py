"""Writes the parts of the documents that are made from the registries: reason words and settings.

    scripts/reference            writes them
    scripts/reference --check    names what is not up to date; exit status 1

See made.py; tests/test_docs.py runs the check.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from made import table, with_parts

from cvm_qmail.cvmctl.lint.kinds import all_kinds
from cvm_qmail.entry_points import all_settings
from cvm_qmail.reasons import REASONS, Outcome, Reason

DOCS = Path(__file__).resolve().parent.parent / "docs"

HEADINGS = {
    Outcome.ACCEPTED: "log `+`, code 0",
    Outcome.REJECTED: "log `-`, code 100, out of scope 0",
    Outcome.OUT_OF_SCOPE: "log `-`, code 100, out of scope 1",
    Outcome.TEMPORARY_FAILURE: "log `?`, code 4 unless the meaning names another",
}


def _cell(text: str) -> str:
    """A sentence as a cell of a table: nothing in it is taken for markup."""
    return re.sub(r"([|*<])", r"\\\1", text)


def _reason(reason: Reason) -> tuple[str, ...]:
    kind = (reason.rejection.value,) if reason.rejection else ()
    return (f"`{reason.word}`", *kind, _cell(reason.meaning), _cell(reason.advice))


def reasons(outcome: Outcome) -> Iterator[str]:
    """The reason words of one outcome, as a table in the order of the alphabet."""
    rows = sorted((reason for reason in REASONS if reason.outcome is outcome), key=lambda reason: reason.word)
    yield f"{outcome.value.capitalize()}: {HEADINGS[outcome]}."
    yield ""
    if outcome is Outcome.REJECTED:
        yield from table(("word", "class", "meaning", "what to do if it should exist"), map(_reason, rows))
    elif outcome is Outcome.ACCEPTED:
        yield from table(("word", "meaning"), (_reason(row)[:2] for row in rows))
    else:
        yield from table(("word", "meaning", "what to do"), map(_reason, rows))


def settings() -> Iterator[str]:
    """Every setting of every part that is installed."""
    for owner, declared in all_settings().items():
        yield f"{owner}:"
        yield ""
        yield from table(
            ("variable", "default", "unit", "meaning"),
            (
                (f"`{setting.name}`", f"`{setting.default}`", setting.unit, _cell(setting.meaning))
                for setting in declared.values()
            ),
        )
        yield ""


def mistakes() -> Iterator[str]:
    """Every kind of mistake that lint names."""
    yield from table(("word", "what it finds"), ((f"`{kind}`", _cell(text)) for kind, text in all_kinds().items()))


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "accepted": lambda: reasons(Outcome.ACCEPTED),
    "rejected": lambda: reasons(Outcome.REJECTED),
    "out of scope": lambda: reasons(Outcome.OUT_OF_SCOPE),
    "temporary failure": lambda: reasons(Outcome.TEMPORARY_FAILURE),
    "settings": settings,
    "mistakes": mistakes,
}


def made(page: str) -> str:
    """The text of a page with its made parts as the registries say now.  Raises KeyError for a name unknown here."""
    return with_parts(page, "scripts/reference", PARTS)


def main(arguments: list[str]) -> int:
    """Writes or checks every page; the exit status."""
    stale = 0
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        wanted = made(page)
        if page == wanted:
            continue
        if arguments == ["--check"]:
            print(f"{path.name}: not up to date, run scripts/reference")
            stale = 1
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"{path.name}: written")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
