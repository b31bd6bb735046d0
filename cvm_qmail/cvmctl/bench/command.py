"""cvmctl bench: load for a module, its throughput and latency.

Each client is a process that asks one question after another.  What counts is the whole exchange as a
client sees it, the client's own work included (some 40 microseconds).

Exit status: 0 every answer was as expected and in time; 1 one was not, or did not come; 111 the module
does not answer at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import click

from cvm_qmail.cvmctl.bench.load import Plan, Question, run
from cvm_qmail.cvmctl.bench.report import as_object, show
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import read
from cvm_qmail.cvmctl.ui.output import PERMANENT, SOME, Failure, text
from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Credential

READ_LIMIT = 1 << 26
"""Bytes of a list of addresses."""


@click.command()
@click.argument("module")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option(
    "--addresses",
    "-f",
    "file",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Ask about the addresses in FILE (- is standard input).",
)
@click.option("--clients", "-c", type=click.IntRange(1, 1024), default=4, show_default=True, help="Clients at a time.")
@click.option(
    "--seconds", "-t", type=click.FloatRange(0.001, 86400), default=5.0, show_default=True, help="How long to ask."
)
@click.option("--requests", "-n", type=click.IntRange(1), help="Ask this many times, however long it takes.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Requests per second, at most.  [default: no limit]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 86400),
    default=client.TIMEOUT,
    show_default=True,
    help="Seconds after which an answer is lost.",
)
@click.option(
    "--late",
    type=click.FloatRange(0.001),
    default=1000.0,
    show_default=True,
    help="Milliseconds after which an answer is late.",
)
@click.option("--v1", is_flag=True, help="Speak version 1 of the protocol.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    module: str,
    addresses: tuple[str, ...],
    *,
    file: str | None,
    clients: int,
    seconds: float,
    requests: int | None,
    rate: float | None,
    timeout: float,
    late: float,
    v1: bool,
    as_json: bool,
) -> None:
    """Load-test MODULE, and print its throughput and latency.

    The clients ask about the addresses in turn, over and over.  FILE has one address per line, optionally
    followed by a tab and the code that the answer must have; without a code, all answers for an address must
    have the code of the first.  The secret, if the module requires one, is taken from CVM_LOOKUP_SECRET in the
    environment.

    \b
      cvmctl bench cvm-local:/run/cvm-rcptto/socket joe@example.org
      cvmctl bench -f addresses -c 8 -t 30 cvm-udp:127.0.0.1:1234
      cvmctl bench -f addresses -n 100000 --json cvm-local:/run/cvm-c/socket

    It works with every CVM module, the C programs included.  The times include the client's own share, so
    compare modules with one another, not with other programs' figures.

    An answer is wrong if its code is not the expected one, late if it took longer than --late, lost if it
    did not come within --timeout.  The exit status is 1 if any answer was wrong, late or lost, 111 if the
    module does not answer at all.
    """  # noqa: D301  click knows the control character, not the backslash
    secret = os.environ.get("CVM_LOOKUP_SECRET") or None
    packing = Packing(1 if v1 else 2, None if secret is None else os.fsencode(secret))
    try:
        client.Module.parse(module)
        questions = [packing.question(os.fsencode(address), None, address) for address in addresses]
        if file is not None:
            questions += questions_in(read(file, READ_LIMIT), file, packing)
        if not questions:
            raise click.UsageError("no address to ask for: name some, or a file with --addresses")
        client.exchange(module, questions[0].packet, timeout)  # whether it is there at all
    except ValueError as bad:
        raise click.UsageError(str(bad)) from None
    pace = 0.0 if rate is None else clients / rate
    plan = Plan(module, questions, clients, seconds, requests, pace, timeout, late / 1000)
    tally = run(plan)
    if as_json:
        output.json_line(as_object(plan, tally))
    else:
        show(plan, tally)
    context.exit(0 if tally.faultless else SOME)


# -- what is asked ------------------------------------------------------------------------------------


class Packing(NamedTuple):
    """How an address becomes a request."""

    version: int
    secret: bytes | None

    def question(self, address: bytes, code: int | None, where: str) -> Question:
        """The question for an address that stands at `where`."""
        account, at, domain = address.rpartition(b"@")
        given: dict[int, bytes] = {Credential.ACCOUNT: account if at else address}
        if at:
            given[Credential.DOMAIN] = domain
        if self.secret is not None:
            given[Credential.SECRET] = self.secret
        nonce = os.urandom(client.NONCE) if self.version == 2 else b""
        try:
            return Question(packets.pack_request(packets.Request(self.version, nonce, given)), code)
        except packets.Malformed as bad:
            raise Failure(f"{where}: {bad}", PERMANENT) from None


def questions_in(data: bytes, name: str, packing: Packing) -> Iterator[Question]:
    """The questions of a list; blank lines do not count."""
    for number, line in enumerate(data.splitlines(), 1):
        where = f"{name}, line {number}"
        address, tab, code = line.strip(b" ").partition(b"\t")
        if tab and not (code.strip().isdigit() and int(code[:9]) < 256):
            raise Failure(f"{where}: found {text(code)!r} behind the tab, expected a code from 0 to 255", PERMANENT)
        if address.strip():
            yield packing.question(address, int(code[:9]) if tab else None, where)
