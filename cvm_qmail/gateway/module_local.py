"""A CVM module on a Unix socket: one connection for each packet.

Invariants: never waits.  A response ends with its zero byte, or with end of file.

Source: cvm 0.97 (client_xfer_local.c).
"""

from __future__ import annotations

import asyncio
import socket
import time
from functools import partial

from cvm_qmail.gateway.module import Got, down, slow
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols.cvm import lookup
from cvm_qmail.protocols.cvm.lookup import NoAnswer

QUEUE_PAUSE = 0.005
"""Seconds before another attempt to connect, while the queue of the module's socket is full."""


class _Exchange:
    """One packet on its way."""

    __slots__ = ("answer", "end", "got", "packet", "socket")

    def __init__(self, packet: bytes, end: float, got: Got) -> None:
        self.packet = packet
        self.end = end
        self.got = got
        self.answer = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class Local:
    """A module at a path."""

    def __init__(self, path: str, turns: Turns) -> None:
        self._path = path
        self._turns = turns
        self._waiting: set[_Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None
        """One timer for all transfers: they rarely time out."""

    def exchange(self, packet: bytes, end: float, got: Got) -> None:
        """See `Transfer`."""
        try:
            exchange = _Exchange(packet, end, got)
        except OSError as error:  # no descriptor is left
            got(down(self._path, error))
            return
        self._waiting.add(exchange)
        self._connect(exchange)

    def close(self) -> None:
        """See `Transfer`: questions that were sent are still answered, or time out."""

    def _connect(self, exchange: _Exchange) -> None:
        """Sends the packet, as soon as the module's queue has room."""
        if exchange not in self._waiting:
            return  # it has timed out in the meantime
        connection = exchange.socket
        try:
            connection.connect(self._path)
            connection.send(exchange.packet)  # at most 512 bytes: they fit into any socket's buffer
            connection.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # the queue is full, and the kernel cannot wait for that of a Unix socket
            asyncio.get_running_loop().call_later(QUEUE_PAUSE, self._connect, exchange)
        except OSError as error:
            self._finish(exchange, down(self._path, error))
            return
        else:
            self._turns.watch(connection.fileno(), partial(self._receive, exchange))
        self._set_timer(exchange.end)

    def _receive(self, exchange: _Exchange) -> None:
        try:
            data = exchange.socket.recv(lookup.LIMIT + 1)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(exchange, down(self._path, error))
            return
        exchange.answer += data
        if not data or len(exchange.answer) > lookup.LIMIT or lookup.is_whole(exchange.answer):
            self._finish(exchange, exchange.answer)

    def _finish(self, exchange: _Exchange, answer: bytes | NoAnswer) -> None:
        self._waiting.discard(exchange)
        self._turns.forget(exchange.socket.fileno())
        exchange.socket.close()
        exchange.got(answer)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._end_those_in_time)

    def _end_those_in_time(self) -> None:
        self._timer = None
        now = time.monotonic()
        for exchange in [exchange for exchange in self._waiting if exchange.end <= now]:
            self._finish(exchange, slow(self._path))
        if self._waiting:
            self._set_timer(min(exchange.end for exchange in self._waiting))
