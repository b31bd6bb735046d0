"""What the directory says of an address: the rows that are asked for, and the one of them that decides.

    domain      itself, then what stands for its endings, the longest first; as qmail-send looks into virtualdomains
    local part  itself, then the patterns that it begins with, the longest first

A domain that is there is looked for no further, unless only some addresses of it are listed (`LISTED`): those that
virtualdomains names one by one, and what percenthack rewrites.

Invariants: a name is compared in lower case; slashes in a row are one, as in the path of a .qmail file.  Nothing
touches a system.

Source: qmail-send.c (rewrite), qmail-local.c (qmesearch); docs/directory.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cvm_directory.notation import ANYTHING, of_domain, units, written

ACCEPTED, REJECTED, OUT_OF_SCOPE, UNKNOWN, DOUBT = "+", "-", "=", "?", "~"
"""What is published of an address.  `UNKNOWN`: a temporary failure on its host.  `DOUBT`: the host cannot list what
there is, and judges each address when it comes."""

ALL, LISTED, NONE = "all", "listed", "none"
"""What becomes of an address that a domain does not list: rejected; other domains are asked; out of scope."""

USUAL_ENDING = "-"
"""With which beginnings of addresses end, where nothing else is published."""

_SLASHES = re.compile(rb"/+")


class Row(NamedTuple):
    """An address or a pattern as it is published, with its domain; `local` None: the domain alone."""

    domain: str
    scope: str
    percenthack: bool
    endings: frozenset[str]
    age: int
    """Seconds since the domain was published."""
    host: str
    local: str | None
    verdict: str


class Found(NamedTuple):
    """What decides."""

    row: Row
    """Of the domain that has it."""
    verdict: str
    """`REJECTED` and `OUT_OF_SCOPE` also stand for what is not listed."""
    pattern: bool


def domain_names(domain: bytes) -> list[str]:
    """The names under which a domain may be published, in the order in which they count."""
    domain = domain.lower()
    names = [of_domain(domain, wild=False)]
    dot = domain.find(b".")
    while dot >= 0:
        names.append(of_domain(domain[dot:], wild=True))
        dot = domain.find(b".", dot + 1)
    return [*names, ANYTHING]


def local_names(local: bytes, endings: Iterable[str] = (USUAL_ENDING,)) -> list[str]:
    """The names under which a local part may be published, in the order in which they count."""
    local = local.lower()
    alike = _SLASHES.sub(b"/", local)
    forms = [local] if alike == local else [local, alike]
    exact = [written(form) for form in forms]
    ends = frozenset(endings)
    patterns = {pattern for form in forms for pattern in _beginnings(form, ends)}
    return [*exact, *sorted(patterns, key=len, reverse=True), ANYTHING]


def _beginnings(local: bytes, endings: frozenset[str]) -> Iterator[str]:
    """The patterns of a local part that end so."""
    start = ""
    for unit in units(written(local)):
        start += unit
        if unit in endings:
            yield start + ANYTHING


def endings_of(rows: Iterable[Row]) -> frozenset[str]:
    """With what the patterns of these domains end."""
    return frozenset().union(*(row.endings for row in rows))


def find(rows: Sequence[Row], domains: Sequence[str], names: Sequence[str]) -> Found | None:
    """What decides; None: the domain is not in the directory.

    `domains`, `names`: the names that were asked for; `rows`: what there is of them.
    """
    for domain in domains:
        here: Mapping[str | None, Row] = {row.local: row for row in rows if row.domain == domain}
        for name in names:
            if (row := here.get(name)) is not None:
                return Found(row, row.verdict, name.endswith(ANYTHING))
        for row in here.values():
            if row.scope != LISTED:
                return Found(row, REJECTED if row.scope == ALL else OUT_OF_SCOPE, False)
    return None


def hacked(rows: Iterable[Row], domain: str) -> bool:
    """Whether percenthack rewrites addresses of this domain."""
    return any(row.percenthack for row in rows if row.domain == domain)
