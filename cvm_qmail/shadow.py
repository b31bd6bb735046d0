"""Shadow mode: what another module would have answered, asked when our own answer is out.

    worker ---- packet, response, event ---->  shadow process  ---- packet ---->  other module
            (bounded, never waits)                   |
                                                     log: differences only

Law: an answer never waits for the shadow.  A worker sends what it has answered to a socket that takes
it at once or not at all; one process, forked by the supervisor, asks the other module and compares.
If that module is slow, hangs or is gone, or the process itself dies, comparisons are left out; they
are counted, and the count is logged once a minute.  What waited too long is left out as well: the
files may have changed since.

A request is sent on as it came, with its secret; a malformed one is not sent on at all (it would kill
the C program).  Of the rest only account, domain and the facts that differ reach the log.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from cvm_qmail import client, wire
from cvm_qmail.answer import DRY_RUN
from cvm_qmail.log import Log, unforeseen
from cvm_qmail.responder import Event, Noted, Respond
from cvm_qmail.settings import BadSetting
from cvm_qmail.transports import udp
from cvm_qmail.wire import Code, Fact

MARK = "!"
"""First character of a log line about a difference."""

ROOM = 1 << 20
"""Bytes that may wait for the shadow process, as far as the kernel allows so many."""

STALE = 10.0
"""Seconds after which an answer is no longer compared."""

PAUSE = 60.0
"""Seconds between two log lines about what was not compared."""

RESTART = 1.0
"""Seconds between two starts of the shadow process."""

FAREWELL = 1.0
"""Seconds that the shadow process has for what waits when the server stops."""

MODESTY = 10
"""By how much nicer than the workers the process is: it must not take their processor."""

SHOWN = 80
"""Characters of a fact in the log."""

_FIELD_LIMIT = 4096
"""Bytes of a field of the log that are sent on: no line is longer."""

_MESSAGE_LIMIT = 1 << 16
_NOT_OURS = wire.Response(Code.PERMFAIL, b"", ((int(Fact.OUTOFSCOPE), b"0"),))
"""What a rejection is without CVM_DRY_RUN."""


class Answered(NamedTuple):
    """A request, our response to it, and what was logged."""

    packet: bytes
    response: bytes
    event: Event


class Asks(Protocol):
    """Asks the other module."""

    def __call__(self, packet: bytes) -> wire.Response:
        """Its response.  Raises `client.NoAnswer`."""
        ...


class Uncompared:
    """How many answers were not compared, and why; said at once, and then once a minute at most."""

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._count = 0
        self._why = ""
        self._next = 0.0

    def add(self, why: str) -> None:
        """One more."""
        self._count += 1
        self._why = why
        self.tell()

    def tell(self) -> None:
        """Says it if it is time."""
        if self._count and (now := self._clock()) >= self._next:
            self._log.line(f"? shadow: {self._count} answers were not compared; the last: {self._why}")
            self._count = 0
            self._next = now + PAUSE

    @property
    def wait(self) -> float | None:
        """Seconds until it is time; None: there is nothing to say."""
        return max(0.0, self._next - self._clock()) if self._count else None


# -- in the worker ----------------------------------------------------------------------------------


class Follower:
    """A worker's side, in the log's place: takes note of each answer, and sends it on when it is out."""

    def __init__(self, channel: socket.socket, log: Log, clock: Callable[[], float]) -> None:
        self._send = channel.send
        self._log = log
        self._uncompared = Uncompared(log, clock)
        self._event: Event | None = None
        self._answered: Answered | None = None

    def request(self, event: Event) -> Noted:
        """Logs a request."""
        self._event = event
        return event, self._log.request(event)

    def again(self, noted: Noted, began: float) -> None:
        """Logs that an answer was given again."""
        event, around = noted
        self._event = event._replace(began=began)
        self._log.again(around, began)

    def noting(self, respond: Respond) -> Respond:
        """The same, and takes note of the answer."""

        def noted(packet: bytes) -> bytes:
            self._event = self._answered = None
            response = respond(packet)
            event = self._taken_down()
            if event is not None and event.reason != "malformed":
                self._answered = Answered(packet, response, event)
            return response

        return noted

    def _taken_down(self) -> Event | None:
        return self._event

    def settle(self) -> None:
        """An answer is out."""
        self._log.settle()
        self._send_on()

    def flush(self) -> None:
        """An answer is out, or there is nothing to do."""
        self._log.flush()
        self._send_on()

    def _send_on(self) -> None:
        answered, self._answered = self._answered, None
        if answered is None:
            self._uncompared.tell()
            return
        try:
            self._send(_packed(answered), socket.MSG_DONTWAIT)
        except OSError:
            self._uncompared.add("too many are waiting for the other module")


def _packed(answered: Answered) -> bytes:
    packet, response, event = answered
    short = event._replace(
        code=int(event.code),
        user=event.user[:_FIELD_LIMIT],
        where=event.where[:_FIELD_LIMIT],
        detail=event.detail[:_FIELD_LIMIT],
    )
    return marshal.dumps((packet, response, *short))


def _unpacked(message: bytes) -> Answered:
    packet, response, *event = marshal.loads(message)  # noqa: S302  our own workers wrote it
    return Answered(packet, response, Event._make(event))


# -- in the shadow process --------------------------------------------------------------------------


def follow(channel: socket.socket, asks: Asks, log: Log, clock: Callable[[], float]) -> None:
    """Compares what comes from `channel` until nobody can send any more."""
    uncompared = Uncompared(log, clock)
    while True:
        if not select.select([channel], [], [], uncompared.wait)[0]:
            uncompared.tell()
            continue
        message = channel.recv(_MESSAGE_LIMIT)
        if not message:
            return
        answered = _unpacked(message)
        if clock() - answered.event.began > STALE:
            uncompared.add("it waited too long for the other module")
            continue
        began = clock()
        try:
            theirs = asks(answered.packet)
        except client.NoAnswer as trouble:
            uncompared.add(str(trouble))
            continue
        differs = difference(honest(answered), theirs)
        if differs:
            log.request(answered.event._replace(mark=MARK, began=began, detail=differs))
        log.flush()


def honest(answered: Answered) -> wire.Response:
    """Our response, as it would be without CVM_DRY_RUN."""
    packet, response, event = answered
    ours = wire.parse_response(response, packet[0])
    return _NOT_OURS._replace(nonce=ours.nonce) if event.detail == DRY_RUN else ours


def difference(ours: wire.Response, theirs: wire.Response) -> str:
    """What differs, for people; empty: nothing that matters.  The order of facts does not."""
    if ours.nonce != theirs.nonce:
        return "there another nonce"
    here, there = _by_name(ours.facts), _by_name(theirs.facts)
    scope = Fact.OUTOFSCOPE.name
    if (ours.code, here.get(scope)) != (theirs.code, there.get(scope)):
        return f"here {_outcome(ours.code, here.get(scope))}, there {_outcome(theirs.code, there.get(scope))}"
    names = [name for name in here | there if here.get(name) != there.get(name)]
    return "; ".join(f"{name} here {_shown(here.get(name))}, there {_shown(there.get(name))}" for name in names)


def _by_name(facts: Iterable[tuple[int, bytes]]) -> dict[str, list[bytes]]:
    named: dict[str, list[bytes]] = {}
    for number, value in facts:
        name = Fact(number).name if number in Fact.__members__.values() else f"fact {number}"
        named.setdefault(name, []).append(value)
    return named


def _outcome(code: int, scope: list[bytes] | None) -> str:
    return f"{code}" if scope is None else f"{code} out of scope {_shown(scope)}"


def _shown(values: list[bytes] | None) -> str:
    if values is None:
        return "none"
    text = " ".join(value.decode("utf-8", "surrogateescape") for value in values)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


# -- in the supervisor ------------------------------------------------------------------------------


class Shadow:
    """The supervisor's side: the channel, and the process at its other end."""

    def __init__(self, module: str, timeout: float, form: str, clock: Callable[[], float]) -> None:
        """`timeout`: seconds for the other module to answer.  `form`: of the log."""
        self._module = module
        self._timeout = timeout
        self._form = form
        self._clock = clock
        # a message is taken whole or not at all, and the end of all writers is seen
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._pid = 0
        self._next_start = 0.0

    def follower(self, log: Log) -> Follower:
        """What a worker needs."""
        return Follower(self._sending, log, self._clock)

    def keep(self, log: Log, tied: Callable[[], bool], lifeline: int) -> None:
        """Starts the process if there is none.

        `tied` is called in it, and ties it to the life of the supervisor by way of the descriptor
        `lifeline`; False: that has ended already.
        """
        now = self._clock()
        if self._pid or now < self._next_start:
            return
        self._next_start = now + RESTART
        try:
            pid = os.fork()
        except OSError as error:
            log.line(f"? cannot fork the shadow process: {error.strerror}")
            return
        if not pid:
            self._live(tied, lifeline)
        self._pid = pid

    def ended(self, pid: int) -> bool:
        """Whether this process, which has ended, was the shadow's."""
        if pid != self._pid:
            return False
        self._pid = 0
        return True

    def finish(self) -> None:
        """Lets the process finish when all workers have ended; ends it, and what it has started, after a while."""
        self._sending.close()
        self._receiving.close()
        end = self._clock() + FAREWELL
        while self._pid and self._clock() < end:
            with suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG)[0]:
                    self._pid = 0
                    return
            select.select([], [], [], 0.01)
        if self._pid:
            for ending in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    ending(self._pid, signal.SIGKILL)

    def _live(self, tied: Callable[[], bool], lifeline: int) -> None:
        """The life of the process."""
        status = 1
        log = None
        try:
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.nice(MODESTY)
            os.setpgid(0, 0)  # with the programs that it starts, for `finish`
            _close_all_but(self._receiving.fileno(), lifeline)
            log = Log(1, self._form, self._clock)
            if tied():
                follow(self._receiving, self._asks, log, self._clock)
            status = 0
        except BaseException:  # noqa: BLE001  a child must not return into its parent's code
            if log is not None:
                log.line(f"? shadow process {os.getpid()}: {unforeseen()}")
        finally:
            if log is not None:
                log.finish()
            os._exit(status)

    def _asks(self, packet: bytes) -> wire.Response:
        try:
            return client.exchange(self._module, packet, self._timeout)
        except ValueError as bad:  # a host name that cannot be one
            raise client.NoAnswer(f"{self._module}: {bad}") from None


def _close_all_but(*kept: int) -> None:
    """Above all the door, at which clients would wait for us when the workers have gone."""
    for fd in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *kept}:
        with suppress(OSError):  # that of the listing is closed already
            os.close(fd)


def check(module: str, own: str) -> None:
    """Raises `BadSetting` if `module` is none, or is the server at the address `own`: each answer would ask another.

    Two servers that have each other for a shadow are not found out.
    """
    try:
        scheme, address = client.Module.parse(module)
        if scheme == "cvm-udp":
            udp.split(address)
    except ValueError:
        raise BadSetting("CVM_SHADOW", module, "cvm-local:PATH, cvm-udp:HOST:PORT or cvm-command:PROGRAM") from None
    if scheme != "cvm-command" and _places(scheme, address) & _places(scheme, own):
        raise BadSetting("CVM_SHADOW", module, "another server than this one")


def _places(scheme: str, address: str) -> set[object]:
    """Where a server with this address is found."""
    if scheme == "cvm-local":
        return {os.path.realpath(address)}
    try:
        return {place for *_, place in socket.getaddrinfo(*udp.split(address), type=socket.SOCK_DGRAM)}
    except (ValueError, OSError):
        return {address}
