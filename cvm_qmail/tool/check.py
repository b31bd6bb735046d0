"""cvmctl check: what would become of many addresses, asked in this process and its children.

Law: the look-ups are those of the server (`cvm_qmail.lookups`), with its settings and rights; no
server has to run.  What is printed is escaped on its way out (`show`), in CSV as in the log.

Exit status: 0 none was rejected; 1 one was; 111 one could not be told (before 1).
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import IO

import click

from cvm_qmail.answer import Unavailable
from cvm_qmail.log import escape_text
from cvm_qmail.lookups import ModuleFactory
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Hazards, Tables
from cvm_qmail.tool import host, mailbox, show
from cvm_qmail.tool.envelope import way_back
from cvm_qmail.tool.given import module_named
from cvm_qmail.tool.logfiles import DAMAGE, Source, plain_size
from cvm_qmail.tool.progress import progress
from cvm_qmail.tool.show import SOME, TEMPORARY, text
from cvm_qmail.tool.workers import CANNOT_TELL, NAMES, WORDS, Service, Told, Workers, told

FIELDS = ("address", "verdict", "reason", "user", "where", "detail")

_ORDER = "-?+="
"""What concerns a person most comes first."""


def service(factory: ModuleFactory) -> Service:
    """Looks addresses up as a server would."""

    def made(settings: Settings, hazards: Hazards) -> Callable[[bytes], Told]:
        lookup = factory(Tables(settings, hazards=hazards), settings).lookup
        return lambda address: told(address, address, lookup)

    return made


@click.command()
@click.argument("file", default="-")
@click.option(
    "--mbox/--list", "mbox", default=None, help="FILE is a mailbox, or a list.  [default: told by its first line]"
)
@click.option(
    "--header",
    "headers",
    metavar="NAME",
    multiple=True,
    default=mailbox.HEADERS,
    show_default=True,
    help="Of a mailbox, the header to take addresses from (may be repeated).",
)
@click.option("--csv", "form", flag_value="csv", help="Print a line for each address as CSV, with a head.")
@click.option("--json", "form", flag_value="json", help="Print a JSON object for each address, one on a line.")
@click.option(
    "--show", "shown", type=click.IntRange(0), default=20, show_default=True, help="Addresses to list below the table."
)
@click.option("--module", "name", metavar="NAME", default="cvm-qmail", help="The installed module to ask.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes to use.  [default: CVM_WORKERS, or the cores]")
@click.pass_context
def check(
    context: click.Context,
    /,
    file: str,
    *,
    mbox: bool | None,
    headers: tuple[str, ...],
    form: str | None,
    shown: int,
    name: str,
    workers: int | None,
) -> None:
    """Look up all addresses in FILE, and say which would be accepted, and which not.

    FILE is a list with an address on each line, or a mailbox (mbox), from whose headers the addresses
    are taken; compressed files are read too, and - or nothing is standard input.  The look-ups are made
    here, on all cores, with the settings and rights of this command: run it as the server runs, with the
    server's environment.

    \b
      cvmctl check addresses.txt
      cvmctl check --csv Mailbox > verdicts.csv
      zcat old.mbox.gz | cvmctl check --mbox --header To --json

    The exit status is 1 if an address was rejected, 111 if one could not be told.
    """  # noqa: D301  click knows the control character, not the backslash
    settings = host.settings()
    host.warn_of_rights()
    factory = module_named(name)
    tables = Tables(settings)
    factory(tables, settings)  # what is wrong with a plug-in or its settings is said now
    found = Tally(shown)
    try:
        bar = form is None or not sys.stdout.isatty()
        with Source(os.fsencode(file)).open() as opened, progress("looking up", plain_size(opened), wanted=bar) as step:
            source = _addresses(opened, mbox, headers, _undelivered(tables), step)
            with Workers(settings, service(factory), workers) as pool:
                _PRINT[form](found.count(answer) for answer in answers(source, pool))
    except DAMAGE as damage:
        raise show.Failure(f"{file}: {damage}", TEMPORARY) from None
    if form is None:  # when the bar is gone
        _table(found)
    context.exit(found.status)


class Tally:
    """How many there were of each kind, and some of those that concern a person."""

    def __init__(self, shown: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, list[Told]] = {"-": [], CANNOT_TELL: []}
        self._shown = shown

    def count(self, answer: Told) -> Told:
        """The same answer, counted."""
        self.counts[answer.mark, answer.reason] += 1
        examples = self.examples.get(answer.mark)
        if examples is not None and len(examples) < self._shown:
            examples.append(answer)
        return answer

    def of(self, mark: str) -> int:
        """How many addresses have this verdict."""
        return sum(count for (of, _), count in self.counts.items() if of == mark)

    @property
    def status(self) -> int:
        """The exit status."""
        return TEMPORARY if self.of(CANNOT_TELL) else SOME if self.of("-") else 0


def _undelivered(tables: Tables) -> Callable[[bytes], bytes]:
    """From what Delivered-To says to the envelope's address."""
    try:
        controls = tables.controls()
    except Unavailable:
        return bytes  # each look-up will say so

    def back(address: bytes) -> bytes:
        way = way_back(address, controls)
        return address if way is None else way.address

    return back


def _addresses(
    file: IO[bytes],
    mbox: bool | None,
    headers: Iterable[str],
    undelivered: Callable[[bytes], bytes],
    step: Callable[[int], None],
) -> Iterator[mailbox.Found]:
    lines = mailbox.lines_of(file, step)
    first = next(lines, b"")
    lines = chain([first], lines) if first else lines
    if mbox if mbox is not None else mailbox.is_mbox(first):
        return mailbox.in_mbox(lines, headers, undelivered)
    return mailbox.in_list(lines)


def answers(source: Iterable[mailbox.Found], pool: Workers) -> Iterator[Told]:
    """The answers for all that was found; what is too long cannot be told."""
    odd: list[mailbox.Found] = []

    def sound() -> Iterator[bytes]:
        for found in source:
            if found.too_long:
                odd.append(found)
            else:
                yield found.address

    for answer in pool.ask(sound()):
        yield from _too_long(odd)
        yield answer
    yield from _too_long(odd)


def _too_long(odd: list[mailbox.Found]) -> Iterator[Told]:
    while odd:
        found = odd.pop(0)
        begin = found.address[:60] + b"..."
        detail = f"line {found.line} is longer than {mailbox.LINE_LIMIT} bytes"
        yield Told(begin, begin, CANNOT_TELL, "too-long", b"", b"", detail)


# -- what is printed ----------------------------------------------------------------------------------


def _fields(answer: Told) -> dict[str, str]:
    return dict(
        zip(
            FIELDS,
            (
                text(answer.asked),
                NAMES[answer.mark],
                answer.reason,
                text(answer.user),
                text(answer.where),
                answer.detail,
            ),
            strict=True,
        )
    )


def _as_csv(told: Iterable[Told]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(FIELDS)
    for answer in told:
        writer.writerow(escape_text(value) for value in _fields(answer).values())


def _as_json(told: Iterable[Told]) -> None:
    for answer in told:
        show.json_line({name: value or None for name, value in _fields(answer).items()})


def _count(told: Iterable[Told]) -> None:
    """Only counts."""
    deque(told, 0)


def _table(tally: Tally) -> None:
    total = sum(tally.counts.values())
    rows = sorted(tally.counts.items(), key=lambda row: (_ORDER.index(row[0][0]), -row[1], row[0][1]))
    show.table(
        ("verdict", "reason", "addresses"),
        [(WORDS[mark], reason, f"{count:,}") for (mark, reason), count in rows] + [("all", "", f"{total:,}")],
        right=("addresses",),
    )
    for mark, examples in tally.examples.items():
        _list(mark, examples, tally.of(mark))


def _list(mark: str, examples: list[Told], count: int) -> None:
    if not examples:
        return
    show.line("")
    show.line(f"{WORDS[mark]}:", "no" if mark == "-" else "trouble")
    for answer in examples:
        why = " ".join(filter(None, (answer.reason, text(answer.where), answer.detail)))
        show.line(f"  {text(answer.asked)}  {why}")
    if count > len(examples):
        show.line(f"  and {count - len(examples):,} more: --csv or --json prints them all", "dim")


_PRINT: dict[str | None, Callable[[Iterable[Told]], None]] = {"csv": _as_csv, "json": _as_json, None: _count}
