"""Figures for a person."""

from __future__ import annotations

import pytest

from cvm_qmail.gateway.quantities import clock, count, duration, milliseconds, percent, rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (12000, "3 h 20 min"), (356_400, "4 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00031, "0.31 ms"), (0.0042, "4.2 ms"), (0.31, "310 ms"), (1.24, "1.2 s"), (0, "0.00 ms")]
)
def test_times(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_counts_rates_and_shares() -> None:
    assert count(1_234_567) == "1\u202f234\u202f567"
    assert [rate(each) for each in (0, 0.44, 12.34, 1234.5)] == ["0.0", "0.4", "12.3", "1\u202f234"]
    assert [percent(part, 2000) for part in (0, 1, 2, 1000)] == ["0 %", "< 0.1 %", "0.1 %", "50.0 %"]
    assert percent(0, 0) == "0 %"
    assert clock(0) == "1970-01-01 00:00:00 UTC"
