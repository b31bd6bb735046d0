"""Charts of the last minutes: SVG within the page, drawn from the counts of each second.

Invariants: the size of a chart does not depend on the questions.  The current second is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvm_qmail.gateway.markup import Markup, element, joined
from cvm_qmail.gateway.statistics import SECONDS, Second

WIDTH = 5
"""Seconds of a column."""

COLUMNS = SECONDS // WIDTH

HEIGHT = 60
"""Units; a column is `WIDTH` units wide."""


class Column(NamedTuple):
    """The counts of `WIDTH` seconds."""

    rates: dict[str, float]
    """Answers a second, by outcome."""
    latency: float
    """Mean, in seconds; 0: there was no question."""
    longest: float
    """Seconds."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.rates.values())


def columns(seconds: list[Second], now: float) -> list[Column]:
    """The last `SECONDS` whole seconds before `now`, the oldest first."""
    first = int(now) - SECONDS
    parts: list[list[Second]] = [[] for _ in range(COLUMNS)]
    for second in seconds:
        if 0 <= second.at - first < SECONDS:
            parts[(second.at - first) // WIDTH].append(second)
    return [_column(part) for part in parts]


def _column(seconds: list[Second]) -> Column:
    rates: dict[str, float] = {}
    spent = 0.0
    for second in seconds:
        spent += second.latency * sum(second.outcomes.values())
        for outcome, number in second.outcomes.items():
            rates[outcome] = rates.get(outcome, 0.0) + number / WIDTH
    answers = sum(rates.values()) * WIDTH
    return Column(rates, spent / answers if answers else 0.0, max((second.longest for second in seconds), default=0.0))


def of_rates(drawn: list[Column], outcomes: tuple[str, ...], said: str) -> Markup:
    """Answers a second, with the outcomes stacked.  `said`: the chart's description in words."""
    peak = max(column.rate for column in drawn) or 1.0
    parts = []
    below = [0.0] * len(drawn)
    for outcome in outcomes:
        values = [column.rates.get(outcome, 0.0) for column in drawn]
        parts.append(_bars(values, below, peak, outcome))
        below = [one + other for one, other in zip(below, values, strict=True)]
    return _picture(said, *parts)


def of_latency(drawn: list[Column], said: str) -> Markup:
    """The longest time to an answer as bars, and the mean as darker bars in front of them."""
    peak = max(column.longest for column in drawn) or 1.0
    ground = [0.0] * len(drawn)
    return _picture(
        said,
        _bars([column.longest for column in drawn], ground, peak, "longest"),
        _bars([column.latency for column in drawn], ground, peak, "mean"),
    )


def share(part: float, whole: float, kind: str) -> Markup:
    """A bar whose length is the part of the whole."""
    width = 100 * part / whole if whole else 0.0
    bar = element("rect", class_=kind, width=f"{width:.1f}", height="6")
    return element("svg", bar, class_="share", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true")


def _bars(values: list[float], below: list[float], peak: float, kind: str) -> Markup:
    """One path, with a rectangle for each value that is not zero."""
    return element("path", class_=kind, d="".join(_rectangles(values, below, lambda value: HEIGHT * value / peak)))


def _rectangles(values: list[float], below: list[float], scale: Callable[[float], float]) -> Iterator[str]:
    for at, (value, ground) in enumerate(zip(values, below, strict=True)):
        if value:
            tall = max(scale(value), 0.5)
            yield f"M{at * WIDTH} {HEIGHT - scale(ground):.1f}v{-tall:.1f}h{WIDTH - 1}v{tall:.1f}z"


def _picture(said: str, *parts: Markup) -> Markup:
    base = element("path", class_="base", d=f"M0 {HEIGHT}h{SECONDS}")
    return element(
        "svg",
        joined(element("title", said), *parts, base),
        class_="chart",
        viewBox=f"0 0 {SECONDS} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )
