"""The gateway's loop: accepts clients, passes them to their protocol, and ends without dropping a request.

Invariants: a client that was accepted, or waits in a listener's queue when the signal to stop comes, gets its answer.
When another server takes over a path, this one finishes and ends.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from cvm_qmail.gateway.connections import Connections
from cvm_qmail.gateway.datagram import Datagrams
from cvm_qmail.gateway.router import Routed, answers_of
from cvm_qmail.gateway.service import Service
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.sockets import Bound
from cvm_qmail.gateway.stream import Answer, Codec, Stream
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.observe.log import Log
from cvm_qmail.protocols import deliverable, http, qmail_verify
from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.protocols.socketmap import Socketmap

Respond = Callable[[http.Request], Awaitable[http.Response]]

TICK = 1.0
"""Seconds between two checks of silent clients and of the sockets' paths."""

TAKEOVER_GRACE = 1.0
"""Seconds for which a server whose path was taken over still accepts connections."""

ACCEPTED = 64
"""Connections that are accepted before others are served."""

DESCRIPTORS_GONE = 0.1
"""Seconds without accepting when no descriptor is left."""

DRAIN = 2.0
"""Seconds to finish, beyond the time-out of the module."""


STOP = (signal.SIGTERM, signal.SIGINT)
"""Signals that stop the gateway."""


class Server:
    """One process's loop."""

    def __init__(self, settings: Settings, bound: list[Bound], log: Log, routed: Routed | None = None) -> None:
        """Raises `CannotAsk`."""
        self._settings = settings
        self._bound = bound
        self._log = log
        self._stop = asyncio.Event()
        self._turns = Turns()
        self._answers = answers_of(settings, self._turns, routed)
        self._service = Service(settings, self._answers, self._write_line, self._turns)
        self._connections = Connections(
            settings.connections,
            settings.idle,
            closed_for_others=partial(self._service.statistics.happened, "closed-for-others"),
        )
        self._service.connections = lambda: len(self._connections)
        self._accepting: dict[socket.socket, Callable[[socket.socket], None]] = {}
        self._datagrams: list[Datagrams] = []
        self._openings: set[asyncio.Task[object]] = set()
        self._log_due = False
        """Whether log lines are written in the next turn of the loop."""

    async def run(self) -> None:
        """Serves until a signal stops it, and then until all requests are answered."""
        loop = asyncio.get_running_loop()
        for number in STOP:
            loop.add_signal_handler(number, self._stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        self._turns.start()
        for bound in self._bound:
            if bound.listener.kind == socket.SOCK_DGRAM:
                self._datagrams.append(self._datagrams_of(bound))
            else:
                self._accepting[bound.socket] = self._opening_of(bound)
        self._connections.room = self._resume
        self._resume()
        taken_over = await self._watch()
        for bound in self._bound:
            bound.leave_to_others()
        if taken_over:
            self._log.line("Another server has taken over.")
            await asyncio.sleep(TAKEOVER_GRACE)
        await self._finish()

    def _opening_of(self, bound: Bound) -> Callable[[socket.socket], None]:
        """The function that serves a client of this listener."""
        protocol = bound.listener.protocol
        malformed = partial(self._service.statistics.happened, f"malformed-{protocol}")
        if protocol == "policy":
            return partial(self._open_stream, Policy, self._asking(protocol), malformed)
        if protocol == "socketmap":
            codec = partial(Socketmap, self._settings.out_of_scope)
            return partial(self._open_stream, codec, self._asking(protocol), malformed)
        return partial(self._open_http, self._respond_of(bound), malformed, keep_alive=protocol == "http")

    def _respond_of(self, bound: Bound) -> Respond:
        """The function that answers the requests of an HTTP listener."""
        answer = partial(self._service.answer, listener=bound.listener.protocol)
        if bound.listener.protocol == "deliverable":
            return partial(_deliverable, answer)
        from cvm_qmail.gateway.daemon_counters import counters
        from cvm_qmail.gateway.site import Site

        token = None if bound.is_local else self._settings.token.value
        named = bound.socket.family != socket.AF_UNIX
        daemon = partial(counters, self._settings)
        return Site(answer, self._service.error, self._service.snapshot, token, named=named, daemon=daemon).respond

    def _datagrams_of(self, bound: Bound) -> Datagrams:
        answer = self._asking(bound.listener.protocol, qmail_verify.SECONDS)
        datagrams = Datagrams(bound.socket, answer, self._turns, self._settings.waiting)
        datagrams.start()
        return datagrams

    def _asking(self, protocol: str, limit: float = float("inf")) -> Answer:
        ask = self._service.ask
        return lambda question, done: ask(question, protocol, done, limit)

    def _write_line(self, text: str) -> None:
        """Logs a line; lines of one turn are written together."""
        self._log.add(text)
        if not self._log_due:
            self._log_due = True
            asyncio.get_running_loop().call_soon(self._flush_log)

    def _flush_log(self) -> None:
        self._log_due = False
        self._log.flush()

    async def _watch(self) -> bool:
        """Waits for the signal to stop; returns whether another server has taken over a path."""
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(TICK):
                    await self._stop.wait()
            except TimeoutError:
                self._connections.close_overdue()
                if said := self._answers.look():
                    self._log.add(said)
                self._log.flush()
                if any(bound.taken_over() for bound in self._bound):
                    return True
        return False

    # -- accepting --------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Accepts clients (again)."""
        loop = asyncio.get_running_loop()
        for listener in self._accepting:
            loop.add_reader(listener, self._accept, listener, ACCEPTED)

    def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._accepting:
            loop.remove_reader(listener)

    def _accept(self, listener: socket.socket, limit: int) -> None:
        """Accepts up to `limit` waiting clients."""
        for _ in range(limit):
            if not self._connections.make_room():
                self._pause()  # until a connection has ended
                return
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._pause()
                asyncio.get_running_loop().call_later(DESCRIPTORS_GONE, self._resume)
                return
            connection.setblocking(False)
            self._connections.accepted()
            self._accepting[listener](connection)

    def _open_stream(
        self,
        codec: Callable[[], Codec],
        answer: Answer,
        malformed: Callable[[], None],
        connection: socket.socket,
    ) -> None:
        stream = Stream(connection, codec(), answer, self._connections, malformed)
        stream.start(self._turns)

    def _open_http(
        self, respond: Respond, malformed: Callable[[], None], connection: socket.socket, *, keep_alive: bool
    ) -> None:
        from cvm_qmail.gateway.http_connection import HttpConnection  # h11 is installed only where HTTP is used

        loop = asyncio.get_running_loop()
        client = partial(HttpConnection, respond, self._connections, malformed, keep_alive=keep_alive)
        task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(client, connection))
        self._openings.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[object]) -> None:
        self._openings.discard(task)
        if not task.cancelled() and task.exception() is not None:  # the client has already gone
            self._connections.failed()

    # -- ending -----------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Accepts the clients that are waiting, answers complete requests, closes."""
        self._pause()
        self._connections.room = lambda: None
        for bound in self._bound:
            bound.remove()
            if bound.socket in self._accepting:
                self._accept(bound.socket, 1 << 16)
                bound.socket.close()
        self._accepting.clear()
        if self._openings:
            await asyncio.wait(self._openings)
        await asyncio.sleep(0)  # bytes that they have already sent are read
        self._turns.serve()
        self._connections.stop()
        try:
            async with asyncio.timeout(self._settings.timeout + DRAIN):
                for datagrams in self._datagrams:
                    await datagrams.finish()
                await self._connections.none_left.wait()
        except TimeoutError:
            pass
        self._answers.close()


async def _deliverable(answer: Callable[[Question], Awaitable[Result]], request: http.Request) -> http.Response:
    """The response to any request of Qmail::Deliverable's clients."""
    question = deliverable.question(request)
    return deliverable.FORBIDDEN if question is None else deliverable.reply(await answer(question))
