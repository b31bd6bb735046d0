"""Requests over UDP: one datagram in, one out, to the sender's address.

Invariants: a datagram is a whole request; one without bytes gets no answer.

Source: cvm 0.97 (module_udp.c, client_xfer_udp.c).
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

BACKLOG = 1024
"""The number of datagrams that are still answered after the signal to stop."""

IDLE = 0.5
"""Seconds after which an idle worker looks for datagrams that another worker was woken for, but did not read."""

Respond = Callable[[bytes], bytes]


def split(address: str) -> tuple[str, str]:
    """Host and port of ``host:port`` or ``[v6]:port``.  Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address}: an IPv6 address belongs in brackets, like [::1]:port")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"{address}: expected host:port, with a port from 1 to 65535")
    return host, port


def bind(host: str, port: str) -> socket.socket:
    """A socket bound to the first address of `host`.  Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


class Worker:
    """The loop of one worker: receives, calls `respond`, sends; it decides nothing."""

    def __init__(
        self,
        bound: socket.socket,
        respond: Respond,
        *,
        limit: int,
        received: Callable[[bytes, object], None],
        wake: int,
        stopping: Callable[[], bool],
        afterwards: Callable[[], None],
    ) -> None:
        """`limit`: bytes of a request; `respond` gets one byte more of a longer one.

        `received` is called with each request and its sender before it is answered.

        `wake`: a descriptor that becomes readable when `stopping` may have changed.
        `afterwards` is called when a response has been sent.
        """
        self._socket = bound
        self._respond = respond
        self._limit = limit
        self._received = received
        self._wake = wake
        self._stopping = stopping
        self._afterwards = afterwards
        self._epoll = select.epoll()

    def run(self) -> None:
        """Serves until `stopping`, then answers the datagrams that are waiting."""
        self._epoll.register(self._socket, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._epoll.register(self._wake, select.EPOLLIN)
        while not self._stopping():
            self._epoll.poll(IDLE)
            if not self._answer():
                self._afterwards()
        for _ in range(BACKLOG):  # only datagrams that came before: under load there is always one more
            if not self._answer():
                break
        self._socket.close()

    def _answer(self) -> bool:
        """Receives one datagram and answers it; False if there is none."""
        try:
            request, sender = self._socket.recvfrom(self._limit + 1)
        except BlockingIOError:
            return False  # another worker was faster
        except OSError:
            return True  # an error of an earlier answer that was sent
        self._received(request, sender)
        response = self._respond(request)
        if response:
            try:
                self._socket.sendto(response, sender)
            except OSError:
                pass  # the client has gone or is unreachable: it will ask again
        self._afterwards()
        return True
