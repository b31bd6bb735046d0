"""cvmctl check: what would become of many addresses, asked in this process and its children.

Invariants: the lookups are those of the server (`cvm_qmail.qmail`), with its settings and rights; no
server has to run.  What is printed is escaped on its way out (`ui.output`), in CSV as in the log.

Exit status: 0 none was rejected; 1 one was; 111 one could not be determined (before 1).
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import click

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.check import mailbox
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.pool import Pool, Result, Service, look_up_one
from cvm_qmail.cvmctl.host.rewriting import original_address
from cvm_qmail.cvmctl.host.sources import Source, plain_size, readable
from cvm_qmail.cvmctl.host.verdicts import FAILED, ORDER, WORDS
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import module_named
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, text
from cvm_qmail.cvmctl.ui.progress import progress
from cvm_qmail.escape import escape_text
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.plugin import ModuleFactory
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard, Tables

FIELDS = ("address", "verdict", "reason", "user", "where", "detail")


def service(factory: ModuleFactory) -> Service:
    """Looks up addresses as a server would."""

    def made(settings: Settings, hang_guard: HangGuard) -> Callable[[bytes], Result]:
        tables = Tables(settings, hang_guard=hang_guard)
        lookup = make_lookup(tables, factory(tables, settings))
        return lambda address: look_up_one(address, address, lookup)

    return made


@click.command()
@click.argument("file", default="-")
@click.option(
    "--mbox/--list", "mbox", default=None, help="FILE is a mailbox, or a list.  [default: as its first line shows]"
)
@click.option(
    "--header",
    "headers",
    metavar="NAME",
    multiple=True,
    default=mailbox.HEADERS,
    show_default=True,
    help="The header of a mailbox to take addresses from (may be repeated).",
)
@click.option("--csv", "form", flag_value="csv", help="Print a line of CSV for each address, and a header.")
@click.option("--json", "form", flag_value="json", help="Print a JSON object for each address, each on one line.")
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
    """Look up all addresses in FILE, and print which would be accepted.

    FILE is a list with an address on each line, or a mailbox (mbox), from whose headers the addresses
    are taken; compressed files are read too, and - or nothing is standard input.  The lookups are made
    here, on all cores, with the settings and rights of this command: run it as the server runs, with the
    server's environment.

    \b
      cvmctl check addresses.txt
      cvmctl check --csv Mailbox > verdicts.csv
      zcat old.mbox.gz | cvmctl check --mbox --header To --json

    The exit status is 1 if an address was rejected, 111 if one could not be determined.
    """  # noqa: D301  click knows the control character, not the backslash
    settings = files.settings()
    files.warn_of_rights()
    factory = module_named(name)
    tables = Tables(settings)
    factory(tables, settings)  # what is wrong with a plug-in or its settings is said now
    found = Tally(shown)
    bar = form is None or not sys.stdout.isatty()
    with Source(os.fsencode(file)).open() as opened, progress("looking up", plain_size(opened), wanted=bar) as step:
        lines = readable(mailbox.lines_of(opened, step), file)
        source = _addresses(lines, mbox, headers, _undelivered(tables))
        with Pool(settings, service(factory), workers) as pool:
            _PRINT[form](found.count(answer) for answer in answers(source, pool))
    if form is None:  # when the bar is gone
        _table(found)
    context.exit(found.status)


class Tally:
    """The number of results of each kind, and examples of rejections and temporary failures."""

    def __init__(self, shown: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, list[Result]] = {"-": [], FAILED: []}
        self._shown = shown

    def count(self, answer: Result) -> Result:
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
        return TEMPORARY if self.of(FAILED) else SOME if self.of("-") else 0


def _undelivered(tables: Tables) -> Callable[[bytes], bytes]:
    """From the address in Delivered-To to that of the envelope."""
    try:
        controls = tables.controls()
    except Unavailable:
        return bytes  # each lookup will say so

    def back(address: bytes) -> bytes:
        way = original_address(address, controls)
        return address if way is None else way.address

    return back


def _addresses(
    lines: Iterator[bytes], mbox: bool | None, headers: Iterable[str], undelivered: Callable[[bytes], bytes]
) -> Iterator[mailbox.Found]:
    first = next(lines, b"")
    lines = chain([first], lines) if first else lines
    if mbox if mbox is not None else mailbox.is_mbox(first):
        return mailbox.in_mbox(lines, headers, undelivered)
    return mailbox.in_list(lines)


def answers(source: Iterable[mailbox.Found], pool: Pool) -> Iterator[Result]:
    """The answers for all that was found; what is too long is a temporary failure."""
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


def _too_long(odd: list[mailbox.Found]) -> Iterator[Result]:
    while odd:
        found = odd.pop(0)
        begin = found.address[:60] + b"..."
        detail = f"line {found.line} is longer than {mailbox.LINE_LIMIT} bytes"
        yield Result(begin, begin, FAILED, "too-long", b"", b"", detail)


# -- what is printed ----------------------------------------------------------------------------------


def _fields(answer: Result) -> dict[str, str]:
    return dict(
        zip(
            FIELDS,
            (
                text(answer.asked),
                WORDS[answer.mark],
                answer.reason,
                text(answer.user),
                text(answer.where),
                answer.detail,
            ),
            strict=True,
        )
    )


def _as_csv(results: Iterable[Result]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(FIELDS)
    for answer in results:
        writer.writerow(escape_text(value) for value in _fields(answer).values())


def _as_json(results: Iterable[Result]) -> None:
    for answer in results:
        output.json_line({name: value or None for name, value in _fields(answer).items()})


def _count(results: Iterable[Result]) -> None:
    """Only counts."""
    deque(results, 0)


def _table(tally: Tally) -> None:
    total = sum(tally.counts.values())
    rows = sorted(tally.counts.items(), key=lambda row: (ORDER.index(row[0][0]), -row[1], row[0][1]))
    output.table(
        ("verdict", "reason", "addresses"),
        [(WORDS[mark], reason, f"{count:,}") for (mark, reason), count in rows] + [("all", "", f"{total:,}")],
        right=("addresses",),
    )
    for mark, examples in tally.examples.items():
        _list(mark, examples, tally.of(mark))


def _list(mark: str, examples: list[Result], count: int) -> None:
    if not examples:
        return
    output.line("")
    output.line(f"{WORDS[mark]}:", "no" if mark == "-" else "failure")
    for answer in examples:
        why = " ".join(filter(None, (answer.reason, text(answer.where), answer.detail)))
        output.line(f"  {text(answer.asked)}  {why}")
    if count > len(examples):
        output.line(f"  and {count - len(examples):,} more: --csv or --json prints them all", "dim")


_PRINT: dict[str | None, Callable[[Iterable[Result]], None]] = {"csv": _as_csv, "json": _as_json, None: _count}
