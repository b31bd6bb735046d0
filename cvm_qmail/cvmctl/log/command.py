"""cvmctl log: lines of a server's log that are wanted; what a day comes to; a digest for cron.

Exit status: 0; 111 a file cannot be read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from typing import IO

import click

from cvm_qmail.cvmctl.host.log_entries import LIMIT, Entry, parse
from cvm_qmail.cvmctl.host.sources import Source, readable
from cvm_qmail.cvmctl.host.timestamps import time_of
from cvm_qmail.cvmctl.host.verdicts import OUTCOME_STYLES
from cvm_qmail.cvmctl.log.summary import Summary, as_html, as_text
from cvm_qmail.cvmctl.ui.output import log_line

WAIT = 0.2
"""Seconds between two looks at a file that is followed."""

Wanted = Callable[[Entry], bool]


def _day(_: click.Context, parameter: click.Parameter, value: str | None) -> date | None:
    """The date that a person means."""
    if value is None:
        return None
    today = datetime.now(UTC).date()
    try:
        return {"today": today, "yesterday": today - timedelta(1)}.get(value) or date.fromisoformat(value)
    except ValueError:
        expected = f"found {value!r}, expected today, yesterday, or a date like {today}"
        raise click.BadParameter(expected, param=parameter) from None


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-f", "--follow", is_flag=True, help="Follow the last file as it grows or is replaced.")
@click.option("--outcome", type=click.Choice(list(OUTCOME_STYLES)), help="Only this outcome.")
@click.option("--reason", help="Only this reason word.")
@click.option("--domain", help="Only addresses of this domain.")
@click.option("--user", help="Only this controlling user.")
@click.option("--day", callback=_day, metavar="DAY", help="Only this day: today, yesterday, or YYYY-MM-DD.")
@click.option("--summary", is_flag=True, help="Print a summary instead of the lines.")
@click.option("--digest", type=click.Choice(["text", "html"]), help="Print the summary as the body of a mail.")
def log(
    *,
    files: tuple[str, ...],
    follow: bool,
    outcome: str | None,
    reason: str | None,
    domain: str | None,
    user: str | None,
    day: date | None,
    summary: bool,
    digest: str | None,
) -> None:
    """Show lines of a server's log, from FILES or standard input, in either format of CVM_LOG.

    Compressed files are read too.  A day begins and ends by the clock of the time stamps, which svlogd, multilog
    and s6-log write in UTC.  The exit status is 111 if a file cannot be read.

    \b
      cvmctl log -f /var/log/cvm-rcptto/current --outcome "temporary failure"
      journalctl -u cvm-rcptto -o cat --since yesterday | cvmctl log --summary
      cvmctl log --day yesterday --digest text /var/log/cvm-rcptto/*.s /var/log/cvm-rcptto/current
    """  # noqa: D301  click knows the control character, not the backslash
    if follow and (summary or digest):
        raise click.UsageError("--follow goes with neither --summary nor --digest")
    wishes: list[tuple[str | None, Callable[[Entry], str]]] = [
        (outcome, lambda entry: entry.outcome),
        (reason, lambda entry: entry.reason),
        (domain and domain.lower(), lambda entry: entry.domain),
        (user, lambda entry: entry.user),
    ]

    def wanted(entry: Entry) -> bool:
        return all(wish is None or wish == of(entry) for wish, of in wishes)

    lines = (line for line in _lines(files or ("-",), follow=follow) if day is None or is_of(line, day))
    if summary or digest:
        found = Summary(entry for line in lines if (entry := parse(line)) is not None and wanted(entry))
        for text in (as_html if digest == "html" else as_text)(found):
            log_line(text)
        return
    with suppress(KeyboardInterrupt):  # the way to end following
        _show(lines, wanted, everything=not any(wish for wish, _ in wishes))


def is_of(line: str, day: date) -> bool:
    """Whether a line has a time stamp of this day."""
    when = time_of(line.encode("utf-8", "surrogateescape"))
    return when is not None and when // 86400 == (day - date(1970, 1, 1)).days


def _show(lines: Iterable[str], wanted: Wanted, *, everything: bool) -> None:
    """Prints lines of requests that are wanted; the server's own lines too if nothing is filtered."""
    for text in lines:
        entry = parse(text)
        if entry is None:
            if everything:
                log_line(text, "dim")
        elif wanted(entry):
            log_line(text, OUTCOME_STYLES[entry.outcome])


def _lines(files: tuple[str, ...], *, follow: bool) -> Iterator[str]:
    for at, name in enumerate(files, 1):
        is_followed = follow and at == len(files) and name != "-"
        yield from map(_text, _followed(name) if is_followed else _whole(name))


def _whole(name: str) -> Iterator[bytes]:
    with Source(os.fsencode(name)).open() as file:
        yield from readable(_of(file), name)


def _of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines from here to the end, in parts of at most `LIMIT` bytes."""
    while data := file.readline(LIMIT):
        yield data


def _followed(name: str) -> Iterator[bytes]:
    """The lines of a file and those that are added to it; when another one takes its name, from the start of that."""
    with ExitStack() as current:
        file = current.enter_context(open(name, "rb"))
        while True:
            yield from _finished(file)
            time.sleep(WAIT)
            here = os.fstat(file.fileno())
            try:
                there = os.stat(name)
                other = None if os.path.samestat(here, there) else open(name, "rb")
            except FileNotFoundError:
                continue  # it is being replaced
            if other is not None:
                yield from _of(file)
                current.close()
                file = current.enter_context(other)
            elif there.st_size < file.tell():
                file.seek(0)  # copied and truncated


def _finished(file: IO[bytes]) -> Iterator[bytes]:
    """The lines that are written to their end; the start of another one is read again later."""
    for data in _of(file):
        if not data.endswith(b"\n") and len(data) < LIMIT:
            file.seek(-len(data), os.SEEK_CUR)
            return
        yield data


def _text(data: bytes) -> str:
    return data.rstrip(b"\n").decode("utf-8", "surrogateescape")
