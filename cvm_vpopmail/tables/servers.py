"""One connection to a database: opened when it is needed, to the first server that takes it, and again when it died.

    in use              asked; if it turns out to be dead, another one is opened and asked at once
    works               asked in the order configured
    failed              not asked for PAUSE, then by one worker at a time, for PROBE at most
    a table that hangs  likewise

A connection to a later server is kept until an earlier one takes one again, which is tried every RETURN.

A cached answer stays valid while the same questions have the same rows.

Invariants: what is waited for databases in one request ends at a share (BUDGET) of the lookup's deadline,
counted from the request's beginning, so that a database that hangs never costs a worker.  Every failure is
`Unavailable`.  A server that answers "no" to a question (no such table, no right to read it) has answered:
no other one is asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.process.network import EVERYTHING, Network
from cvm_qmail.tables.backends import BackendState
from cvm_qmail.tables.door import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.credentials import Server
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Options
from cvm_vpopmail.tables import network
from cvm_vpopmail.tables.connection import Absence, Connect, Connection, DatabaseError, Row, Select, Settles, Terms

BUDGET = 0.5
"""Share of the lookup's deadline that may be spent on waiting for databases."""

CONNECT = 0.75
"""Seconds for a server to take a connection; less than TCP waits before it asks a second time."""

PROBE = 0.4
"""Seconds for a server that failed to show that it works again."""

PAUSE = 0.4
"""Seconds for which a server that failed is not asked."""

RETURN = 10.0
"""Seconds after which a server before the one in use is tried again."""

SERVER_SHARE = 0.8
"""Share of the time for an answer after which the server itself gives up: it then says so, and the connection stays."""

_ANSWERS = frozenset({"database-tables", "database-columns", "database-lag"})
"""Reasons of a server that answers."""

_LEAST = 0.01
"""Seconds below which it makes no sense to ask."""


class Servers:
    """Database servers, asked as the head of this file says."""

    def __init__(
        self,
        tables: Tables,
        options: Options,
        connect: Connect,
        deadline: float,
        notices: Notices,
        *,
        allowed: Network = EVERYTHING,
    ) -> None:
        """`deadline`: seconds for a lookup.  `allowed`: what the sandbox lets this process open."""
        self._allowed = allowed
        self._tables = tables
        self._options = options
        self._connect = connect
        self._wait = deadline * BUDGET
        self._notices = notices
        self._in_use: _InUse | None = None
        self._return_at = 0.0
        self._doubted = False
        """Whether the server in use did not answer the last question."""

    def expect(self) -> None:
        """Names the servers to whoever watches back ends."""
        with suppress(Unavailable):
            self._servers()

    @property
    def where(self) -> bytes:
        """The server in use, as answers and the hang guard name it."""
        return b"database" if self._in_use is None else self._in_use.where

    @property
    def leads(self) -> bool | None:
        """Whether the server in use follows no other one; None: unknown."""
        return None if self._in_use is None else self._in_use.connection.leads

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        """The rows from the first server that can be asked.  Raises `Unavailable`."""
        until = self._tables.current.began + self._wait
        in_use = self._in_use
        if in_use is not None and not in_use.only and self._fails_elsewhere(in_use):
            self.close()
            in_use = None
        if until - time.monotonic() < _LEAST:
            raise Unavailable("database-slow", "there is no time left to ask", in_use.where if in_use else b"")
        if in_use is not None and not in_use.first and time.monotonic() >= self._return_at:
            self._go_back(until)
            in_use = self._in_use
        if in_use is not None:
            try:
                return self._ask(in_use, select, values, self._share(in_use, until))
            except DatabaseError as error:
                self.close()
                if error.reason == "database-slow":
                    self._failed(in_use.place, error)
        return self._ask_first_working(select, values, until)

    def confirm(self, select: Select, values: Sequence[bytes], rows: list[Row], settles: Settles) -> list[Row]:
        """The rows once more, after those that `rows` found settle nothing: from the first server not too far behind.

        Raises `Unavailable` if there is none.
        """
        until = self._tables.current.began + self._wait
        behind: set[str] = set()
        while (in_use := self._in_use) is not None:
            self._tables.mark(in_use.where, checked=True)
            try:
                share = self._share(in_use, until)
                confirmed = in_use.connection.confirm(select, values, share, self._options.max_lag)
            except DatabaseError as error:
                self._notices.say(f"{in_use.place} {error.reason}", f"{in_use.place}: {error.detail}")
                self._saw(in_use.place, error)
                if error.lost or not in_use.only:
                    self.close()
                if in_use.only or not (error.lost or error.reason == "database-lag"):
                    raise Unavailable(error.reason, error.detail, in_use.where) from None
                if error.reason != "database-lag":
                    self._failed(in_use.place, error)
                behind.add(in_use.place)
                last = Unavailable(error.reason, error.detail, in_use.where)
            else:
                return rows if confirmed is None else confirmed
            rows = self._ask_first_working(select, values, until, behind, last)
            if settles(rows):
                return rows
        raise Unavailable("database-down", "the connection is gone")

    @staticmethod
    def _share(in_use: _InUse, until: float) -> float:
        """Until when the server in use may take: half of the time that is left, if there are others."""
        return until if in_use.only else (time.monotonic() + until) / 2

    def _fails_elsewhere(self, in_use: _InUse) -> bool:
        """Whether another worker could not use this server."""
        return not self._notices.healthy and self._notices.failing(in_use.place)

    def close(self) -> None:
        """Closes the connection."""
        if self._in_use is not None:
            self._in_use.connection.close()
            self._in_use = None

    # -- asking -----------------------------------------------------------------------------------

    def _ask(self, in_use: _InUse, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """Raises `DatabaseError` if the connection can no longer be used; else `Unavailable`."""
        self._tables.mark(in_use.where, checked=True)
        try:
            if self._notices.healthy and not self._doubted:
                return in_use.connection.rows(select, values, until)
            return self._ask_in_turn(in_use, select, values, until)
        except DatabaseError as error:
            if error.lost:
                raise
            if error.reason != "database-tables" or select.absence is Absence.REJECTS:  # others are optional
                self._saw(in_use.place, error)
            if error.reason == "database-slow":
                self._notices.failed(f"{in_use.place} {select.table}", error.reason, error.detail, PAUSE)
            else:
                self._notices.say(f"{in_use.place} {error.reason}", f"{in_use.place}: {error.detail}")
            raise Unavailable(error.reason, error.detail, in_use.where) from None

    def _ask_in_turn(self, in_use: _InUse, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """The same while something fails: a table that hangs is asked by one worker at a time."""
        table = f"{in_use.place} {select.table}"
        if self._notices.failing(table):
            if self._notices.paused(table):
                raise Unavailable("database-slow", "timed out recently; retrying shortly", in_use.where)
            self._notices.pause_others(table, self._wait + PAUSE)
        rows = in_use.connection.rows(select, values, until)
        self._notices.recovered(table)
        self._notices.recovered(in_use.place)
        self._doubted = False
        self._tables.backends.saw(in_use.place, BackendState.UP)
        return rows

    def _ask_first_working(
        self,
        select: Select,
        values: Sequence[bytes],
        until: float,
        behind: Collection[str] = (),
        last: Unavailable | None = None,
    ) -> list[Row]:
        """The rows from the first server that can be asked, and is none of `behind`.

        Raises `Unavailable`: `last`, if there is no such server.
        """
        servers = self._servers()
        first = where_of(self._place(servers[0]))
        last = last or Unavailable("database-down", "failed recently; retrying shortly", first)
        for number, server in enumerate(servers):
            place = self._place(server)
            if place in behind or self._notices.paused(place):
                continue
            now = time.monotonic()
            share = now + (until - now) / (len(servers) - number)
            if self._notices.failing(place):
                self._notices.pause_others(place, PROBE + PAUSE)
                share = min(share, now + PROBE)
            if share - now < _LEAST:
                break
            try:
                in_use = self._open(server, number, len(servers), share)
                return self._ask(in_use, select, values, share)
            except DatabaseError as error:
                self.close()
                self._failed(place, error)
                last = Unavailable(error.reason, error.detail, where_of(place))
            except Unavailable as error:
                if error.reason != "hang-backoff":
                    raise
                last = error
        raise last

    def _failed(self, place: str, error: DatabaseError) -> None:
        """The server is not asked for a while; not for an answer that made no sense, which may be the question's."""
        self._saw(place, error)
        if error.reason == "database-error":
            self._notices.say(f"{place} {error.reason}", f"{place}: {error.detail}")
        else:
            self._notices.failed(place, error.reason, error.detail, PAUSE)

    def _saw(self, place: str, error: DatabaseError) -> None:
        """Reports the server's state to whoever watches back ends."""
        self._doubted = True
        state = None if error.reason in _ANSWERS else BackendState.DOWN
        if error.reason == "database-refused":
            state = BackendState.REFUSED
        self._tables.backends.saw(place, state, error.reason)

    # -- connections ------------------------------------------------------------------------------

    def _servers(self) -> list[Server]:
        """As the file says now.  Raises `Unavailable`."""
        try:
            servers = self._tables.as_self(lambda: sqlconfig.servers(self._tables, self._options))
        except Unavailable as error:
            file = os.fsdecode(error.where)
            self._notices.say(error.reason, f"{file}: {error.detail or error.reason}")
            self._tables.backends.expect(self, [file])
            self._tables.backends.saw(file, BackendState.DOWN, error.reason)
            raise
        self._tables.backends.expect(self, [self._place(server) for server in servers])
        return servers

    def _open(self, server: Server, number: int, count: int, until: float) -> _InUse:
        """A connection, in use from now on.  Raises `DatabaseError`; `Unavailable` during a quarantine."""
        place = self._place(server)
        network.check(self._allowed, self._options.dialect, server)
        self._tables.mark(where_of(place), checked=True)
        wait = self._wait if count == 1 else self._wait / 2
        terms = Terms(self._options.tls, self._options.ca, self._options.charset, wait * SERVER_SHARE, CONNECT, until)
        connection = self._tables.as_self(lambda: self._connect(server, terms))
        self._in_use = _InUse(connection, place, where_of(place), number == 0, count == 1)
        self._return_at = time.monotonic() + RETURN
        self._tables.backends.saw(place, BackendState.UP)
        return self._in_use

    def _go_back(self, until: float) -> None:
        """Changes to a server before the one in use, if one takes a connection."""
        self._return_at = time.monotonic() + RETURN
        kept = self._in_use
        try:
            servers = self._servers()
        except Unavailable:
            return
        for number, server in enumerate(servers):
            place = self._place(server)
            if kept is not None and place == kept.place:
                return
            if self._notices.paused(place):
                continue
            try:
                self._open(server, number, len(servers), min(until, time.monotonic() + PROBE))
            except DatabaseError as error:
                self._failed(place, error)
            except Unavailable:
                continue
            else:
                if kept is not None:
                    kept.connection.close()
                return

    def _place(self, server: Server) -> str:
        return place_of(self._options, server)


class _InUse(NamedTuple):
    connection: Connection
    place: str
    """The server, as messages name it."""
    where: bytes
    """The same, for answers and the hang guard."""
    first: bool
    """Whether it is the first of those configured."""
    only: bool


def place_of(options: Options, server: Server) -> str:
    """The name of a server in messages."""
    return f"{options.dialect.name}:{server.name}"


def where_of(place: str) -> bytes:
    """The same for answers and the hang guard."""
    return place.encode("utf-8", "surrogateescape")
