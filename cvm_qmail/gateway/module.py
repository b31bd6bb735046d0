"""What all ways to reach a module have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import lookup
from cvm_qmail.protocols.cvm.lookup import NoAnswer
from cvm_qmail.protocols.result import Result

NONCE = 8
"""The number of random bytes in a question over UDP, where anybody could answer."""

Heard = Callable[[Result | NoAnswer], None]
"""Receives a module's result, or why there is none."""

Got = Callable[[bytes | NoAnswer], None]
"""Receives the bytes of a response, or why there are none."""


class Way(Protocol):
    """A way to ask a module."""

    def ask(self, recipient: Recipient, end: float, heard: Heard) -> None:
        """Calls `heard` exactly once, now or later, by the time `end` of `time.monotonic`.  Raises only `TooLong`."""
        ...

    def close(self) -> None:
        """Nothing more will be asked."""
        ...


class Transfer(Protocol):
    """Carries CVM packets to a module and back."""

    def exchange(self, packet: bytes, end: float, got: Got) -> None:
        """Calls `got` exactly once, now or later, by the time `end` of `time.monotonic`.  Never raises."""
        ...

    def close(self) -> None:
        """Nothing more will be asked."""
        ...


class Cvm:
    """A module that speaks CVM.

    Without a nonce (a Unix socket has one connection for each question) the same question is the same packet, which
    lets the daemon answer it from its cache.
    """

    def __init__(self, transfer: Transfer, secret: bytes, *, nonce: bool) -> None:
        self._transfer = transfer
        self._secret = secret
        self._nonce_size = NONCE if nonce else 0

    def ask(self, recipient: Recipient, end: float, heard: Heard) -> None:
        """See `Way`."""
        nonce = os.urandom(self._nonce_size) if self._nonce_size else b""
        packet = lookup.request(recipient, self._secret, nonce)
        self._transfer.exchange(packet, end, partial(_understand, nonce, heard))

    def close(self) -> None:
        """See `Way`."""
        self._transfer.close()


def _understand(nonce: bytes, heard: Heard, answer: bytes | NoAnswer) -> None:
    said: Result | NoAnswer
    try:
        said = answer if isinstance(answer, NoAnswer) else lookup.result_of(answer, nonce)
    except NoAnswer as error:
        said = error
    heard(said)


def slow(address: str) -> NoAnswer:
    """No answer came in time."""
    return NoAnswer("backend-slow", f"{address}: no answer in time")


def down(address: str, error: Exception) -> NoAnswer:
    """The module cannot be reached."""
    return NoAnswer("backend-down", f"{address}: {getattr(error, 'strerror', None) or error}")
