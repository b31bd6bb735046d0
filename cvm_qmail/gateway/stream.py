"""A client of socketmap or policy: many requests on one connection, answered in their order.

Invariants: one answer at a time, so that a client that sends without reading gets no more than one socket's buffer.
Bytes that are not yet parsed are bounded by the codec's limit.  After the client's half-close complete requests are
answered, and then the connection is closed: Exim reads to end of file.

The socket is read and written here, see `turns`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cvm_qmail.gateway.connections import Connections
from cvm_qmail.gateway.turns import READABLE, WRITABLE, Turns
from cvm_qmail.protocols.question import Immediate, Malformed, Question
from cvm_qmail.protocols.result import Result

READ_AHEAD = 65536
"""Bytes that may wait while a request is being answered; then reading pauses."""

CHUNK = 16384
"""Bytes that are read at once."""

Answer = Callable[[Question, Callable[[Result], None]], None]
"""Answers a question by calling the function exactly once, now or later."""


class Codec(Protocol):
    """Bytes in, questions out."""

    @property
    def buffered(self) -> int:
        """The number of bytes that are not yet parsed."""
        ...

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client."""
        ...

    def next_request(self) -> Question | Immediate | None:
        """The next request; None: it is not complete yet.  Raises `Malformed`."""
        ...

    def reply(self, question: Question, result: Result) -> bytes:
        """The bytes of an answer."""
        ...


class Stream:
    """One connection."""

    def __init__(
        self,
        connection: socket.socket,
        codec: Codec,
        answer: Answer,
        connections: Connections,
        malformed: Callable[[], None],
    ) -> None:
        self._socket = connection
        self._fd = connection.fileno()
        self._codec = codec
        self._answer = answer
        self._connections = connections
        self._malformed = malformed
        self._turns: Turns
        self._asked: Question | None = None
        """The question that is being answered."""
        self._going = False
        """Whether `_go_on` is already running."""
        self._unsent = b""
        """Answers that the client has not read yet."""
        self._broken = False
        """Whether the client does not speak the protocol."""
        self._ended = False
        """Whether reading has ended: the client has shut down its sending side, or is to be closed."""
        self._events = READABLE

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, to a client that reads its answers."""
        return self._asked is not None and not self._unsent

    def start(self, turns: Turns) -> None:
        """Serves the client."""
        self._turns = turns
        self._connections.opened(self)
        self._turns.watch(self._fd, self._on_event)

    def close(self) -> None:
        """Closes it after the current answer."""
        self._ended = True
        if self._unsent:
            self.drop()  # the client does not even read
        else:
            self._go_on()

    def drop(self) -> None:
        """Closes it at once."""
        self._hang_up()

    def _on_event(self) -> None:
        try:
            if not self._events:
                self._hang_up()  # it has closed both directions, and does not wait for an answer
            elif self._unsent:
                self._send()
            else:
                self._receive()
        except OSError:  # the client has gone
            self._hang_up()
        except BaseException:
            self._hang_up()  # a client must not wait after an exception here
            raise

    def _receive(self) -> None:
        """Reads what the client has sent."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        if data:
            self._codec.receive(data)
        else:
            self._ended = True
        self._go_on()

    def _go_on(self) -> None:
        """Answers requests one after the other, as long as the answers come at once."""
        if self._going:
            return
        self._going = True
        while self._asked is None and not self._unsent and (request := self._next()) is not None:
            self._asked = request
            self._answer(request, partial(self._answered, request))
        self._going = False
        if self._ended and self._asked is None and not self._unsent:
            self._hang_up()
        else:
            self._attend()

    def _next(self) -> Question | None:
        """The next question; requests whose reply is known are answered here."""
        if self._broken:
            return None
        try:
            while isinstance(request := self._codec.next_request(), Immediate):
                if request.malformed:
                    self._malformed()
                self._write(request.reply)
                self._connections.answered(self)
                if self._unsent:
                    return None
        except Malformed as bad:
            self._malformed()
            self._write(bad.reply)
            self._broken = self._ended = True
            return None
        return request

    def _answered(self, question: Question, result: Result) -> None:
        """The answer has arrived."""
        if self._asked is not question or self._fd < 0:
            return
        self._asked = None
        try:
            self._write(self._codec.reply(question, result))
            self._connections.answered(self)
            self._go_on()
        except BaseException:
            self._hang_up()
            raise

    def _write(self, data: bytes) -> None:
        if not data or self._fd < 0:
            return
        self._unsent += data
        try:
            self._send()
        except OSError:
            self._hang_up()

    def _send(self) -> None:
        """Sends pending answers, as far as there is room; then continues."""
        waited = self._events & WRITABLE
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        if waited and not self._unsent:
            self._go_on()

    def _attend(self) -> None:
        """Waits for the next event: room for answers, or more requests."""
        if self._fd < 0:
            return
        if self._unsent:
            events = WRITABLE
        elif self._ended or (self._asked is not None and self._codec.buffered > READ_AHEAD):
            events = 0
        else:
            events = READABLE
        if events != self._events:
            self._events = events
            self._turns.change(self._fd, events)

    def _hang_up(self) -> None:
        if self._fd >= 0:
            self._turns.forget(self._fd)
            self._fd = -1
            self._unsent = b""
            self._socket.close()
            self._connections.lost(self)
