"""The tables of the status page.

Invariants: names are texts, and printable; lists are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable

from cvm_qmail.escape import escape_text
from cvm_qmail.gateway import charts
from cvm_qmail.gateway.markup import Markup, element, joined
from cvm_qmail.gateway.quantities import count, duration, percent
from cvm_qmail.gateway.statistics import Backend, Snapshot
from cvm_qmail.protocols.result import word
from cvm_qmail.reasons import WORDS, Outcome

THROTTLED = 20
"""The number of clients that are listed; the others are counted."""

OUTCOMES = tuple(word(outcome) for outcome in Outcome)

_STATES = {None: ("unknown", "not asked yet"), True: ("up", "up"), False: ("down", "down")}
"""By `Backend.up`: the class of the mark, and the text."""


def backends(snapshot: Snapshot) -> Iterable[Markup]:
    """The CVM modules, and their state."""
    yield element("h2", "Backends")
    rows = [_backend(backend, snapshot.now) for backend in snapshot.backends]
    yield _table(("module", "state", "waiting", "failures"), rows, numbers=2)


def _backend(backend: Backend, now: float) -> tuple[Markup | str, ...]:
    kind, state = _STATES[backend.up]
    since = f" for {duration(now - backend.since)}" if backend.since else ""
    detail = element("small", backend.detail) if backend.detail and backend.up is False else ""
    failures = count(sum(backend.failures.values()))
    words = "; ".join(f"{escape_text(reason)} {count(n)}" for reason, n in sorted(backend.failures.items()))
    return (
        element("code", escape_text(backend.module)),
        joined(marked(kind, state), since, detail),
        count(backend.asking),
        joined(failures, element("small", words) if words else ""),
    )


def outcomes(snapshot: Snapshot) -> Iterable[Markup]:
    """The number of answers of each outcome."""
    yield element("h2", "Outcomes since the start")
    whole = sum(snapshot.outcomes.values())
    rows = []
    for kind in OUTCOMES:
        number = snapshot.outcomes.get(kind, 0)
        rows.append(
            (
                marked(kind, kind.replace("_", " ")),
                charts.share(number, whole, kind),
                percent(number, whole),
                count(number),
            )
        )
    yield _table(None, rows, numbers=2)


def reasons(snapshot: Snapshot) -> Iterable[Markup]:
    """The most frequent reason words."""
    yield element("h2", "Most frequent reasons")
    rows = []
    for reason, number in snapshot.reasons:
        meanings = [row.meaning for row in WORDS.get(reason, ())]
        shown = element("code", escape_text(reason)) if reason else "no reasons yet"
        rows.append((joined(shown, element("small", meanings[0]) if meanings else ""), count(number)))
    yield _table(None, rows, numbers=1)


def domains(snapshot: Snapshot) -> Iterable[Markup]:
    """The domains with most rejections."""
    yield element("h2", "Domains with most rejections")
    rows = [(element("code", domain), count(number)) for domain, number in snapshot.domains]
    yield _table(None, rows, numbers=1)


def throttled(snapshot: Snapshot) -> Iterable[Markup]:
    """The clients that get temporary failures for every address now."""
    yield element("h2", "Throttled clients")
    longest = sorted(snapshot.throttled, key=lambda pair: -pair[1])
    rows = [(element("code", client), f"{duration(left)} more") for client, left in longest[:THROTTLED]]
    yield _table(None, rows, numbers=1)
    if len(longest) > THROTTLED:
        yield element("p", f"and {count(len(longest) - THROTTLED)} more", class_="note")


def _table(head: tuple[str, ...] | None, rows: Iterable[tuple[str, ...]], *, numbers: int) -> Markup:
    """A table whose last `numbers` columns are figures; a sentence if it is empty."""
    rows = list(rows)
    if not rows:
        return element("p", "none", class_="note")
    lines = [element("tr", *_cells("th", head, numbers))] if head else []
    return element("table", *lines, *(element("tr", *_cells("td", row, numbers)) for row in rows))


def _cells(name: str, row: tuple[str, ...], numbers: int) -> Iterable[Markup]:
    words = len(row) - numbers
    yield from (element(name, cell) for cell in row[:words])
    yield from (element(name, cell, class_="n") for cell in row[words:])


def marked(kind: str, text: str) -> Markup:
    """A text behind a mark in the colour of an outcome or state."""
    return element("span", element("span", class_=f"dot {kind}"), text, class_="marked")
