"""Any bytes to an http connection: a response of HTTP with its length, or none; the connection ends at a half-close."""

from __future__ import annotations

import asyncio

from cvm_qmail.gateway.connections import Connections
from cvm_qmail.gateway.http_connection import HttpConnection
from cvm_qmail.gateway.site import Site
from cvm_qmail.gateway.statistics import Statistics
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

SEEDS = [
    b"GET /v1/recipients/joe%40ours.test HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /v1/statistics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"hello\r\n\r\n",
]


async def answer(_question: Question) -> Result:
    """Every address exists."""
    return Result(Outcome.ACCEPTED, "mailbox")


async def healthy() -> str:
    """It is."""
    return ""


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: object) -> None:
        """What goes to the client."""
        assert isinstance(data, bytes)
        assert not self.closed
        self.written += data

    def close(self) -> None:
        """No more."""
        self.closed = True

    def pause_reading(self) -> None:
        """Too much at once."""

    def resume_reading(self) -> None:
        """Enough."""


async def talk(data: bytes) -> Transport:
    """A client sends this and shuts its side."""
    statistics = Statistics(lambda: 0.0)
    site = Site(answer, healthy, lambda: statistics.snapshot([], [], 0), None)
    connection = HttpConnection(site.respond, Connections(1, 1.0, lambda: None), lambda: None, keep_alive=True)
    transport = Transport()
    connection.connection_made(transport)
    connection.data_received(data)
    while connection.busy:
        await asyncio.sleep(0)
    if not connection.eof_received():
        transport.closed = True  # as asyncio does
    return transport


def check(data: bytes) -> None:
    """See the head of this file."""
    transport = asyncio.run(talk(data))
    assert transport.closed
    written = transport.written.removeprefix(b"HTTP/1.1 100 \r\n\r\n")
    assert written == b"" or written.startswith(b"HTTP/1.1 ")
    assert written.count(b"\r\nContent-Length: ") == written.count(b"\r\nCache-Control: no-store\r\n")
