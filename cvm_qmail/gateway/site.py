"""The pages of the http listeners: recipients, health, metrics, statistics, and the status page.

Invariants: read-only.  From other hosts only /healthz works without the token, which is compared in constant time.
Without a token, a page on the web must not be able to read these pages through a browser on this host (DNS
rebinding): so a domain name is not accepted as Host.  A page is added to `PAGES`: a function
from the statistics to its response.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable
from hmac import compare_digest

from cvm_qmail.gateway import metrics, status_page
from cvm_qmail.gateway.statistics import Snapshot
from cvm_qmail.observe.stats import Stats
from cvm_qmail.protocols import http
from cvm_qmail.protocols.http import Request, Response
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result

Page = Callable[[Snapshot], Response]

PAGES: dict[bytes, Page] = {
    b"/v1/statistics": lambda snapshot: http.json_response(snapshot.as_json()),
}
"""The pages by their path."""

_UNAUTHORIZED = Response(
    401,
    b"a bearer token is required, or the token as the password\n",
    headers=(("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="cvm-gateway"')),
)
_OTHER_HOST = Response(421, b"expected localhost or an IP address as the name of this host\n")
_NOT_ALLOWED = Response(405, b"expected GET or HEAD\n", headers=(("Allow", "GET, HEAD"),))
_NOT_FOUND = Response(404, b"no such page; there are /, /v1/recipients/ADDRESS, /v1/statistics, /metrics, /healthz\n")


class Site:
    """Answers requests."""

    def __init__(
        self,
        answer: Callable[[Question], Awaitable[Result]],
        healthy: Callable[[], Awaitable[str]],
        snapshot: Callable[[], Snapshot],
        token: bytes | None,
        *,
        named: bool = False,
        daemon: Callable[[], Stats | None] = lambda: None,
    ) -> None:
        """`healthy`: the cause if it is not.  `token` None: none is required.  `named`: Host may be a domain name.

        `daemon`: the daemon's counters, if they are available.
        """
        self._answer = answer
        self._healthy = healthy
        self._snapshot = snapshot
        self._token = token
        self._named = named
        self._daemon = daemon

    async def respond(self, request: Request) -> Response:
        """The response to any request."""
        path = request.path
        if request.method not in (b"GET", b"HEAD"):
            return _NOT_ALLOWED
        if path == b"/healthz":
            error = await self._healthy()
            return Response(503, f"{error}\n".encode()) if error else Response(200, b"ok\n")
        if self._token is not None and not compare_digest(_token(request.authorization), self._token):
            return _UNAUTHORIZED
        if self._token is None and self._named and not _is_ours(request.host):
            return _OTHER_HOST
        if path == b"/":
            return await self._status(request)
        if path == b"/metrics":
            return metrics.page(request.accept.decode("latin-1"), self._snapshot(), self._daemon())
        question = http.question(path)
        if question is not None:
            return http.reply(question, await self._answer(question))
        page = PAGES.get(path)
        return _NOT_FOUND if page is None else page(self._snapshot())

    async def _status(self, request: Request) -> Response:
        asked = status_page.asked_for(request.query)
        said = None
        if asked.question is not None:
            said = status_page.Said(asked.question, await self._answer(asked.question))
        return status_page.page(self._snapshot(), said, again=asked.again)


def _token(authorization: bytes) -> bytes:
    """The token that a client sends: as bearer, or as a browser's password with any user name."""
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return given if scheme.lower() == b"bearer" else b""
    try:
        return b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _is_ours(host: bytes) -> bool:
    """Whether a Host is not a domain name: empty, ``localhost``, another name without a dot, or an IP address."""
    name = re.sub(rb":[0-9]*$", b"", host)
    return b"." not in name or name.startswith(b"[") or re.fullmatch(rb"[0-9.]+", name) is not None
