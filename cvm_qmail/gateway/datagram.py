"""qmail-verify's clients: one datagram in, one out.

Invariants: a question gets exactly one answer, within `qmail_verify.SECONDS`, whatever the module does.

The socket is read and written here: asyncio's own transport drops a datagram without bytes, which is an answer.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from cvm_qmail.gateway.stream import Answer
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols import qmail_verify
from cvm_qmail.protocols.result import Result

AT_ONCE = 64
"""Datagrams that are received before others are served."""

LAST_ROUNDS = 64
"""How often that is repeated at the end; by default a socket's queue holds some hundreds of datagrams."""

Address = tuple[Any, ...]
"""The sender of a datagram, in the form of the socket's family."""


class Datagrams:
    """One socket for all clients."""

    def __init__(self, bound: socket.socket, answer: Answer, turns: Turns, waiting: int) -> None:
        """`waiting`: questions at a time; any more get a temporary failure at once."""
        self._socket = bound
        self._answer = answer
        self._turns = turns
        self._waiting = waiting
        self._asking = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    def start(self) -> None:
        """Answers from now on."""
        self._turns.watch(self._socket.fileno(), self._receive)

    def _receive(self) -> bool:
        """Begins to answer the datagrams that have arrived; returns whether there were any."""
        for received in range(AT_ONCE):
            try:
                data, sender = self._socket.recvfrom(qmail_verify.LIMIT)
            except BlockingIOError:
                return received > 0
            except OSError:
                continue  # an error of an earlier answer that was sent
            question = qmail_verify.parse(data)
            if question is None:
                continue
            if self._asking >= self._waiting:
                self._send(qmail_verify.TEMPORARY, sender)
                continue
            self._asking += 1
            self._none_left.clear()
            self._answer(question, partial(self._answered, sender))
        return True

    def _answered(self, sender: Address, result: Result) -> None:
        self._asking -= 1
        if not self._asking:
            self._none_left.set()
        self._send(qmail_verify.reply(result), sender)

    def _send(self, data: bytes, sender: Address) -> None:
        with suppress(OSError):  # the client has gone or does not read: it has its own time-out
            self._socket.sendto(data, sender)

    async def finish(self) -> None:
        """Answers the datagrams that have arrived, and closes."""
        for _ in range(LAST_ROUNDS):  # bounded: clients may continue to send
            if not self._receive():
                break
            await asyncio.sleep(0)
        self._turns.forget(self._socket.fileno())
        await self._none_left.wait()
        self._socket.close()
