"""Mistakes in control files are found where they are, and nothing else is."""

from __future__ import annotations

import pytest
from hosts import Host
from planting import Mistake, control, directory, found, is_found

pytestmark = pytest.mark.root


def morercpthosts(host: Host) -> None:
    host.control("morercpthosts", "example.org\n")


MISTAKES = [
    Mistake("me is a directory", directory("control/me"), "control-unreadable", "control/me", None),
    Mistake(
        "virtualdomains is a directory",
        directory("control/virtualdomains"),
        "control-unreadable",
        "control/virtualdomains",
        None,
    ),
    Mistake(
        "a carriage return", control("locals", "example.org\nx.example\r\n"), "control-syntax", "control/locals", 2
    ),
    Mistake("a blank in front", control("locals", "example.org\n x.example\n"), "control-syntax", "control/locals", 2),
    Mistake(
        "a comment behind",
        control("rcpthosts", "example.org # x\n"),
        "control-syntax",
        "control/rcpthosts",
        1,
        ("rcpthosts-not-ours",),
    ),
    Mistake("a NUL", control("locals", "example.org\0x.example\n"), "control-syntax", "control/locals", 1),
    Mistake(
        "a star",
        control("virtualdomains", "*.x.example:joe\n"),
        "control-syntax",
        "control/virtualdomains",
        1,
        ("rcpthosts-not-ours",),
    ),
    Mistake(
        "a wildcard in locals", control("locals", "example.org\n.x.example\n"), "control-syntax", "control/locals", 2
    ),
    Mistake(
        "an address in locals", control("locals", "example.org\njoe@x.example\n"), "control-syntax", "control/locals", 2
    ),
    Mistake(
        "no colon",
        control("virtualdomains", "# x\nv.example\n"),
        "control-syntax",
        "control/virtualdomains",
        2,
        ("rcpthosts-not-ours",),
    ),
    Mistake(
        "two values",
        control("virtualdomains", "v.example:ann\nV.example:joe\n.w.example:ann\n"),
        "virtualdomains-overridden",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "no such user",
        control("virtualdomains", "v.example:jo\n.w.example:ann\n"),
        "virtualdomains-no-user",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "no such address",
        control("virtualdomains", "x@v.example:joe-nope\n.w.example:ann\n"),
        "virtualdomains-no-user",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "local and virtual",
        control("virtualdomains", "v.example:joe\n.w.example:ann\nexample.org:ann\n"),
        "local-and-virtual",
        "control/virtualdomains",
        3,
    ),
    Mistake(
        "local, and virtual for one",
        control("virtualdomains", "v.example:joe\n.w.example:ann\nx@example.org:ann\n"),
        "local-and-virtual",
        "control/virtualdomains",
        3,
    ),
    Mistake(
        "neither local nor virtual",
        control("rcpthosts", "example.org\nx.example\n"),
        "rcpthosts-not-ours",
        "control/rcpthosts",
        2,
    ),
    Mistake(
        "nothing below is ours",
        control("rcpthosts", "example.org\n.x.example\n"),
        "rcpthosts-not-ours",
        "control/rcpthosts",
        2,
    ),
    Mistake(
        "no rcpthosts",
        lambda host: (host.root / "control/rcpthosts").unlink(),
        "rcpthosts-missing",
        "control/rcpthosts",
        None,
    ),
    Mistake("stale morercpthosts", morercpthosts, "morercpthosts-stale", "control/morercpthosts.cdb", None),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    is_found(sound, mistake)


def test_neither_me_nor_locals(sound: Host) -> None:
    (sound.root / "control/me").unlink()
    (sound.root / "control/locals").unlink()
    assert found(sound)[0][:3] == ("control-me-missing", f"{sound.root}/control/me".encode(), None)
