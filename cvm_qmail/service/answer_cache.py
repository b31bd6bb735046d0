"""Cached responses, valid while everything they depend on is unchanged.

Invariants: a response is sent again only for exactly the same request, and only while all its dependencies are
unchanged: control files, users/cdb, the password file and the directories above a home by the stamp of the
watch; the home and the deciding .qmail file by their identity, which is read again (a name that was missing from a
home is still missing while the home's mtime is the same).  An answer with a dependency that
cannot be checked later is not cached; neither are temporary failures and requests with a password.
Bounded, and a response is cached only when its request comes for the second time: a dictionary attack
changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.tables.dependencies import Dependencies, Request
from cvm_qmail.tables.door import Tables

LIMIT = 8192
"""The number of responses that are kept; one takes less than a kilobyte."""

ONCE_LIMIT = 4096
"""The number of requests that are remembered after their first time."""


class Cached(NamedTuple):
    """A response, and the sinks' token for it."""

    response: bytes
    token: object


class AnswerCache:
    """See the head of this file."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._responses: dict[bytes, tuple[Dependencies, Cached]] = {}
        self._asked_once: set[int] = set()
        """Hashes of requests that came once."""

    def expects(self, packet: bytes) -> bool:
        """Whether the response to this request will be kept, because the request came before."""
        return hash(packet) in self._asked_once

    def get(self, packet: bytes) -> Cached | None:
        """The response to exactly this request that was sent before, if all its dependencies are unchanged.

        `Tables.arrived` has been called for the current request.
        """
        known = self._responses.get(packet)
        if known is None:
            return None
        dependencies, cached = known
        try:
            valid = self._tables.still_valid(dependencies)
        except Exception:  # noqa: BLE001  a plug-in's check may raise anything: the lookup meets it too, and reports it
            valid = False
        if valid:
            return cached
        del self._responses[packet]
        return None

    def put(self, packet: bytes, cached: Cached, request: Request) -> None:
        """Keeps a response if its request came before, and its dependencies can be checked later."""
        number = hash(packet)
        if number not in self._asked_once:
            if len(self._asked_once) >= ONCE_LIMIT:
                self._asked_once.clear()
            self._asked_once.add(number)
            return
        dependencies = request.dependencies()
        if dependencies is not None:
            if len(self._responses) >= LIMIT:
                del self._responses[next(iter(self._responses))]
            self._responses[packet] = dependencies, cached
