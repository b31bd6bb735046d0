"""Mistakes in homes and their .qmail files are found where they are, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hosts import Host
from planting import ASSIGN, Mistake, assigned, dotqmail, is_found

pytestmark = pytest.mark.root


def link(host: Host) -> None:
    (host.root / "home/joe/.qmail-link").symlink_to("nowhere")


def home_mode(mode: int) -> Callable[[Host], object]:
    return lambda host: (host.root / "home/joe").chmod(mode)


MISTAKES = [
    Mistake("a writable home", home_mode(0o757), "home-writable", "home/joe", None),
    Mistake("a sticky home", home_mode(0o1755), "home-sticky", "home/joe", None),
    Mistake("a closed home", home_mode(0o055), "home-denied", "home/joe", None),
    Mistake(
        "a missing home",
        assigned(*ASSIGN, "=x:x:5009:5009:{root}/home/x:::"),
        "home",
        "home/x",
        None,
    ),
    Mistake("a writable file", dotqmail(".qmail-w", mode=0o646), "dotqmail-writable", "home/joe/.qmail-w", None),
    Mistake(
        "an unreadable file", dotqmail(".qmail-r", mode=0o600, uid=0), "dotqmail-denied", "home/joe/.qmail-r", None
    ),
    Mistake("a blank line", dotqmail(".qmail-b", " \n&ann\n"), "dotqmail-blank", "home/joe/.qmail-b", 1),
    Mistake(
        "a file line in a list",
        dotqmail(".qmail-f", "# x\nfriend@x.example\n./Maildir/\n", mode=0o744),
        "dotqmail-forward-only",
        "home/joe/.qmail-f",
        3,
    ),
    Mistake(
        "a program behind +list",
        dotqmail(".qmail-f", "|/bin/x\n+list\nfriend@x.example\n|/bin/y\n"),
        "dotqmail-forward-only",
        "home/joe/.qmail-f",
        4,
    ),
    Mistake("a capital name", dotqmail(".qmail-Foo"), "dotqmail-unreachable", "home/joe/.qmail-Foo", None),
    Mistake("a dotted name", dotqmail(".qmail-a.b"), "dotqmail-unreachable", "home/joe/.qmail-a.b", None),
    Mistake("a dangling link", link, "dotqmail-dangling", "home/joe/.qmail-link", None),
    Mistake(
        "a directory",
        lambda host: host.directory("home/joe/.qmail-x", uid=5001),
        "dotqmail-not-plain",
        "home/joe/.qmail-x",
        None,
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    is_found(sound, mistake)
