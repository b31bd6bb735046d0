"""What `cvmctl audit` reports, and how its figures are written, on a terminal and on a page."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from cvm_qmail.cvmctl.audit.figures import Day, Gain, Listed, Listing
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, counted, text
from cvm_qmail.escape import escape

WIDTH = 64
"""Characters of an address in a table."""


FORWARDED = "Delivered, but only forwarded to nobody: would be rejected with CVM_QMAIL_FOLLOW=1"
"""The head of a list."""


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
    warnings: int
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
    forwarded: Listing
    """Addresses that qmail delivered to, only to forward the mail to nobody: what CVM_QMAIL_FOLLOW gains."""
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


def times(count: int) -> str:
    """How often."""
    return "once" if count == 1 else f"{count:,} times"


def remarks(report: Report) -> list[str]:
    """What was odd about the logs."""
    numbers = (
        ("lines not understood", report.not_understood),
        ("lines too long to be read", report.too_long),
        ("lines of other programs, skipped", report.foreign),
        ("deliveries that began before this log, to unknown addresses", report.began_before),
        ("alerts and warnings of qmail-send", report.warnings),
    )
    remarks = [f"{what}: {count:,}" for what, count in numbers if count]
    remarks += [f"not understood: {text(example)[:200]}" for example in report.examples]
    remarks += [f"{name}: not read to its end: {why}" for name, why in report.damaged]
    remarks += [f"{name}: skipped, not a regular file" for name in report.passed_over]
    remarks += [
        f"{name}: begins before the end of the previous file: does it repeat lines?" for name in report.overlaps
    ]
    return remarks


def deliveries(gain: Gain) -> str:
    """How many deliveries, to how many addresses."""
    number = f"{gain.deliveries:,} {'delivery' if gain.deliveries == 1 else 'deliveries'}"
    return f"{number} to {counted(gain.addresses, 'address')}"


def shortened(address: bytes) -> str:
    """An address that is not too long for a table."""
    return text(address) if len(address) <= WIDTH else text(address[: WIDTH // 2] + b"..." + address[-WIDTH // 3 :])


def described(one: Listed) -> str:
    """An address in a list: what was said of it, and what became of its mail."""
    why = " ".join(filter(None, (one.reason, text(one.where), one.detail)))
    last = f", last {one.last_day}" if one.last_day else ""
    if not one.exact:
        last += "; the log may mean another address"
    return f"{text(one.address)}  {why}  ({times(one.deliveries)}{last})"
