"""Another gateway, asked at its `/v1` over TLS.

Invariants: the certificate of the other end is checked, and its name.  A response is used only if it has the
gateway's own form and is about the address in the question; anything else is no answer.  At most `CONNECTIONS`
connections are kept and used again; the size of a response is bounded.

A kept connection may have been closed at the other end in the meantime: then the question is sent once more, on a new
one.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from functools import partial
from typing import NamedTuple

import h11

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway.module import Heard, down, slow
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols import http
from cvm_qmail.protocols.cvm.lookup import NoAnswer
from cvm_qmail.protocols.result import Result
from cvm_qmail.transports.datagram import split

CONNECTIONS = 16
"""Connections to one host; more questions wait until one of them is free."""

BODY_LIMIT = 16384
"""Bytes of a response's body: an address has up to 2,010 bytes, which JSON may write as six each."""

CHUNK = 16384

FORBIDDEN = frozenset((401, 403))
PROXY = frozenset((502, 503, 504))
"""Statuses of a proxy that cannot reach its gateway."""


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes


class Https:
    """A gateway at ``https://HOST[:PORT]/``."""

    def __init__(self, url: str, context: ssl.SSLContext, token: bytes, turns: Turns) -> None:
        """`token`: for the header Authorization; empty: none is sent."""
        self._url = url
        self._turns = turns
        host = url.removeprefix("https://").removesuffix("/")
        self._host, port = split(host if _has_port(host) else f"{host}:443")
        self._port = int(port)
        self._context = context
        self._headers = [("Host", host), ("Accept", "application/json"), ("User-Agent", "cvm-gateway")]
        if token:
            self._headers.append(("Authorization", "Bearer " + token.decode("latin-1")))
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._kept: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, recipient: Recipient, end: float, heard: Heard) -> None:
        """See `Way`."""
        task = asyncio.get_running_loop().create_task(self._serve(recipient, end, heard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """See `Way`."""
        for connection in self._kept:
            connection.close()
        self._kept.clear()

    async def _serve(self, recipient: Recipient, end: float, heard: Heard) -> None:
        said: Result | NoAnswer = NoAnswer("internal-error", f"{self._url}: internal error")
        self._turns.elsewhere += 1
        try:
            async with asyncio.timeout_at(end), self._free:
                said = _result(self._url, recipient, await self._get(http.path_of(recipient)))
        except NoAnswer as error:
            said = error
        except TimeoutError:
            said = slow(self._url)
        except (OSError, UnicodeError, h11.ProtocolError) as error:
            said = down(self._url, error)
        finally:
            self._turns.elsewhere -= 1
            heard(said)  # after any exception the question must end

    async def _get(self, path: str) -> Reply:
        while self._kept:
            try:
                return await self._try(self._kept.pop(), path)
            except (OSError, h11.ProtocolError):
                continue  # it was closed in the meantime
        return await self._try(await self._connect(), path)

    async def _connect(self) -> _Connection:
        opening = partial(asyncio.open_connection, ssl=self._context, limit=CHUNK)
        return _Connection(*await opening(self._host, self._port, server_hostname=self._host))

    async def _try(self, connection: _Connection, path: str) -> Reply:
        try:
            reply = await connection.get(path, self._headers)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable:
            self._kept.append(connection)
        else:
            connection.close()
        return reply


class _Connection:
    """One connection, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=BODY_LIMIT)

    @property
    def is_reusable(self) -> bool:
        """Whether another request can follow."""
        return self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE

    async def get(self, path: str, headers: list[tuple[str, str]]) -> Reply:
        """The response.  Raises OSError, h11.ProtocolError, `NoAnswer`."""
        request = h11.Request(method="GET", target=path, headers=headers)
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        status, body = 0, b""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT:
                    raise NoAnswer("backend-nonsense", f"a response of more than {BODY_LIMIT} bytes")
            elif not isinstance(event, h11.InformationalResponse):
                break  # its end
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return Reply(status, bytes(body))

    async def _event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(CHUNK))
        assert isinstance(event, h11.Event)
        return event

    def close(self) -> None:
        """Closes it without waiting."""
        self._writer.transport.abort()


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]") and (host.count(":") == 1 or "]:" in host)


def _result(url: str, asked: Recipient, reply: Reply) -> Result:
    """The result in a response.  Raises `NoAnswer`."""
    if reply.status in FORBIDDEN:
        raise NoAnswer("backend-secret", f"{url}: status {reply.status}; it requires a different token or certificate")
    try:
        found = http.result_of(asked, json.loads(reply.body))
    except (ValueError, RecursionError) as error:
        if reply.status in PROXY:
            raise NoAnswer("backend-down", f"{url}: status {reply.status}") from None
        raise NoAnswer("backend-nonsense", f"{url}: status {reply.status}, {error}") from None
    return found
