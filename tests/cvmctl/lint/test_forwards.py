"""Forwards that lead nowhere, or round, are found, and nothing else is."""

from __future__ import annotations

import pytest
from hosts import Host
from planting import Mistake, alias_file, dotqmail, is_found

from cvm_qmail.cvmctl.lint import forwards

pytestmark = pytest.mark.root


def long_loop(host: Host) -> None:
    alias_file(".qmail-a", "&b@example.org\n")(host)
    alias_file(".qmail-b", "# on\n&c\n&c@example.org\n")(host)
    alias_file(".qmail-c", "|forward a@example.org\n")(host)


MISTAKES = [
    Mistake(
        "to nobody",
        dotqmail(".qmail-x", "# x\n&ann@example.org\nnobody@example.org\n"),
        "forward-to-nobody",
        "home/joe/.qmail-x",
        3,
    ),
    Mistake(
        "to nobody, by a program",
        dotqmail(".qmail-x", "|forward nobody@v.example ann@example.org\n"),
        "forward-to-nobody",
        "home/joe/.qmail-x",
        1,
    ),
    Mistake(
        "to oneself", dotqmail(".qmail-x", "./Maildir/\n&joe-x@example.org\n"), "forward-loop", "home/joe/.qmail-x", 2
    ),
    Mistake("round three files", long_loop, "forward-loop", "alias/.qmail-a", 1),
    Mistake(
        "a catch-all to itself",
        alias_file(".qmail-default", "&anybody@example.org\n"),
        "catch-all-loop",
        "alias/.qmail-default",
        1,
    ),
    Mistake(
        "no postmaster",
        lambda host: (host.root / "alias/.qmail-postmaster").unlink(),
        "no-postmaster",
        "control/locals",
        1,
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    is_found(sound, mistake)


def test_forwards_are_read_as_qmail_local_reads_them() -> None:
    lines = [b"# a@x", b"&b@x", b"c@x", b" d@x", b"./e@x", b"/f@x", b"|g h@x", b"|forward i@x j"]
    lines += [b"|/usr/bin/forward $K@x", b'|forward "l@x"', b"+m@x", b"", b"n", b""]
    content = b"\n".join(lines)
    found = [(at, recipient.address) for at, recipient in forwards.forwards(content)]
    assert found == [(2, b"b@x"), (3, b"c@x"), (4, b" d@x"), (8, b"i@x"), (8, b"j"), (13, b"n")]
