"""A CVM module that is asked by UDP.

Invariants: one socket for all questions, whose answers are matched by their nonce.  Never waits: a datagram that the
socket does not take now is sent again later, as a lost one is.

Source: cvm 0.97 (client_xfer_udp.c).
"""

from __future__ import annotations

import asyncio
import socket
import time

from cvm_qmail.gateway.module import Got, down, slow
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols.cvm import lookup
from cvm_qmail.protocols.cvm.lookup import NoAnswer
from cvm_qmail.transports import datagram

PAUSES = (1.0, 2.0, 4.0)
"""Seconds until a question is sent again, after each sending; after the last one it waits until the end."""

AT_ONCE = 64
"""Datagrams that are received before others are served."""


class _Question:
    """One packet on its way."""

    __slots__ = ("due", "end", "got", "packet", "sent")

    def __init__(self, packet: bytes, end: float, got: Got) -> None:
        self.packet = packet
        self.end = end
        self.got = got
        self.sent = 0
        """How often it was sent."""
        self.due = end
        """When to send it again, or to give up."""


class Udp:
    """A module at a host and port."""

    def __init__(self, address: str, turns: Turns) -> None:
        self._address = address
        self._turns = turns
        self._socket: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: dict[bytes, _Question] = {}
        """By nonce."""
        self._timer: asyncio.TimerHandle | None = None
        """One timer for all transfers: they rarely time out."""
        self._closed = False

    def exchange(self, packet: bytes, end: float, got: Got) -> None:
        """See `Transfer`."""
        question = self._waiting[lookup.nonce_of(packet)] = _Question(packet, end, got)
        if self._socket is not None:
            self._send(question)
            return
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        self._set_timer(question.end)

    def close(self) -> None:
        """See `Transfer`: questions that were sent are still answered, or time out."""
        self._closed = True
        self._close_if_done()

    async def _open(self) -> None:
        """The socket; it is opened again after an error, since the host's address may have changed."""
        try:
            host, port = datagram.split(self._address)
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            opened = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            try:
                opened.connect(address)
            except OSError:
                opened.close()
                raise
        except (OSError, UnicodeError, ValueError) as error:
            self._opening = None
            self._fail(error)
            return
        self._opening, self._socket = None, opened
        self._turns.watch(opened.fileno(), self._receive)
        for question in list(self._waiting.values()):
            self._send(question)
        self._close_if_done()

    def _send(self, question: _Question) -> None:
        if self._socket is None:  # it failed in the meantime, or is being opened
            return
        pause = PAUSES[question.sent] if question.sent < len(PAUSES) else float("inf")
        question.sent += 1
        question.due = min(question.end, time.monotonic() + pause)
        self._set_timer(question.due)
        try:
            self._socket.send(question.packet)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(lookup.LIMIT + 1)
            except BlockingIOError:
                return
            except OSError as error:  # no server is listening there
                self._fail(error)
                return
            question = self._waiting.pop(lookup.nonce_of(data), None)
            if question is not None:  # else it is forged, or a duplicate
                question.got(data)
            if not self._waiting:
                self._close_if_done()
                return

    def _fail(self, error: Exception) -> None:
        """No server is listening there, or the socket has failed: the waiting questions end now."""
        self._close_socket()
        self._end(list(self._waiting), down(self._address, error))

    def _end(self, nonces: list[bytes], why: NoAnswer) -> None:
        for question in [self._waiting.pop(nonce) for nonce in nonces]:
            question.got(why)

    def _close_if_done(self) -> None:
        if self._closed and not self._waiting:
            self._close_socket()

    def _close_socket(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            self._turns.forget(opened.fileno())
            opened.close()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._look_after_waiting)

    def _look_after_waiting(self) -> None:
        """Ends the questions that have timed out, and sends unanswered ones again."""
        self._timer = None
        now = time.monotonic()
        self._end([nonce for nonce, each in self._waiting.items() if each.end <= now], slow(self._address))
        for question in [each for each in self._waiting.values() if each.due <= now]:
            self._send(question)
        if self._waiting:
            self._set_timer(min(each.due for each in self._waiting.values()))
        self._close_if_done()
