"""Figures as text: counts, rates, times and durations."""

from __future__ import annotations

import time

_THIN = "\u202f"
"""A narrow no-break space, between thousands."""


NOTHING = "\N{EN DASH}"
"""In place of a missing figure."""


def count(number: int) -> str:
    """``12 345``."""
    return f"{number:,}".replace(",", _THIN)


def rate(each_second: float) -> str:
    """About three digits: ``0.4``, ``12.3``, ``1 234``."""
    return f"{each_second:.1f}" if each_second < 100 else count(round(each_second))


def milliseconds(seconds: float) -> str:
    """``0.31 ms``, ``4.2 ms``, ``310 ms``, ``1.2 s``."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 1 else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def percent(part: float, whole: float) -> str:
    """``12.3 %``; ``< 0.1 %`` for a share that would be rounded to nothing."""
    if not part or not whole:
        return "0 %"
    value = 100 * part / whole
    return "< 0.1 %" if value < 0.1 else f"{value:.1f} %"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``4 d 3 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def clock(seconds: float) -> str:
    """``2026-11-26 23:20:15 UTC``; `seconds` since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
