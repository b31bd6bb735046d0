"""scripts/scale.py: the numbers of docs/scale.md are those of its inputs, and these are those of other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import scale

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/scale.md").read_text()


def test_the_page_agrees_with_its_inputs() -> None:
    assert scale.made(PAGE) == PAGE, "run scripts/scale"
    assert sorted(re.findall(r"^<!-- made by scripts/scale: (.*) -->$", PAGE, re.MULTILINE)) == sorted(scale.PARTS)


def test_the_inputs_are_what_was_measured() -> None:
    assert list(scale.missing(scale.inputs(PAGE))) == []


def test_every_input_is_used_and_every_cost_has_a_source() -> None:
    given = scale.inputs(PAGE)
    used: set[str] = set()

    class Noting(dict[str, object]):
        def __getitem__(self, key: str) -> object:
            used.add(key)
            return super().__getitem__(key)

    provider = scale.Provider(Noting(given))
    for part in scale.PARTS.values():
        list(part(provider))
    assert used == set(given)
    costs = {part.input for way in scale.WAYS.values() for part in way}
    assert all(scale._SOURCE.search(given[cost].source) for cost in costs)


def test_another_input_changes_the_page() -> None:
    """Twice as many questions: twice as many cores, and everything is full twice as soon."""
    row = "| RCPT a second, over all MX hosts | {} |"
    changed = scale.made(PAGE.replace(row.format("20,000"), row.format("40,000")))
    assert "| routes: MX hosts ask by https | MX host | 200 |" in changed
    assert scale.made(changed) == changed


def test_an_input_that_its_page_does_not_have_is_named() -> None:
    given = scale.inputs(re.sub(r"\| daemon, qmail \| [\d.,]+ \|", "| daemon, qmail | 43.5 |", PAGE))
    (line,) = scale.missing(given)
    assert line.startswith("daemon, qmail: 43.5 is not in the row 'four clients' of ")


def test_the_arithmetic() -> None:
    provider = scale.Provider(scale.inputs(PAGE))
    way = scale.ROUTES
    whole = sum(provider.cost(way, place) for place in (scale.MX, scale.MAILBOX, scale.DATABASE))
    assert whole == sum(provider(part.input) for part in scale.WAYS[way])
    shares = {name: share for name, _, share in provider.limits()}
    gateway = shares["routes: gateway, MX host"]
    assert gateway == pytest.approx(provider.rate / provider.mx_hosts * provider("MX gateway, asking by https") / 1e6)
