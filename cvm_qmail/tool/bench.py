"""cvmctl bench: load for a module, and how it bears it.

Each client is a process that asks one question after another.  What counts is the whole exchange as a
client sees it, the client's own work included (some 40 microseconds).

Law: whatever happens, a connection that was made gets its whole request: a bare connection would kill
the C program.  So nothing interrupts a client in the middle of an exchange, which ends in bounded time
by itself.

Exit status: 0 every answer was as expected and in time; 1 one was not, or did not come; 111 the module
does not answer at all.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

import click

from cvm_qmail import client, wire
from cvm_qmail.tool import show
from cvm_qmail.tool.given import read
from cvm_qmail.tool.latencies import Latencies, Row
from cvm_qmail.tool.show import PERMANENT, SOME, TEMPORARY, Failure, text
from cvm_qmail.wire import Code, Credential

READ_LIMIT = 1 << 26
"""Bytes of a list of addresses."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

BAR = 40
"""Characters of the longest bar."""

LOST_PAUSE = 0.01
"""Seconds that a client waits when it got no answer: a module that is gone must not be run at in a loop."""

NAP = 0.1
"""Seconds between two looks at whether to stop, for a client that has time."""

GRACE = 2.0
"""Seconds for clients to report, beyond the time that an exchange may take."""

WHYS = 5
"""Different reasons for lost answers that are told."""


class Question(NamedTuple):
    """A request, and the code that its response has to have (None: that of the first response)."""

    packet: bytes
    code: int | None


class Plan(NamedTuple):
    """What the clients do."""

    module: str
    questions: Sequence[Question]
    clients: int
    seconds: float
    requests: int | None
    pace: float
    """Seconds between two requests of one client, at least."""
    timeout: float
    late: float


class Tally:
    """What came of it."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.wrong: Counter[int] = Counter()
        self.late: Counter[int] = Counter()
        self.lost: Counter[str] = Counter()
        self.latencies = Latencies()
        self.elapsed = 0.0

    def merge(self, other: Tally) -> None:
        """All of `other` as well; the longest time counts."""
        self.answers += other.answers
        self.wrong += other.wrong
        self.late += other.late
        self.lost += other.lost
        self.latencies.merge(other.latencies)
        self.elapsed = max(self.elapsed, other.elapsed)

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.answers.total() + self.lost.total()

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers.total() / self.elapsed if self.elapsed else 0.0

    @property
    def faultless(self) -> bool:
        """Whether every answer was as expected, and in time."""
        return not (self.wrong or self.late or self.lost)


@click.command()
@click.argument("module")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option(
    "--addresses",
    "-f",
    "file",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Ask for the addresses in FILE (- is standard input).",
)
@click.option("--clients", "-c", type=click.IntRange(1, 1024), default=4, show_default=True, help="Clients at a time.")
@click.option(
    "--seconds", "-t", type=click.FloatRange(0.001, 86400), default=5.0, show_default=True, help="How long to ask."
)
@click.option("--requests", "-n", type=click.IntRange(1), help="Ask that many times, however long it takes.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second, at most.  [default: any]")
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
    """Put MODULE under load, and print how many requests it bears and how long its answers take.

    The clients ask for the addresses in turn, over and over.  FILE has one on a line, perhaps with a tab
    and the code behind it that the answer has to have; without a code, every answer has to have that of
    the first.  The secret, if the module wants one, is taken from CVM_LOOKUP_SECRET in the environment.

    \b
      cvmctl bench cvm-local:/run/cvm-rcptto/socket joe@example.org
      cvmctl bench -f addresses -c 8 -t 30 cvm-udp:127.0.0.1:1234
      cvmctl bench -f addresses -n 100000 --json cvm-local:/run/cvm-c/socket

    It works with every CVM module, the C programs included.  What is measured is the whole exchange, with
    the client's own share in it, so compare modules with one another, not with other programs' figures.

    An answer is wrong if it has another code than expected, late if it took longer than --late, lost if it
    did not come within --timeout.  The exit status is 1 if there was one of these, 111 if the module does
    not answer at all.
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
        show.json_line(_as_object(plan, tally))
    else:
        _print(plan, tally)
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
            return Question(wire.pack_request(wire.Request(self.version, nonce, given)), code)
        except wire.Malformed as bad:
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


# -- the clients --------------------------------------------------------------------------------------


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run(plan: Plan) -> Tally:
    """Carries the plan out; an interrupt ends it early."""
    parent = os.getpid()
    ready, go = os.pipe()
    pipes: dict[int, int] = {}
    """Where each client reports, and its process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # until a client is ready to stop in good order
    for number in range(plan.clients):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            for fd in (go, reading, *pipes):
                os.close(fd)
            _live(plan, number, ready, writing, parent)
        os.close(writing)
        pipes[reading] = pid
    os.close(ready)
    os.close(go)  # all of them begin now
    tally = Tally()
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _gather(pipes, tally, None)
    except KeyboardInterrupt:
        for pid in pipes.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        _gather(pipes, tally, plan.timeout + GRACE)
        for pid in pipes.values():
            os.kill(pid, signal.SIGKILL)
    return tally


def _gather(pipes: dict[int, int], tally: Tally, seconds: float | None) -> None:
    """Takes the reports as they come, for `seconds` at the most; what is left in `pipes` has not reported."""
    end = None if seconds is None else time.monotonic() + seconds
    while pipes:
        readable, _, _ = select.select([*pipes], [], [], None if end is None else max(0.0, end - time.monotonic()))
        if not readable:
            return
        for fd in readable:
            with open(fd, "rb") as file:
                report = file.read()
            os.waitpid(pipes.pop(fd), 0)
            if not report:
                raise Failure("a client ended without a report", TEMPORARY)
            tally.merge(pickle.loads(report))  # noqa: S301  a child of ours wrote it


def _live(plan: Plan, number: int, ready: int, writing: int, parent: int) -> NoReturn:
    """The life of a client."""
    stop = False

    def on_stop(*_: object) -> None:
        nonlocal stop
        stop = True

    try:
        for wanted in _STOPPING:
            signal.signal(wanted, on_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        os.read(ready, 1)
        tally = _ask_on(plan, number, lambda: stop or os.getppid() != parent)
        with open(writing, "wb") as out:
            pickle.dump(tally, out)
    finally:
        os._exit(0)


def _ask_on(plan: Plan, number: int, stopping: Callable[[], bool]) -> Tally:
    """Asks the questions in turn, each client from another place in the list."""
    module, questions, timeout, late = plan.module, plan.questions, plan.timeout, plan.late * 1e9
    expected = {at: question.code for at, question in enumerate(questions) if question.code is not None}
    at = number * len(questions) // plan.clients
    left = None
    if plan.requests is not None:  # as many as there are addresses: each is asked for once
        left = (number + 1) * plan.requests // plan.clients - number * plan.requests // plan.clients
    asked = 0
    tally = Tally()
    began = time.monotonic_ns()
    end = None if plan.requests is not None else began + plan.seconds * 1e9
    now = began
    while left != 0 and (end is None or now < end) and not stopping():
        if plan.pace:
            _sleep_until(began + (asked * plan.pace + number * plan.pace / plan.clients) * 1e9, stopping)
            asked += 1
            if stopping():
                break
        before = time.monotonic_ns()
        try:
            code = client.exchange(module, questions[at].packet, timeout).code
        except client.NoAnswer as trouble:
            if stopping():
                break  # a signal may break off waiting for a full queue
            tally.lost[str(trouble)] += 1
            time.sleep(LOST_PAUSE)
            now = time.monotonic_ns()
        else:
            now = time.monotonic_ns()
            tally.latencies.add(now - before)
            tally.answers[code] += 1
            if code != expected.setdefault(at, code):
                tally.wrong[code] += 1
            if now - before > late:
                tally.late[code] += 1
        at = (at + 1) % len(questions)
        if left is not None:
            left -= 1
    tally.elapsed = (now - began) / 1e9
    return tally


def _sleep_until(moment: float, stopping: Callable[[], bool]) -> None:
    while (left := moment - time.monotonic_ns()) > 0 and not stopping():
        time.sleep(min(left / 1e9, NAP))


# -- what is printed ----------------------------------------------------------------------------------


def _print(plan: Plan, tally: Tally) -> None:
    latencies = tally.latencies
    show.line(f"{plan.module}: {plan.clients:,} clients, {len(plan.questions):,} addresses", "title")
    show.table(
        ("code", "meaning", "answers", "wrong", "late"),
        [
            (str(code), _meaning(code), f"{count:,}", f"{tally.wrong[code]:,}", f"{tally.late[code]:,}")
            for code, count in sorted(tally.answers.items())
        ],
        right=("code", "answers", "wrong", "late"),
    )
    show.line(f"lost: {tally.lost.total():,}", "no" if tally.lost else "")
    for why, count in tally.lost.most_common(WHYS):
        show.line(f"  {count:,}  {why}", "no")
    show.line(f"{tally.requests:,} requests in {tally.elapsed:.2f} s, {tally.rate:,.0f} answers a second")
    if latencies.count:
        told = [("least", latencies.least), ("mean", latencies.mean)]
        told += [(f"{percent:g} %", latencies.percentile(percent)) for percent in PERCENTILES]
        show.table(
            ("latency", ""), [(name, _time(value)) for name, value in [*told, ("most", latencies.most)]], right=("",)
        )
        rows = list(latencies.rows())
        show.table(("from", "to", "answers", ""), _bars(rows), right=("from", "to", "answers"))


def _meaning(code: int) -> str:
    return Code(code).name if code in set(Code) else ""


def _time(nanoseconds: float) -> str:
    """With three digits that count, and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{nanoseconds:.0f} ns"


def _bars(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    longest = max(row.times for row in rows)
    for start, end, times in rows:
        yield _time(start), _time(end), f"{times:,}", "#" * -(-times * BAR // longest)


def _as_object(plan: Plan, tally: Tally) -> dict[str, object]:
    latencies = tally.latencies
    microseconds = {"least": latencies.least, "mean": latencies.mean, "most": latencies.most}
    microseconds |= {f"{percent:g}%": latencies.percentile(percent) for percent in PERCENTILES}
    return {
        "module": plan.module,
        "clients": plan.clients,
        "addresses": len(plan.questions),
        "requests": tally.requests,
        "seconds": round(tally.elapsed, 6),
        "rate": round(tally.rate, 1),
        "answers": dict(sorted(tally.answers.items())),
        "wrong": dict(sorted(tally.wrong.items())),
        "late": dict(sorted(tally.late.items())),
        "lost": dict(tally.lost.most_common(WHYS)) | ({"others": more} if (more := _unnamed(tally.lost)) else {}),
        "microseconds": {name: round(value / 1000, 1) for name, value in microseconds.items()},
        "histogram": [
            {"from": round(start / 1000, 3), "to": round(end / 1000, 3), "answers": times}
            for start, end, times in latencies.rows()
        ],
    }


def _unnamed(lost: Counter[str]) -> int:
    """How many have a reason that is not told."""
    return lost.total() - sum(count for _, count in lost.most_common(WHYS))
