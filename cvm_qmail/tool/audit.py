"""cvmctl audit: what qmail did with its mail, beside what the server would have said today.

Each local delivery in qmail-send's log has an outcome; each address in it is looked up with the
server's own look-ups.  Where they differ is what an administrator wants to know before and after
recipients are refused at the door:

    delivered, would be refused    must not be.  Listed first
    bounced, would be refused      the gain: mail that nobody would have taken in, bounces not sent
    bounced, would be accepted     mailboxes made since; else something that this software does not see
    cannot be told                 the look-up, or the way back to the envelope address, has no answer

Law: nothing is skipped silently (see `logfiles` and `sendlog`); memory is bounded (see `ledger`); an
address that qmail delivered to and bounced later is gone, and no cause for alarm.

Exit status: 0; 1 qmail delivered to an address that would be refused; else 111 if something could not
be told or read.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

import click

from cvm_qmail.answer import Unavailable, Verdict
from cvm_qmail.log import escape
from cvm_qmail.lookups import ModuleFactory
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Hazards, Tables
from cvm_qmail.tool import host, show
from cvm_qmail.tool.envelope import Way, way_back
from cvm_qmail.tool.given import module_named
from cvm_qmail.tool.ledger import Day, Gain, Kind, Ledger, Listed, Listing
from cvm_qmail.tool.logfiles import LogFiles
from cvm_qmail.tool.progress import progress
from cvm_qmail.tool.sendlog import Delivery, SendLog
from cvm_qmail.tool.show import SOME, TEMPORARY, Failure, text
from cvm_qmail.tool.workers import CANNOT_TELL, NAMES, WORDS, Service, Told, Workers, told

NO_WAY_BACK = "no-way-back"
"""Reason word: no address is rewritten to the logged one today."""

TOP = 10
"""Domains and names in the report."""

WIDTH = 64
"""Characters of an address in a table."""

_LOOK = 1000
"""Events between two moves of the progress bar."""


class Report(NamedTuple):
    """All that is printed, in whatever form."""

    files: int
    lines: int
    foreign: int
    not_understood: int
    too_long: int
    examples: list[bytes]
    damaged: list[tuple[str, str]]
    passed_over: list[str]
    overlaps: list[str]
    began_before: int
    troubles: int
    messages: int
    local: int
    remote: int
    addresses: int
    refused: Listing
    perhaps_refused: Listing
    """As above, but the log's spelling may stand for another address."""
    gone: int
    gain: Gain
    domains: list[Gain]
    names: Listing
    accepted: Listing
    unknown: Listing
    matrix: dict[tuple[str, str], int]
    days: list[Day]

    @property
    def status(self) -> int:
        """The exit status."""
        if self.refused.total:
            return SOME
        incomplete = self.unknown.total or self.perhaps_refused.total or self.damaged or self.not_understood
        return TEMPORARY if incomplete or self.too_long else 0

    @property
    def span(self) -> str:
        """From when to when."""
        if not self.days:
            return "without times"
        first, last = self.days[0].day, self.days[-1].day
        return first if first == last else f"{first} to {last}"


def service(factory: ModuleFactory) -> Service:
    """Looks up the envelope address of a logged one as a server would."""

    def made(settings: Settings, hazards: Hazards) -> Callable[[bytes], Told]:
        tables = Tables(settings, hazards=hazards)
        lookup = factory(tables, settings).lookup

        def answer(shown: bytes) -> Told:
            tables.begin()
            try:
                way = way_back(shown, tables.controls())
            except Unavailable as trouble:
                return Told(shown, shown, CANNOT_TELL, trouble.reason, b"", trouble.where, trouble.detail)
            if way is not None:
                return told(shown, way.address, lookup)
            answer = told(shown, shown, lookup)
            if answer.mark == Verdict.PASS.value and Way(shown).exact:  # its domain is not ours any more
                return answer
            detail = "today's control files rewrite no address to this"
            return Told(shown, shown, CANNOT_TELL, NO_WAY_BACK, b"", b"control/virtualdomains", detail)

        return answer

    return made


@click.command()
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("--html", metavar="FILE", help="Write the report as a web page too.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option("--show", "shown", type=click.IntRange(0), default=20, show_default=True, help="Addresses in each list.")
@click.option("--module", "name", metavar="NAME", default="cvm-qmail", help="The installed module to ask.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes to use.  [default: CVM_WORKERS, or the cores]")
@click.pass_context
def audit(
    context: click.Context,
    /,
    logs: tuple[str, ...],
    *,
    html: str | None,
    as_json: bool,
    shown: int,
    name: str,
    workers: int | None,
) -> None:
    """Compare what qmail did with its mail, by qmail-send's LOGs, with today's verdicts.

    A LOG is a file, a folder of them (as multilog and svlogd leave it), or - for standard input:
    with TAI64N labels, time stamps, or lines of splogger in a syslog; compressed by gzip, bzip2, xz, or
    (with the Python package zstandard) zstd.  Give the files of one host only, and each line only once.

    \b
      cvmctl audit /var/log/qmail/send
      cvmctl audit --html report.html /var/log/mail.log*

    The exit status is 1 if qmail delivered to an address that would be refused; else 111 if something
    could not be told, read or understood.
    """  # noqa: D301  click knows the control character, not the backslash
    settings = host.settings()
    host.warn_of_rights()
    factory = module_named(name)
    factory(Tables(settings), settings)  # what is wrong with its settings is said now
    try:
        report = audited(LogFiles(map(os.fsencode, logs)), settings, service(factory), shown, workers)
    except sqlite3.Error as error:
        raise Failure(f"the temporary database (see TMPDIR): {error}", TEMPORARY) from None
    if not report.lines and report.damaged:  # else it looks like good news
        raise Failure("; ".join(f"{name}: {why}" for name, why in report.damaged), TEMPORARY)
    if as_json:
        show.json_line(_plain(report))
    else:
        _print(report)
    if html is not None:
        from cvm_qmail.tool.report import page

        with open(html, "w", encoding="ascii") as out:
            out.write(page(report))
    context.exit(report.status)


def audited(files: LogFiles, settings: Settings, service: Service, shown: int, workers: int | None = None) -> Report:
    """Reads the logs, asks, and sums up."""
    log, ledger = SendLog(), Ledger()
    messages, remote, local = _read(files, log, ledger)
    count = ledger.addresses
    with progress("looking up", count) as step, Workers(settings, service, workers) as pool:
        for _ in ledger.judge(pool.ask(ledger.logged())):
            step(1)
    return Report(
        files=len(files.sources),
        lines=files.lines,
        foreign=files.foreign,
        not_understood=log.not_understood,
        too_long=files.too_long,
        examples=log.examples,
        damaged=files.damaged,
        passed_over=files.passed_over,
        overlaps=files.overlaps,
        began_before=log.began_before,
        troubles=log.troubles,
        messages=messages,
        local=local,
        remote=remote,
        addresses=count,
        refused=ledger.refused_though_delivered(shown, exact=True),
        perhaps_refused=ledger.refused_though_delivered(shown, exact=False),
        gone=ledger.gone(),
        gain=ledger.gain(),
        domains=ledger.domains(TOP),
        names=ledger.names(TOP),
        accepted=ledger.accepted_though_bounced(shown),
        unknown=ledger.cannot_be_told(shown),
        matrix=ledger.matrix(),
        days=list(ledger.days()),
    )


def _read(files: LogFiles, log: SendLog, ledger: Ledger) -> tuple[int, int, int]:
    """Fills the ledger; how many messages, remote and local deliveries there were."""
    messages = remote = local = 0
    with progress("reading", files.size) as step:
        read = 0
        for number, event in enumerate(log.follow(files.read())):
            if not isinstance(event, Delivery):
                messages += 1
                ledger.message(event)
            elif event.local:
                local += 1
                ledger.delivery(event)
            else:
                remote += 1
            if number % _LOOK == 0:
                step(files.bytes_read - read)
                read = files.bytes_read
    ledger.flush()
    return messages, remote, local


# -- what is printed ----------------------------------------------------------------------------------


def trace_command(address: bytes) -> str:
    """What to type to see why; printable ASCII, whatever the address."""
    if all(32 <= byte < 127 for byte in address):
        word = shlex.quote(address.decode())
    else:
        word = "$'" + escape(address).replace("'", "\\'") + "'"
    return f"cvmctl trace {'-- ' if address.startswith(b'-') else ''}{word}"


def size(count: int) -> str:
    """A number of bytes for people."""
    number, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"


def counted(count: int, what: str) -> str:
    """A number of things."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def times(count: int) -> str:
    """How often."""
    return "once" if count == 1 else f"{count:,} times"


def remarks(report: Report) -> list[str]:
    """What was odd about the logs."""
    numbers = (
        ("lines not understood", report.not_understood),
        ("lines too long to be read", report.too_long),
        ("lines of other programs, passed over", report.foreign),
        ("deliveries that began before this log, nobody knows to whom", report.began_before),
        ("alerts and warnings of qmail-send", report.troubles),
    )
    remarks = [f"{what}: {count:,}" for what, count in numbers if count]
    remarks += [f"not understood: {text(example)[:200]}" for example in report.examples]
    remarks += [f"{name}: not read to its end: {why}" for name, why in report.damaged]
    remarks += [f"{name}: passed over, not a plain file" for name in report.passed_over]
    remarks += [
        f"{name}: begins before the file read before it ends: are lines there twice?" for name in report.overlaps
    ]
    return remarks


def _print(report: Report) -> None:
    show.line(
        f"qmail-send's log, {report.span}: {counted(report.files, 'file')}, {counted(report.lines, 'line')},"
        f" {counted(report.messages, 'message')}, {report.local:,} local and {report.remote:,} remote deliveries,"
        f" {counted(report.addresses, 'local address')}",
        "title",
    )
    _list("Delivered by qmail, and would be refused", report.refused, "no", traced=True)
    if report.perhaps_refused.total:
        _list(
            "The same, but the log writes other bytes as _ and / too, so that it may have been another address",
            report.perhaps_refused,
            "trouble",
            traced=True,
        )
    if report.gone:
        show.line(f"  ({report.gone:,} more were delivered to once, but qmail bounced them since)", "dim")
    _print_gain(report)
    _list("Bounced for lack of a mailbox, and would be accepted", report.accepted, "trouble", traced=True)
    _list("Cannot be told", report.unknown, "trouble", traced=False)
    show.line("")
    show.line("Local deliveries by outcome and verdict of today:", "title")
    show.table(
        ("outcome", *WORDS.values()),
        [[kind.value, *(f"{report.matrix.get((kind.value, mark), 0):,}" for mark in WORDS)] for kind in Kind],
        right=tuple(WORDS.values()),
    )
    for remark in remarks(report):
        show.line(f"Note: {remark}", "trouble")


def _print_gain(report: Report) -> None:
    gain = report.gain
    show.line("")
    show.line(
        f"Bounced, and would be refused at the door: {deliveries(gain)}",
        "yes",
    )
    if not gain.deliveries:
        return
    show.line(
        f"  {counted(gain.messages, 'message')} ({size(gain.size)}) would not have been taken in,"
        f" {counted(gain.bounces, 'bounce')} not been sent"
    )
    show.table(
        ("domain", "deliveries", "addresses", "messages", "size", "bounces"),
        [
            (
                text(one.domain),
                f"{one.deliveries:,}",
                f"{one.addresses:,}",
                f"{one.messages:,}",
                size(one.size),
                f"{one.bounces:,}",
            )
            for one in report.domains
        ],
        right=("deliveries", "addresses", "messages", "size", "bounces"),
    )
    show.table(
        ("refused most", "deliveries", "reason"),
        [(shortened(one.address), f"{one.deliveries:,}", one.reason) for one in report.names.first],
        right=("deliveries",),
    )


def deliveries(gain: Gain) -> str:
    """How many deliveries, to how many addresses."""
    number = f"{gain.deliveries:,} {'delivery' if gain.deliveries == 1 else 'deliveries'}"
    return f"{number} to {counted(gain.addresses, 'address')}"


def shortened(address: bytes) -> str:
    """An address that is not too long for a table."""
    return text(address) if len(address) <= WIDTH else text(address[: WIDTH // 2] + b"..." + address[-WIDTH // 3 :])


def _list(title: str, listing: Listing, style: str, *, traced: bool) -> None:
    show.line("")
    if not listing.total:
        show.line(f"{title}: none", "yes")
        return
    show.line(f"{title}: {counted(listing.total, 'address')}", style)
    for one in listing.first:
        show.line(f"  {described(one)}")
        if traced:
            click.echo(f"    {trace_command(one.address)}")
    if listing.total > len(listing.first):
        show.line(f"  and {listing.total - len(listing.first):,} more (--show)", "dim")


def described(one: Listed) -> str:
    """An address in a list: what was said of it, and what became of its mail."""
    why = " ".join(filter(None, (one.reason, text(one.where), one.detail)))
    last = f", last {one.last_day}" if one.last_day else ""
    if not one.exact:
        last += "; the log may mean another address"
    return f"{text(one.address)}  {why}  ({times(one.deliveries)}{last})"


def _plain(report: Report) -> dict[str, object]:
    """For JSON."""
    plain = {name: _parts(value) for name, value in report._asdict().items() if name != "matrix"}
    plain["outcomes"] = [
        {"outcome": kind, "verdict": NAMES[mark], "deliveries": count}
        for (kind, mark), count in sorted(report.matrix.items())
    ]
    return plain


def _parts(value: object) -> object:
    if isinstance(value, list):
        return [_parts(part) for part in value]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _parts(part) for name, part in value._asdict().items()}
    return value
