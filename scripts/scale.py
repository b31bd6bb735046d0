"""Computes the numbers of docs/scale.md from the table of inputs on that page.

    scripts/scale            writes them
    scripts/scale --check    names what is not up to date, and inputs that the pages they come from do not have

An input is a row ``| what | value | unit | from |``.  Where the last column is a link with the beginning of a row of
another page's table, that row must have the value: so new figures of the benchmarks are seen here.  See made.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import NamedTuple

from made import table, with_parts

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "scale.md"

_INPUT = re.compile(
    r"^\| (?P<what>[^|]+?) \| (?P<value>[\d,.]+) \|(?P<unit>[^|]*)\| (?P<source>[^|]*?) \|$", re.MULTILINE
)
_SOURCE = re.compile(
    r"\[[^]]+\]\((?P<page>[\w./-]+)\): (?:`` (?P<code>.+?) ``|`(?P<row>[^`]+)`)(?:, column (?P<column>\d+))?"
)


class Input(NamedTuple):
    """A row of the table."""

    value: float
    text: str
    source: str


class Part(NamedTuple):
    """What a question costs at one place of a way."""

    place: str
    name: str
    input: str
    """The input with the microseconds."""


MX, MAILBOX, DATABASE = "MX host", "mailbox host", "database"


def _on_database(kind: str) -> tuple[Part, ...]:
    """A mailbox host with vpopmail, its accounts in a database."""
    return Part(MAILBOX, "daemon", f"daemon, vpopmail on {kind}"), Part(DATABASE, kind, f"{kind}, a question")


def _directory(kind: str) -> tuple[Part, ...]:
    """MX hosts that ask a directory in a database."""
    return (
        Part(MX, "gateway", "gateway, asking on its host"),
        Part(MX, "cvm-directory", f"cvm-directory, {kind}"),
        Part(DATABASE, kind, f"{kind}, a question"),
    )


WAYS: dict[str, tuple[Part, ...]] = {
    "mailfront on the mailbox host, qmail": (Part(MAILBOX, "daemon", "daemon, qmail"),),
    "the same, vpopmail on cdb": (Part(MAILBOX, "daemon", "daemon, vpopmail on cdb"),),
    "the same, vpopmail on MariaDB": _on_database("MariaDB"),
    "the same, vpopmail on PostgreSQL": _on_database("PostgreSQL"),
    "Postfix on the mailbox host": (
        Part(MAILBOX, "gateway", "gateway, asking on its host"),
        Part(MAILBOX, "daemon", "daemon, behind that gateway"),
    ),
    "routes: MX hosts ask by https": (
        Part(MX, "gateway", "MX gateway, asking by https"),
        Part(MAILBOX, "HAProxy", "HAProxy"),
        Part(MAILBOX, "gateway", "mailbox gateway, behind HAProxy"),
        Part(MAILBOX, "daemon", "daemon, behind both"),
    ),
    "directory in MariaDB": _directory("MariaDB"),
    "directory in PostgreSQL": _directory("PostgreSQL"),
}
ROUTES, DIRECTORY = "routes: MX hosts ask by https", "directory in MariaDB"


def inputs(page: str) -> dict[str, Input]:
    """The table of inputs."""
    table = page.partition("<!-- inputs -->")[2].partition("<!-- end of inputs -->")[0]
    found = {}
    for row in _INPUT.finditer(table):
        found[row["what"]] = Input(float(row["value"].replace(",", "")), row["value"], row["source"])
    return found


def missing(given: Mapping[str, Input]) -> Iterator[str]:
    """Inputs that the row which they come from does not have."""
    for what, (_, text, source) in given.items():
        named = _SOURCE.search(source)
        if named is None:
            continue
        lines = (DOCS / named["page"]).resolve().read_text(encoding="utf-8").splitlines()
        row = named["code"] or named["row"]
        rows = [line for line in lines if line.startswith(f"| {row} |")]
        cells = [line.split(" | ")[int(named["column"])] if named["column"] else line for line in rows]
        if not any(re.search(rf"(?<![\d,.]){re.escape(text)}(?![\d,]|\.\d)", cell) for cell in cells):
            yield f"{what}: {text} is not in the row {row!r} of {named['page']}"


# -- the arithmetic -----------------------------------------------------------------------------------


class Provider:
    """The provider of the page, and what the parts cost."""

    def __init__(self, given: Mapping[str, Input]) -> None:
        self._given = given
        self.rate = self("RCPT a second, over all MX hosts")
        self.mx_hosts = self("MX hosts")
        self.mailbox_hosts = self("mailbox hosts")
        self.sites = self("database sites")

    def __call__(self, what: str) -> float:
        """The value of an input."""
        return self._given[what].value

    def cost(self, way: str, place: str) -> float:
        """Microseconds for a question at one place."""
        return sum(self(part.input) for part in WAYS[way] if part.place == place)

    def hosts(self, place: str) -> float:
        """How many there are of a place."""
        return {MX: self.mx_hosts, MAILBOX: self.mailbox_hosts, DATABASE: self.sites}[place]

    @property
    def per_host(self) -> float:
        """Mailboxes of a mailbox host."""
        return self("mailboxes") / self.mailbox_hosts

    @property
    def connections(self) -> float:
        """Of all MX hosts to the directory: one for each worker."""
        return self.mx_hosts * self("workers of cvm-directory on an MX host")

    def limits(self) -> Iterator[tuple[str, str, float]]:
        """What can be full: part, what it is measured by, and the share of it that is used."""
        second = 1e6
        each_mx, each_mailbox, each_site = (
            self.rate / hosts for hosts in (self.mx_hosts, self.mailbox_hosts, self.sites)
        )
        for way in (ROUTES, DIRECTORY):
            for part in WAYS[way]:
                rate = {MX: each_mx, MAILBOX: each_mailbox, DATABASE: each_site}[part.place]
                cores = self._cores(part)
                count = "one core" if cores == 1 else f"{cores:.0f} cores"
                yield (
                    f"{way.partition(':')[0]}: {part.name}, {part.place}",
                    count,
                    rate * self(part.input) / second / cores,
                )
        yield (
            "directory: connections, database",
            f"max_connections of {self('max_connections of a database'):,.0f}",
            self.connections / self.sites / self("max_connections of a database"),
        )
        yield (
            "directory: looking at a mailbox host, one process",
            "the time between two publications",
            self.per_host
            * self("looking at an address before it is published")
            / 1000
            / self("seconds between two publications"),
        )
        yield (
            "directory: renewing the times of domains, primary",
            "the time between two publications",
            self("domains") * self("renewing a domain") / second / self("seconds between two publications"),
        )
        yield (
            "directory: its tables in memory, database",
            f"{self('memory of a database for its tables'):,.0f} GB",
            self("mailboxes")
            * self("bytes of an address in MariaDB")
            / 1e9
            / self("memory of a database for its tables"),
        )

    def _cores(self, part: Part) -> float:
        if part.name in ("gateway", "HAProxy"):
            return 1
        names = {MX: "cores of an MX host", MAILBOX: "cores of a mailbox host", DATABASE: "cores of a database"}
        return self(names[part.place])


# -- the parts of the page ----------------------------------------------------------------------------


def _us(value: float) -> str:
    return f"{value:,.0f} us" if value else ""


def _share(value: float) -> str:
    return f"{value * 100:.1f} %" if value < 0.1 else f"{value * 100:.0f} %"


def one_core(provider: Provider) -> Iterator[str]:
    """What one core answers by each way of asking."""

    def rows() -> Iterator[tuple[str, ...]]:
        for way in WAYS:
            costs = [provider.cost(way, place) for place in (MX, MAILBOX, DATABASE)]
            yield way, *map(_us, costs), _us(sum(costs)), f"{1e6 / sum(costs):,.0f}"

    return table(("way", "MX host", "mailbox host", "database", "together", "one core answers a second"), rows())


def needs(provider: Provider) -> Iterator[str]:
    """What the provider needs, by each way for hosts of both kinds."""

    def rows() -> Iterator[tuple[str, ...]]:
        for way in (ROUTES, DIRECTORY, "directory in PostgreSQL"):
            for place in (MX, MAILBOX, DATABASE):
                cost = provider.cost(way, place)
                if not cost:
                    continue
                hosts = provider.hosts(place)
                cores = provider.rate * cost / 1e6
                planned = cores / provider("share of a core that is planned for")
                yield (
                    way,
                    place,
                    f"{provider.rate / hosts:,.0f}",
                    f"{cores:.1f}",
                    f"{planned:.0f}",
                    f"{planned / hosts:.2f}",
                )

    return table(
        ("way", "place", "questions a second for each", "cores, all busy", "cores to plan, in all", "for each"), rows()
    )


def saturation(provider: Provider) -> Iterator[str]:
    """Which part is full first."""

    def rows() -> Iterator[tuple[str, ...]]:
        for part, what, share in sorted(provider.limits(), key=lambda limit: -limit[2]):
            yield part, what, _share(share), f"{1 / share:,.1f}"

    return table(("part", "limit of one of them", "used", "full at so many times the load"), rows())


def loss(provider: Provider) -> Iterator[str]:
    """What the loss of a database site does."""
    left = provider.sites - 1
    seconds = provider("CVM_LOOKUP_TIMEOUT") / 4
    waiting = provider.rate / provider.sites * seconds
    cores = provider("cores of a database")
    used = provider.rate * provider("MariaDB, a question") / 1e6 / cores
    connections = provider.connections / provider("max_connections of a database")
    new = provider("mailboxes") * provider("new mailboxes a day, per thousand") / 1000 / 24

    def rows() -> Iterator[tuple[str, ...]]:
        most = f"{seconds:.2f} s (a quarter of CVM_LOOKUP_TIMEOUT)"
        yield f"questions that wait for the next server, each for up to {most}", f"up to {waiting:,.0f}", "0"
        yield "CPU of a database", _share(used / provider.sites), _share(used / left)
        yield "connections to a database", _share(connections / provider.sites), _share(connections / left)
        yield (
            "new mailboxes that wait for their publication, in each hour without a primary",
            "0",
            f"{new:,.0f}",
        )
        yield (
            "time until domains are temporary failures without a primary",
            "",
            f"{provider('CVM_DIRECTORY_MAX_AGE') / 3600:,.0f} hours",
        )

    return table(("what", "in the moment, or before", "afterwards"), rows())


def sizes(provider: Provider) -> Iterator[str]:
    """How large the directory is, and how long it takes to fill it."""
    look = provider.per_host * provider("looking at an address before it is published") / 1000
    write = provider("mailboxes") * provider("publishing a million addresses") / 1e6
    yield f"- A mailbox host has {provider.per_host:,.0f} mailboxes: `cvmctl publish` looks at them for {look:,.0f} s."
    yield (
        f"- The first publication of all {provider('mailboxes'):,.0f} addresses keeps the primary busy for"
        f" {write / 60:,.1f} minutes in all."
    )
    yield (
        f"- The tables have {provider('mailboxes') * provider('bytes of an address in MariaDB') / 1e9:,.1f} GB:"
        " they stay in memory."
    )
    busy = provider("domains") / provider("seconds between two publications")
    yield f"- The times of {ceil(busy):,} domains are renewed each second, a thousand in a statement."


PARTS: dict[str, Callable[[Provider], Iterator[str]]] = {
    "one core": one_core,
    "needs": needs,
    "sizes": sizes,
    "saturation": saturation,
    "loss": loss,
}


def made(page: str) -> str:
    """The page with its made parts as its inputs say."""
    provider = Provider(inputs(page))
    return with_parts(page, "scripts/scale", {name: partial(part, provider) for name, part in PARTS.items()})


def main(arguments: list[str]) -> int:
    """Writes or checks the page; the exit status."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = made(page)
    wrong = list(missing(inputs(page)))
    for line in wrong:
        print(line)
    if arguments == ["--check"]:
        if page != wanted:
            print("scale.md: not up to date, run scripts/scale")
        return int(page != wanted or bool(wrong))
    if page != wanted:
        PAGE.write_text(wanted, encoding="utf-8")
        print("scale.md: written")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
