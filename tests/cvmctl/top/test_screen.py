"""The screen of cvmctl top at any size."""

from __future__ import annotations

import os
import re

import pytest

from cvm_qmail.cvmctl.top.command import WINDOW, History
from cvm_qmail.cvmctl.top.screen import Moment, View, screen
from cvm_qmail.observe.counters import WORDS
from cvm_qmail.observe.stats import BUCKETS, SUPERVISOR, About, Stats


def stats(**requests: int) -> Stats:
    about = About("cvm-qmail", "1.1.0", "/run/s", os.getpid(), 0.0, "cvm", "auto", 2, {}, WORDS)
    supervisor = dict.fromkeys(SUPERVISOR, 0) | {"workers": 2, "seen": 10**10}
    counts = {("rejected", name.replace("_", "-")): count for name, count in requests.items()}
    latency = [0] * (len(BUCKETS) + 1)
    latency[3] = sum(requests.values())
    return Stats(about, supervisor, 0, 1.0, latency, counts, [])


BEFORE, NOW = Moment(100.0, stats(no_mailbox=10, locked=5)), Moment(110.0, stats(no_mailbox=10, locked=45))


PLAIN = View()


def shown(columns: int, lines: int, view: View = PLAIN) -> list[str]:
    return [line.text for line in screen(BEFORE, NOW, columns, lines, view)]


def test_the_most_frequent_of_late_comes_first() -> None:
    lines = shown(80, 24)
    assert lines[0] == "cvm-qmail 1.1.0 /run/s: well"
    assert lines[1] == "4.0 requests a second, 55 in all, 0 cached"
    assert lines[2] == "50 % within 200 us, 99 % within 200 us"
    at = next(number for number, line in enumerate(lines) if "outcome and reason" in line)
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        ["4.0", "45", "rejected:", "locked"],
        ["0.0", "10", "rejected:", "no-mailbox"],
    ]
    assert lines[-1] == "q quits  p pauses  r resets the rates"


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 12), (20, 5), (1, 2), (200, 60)])
@pytest.mark.parametrize("view", [View(), View(paused=True, gone="no counters at /run/s", domains=[("a.example", 7)])])
def test_it_fits(columns: int, lines: int, view: View) -> None:
    found = shown(columns, lines, view)
    assert len(found) == lines
    assert max(map(len, found)) <= columns


def test_no_number_is_cut_on_a_narrow_terminal() -> None:
    text = shown(40, 16, View(domains=[("a-domain.example", 1234), ("another-domain.example", 5678)]))
    whole = shown(200, 16, View(domains=[("a-domain.example", 1234), ("another-domain.example", 5678)]))
    assert set(re.findall("[0-9.]+", " ".join(text))) == set(re.findall("[0-9.]+", " ".join(whole)))
    assert "     4.0         45  - locked" in text
    assert shown(30, 16)[-1] == "q quit  p pause  r reset"


def test_what_is_wrong_is_said_below_in_full() -> None:
    degraded = NOW.stats._replace(supervisor={**NOW.stats.supervisor, "stopped": 1, "quarantined": 2})
    lines = [line.text for line in screen(BEFORE, NOW._replace(stats=degraded), 30, 24, PLAIN)]
    assert lines[0] == "cvm-qmail 1.1.0 /run/s:"
    assert " ".join(lines[1:5]) == ("degraded 1 worker stopped 2 paths skipped, since lookups hung there")


def test_rates_are_of_the_last_seconds() -> None:
    history = History(Moment(0.0, stats(locked=0)))
    for second in range(1, 31):
        history.add(Moment(float(second), stats(locked=second)))
    assert (history.first.at, history.last.at) == (30 - WINDOW, 30)
    history.forget()
    assert (history.first.at, history.last.at) == (30, 30)
    history.add(Moment(60.0, stats(locked=60)))
    assert (history.first.at, history.last.at) == (30, 60)


def test_another_process_counts_from_nothing() -> None:
    history = History(Moment(0.0, stats(locked=1000)))
    new = stats(locked=1)
    history.add(Moment(1.0, new._replace(about=new.about._replace(pid=1))))
    assert history.first.stats.total == 1
