"""The clients of `cvmctl bench`: processes, each of which asks one question after another.

Invariants: whatever happens, a connection that was made gets its whole request: a bare connection would kill
the C program.  So nothing interrupts a client in the middle of an exchange, which ends in bounded time
by itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from cvm_qmail.cvmctl.bench.histogram import Latencies
from cvm_qmail.cvmctl.ui.output import TEMPORARY, Failure
from cvm_qmail.process.children import readable
from cvm_qmail.protocols.cvm import client

LOST_PAUSE = 0.01
"""Seconds that a client waits when it got no answer, so that a module that is gone is not asked in a tight loop."""

NAP = 0.1
"""Seconds between two checks whether to stop, for a client that waits for its turn."""

GRACE = 2.0
"""Seconds for clients to report, beyond the time that an exchange may take."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Question(NamedTuple):
    """A request, and the code that its response must have (None: that of the first response)."""

    packet: bytes
    code: int | None


class Plan(NamedTuple):
    """What the clients do."""

    module: str
    questions: Sequence[Question]
    clients: int
    seconds: float
    """How long to ask, where `requests` is None."""
    requests: int | None
    """Of all clients together."""
    pace: float
    """Seconds between two requests of one client, at least."""
    timeout: float
    """Seconds after which an answer is lost."""
    late: float
    """Seconds after which an answer is late."""


class Tally:
    """The results of the clients."""

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


def run(plan: Plan) -> Tally:
    """Runs the plan; an interrupt ends it early."""
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
    """Reads the reports as they come, for at most `seconds`; clients left in `pipes` have not reported."""
    end = None if seconds is None else time.monotonic() + seconds
    while pipes:
        reported = readable(pipes, None if end is None else max(0.0, end - time.monotonic()))
        if not reported:
            return
        for fd in reported:
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
        except client.NoAnswer as error:
            if stopping():
                break  # a signal may break off waiting for a full queue
            tally.lost[str(error)] += 1
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
