"""A client that speaks HTTP/1; h11 parses its bytes.

Invariants: headers and body of a request are bounded.  Bytes that are not HTTP get a status of 4xx, and the
connection is closed.  Every response has a length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11

from cvm_qmail.gateway.connections import Connections
from cvm_qmail.protocols.http import Request, Response

HEADERS_LIMIT = 16384
"""Bytes of a request's first line and headers: an address has up to 2,010 bytes, each sent as three."""

BODY_LIMIT = 65536
"""Bytes of a request's body, which is not used."""

ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
"""Headers of every response."""

Respond = Callable[[Request], Awaitable[Response]]


class HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(
        self, respond: Respond, connections: Connections, malformed: Callable[[], None], *, keep_alive: bool
    ) -> None:
        self._respond = respond
        self._connections = connections
        self._malformed = malformed
        self._keep_alive = keep_alive
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._writable: asyncio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, to a client that reads its answers."""
        return self._task is not None and self._writable is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.opened(self)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._transport is None or self._http.their_state is h11.ERROR:
            return
        self._http.receive_data(data)
        if self._task is None:
            self._go_on()
        elif len(self._http.trailing_data[0]) > HEADERS_LIMIT:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Keeps the connection open while answers are pending."""
        self._closing = True
        return self._task is not None

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is closed."""
        self._transport = None
        self.resume_writing()
        self._connections.lost(self)

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """The client reads its answers again."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def close(self) -> None:
        """Closes it after the current answer."""
        self._closing = True
        if self._writable is not None:
            self.drop()  # the client does not even read
        elif self._task is None:
            self._hang_up()

    def drop(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _go_on(self) -> None:
        """Answers a request, if there is a complete one."""
        try:
            while self._task is None:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    self._request, self._body = event, 0
                elif isinstance(event, h11.Data):
                    self._body += len(event.data)
                    if self._body > BODY_LIMIT:
                        raise h11.RemoteProtocolError("body too long", error_status_hint=413)
                elif isinstance(event, h11.EndOfMessage) and self._request is not None:
                    self._task = asyncio.get_running_loop().create_task(self._serve(self._request))
                elif event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    break
                else:
                    self._hang_up()
                    break
        except h11.RemoteProtocolError as bad:
            self._refuse(bad.error_status_hint)

    def _refuse(self, status: int) -> None:
        self._malformed()
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(Response(status, b"malformed request\n"), close=True)
        self._hang_up()

    async def _serve(self, request: h11.Request) -> None:
        try:
            await self._respond_to(request)
        except BaseException:
            self._task = None
            self._hang_up()  # a client must not wait after an exception here
            raise

    async def _respond_to(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        known = (headers.get(name, b"") for name in (b"authorization", b"host", b"accept"))
        asked = Request(request.method, request.target, *known)
        response = await self._respond(asked)
        if self._transport is not None:
            self._write(response, close=self._closing or not self._keep_alive)
        if self._writable is not None:
            await self._writable.wait()
        self._task = None
        if self._transport is None:
            return
        if len(self._http.trailing_data[0]) <= HEADERS_LIMIT:
            self._transport.resume_reading()
        self._connections.answered(self)
        if self._http.our_state is not h11.DONE or self._closing:
            self._hang_up()
            return
        self._http.start_next_cycle()
        self._request = None
        self._go_on()

    def _write(self, response: Response, *, close: bool) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *ALWAYS,
            *response.headers,
            *((("Connection", "close"),) if close else ()),
        ]
        head = h11.Response(
            status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase.encode()
        )
        if self._request is not None and self._request.method == b"HEAD":
            self._send(head, h11.EndOfMessage())
        else:
            self._send(head, h11.Data(data=response.body), h11.EndOfMessage())

    def _send(self, *events: h11.Event) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
