"""The report of `cvmctl audit` as one web page: no scripts, nothing loaded, everything escaped.

Invariants: every text goes through `_text`, which leaves only printable ASCII and then escapes it for HTML; numbers
are formatted here.  The page's Content-Security-Policy forbids it to load anything, so that it
can be mailed to a colleague and opened anywhere.  The charts are SVG, each with its figures beside it
as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from html import escape
from typing import NamedTuple

from cvm_qmail.cvmctl.audit.figures import Day, Kind, Listing
from cvm_qmail.cvmctl.audit.summary import (
    FORWARDED,
    Report,
    deliveries,
    described,
    remarks,
    shortened,
    size,
    trace_command,
)
from cvm_qmail.cvmctl.host.verdicts import WORDS
from cvm_qmail.cvmctl.ui.output import counted
from cvm_qmail.escape import escape_text

WIDTH, HEIGHT = 960, 260
MARGIN_LEFT, MARGIN_BOTTOM, MARGIN_TOP = 56, 28, 12
BARS = 120
"""Bars in the chart of days; more days than that are drawn together."""

LONGEST = 3660
"""The longest span, in days, in which days without mail are drawn too."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --card: #f5f7f9; --paper: #ffffff;
  --delivered: #3b7ddd; --refused: #1f9d61; --bounced: #d1495b; --deferred: #e0a526; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #36404d; --card: #1d242d;
  --paper: #14191f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 32px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 8px; }
p { margin: 4px 0 12px; } .soft { color: var(--soft); }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 24px 0; }
.card { background: var(--card); border-left: 4px solid var(--line); border-radius: 6px; padding: 12px 16px; }
.card b { display: block; font-size: 26px; line-height: 1.2; }
.good { border-color: var(--refused); } .bad { border-color: var(--bounced); } .odd { border-color: var(--deferred); }
table { border-collapse: collapse; width: 100%; } th, td { padding: 4px 12px 4px 0; text-align: left;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; white-space: nowrap; }
ul { padding-left: 20px; } li { margin: 6px 0; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.delivered { fill: var(--delivered); } .refused { fill: var(--refused); } .bounced { fill: var(--bounced); }
.deferred { fill: var(--deferred); } .grid { stroke: var(--line); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 0; }
.keys span { margin-right: 18px; white-space: nowrap; }
"""

_SERIES = (
    ("delivered", "delivered"),
    ("refused", "bounced, would be rejected at RCPT"),
    ("bounced", "bounced otherwise"),
    ("deferred", "deferred"),
)
"""Fields of `Day`, as the chart stacks them."""


class _Bar(NamedTuple):
    label: str
    value: int
    note: str


def page(report: Report) -> str:
    """The whole page."""
    parts = [
        f"<h1>qmail's deliveries, and what would be rejected</h1><p class=soft>{_text(_facts(report))}</p>",
        _cards(report),
        _listing("Delivered by qmail, and would be rejected", report.refused, traced=True),
        _listing(
            "Perhaps the same: the log writes other bytes as _ or / too",
            report.perhaps_refused,
            traced=True,
            quiet=True,
        ),
        _days(report),
        _gain(report),
        _listing("Bounced for lack of a mailbox, and would be accepted", report.accepted, traced=True),
        _listing(FORWARDED, report.forwarded, traced=True, quiet=True),
        _listing("Temporary failure", report.unknown, traced=False),
        _matrix(report),
        _remarks(report),
    ]
    body = "\n".join(filter(None, parts))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>qmail's deliveries: {_text(report.span)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _text(value: str) -> str:
    return escape(escape_text(value))


def _facts(report: Report) -> str:
    return (
        f"{report.span}. {counted(report.files, 'file')}, {counted(report.lines, 'line')},"
        f" {counted(report.messages, 'message')}, {report.local:,} local and {report.remote:,} remote deliveries,"
        f" {counted(report.addresses, 'local address')}."
    )


def _cards(report: Report) -> str:
    gain = report.gain
    cards = (
        (
            "bad" if report.refused.total else "good",
            f"{report.refused.total:,}",
            "addresses that qmail delivered to would be rejected",
        ),
        ("good", f"{gain.deliveries:,}", "bounced deliveries would be rejected at RCPT"),
        ("good", size(gain.size), f"in {counted(gain.messages, 'message')} would be rejected"),
        ("good", f"{gain.bounces:,}", "bounces would not be sent"),
        ("odd" if report.unknown.total else "good", f"{report.unknown.total:,}", "addresses with a temporary failure"),
    )
    inside = "".join(
        f'<div class="card {kind}"><b>{_text(number)}</b>{_text(what)}</div>' for kind, number, what in cards
    )
    return f"<div class=cards>{inside}</div>"


def _listing(title: str, listing: Listing, *, traced: bool, quiet: bool = False) -> str:
    if not listing.total:
        return "" if quiet else f"<h2>{_text(title)}</h2><p>None.</p>"
    items = "".join(
        f"<li><code>{_text(described(one))}</code>"
        + (f"<br><code class=soft>{_text(trace_command(one.address))}</code>" if traced else "")
        for one in listing.first
    )
    more = listing.total - len(listing.first)
    rest = f"<p class=soft>and {more:,} more</p>" if more else ""
    return f"<h2>{_text(title)}: {counted(listing.total, 'address')}</h2><ul>{items}</ul>{rest}"


def _gain(report: Report) -> str:
    title = "<h2>Bounced, and would be rejected at RCPT</h2>"
    gain = report.gain
    if not gain.deliveries:
        return title + "<p>None.</p>"
    sentence = (
        f"{deliveries(gain)}; {counted(gain.messages, 'message')} ({size(gain.size)}) would have been rejected,"
        f" and {counted(gain.bounces, 'bounce')} not sent."
    )
    domains = [
        _Bar(shortened(one.domain), one.deliveries, f"{counted(one.addresses, 'address')}, {size(one.size)}")
        for one in report.domains
    ]
    names = [_Bar(shortened(one.address), one.deliveries, one.reason) for one in report.names.first]
    return (
        f"{title}<p>{_text(sentence)}</p>"
        f"<h2>Domains with most of them</h2>{_bars(domains, 'rejected deliveries by domain')}"
        f"<h2>Addresses rejected most</h2>{_bars(names, 'rejected deliveries by address')}"
    )


def _matrix(report: Report) -> str:
    head = "".join(f"<th class=number>{_text(word)}</th>" for word in WORDS.values())
    rows = "".join(
        f"<tr><td>{_text(kind.value)}</td>"
        + "".join(f"<td class=number>{report.matrix.get((kind.value, mark), 0):,}</td>" for mark in WORDS)
        + "</tr>"
        for kind in Kind
    )
    return (
        "<h2>Local deliveries by outcome and today's verdict</h2>"
        f"<table><thead><tr><th>outcome</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _remarks(report: Report) -> str:
    items = "".join(f"<li>{_text(remark)}</li>" for remark in remarks(report))
    return f"<h2>Notes on the logs</h2><ul>{items}</ul>" if items else ""


# -- charts -------------------------------------------------------------------------------------------


def _bars(bars: Sequence[_Bar], title: str) -> str:
    """Bars to the right, each with its label, figure and note."""
    row = 30
    longest = max((bar.value for bar in bars), default=1) or 1
    drawn = []
    for at, bar in enumerate(bars):
        width = max(2.0, 360 * bar.value / longest)
        middle = at * row + 19
        drawn.append(
            f'<text x="330" y="{middle}" text-anchor="end">{_text(_fitting(bar.label))}</text>'
            f'<rect class="refused" x="340" y="{at * row + 5}" width="{width:.1f}" height="20" rx="2">'
            f"<title>{_text(f'{bar.label}: {bar.value:,} ({bar.note})')}</title></rect>"
            f'<text x="{346 + width:.1f}" y="{middle}">{_text(f"{bar.value:,}  ({bar.note})")}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {max(1, len(bars)) * row}" role="img" aria-label="{_text(title)}">'
        f"{''.join(drawn)}</svg>"
    )


def _fitting(label: str) -> str:
    """A label that fits beside its bar."""
    return label if len(label) <= 44 else f"{label[:24]}...{label[-16:]}"


def _days(report: Report) -> str:
    title = "<h2>Outcomes per day</h2>"
    if not report.days:
        return title + "<p>The logs have no times.</p>"
    keys = "".join(
        f'<span><svg class=key viewBox="0 0 1 1"><rect class="{name}" width="1" height="1"/></svg>{_text(word)}</span>'
        for name, word in _SERIES
    )
    days = list(_together(_without_gaps(report.days)))
    highest = _round(max(sum(day[1:]) for day in days))
    room = HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
    step = (WIDTH - MARGIN_LEFT) / len(days)
    drawn = [*_grid(highest, room)]
    every = max(1, len(days) // 8)
    for at, day in enumerate(days):
        left = MARGIN_LEFT + at * step
        drawn.append(_column(day, left, min(step * 0.8, 90.0), room / highest))
        if at % every == 0:
            drawn.append(f'<text x="{left:.1f}" y="{HEIGHT - 8}">{_text(day.day)}</text>')
    return (
        f"{title}<p class=keys>{keys}</p>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="local deliveries per day by outcome">'
        f"{''.join(drawn)}</svg>"
    )


def _without_gaps(days: Sequence[Day]) -> Sequence[Day]:
    """Adds the days without deliveries; not if a wrong clock made the span too long."""
    first, last = date.fromisoformat(days[0].day), date.fromisoformat(days[-1].day)
    if (last - first).days > LONGEST:
        return days
    known = {day.day: day for day in days}
    names = ((first + timedelta(at)).isoformat() for at in range((last - first).days + 1))
    return [known.get(name, Day(name, 0, 0, 0, 0)) for name in names]


def _round(number: int) -> int:
    """The next round number for the end of an axis with four parts."""
    unit = 1
    while True:
        for step in (4, 8, 12, 20, 40):
            if step * unit >= number:
                return step * unit
        unit *= 10


def _together(days: Sequence[Day]) -> Iterable[Day]:
    """Neighbouring days as one, so that there are at most BARS."""
    step = -(-len(days) // BARS)
    for at in range(0, len(days), step):
        group = days[at : at + step]
        name = group[0].day if step == 1 else f"{group[0].day} on"
        yield Day(name, *(sum(column) for column in zip(*(day[1:] for day in group), strict=True)))


def _grid(highest: int, room: float) -> Iterable[str]:
    for part in range(5):
        y = HEIGHT - MARGIN_BOTTOM - room * part / 4
        yield f'<line class="grid" x1="{MARGIN_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{MARGIN_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{highest * part // 4:,}</text>'


def _column(day: Day, left: float, width: float, scale: float) -> str:
    bottom = float(HEIGHT - MARGIN_BOTTOM)
    parts = []
    for (name, word), value in zip(_SERIES, day[1:], strict=True):
        if value:
            height = value * scale
            bottom -= height
            parts.append(
                f'<rect class="{name}" x="{left:.1f}" y="{bottom:.1f}" width="{width:.1f}" height="{height:.1f}">'
                f"<title>{_text(f'{day.day}: {value:,} {word}')}</title></rect>"
            )
    return "".join(parts)
