"""The web page: self-contained, escaped, and seen in a real browser."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from cvm_qmail.cvmctl.audit.command import Report
from cvm_qmail.cvmctl.audit.figures import Day, Gain, Kind, Listed, Listing
from cvm_qmail.cvmctl.audit.html import BARS, page

EVIL = b"\"><script>alert('x')</script>&\x1b[31m\xe9@example.org"


def report(days: int = 3, value: int = 10) -> Report:
    listed = Listed(EVIL, True, "no-mailbox", EVIL, EVIL.decode("latin-1"), value, "2026-11-21")
    gain = Gain(EVIL, value, 1, 1, 1_234_567, 1)
    return Report(
        files=1,
        lines=100,
        foreign=1,
        not_understood=1,
        too_long=1,
        examples=[EVIL],
        damaged=[(EVIL.decode("latin-1"), "damaged")],
        passed_over=[EVIL.decode("latin-1")],
        overlaps=[EVIL.decode("latin-1")],
        began_before=1,
        warnings=1,
        messages=5,
        local=4,
        remote=3,
        addresses=2,
        refused=Listing(2, [listed]),
        perhaps_refused=Listing(1, [listed]),
        gone=1,
        gain=gain,
        domains=[gain],
        names=Listing(1, [listed]),
        accepted=Listing(1, [listed]),
        unknown=Listing(1, [listed]),
        forwarded=Listing(1, [listed]),
        matrix={(Kind.DELIVERED.value, "+"): value},
        days=[Day(f"2026-{1 + day // 28:02}-{1 + day % 28:02}", value, 1, 2, 3) for day in range(days)],
    )


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_elsewhere_and_no_scripts() -> None:
    text = page(report())
    assert text.isascii()
    tags = Tags(text).tags
    assert {"script", "link", "img", "iframe", "object", "a", "form"}.isdisjoint(tag for tag, _ in tags)
    names = {name for _, attributes in tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style")]
    policy = {attributes.get("http-equiv"): attributes.get("content") for _, attributes in tags}
    assert policy["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"https?:|url\(|@import", text)


def test_what_comes_from_outside_is_escaped() -> None:
    seen = Tags(page(report())).text
    assert r"\x1b[31m" in seen
    assert "<script>alert('x')</script>&" in seen  # as text
    assert "\x1b" not in seen


@pytest.mark.parametrize("days", [1, 3, BARS, 12 * 28])
@pytest.mark.parametrize("value", [0, 1, 7, 10**9])
def test_charts_are_sound_and_stay_inside(days: int, value: int) -> None:
    charts = re.findall(r'<svg viewBox="0 0 (\d+) (\d+)" role="img".*?</svg>', page(report(days, value)), re.DOTALL)
    drawn = re.findall(r'<svg viewBox="0 0 \d+ \d+" role="img".*?</svg>', page(report(days, value)), re.DOTALL)
    assert len(drawn) == len(charts) == (3 if value else 1)
    for (width, height), text in zip(charts, drawn, strict=True):
        for bar in ET.fromstring(text).iter("rect"):
            left, top = float(bar.attrib["x"]), float(bar.attrib["y"])
            assert 0 <= left <= left + float(bar.attrib["width"]) <= float(width)
            assert -0.1 <= top <= top + float(bar.attrib["height"]) <= float(height)


def test_a_log_without_times_has_no_chart_of_days() -> None:
    text = page(report(days=0))
    assert "The logs have no times." in text


def test_every_number_of_a_chart_can_be_read_as_text() -> None:
    titles = re.findall(r"<title>([^<]*)</title></rect>", page(report(days=1)))
    assert "2026-01-01: 10 delivered" in titles
    assert "2026-01-01: 1 bounced, would be rejected at RCPT" in titles
