"""The life of a worker: signals and privileges first, then requests until SIGTERM.

Invariants: a worker keeps only the capabilities that it needs to use other users' rights, and answers nothing before
it is in its sandbox.  If a system call was refused to it, the answer is a temporary failure.  Before
a lookup that may hang, the log has been written.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cvm_qmail.observe.counters import Counters
from cvm_qmail.observe.log import Log
from cvm_qmail.process import policies, sandbox
from cvm_qmail.process.landlock import READ_ALL
from cvm_qmail.process.network import Network
from cvm_qmail.process.refusals import Refusals
from cvm_qmail.process.shared_memory import Slot
from cvm_qmail.service.events import Sink, Sinks
from cvm_qmail.settings import Settings
from cvm_qmail.tables import rights
from cvm_qmail.tables.backends import Backends
from cvm_qmail.tables.door import HangGuard
from cvm_qmail.transports import datagram, stream

if TYPE_CHECKING:
    from cvm_qmail.observe.shadow import Shadow

Respond = Callable[[bytes], bytes]


class Prepared(NamedTuple):
    """The function that answers requests, and the sockets that it opens for that."""

    respond: Respond
    network: Network


MakeRespond = Callable[[HangGuard, Backends, Sequence[Sink]], Prepared]
"""Makes the function that answers requests; called once in each worker, after the fork."""

FROM_SUPERVISOR = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that a worker handles in another way than its supervisor."""


class _Refused(Exception):
    """The sandbox refused this worker a system call, and the current request has been answered."""


class Worker:
    """One worker, after the fork."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        slot: Slot,
        log: Log,
        *,
        make_respond: MakeRespond,
        temporary: Respond,
        refusals: Refusals,
        limit: int,
        shadow: Shadow | None,
        backends: Backends,
        counters: Counters | None = None,
        confined: Callable[[], None] = lambda: None,
    ) -> None:
        """`temporary`: makes a temporary failure of a request.  `limit`: bytes of a request.

        `confined` is called when the worker is in its sandbox.
        """
        self._settings = settings
        self._listener = listener
        self._slot = slot
        self._limit = limit
        self._stop = False
        sinks: list[Sink] = [log] if shadow is None else [log, shadow.follower(log)]
        if counters is not None:
            sinks.append(counters)
        self._backends = backends
        self._confined_now = confined
        self._sinks = sinks
        self._sink = Sinks(sinks)
        self._make_respond = make_respond
        self._temporary = temporary
        self._refusals = refusals

    def run(self) -> None:
        """Answers requests until SIGTERM."""
        datagrams = self._listener.type == socket.SOCK_DGRAM
        signal.set_wakeup_fd(-1)  # the one inherited is the supervisor's
        wake = wake_up_pipe() if datagrams else -1
        self._handle_signals()
        rights.keep_only_needed_capabilities()
        prepared = self._make_respond(self._slot, self._backends, self._sinks)
        instead = self._temporary if self._confine(prepared) else None
        respond = self._slot.guard(prepared.respond, instead)
        self._slot.serves(True)
        if self._stop:  # SIGTERM came before it served
            self._slot.serves(False)
        try:
            if datagrams:
                self._serve_datagrams(respond, wake)
            else:
                self._serve_connections(respond)
        except _Refused:  # other workers answer the waiting clients: this one's caches may be wrong
            self._slot.serves(False)
            self._sink.flush()

    def _confine(self, prepared: Prepared) -> bool:
        """Enters the sandbox; returns whether the supervisor is notified of what it refuses."""
        network = prepared.network
        calls = policies.worker(network, os.getpid())
        listener = sandbox.enter("worker", self._settings.sandbox, calls, [READ_ALL], network.reached, notifies=True)
        self._refusals.hand_over(listener)
        self._confined_now()
        return listener >= 0

    def _checked(self, write: Callable[[], None]) -> Callable[[], None]:
        """`write`, called after each response; raises `_Refused` if the sandbox refused something meanwhile."""
        refused = self._slot.refused

        def checked() -> None:
            write()
            if refused[0]:
                raise _Refused

        return checked

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_SUPERVISOR)

    def _on_stop(self, *_: object) -> None:
        self._stop = True
        self._slot.serves(False)
        stream.interrupt(self._listener)

    def _stopping(self) -> bool:
        return self._stop

    def _serve_datagrams(self, respond: Respond, wake: int) -> None:
        datagram.Worker(
            self._listener,
            respond,
            limit=self._limit,
            received=self._slot.received,
            wake=wake,
            stopping=self._stopping,
            afterwards=self._checked(self._sink.flush),
        ).run()

    def _serve_connections(self, respond: Respond) -> None:
        stream.Worker(
            self._listener,
            respond,
            limit=self._limit,
            timeout=self._settings.local_timeout,
            stopping=self._stopping,
            afterwards=self._checked(self._sink.settle),
            idle=self._sink.flush,
            needed=self._slot.needed,
        ).run()


def wake_up_pipe() -> int:
    """A descriptor that becomes readable at each signal."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable
