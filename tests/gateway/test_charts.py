"""Pictures of the last minutes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from cvm_qmail.gateway import charts
from cvm_qmail.gateway.statistics import SECONDS, Second

NOW = 1_000_000.5


def second(ago: int, accepted: int, rejected: int = 0, latency: float = 0.01) -> Second:
    return Second(int(NOW) - ago, {"accepted": accepted, "rejected": rejected}, latency, 2 * latency)


def heights(picture: str, kind: str) -> list[float]:
    """The heights of the bars of a kind."""
    path = re.search(rf'class="{kind}" d="(.*?)"', picture)
    assert path is not None
    return [float(tall) for tall in re.findall(r"v-([0-9.]+)", path[1])]


def test_a_column_has_the_means_of_its_seconds() -> None:
    drawn = charts.columns([second(5, 8, 2, 0.02), second(1, 10, 0, 0.01), second(SECONDS, 5)], NOW)
    assert len(drawn) == charts.COLUMNS
    assert drawn[-1].rate == pytest.approx(4)
    assert drawn[-1].rates == pytest.approx({"accepted": 3.6, "rejected": 0.4})
    assert drawn[-1].latency == pytest.approx(0.015)
    assert drawn[-1].longest == pytest.approx(0.04)
    assert drawn[0].rate == 1
    assert drawn[1] == charts.Column({}, 0, 0)


def test_the_second_that_has_not_ended_is_left_out_and_so_is_the_future() -> None:
    assert not any(column.rate for column in charts.columns([second(0, 9), second(-1, 9), second(301, 9)], NOW))


def test_the_highest_column_fills_the_picture() -> None:
    picture = charts.of_rates(charts.columns([second(1, 30, 10), second(6, 10)], NOW), ("accepted", "rejected"), "said")
    assert heights(picture, "accepted") == [15, 45]
    assert heights(picture, "rejected") == [15]
    ET.fromstring(picture)


def test_what_is_little_still_shows() -> None:
    picture = charts.of_latency(charts.columns([second(1, 1, latency=10), second(6, 1, latency=1e-6)], NOW), "said")
    assert min(heights(picture, "longest")) == 0.5


def test_nothing_is_a_picture_too() -> None:
    drawn = charts.columns([], NOW)
    for picture in (charts.of_rates(drawn, ("accepted",), "<said>"), charts.of_latency(drawn, "<said>")):
        assert ET.fromstring(picture)[0].text == "<said>"
    assert 'width="0.0"' in charts.share(0, 0, "accepted")
    assert 'width="25.0"' in charts.share(1, 4, "accepted")
