"""Shadow mode: another module is asked the same question, after this server's response has been sent.

    worker ---- event ---->  shadow process  ---- request ---->  other module
       (bounded, never waits)       |
                                   log: differences only

Invariants: an answer never waits for the shadow.  A worker sends its answers to a socket that takes each at once or
not at all; one process, forked by the supervisor, asks the other module and compares.  If that module is slow, hangs
or is down, or the process itself dies, comparisons are left out; they are counted, and the count is logged once a
minute.  A request that waited too long is left out as well: the files may have changed since.

A request is sent on with its credentials, and with one more that says that a shadow asks: a server of this kind
answers it and does not pass it on, so two servers may name each other.  A malformed request is not sent on at all
(it would kill the C program).  Of the rest only account, domain and the facts that differ reach the log.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from cvm_qmail.answer import Answer, Kind, Outcome, Recipient, Unavailable, Verdict
from cvm_qmail.exits import describe_exception
from cvm_qmail.observe.comparison import difference, without_dry_run
from cvm_qmail.observe.log import Log
from cvm_qmail.process import policies, sandbox
from cvm_qmail.process.children import readable
from cvm_qmail.process.landlock import READ_ALL
from cvm_qmail.process.network import Network
from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Credential
from cvm_qmail.service.events import NO_QUERY, Event, Query
from cvm_qmail.settings import BadSetting
from cvm_qmail.transports import datagram

ROOM = 1 << 20
"""Bytes that may wait for the shadow process, if the kernel allows so many."""

STALE = 10.0
"""Seconds after which an answer is no longer compared."""

PAUSE = 60.0
"""Seconds between two log lines about what was not compared."""

RESTART = 1.0
"""Seconds between two starts of the shadow process."""

SHUTDOWN_GRACE = 1.0
"""Seconds that the shadow process has for the waiting requests when the server stops."""

NICENESS = 10
"""nice(2) value added: the process must not take the workers' processor time."""

_FIELD_LIMIT = 4096
"""Bytes of a field of the log that are sent on: no line is longer."""

_MESSAGE_LIMIT = 1 << 16


class Asks(Protocol):
    """Asks the other module."""

    def __call__(self, packet: bytes) -> packets.Response:
        """The other module's response.

        Raises `client.NoAnswer`, and `packets.Malformed` if the request is too long to be marked.
        """
        ...


class Uncompared:
    """How many answers were not compared, and why; logged at once, and then once a minute at most."""

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
        self.report()

    def report(self) -> None:
        """Logs the count if it is time."""
        if self._count and (now := self._clock()) >= self._next:
            self._log.line(f"? shadow: {self._count} answers were not compared; the last: {self._why}")
            self._count = 0
            self._next = now + PAUSE

    @property
    def wait(self) -> float | None:
        """Seconds until it is time; None: there is nothing to log."""
        return max(0.0, self._next - self._clock()) if self._count else None


# -- in the worker ----------------------------------------------------------------------------------


class Follower:
    """A worker's side, a `Sink`: sends each event on when its response has been sent."""

    def __init__(self, channel: socket.socket, log: Log, clock: Callable[[], float]) -> None:
        self._send = channel.send
        self._uncompared = Uncompared(log, clock)
        self._event: Event | None = None

    def request(self, event: Event) -> Event | None:
        """Keeps the event of a well-formed request, unless a shadow asked."""
        self._event = None if event.query is NO_QUERY or event.query.from_shadow else event
        return self._event

    def repeat(self, token: object, began: float) -> None:
        """Keeps the event that led to a cached response."""
        self._event = token._replace(began=began) if isinstance(token, Event) else None

    def settle(self) -> None:
        """Sends the event on."""
        event, self._event = self._event, None
        if event is None:
            self._uncompared.report()
            return
        try:
            self._send(_packed(event), socket.MSG_DONTWAIT)
        except OSError:
            self._uncompared.add("too many are waiting for the other module")

    def flush(self) -> None:
        """As `settle`, unless a lookup comes next, whose own event does not exist yet."""
        self.settle()


def _packed(event: Event) -> bytes:
    outcome = event.outcome
    kind = outcome.kind.value if isinstance(outcome, Unavailable) else outcome.verdict.value
    fields = (outcome.reason, outcome.user[:_FIELD_LIMIT], outcome.where[:_FIELD_LIMIT], outcome.detail[:_FIELD_LIMIT])
    return marshal.dumps((event.request, event.response, event.began, tuple(event.query.recipient), kind, *fields))


def _unpacked(message: bytes) -> Event:
    """The event, as far as comparing and logging need it."""
    request, response, began, recipient, kind, *fields = marshal.loads(message)  # noqa: S302 this server's own workers wrote it
    reason, user, where, detail = fields
    if kind in _VERDICTS:
        outcome: Outcome = Answer(Verdict(kind), reason, user, where, detail=detail)
    else:
        outcome = Unavailable(reason, detail, where, Kind(kind))
        outcome.user = user
    return Event(Query(Recipient._make(recipient)), outcome, began, request, response)


_VERDICTS = frozenset(verdict.value for verdict in Verdict)


# -- in the shadow process --------------------------------------------------------------------------


def follow(channel: socket.socket, asks: Asks, log: Log, clock: Callable[[], float]) -> None:
    """Compares what comes from `channel` until nobody can send any more."""
    uncompared = Uncompared(log, clock)
    while True:
        if not readable([channel.fileno()], uncompared.wait):
            uncompared.report()
            continue
        message = channel.recv(_MESSAGE_LIMIT)
        if not message:
            return
        event = _unpacked(message)
        if clock() - event.began > STALE:
            uncompared.add("it waited too long for the other module")
            continue
        began = clock()
        try:
            theirs = asks(event.request)
        except (client.NoAnswer, packets.Malformed) as error:
            uncompared.add(str(error))
            continue
        differs = difference(without_dry_run(event), theirs)
        if differs:
            log.difference(event, differs, began)
        log.flush()


def question(packet: bytes, *, looks_up: bool) -> bytes:
    """The request for the other module, always in version 2.  Raises `packets.Malformed` if it is too long.

    It has the nonce and the credentials of `packet`, but does not ask for the reason, and says that a shadow
    asks.  `looks_up`: whether the lone credential of version 1 is the secret.
    """
    _, nonce, credentials = packets.parse_request(packet, Credential.SECRET if looks_up else Credential.PASSWORD)
    given = {number: value for number, value in credentials.items() if number != Credential.REASON}
    return packets.pack_request(packets.Request(2, nonce, {**given, Credential.FROM_SHADOW: b""}))


# -- in the supervisor ------------------------------------------------------------------------------


class Shadow:
    """The supervisor's side: the channel, and the process at its other end."""

    def __init__(
        self,
        module: str,
        timeout: float,
        *,
        looks_up: bool,
        confinement: str,
        make_log: Callable[[], Log],
        clock: Callable[[], float],
    ) -> None:
        """`timeout`: seconds for the other module to answer.  `looks_up`: see `question`.

        `confinement`: the value of CVM_SANDBOX.  `make_log`: makes a log, for each process its own.
        """
        self._module = module
        self._looks_up = looks_up
        self._timeout = timeout
        self._confinement = confinement
        self._make_log = make_log
        self._clock = clock
        # a message is taken whole or not at all, and the end of all writers is noticed
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._pid = 0
        self._next_start = 0.0

    @property
    def runs_a_program(self) -> bool:
        """Whether the other module is a program."""
        return client.Module.parse(self._module)[0] == "cvm-command"

    def follower(self, log: Log) -> Follower:
        """The sink for a worker."""
        return Follower(self._sending, log, self._clock)

    def keep(self, log: Log, tied: Callable[[], bool], lifeline: int, confined: Callable[[], None]) -> None:
        """Starts the process if there is none.

        `tied` is called in it, and ties its life to that of the supervisor through the descriptor
        `lifeline`; it returns False if the supervisor has ended already.  `confined` is called in it when it is in
        its sandbox.
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
            self._live(tied, lifeline, confined)
        self._pid = pid

    def ended(self, pid: int) -> bool:
        """Whether this process, which has ended, was the shadow process."""
        if pid != self._pid:
            return False
        self._pid = 0
        return True

    def finish(self) -> None:
        """Lets the process finish when all workers have ended; ends it, and what it has started, after a while."""
        self._sending.close()
        self._receiving.close()
        end = self._clock() + SHUTDOWN_GRACE
        while self._pid and self._clock() < end:
            with suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG)[0]:
                    self._pid = 0
                    return
            time.sleep(0.01)
        if self._pid:
            for ending in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    ending(self._pid, signal.SIGKILL)

    def _live(self, tied: Callable[[], bool], lifeline: int, confined: Callable[[], None]) -> None:
        """The life of the process."""
        status = 1
        log = None
        try:
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            with suppress(OSError):  # a service manager may forbid this call
                os.nice(NICENESS)
            os.setpgid(0, 0)  # with the programs that it starts, for `finish`
            _close_all_but(self._receiving.fileno(), lifeline)
            log = self._make_log()
            if tied():
                self._confine()
                confined()
                follow(self._receiving, self._asks, log, self._clock)
            status = 0
        except BaseException:  # noqa: BLE001  a child must not return into its parent's code
            if log is not None:
                log.line(f"? shadow process {os.getpid()}: {describe_exception()}")
        finally:
            if log is not None:
                log.finish()
            os._exit(status)

    def _confine(self) -> None:
        """Enters the sandbox, unless the other module is a program."""
        if self.runs_a_program:
            return
        unix = client.Module.parse(self._module)[0] == "cvm-local"
        network = Network(unix=True) if unix else Network(names=True)
        calls = policies.shadow(network, os.getpid())
        sandbox.enter("shadow", self._confinement, calls, [READ_ALL], network.reached)

    def _asks(self, packet: bytes) -> packets.Response:
        try:
            return client.exchange(self._module, question(packet, looks_up=self._looks_up), self._timeout)
        except ValueError as bad:  # a host name that cannot be one
            raise client.NoAnswer(f"{self._module}: {bad}") from None


def _close_all_but(*kept: int) -> None:
    """Closes inherited descriptors, above all the listening socket, at which clients would wait in vain."""
    for fd in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *kept}:
        with suppress(OSError):  # that of the listing is closed already
            os.close(fd)


def check(module: str, own: str) -> None:
    """Raises `BadSetting` if `module` is no module, or is the server at the address `own`, which would ask itself.

    Two servers may name each other: their questions are marked.
    """
    try:
        scheme, address = client.Module.parse(module)
        if scheme == "cvm-udp":
            datagram.split(address)
    except ValueError:
        raise BadSetting("CVM_SHADOW", module, "cvm-local:PATH, cvm-udp:HOST:PORT or cvm-command:PROGRAM") from None
    if scheme != "cvm-command" and _places(scheme, address) & _places(scheme, own):
        raise BadSetting("CVM_SHADOW", module, "another server than this one")


def _places(scheme: str, address: str) -> set[object]:
    """The address at which clients reach such a server."""
    if scheme == "cvm-local":
        return {os.path.realpath(address)}
    try:
        return {place for *_, place in socket.getaddrinfo(*datagram.split(address), type=socket.SOCK_DGRAM)}
    except (ValueError, OSError):
        return {address}
