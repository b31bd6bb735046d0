"""What `cvmctl top` shows, as styled lines for a terminal of any size.

Invariants: a number is shown whole or not at all: what does not fit goes to the next line.  Nothing is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cvm_qmail.cvmctl.host.counters import by_count, complaints, time_of
from cvm_qmail.cvmctl.host.verdicts import OUTCOME_STYLES
from cvm_qmail.cvmctl.ui.output import escaped
from cvm_qmail.observe.stats import Stats

NARROW = 60
"""Columns below which an outcome is shown as a mark."""

DOMAINS = 10
"""Domains that are shown."""

_MARKS = {"accepted": "+", "rejected": "-", "out of scope": ".", "temporary failure": "?"}


class Moment(NamedTuple):
    """The counters at a time, in seconds since 1970."""

    at: float
    stats: Stats


class Line(NamedTuple):
    """One of the screen."""

    text: str
    style: str = ""


class View(NamedTuple):
    """What is shown besides the counters."""

    paused: bool = False
    gone: str = ""
    """Why there are no counters any more; empty: there are."""
    domains: Sequence[tuple[str, int]] | None = None
    """Those that are rejected most; None: no log was given."""


def screen(first: Moment, last: Moment, columns: int, lines: int, view: View) -> list[Line]:
    """At most `lines` of at most `columns` characters; rates and latencies from `first` to `last`."""
    head = [
        Line(text, style) for parts, sep, style in _head(first, last, view) for text in _wrapped(parts, sep, columns)
    ]
    head = head[: max(lines - 2, 1)]
    rows = [*_rows(first, last, narrow=columns < NARROW)][: max(lines - 1 - len(head), 0)]
    blank = [Line("")] * (lines - 1 - len(head) - len(rows))
    keys = "q quits  p pauses  r resets the rates"
    foot = [Line(keys if columns >= len(keys) else "q quit  p pause  r reset", "dim")]
    return [Line(line.text[:columns], line.style) for line in [*head, *rows, *blank, *foot][:lines]]


def _head(first: Moment, last: Moment, view: View) -> Iterator[tuple[list[str], str, str]]:
    """Parts that stay together, what stands between them on a line, and their style."""
    stats = last.stats
    about, supervisor = stats.about, stats.supervisor
    wrong = [view.gone] if view.gone else complaints(stats, last.at)
    state = ("down" if view.gone else "degraded" if wrong else "well") + ("  PAUSED" if view.paused else "")
    yield [f"{about.program} {about.version}", f"{about.address}:", state], " ", "no" if wrong else "yes"
    for complaint in wrong:
        yield complaint.split(" "), " ", "no"
    yield [f"{_rate(first, last):.1f} requests a second", f"{stats.total} in all", f"{stats.repeats} cached"], ", ", ""
    lately = stats._replace(latency=[new - old for new, old in zip(stats.latency, first.stats.latency, strict=True)])
    if lately.total:
        times = [f"50 % within {time_of(lately.percentile(0.5))}", f"99 % within {time_of(lately.percentile(0.99))}"]
        yield times, ", ", ""
    yield [f"{supervisor['busy']} of {supervisor['workers']} workers busy", *_events(stats)], ", ", ""
    if view.domains is not None:
        names = [f"{name} {count}" for name, count in view.domains[:DOMAINS]]
        yield [f"rejected: {names[0] if names else 'none'}", *names[1:]], ", ", ""


def _events(stats: Stats) -> Iterator[str]:
    for name in ("restarts", "hangs", "refusals"):
        if count := stats.supervisor[name]:
            yield f"{count} {name}"


def _wrapped(parts: Sequence[str], sep: str, columns: int) -> list[str]:
    """The parts on as few lines as will do."""
    lines: list[str] = []
    for part in map(escaped, parts):
        if lines and len(lines[-1]) + len(sep) + len(part) <= columns:
            lines[-1] += sep + part
        else:
            lines.append(part)
    return lines


def _rows(first: Moment, last: Moment, *, narrow: bool) -> Iterator[Line]:
    """The reasons, the most frequent of late first."""
    before, counts = first.stats.requests, last.stats.requests
    seconds = last.at - first.at
    yield Line(f"{'a second':>8} {'in all':>10}  {'' if narrow else 'outcome and '}reason", "title")
    late = {key: count - before.get(key, 0) for key, count in counts.items()}
    for (outcome, reason), count in sorted(by_count(dict(counts)), key=lambda item: -late[item[0]]):
        each = late[outcome, reason] / seconds if seconds > 0 else 0.0
        what = f"{_MARKS[outcome]} {reason}" if narrow else f"{outcome}: {reason}"
        yield Line(escaped(f"{each:>8.1f} {count:>10}  {what}"), OUTCOME_STYLES[outcome])


def _rate(first: Moment, last: Moment) -> float:
    seconds = last.at - first.at
    return (last.stats.total - first.stats.total) / seconds if seconds > 0 else 0.0
