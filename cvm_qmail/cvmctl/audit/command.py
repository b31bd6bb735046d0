"""cvmctl audit: the outcome of each delivery in qmail-send's logs, compared with today's verdict.

Each local delivery in the logs has an outcome; its address is looked up with the server's own lookups.  An
administrator wants to see the differences before and after recipients are rejected at RCPT:

    delivered, would be rejected   must not happen.  Listed first
    bounced, would be rejected     the gain: mail that would not have been accepted, bounces not sent
    bounced, would be accepted     mailboxes made since then; else something that this software does not see
    temporary failure              the lookup has no answer, or the envelope address was not found

Invariants: nothing is skipped silently (see `logfiles` and `sendlog`); memory is bounded (see `store`); an
address that qmail delivered to and later bounced was removed, and is no cause for alarm.

Exit status: 0; 1 qmail delivered to an address that would be rejected; else 111 if something could not
be determined or read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

import click

from cvm_qmail.answer import Unavailable, Verdict
from cvm_qmail.cvmctl.audit.figures import NOBODY, Kind, Listing
from cvm_qmail.cvmctl.audit.logfiles import LogFiles
from cvm_qmail.cvmctl.audit.sendlog import Delivery, SendLog
from cvm_qmail.cvmctl.audit.store import Store
from cvm_qmail.cvmctl.audit.summary import (
    FORWARDED,
    Report,
    deliveries,
    described,
    remarks,
    shortened,
    size,
    trace_command,
)
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.pool import Pool, Result, Service, look_up_one
from cvm_qmail.cvmctl.host.rewriting import Origin, original_address
from cvm_qmail.cvmctl.host.verdicts import FAILED, WORDS
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import module_named
from cvm_qmail.cvmctl.ui.output import TEMPORARY, Failure, counted, text
from cvm_qmail.cvmctl.ui.progress import progress
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.plugin import ModuleFactory
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard, Tables

NO_WAY_BACK = "no-way-back"
"""Reason word: no address is rewritten to the logged one today."""

TOP = 10
"""The number of domains and names in the report."""

_LOOK = 1000
"""Events between two moves of the progress bar."""


def service(factory: ModuleFactory) -> Service:
    """Looks up the envelope address of each logged one, as a server would."""

    def made(settings: Settings, hang_guard: HangGuard) -> Callable[[bytes], Result]:
        tables = Tables(settings, hang_guard=hang_guard)
        lookup = make_lookup(tables, factory(tables, settings._replace(follow=True)))

        def answer(shown: bytes) -> Result:
            tables.request()
            try:
                way = original_address(shown, tables.controls())
            except Unavailable as error:
                return Result(shown, shown, FAILED, error.reason, b"", error.where, error.detail)
            if way is not None:
                result = look_up_one(shown, way.address, lookup)
                # qmail delivers such mail and the forwards bounce, so it has a list of its own in the report
                return result._replace(mark=Verdict.ACCEPTED.value) if result.reason == NOBODY else result
            result = look_up_one(shown, shown, lookup)
            if result.mark == Verdict.OUT_OF_SCOPE.value and Origin(shown).exact:  # its domain is no longer this host's
                return result
            detail = "today's control files rewrite no address to this"
            return Result(shown, shown, FAILED, NO_WAY_BACK, b"", b"control/virtualdomains", detail)

        return answer

    return made


@click.command()
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("--html", metavar="FILE", help="Also write the report as a web page.")
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
    """Compare the deliveries in qmail-send's LOGs with today's verdicts.

    A LOG is a file, a directory of multilog or svlogd, or - for standard input.  It may have TAI64N labels,
    time stamps, or lines of splogger in a syslog, and may be compressed by gzip, bzip2, xz, or (with the
    Python package zstandard) zstd.  Give the files of one host only, and each line only once.

    \b
      cvmctl audit /var/log/qmail/send
      cvmctl audit --html report.html /var/log/mail.log*

    The exit status is 1 if qmail delivered to an address that would be rejected; else 111 if something
    could not be determined, read or understood.
    """  # noqa: D301  click knows the control character, not the backslash
    settings = files.settings()
    files.warn_of_rights()
    factory = module_named(name)
    factory(Tables(settings), settings)  # a wrong setting is reported now
    try:
        report = audited(LogFiles(map(os.fsencode, logs)), settings, service(factory), shown, workers)
    except sqlite3.Error as error:
        raise Failure(f"the temporary database (see TMPDIR): {error}", TEMPORARY) from None
    if not report.lines and report.damaged:  # an empty report would look like good news
        raise Failure("; ".join(f"{name}: {why}" for name, why in report.damaged), TEMPORARY)
    if as_json:
        output.json_line(_plain(report))
    else:
        _print(report)
    if html is not None:
        from cvm_qmail.cvmctl.audit.html import page

        with open(html, "w", encoding="ascii") as out:
            out.write(page(report))
    context.exit(report.status)


def audited(files: LogFiles, settings: Settings, service: Service, shown: int, workers: int | None = None) -> Report:
    """Reads the logs, looks up their addresses, and makes the report.  Raises `sqlite3.Error`."""
    log = SendLog()
    with closing(Store()) as store:
        messages, remote, local = _read(files, log, store)
        count = store.addresses
        with progress("looking up", count) as step, Pool(settings, service, workers) as pool:
            for _ in store.judge(pool.ask(store.logged())):
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
            warnings=log.warnings,
            messages=messages,
            local=local,
            remote=remote,
            addresses=count,
            refused=store.refused_though_delivered(shown, exact=True),
            perhaps_refused=store.refused_though_delivered(shown, exact=False),
            gone=store.gone(),
            gain=store.gain(),
            domains=store.domains(TOP),
            names=store.names(TOP),
            accepted=store.accepted_though_bounced(shown),
            unknown=store.temporary_failures(shown),
            forwarded=store.forwarded_to_nobody(shown),
            matrix=store.matrix(),
            days=list(store.days()),
        )


def _read(files: LogFiles, log: SendLog, store: Store) -> tuple[int, int, int]:
    """Fills the store; returns the number of messages, remote deliveries and local deliveries."""
    messages = remote = local = 0
    with progress("reading", files.size) as step:
        read = 0
        for number, event in enumerate(log.follow(files.read())):
            if not isinstance(event, Delivery):
                messages += 1
                store.message(event)
            elif event.local:
                local += 1
                store.delivery(event)
            else:
                remote += 1
            if number % _LOOK == 0:
                step(files.bytes_read - read)
                read = files.bytes_read
    store.flush()
    return messages, remote, local


# -- what is printed ----------------------------------------------------------------------------------


def _print(report: Report) -> None:
    output.line(
        f"qmail-send's log, {report.span}: {counted(report.files, 'file')}, {counted(report.lines, 'line')},"
        f" {counted(report.messages, 'message')}, {report.local:,} local and {report.remote:,} remote deliveries,"
        f" {counted(report.addresses, 'local address')}",
        "title",
    )
    _list("Delivered by qmail, and would be rejected", report.refused, "no", traced=True)
    if report.perhaps_refused.total:
        _list(
            "The same, but the log writes other bytes as _ or / too, so it may have been another address",
            report.perhaps_refused,
            "failure",
            traced=True,
        )
    if report.gone:
        output.line(f"  ({report.gone:,} more were delivered to in the past, but qmail has bounced them since)", "dim")
    _print_gain(report)
    _list("Bounced for lack of a mailbox, and would be accepted", report.accepted, "failure", traced=True)
    if report.forwarded.total:
        _list(FORWARDED, report.forwarded, "failure", traced=True)
    _list("Temporary failure", report.unknown, "failure", traced=False)
    output.line("")
    output.line("Local deliveries by outcome and today's verdict:", "title")
    output.table(
        ("outcome", *WORDS.values()),
        [[kind.value, *(f"{report.matrix.get((kind.value, mark), 0):,}" for mark in WORDS)] for kind in Kind],
        right=tuple(WORDS.values()),
    )
    for remark in remarks(report):
        output.line(f"Note: {remark}", "failure")


def _print_gain(report: Report) -> None:
    gain = report.gain
    output.line("")
    output.line(
        f"Bounced, and would be rejected at RCPT: {deliveries(gain)}",
        "yes",
    )
    if not gain.deliveries:
        return
    output.line(
        f"  {counted(gain.messages, 'message')} ({size(gain.size)}) would have been rejected,"
        f" and {counted(gain.bounces, 'bounce')} not sent"
    )
    output.table(
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
    output.table(
        ("rejected most", "deliveries", "reason"),
        [(shortened(one.address), f"{one.deliveries:,}", one.reason) for one in report.names.first],
        right=("deliveries",),
    )


def _list(title: str, listing: Listing, style: str, *, traced: bool) -> None:
    output.line("")
    if not listing.total:
        output.line(f"{title}: none", "yes")
        return
    output.line(f"{title}: {counted(listing.total, 'address')}", style)
    for one in listing.first:
        output.line(f"  {described(one)}")
        if traced:
            click.echo(f"    {trace_command(one.address)}")
    if listing.total > len(listing.first):
        output.line(f"  and {listing.total - len(listing.first):,} more (--show)", "dim")


def _plain(report: Report) -> dict[str, object]:
    """The report as values for JSON."""
    plain = {name: _parts(value) for name, value in report._asdict().items() if name != "matrix"}
    plain["outcomes"] = [
        {"outcome": kind, "verdict": WORDS[mark], "deliveries": count}
        for (kind, mark), count in sorted(report.matrix.items())
    ]
    return plain


def _parts(value: object) -> object:
    if isinstance(value, list):
        return [_parts(part) for part in value]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _parts(part) for name, part in value._asdict().items()}
    return value
