"""One connection to a database: opened when it is needed, to the first server that takes it, and again when it died.

    in use              asked; if it turns out to be dead, another one is opened and asked at once
    not in trouble      tried in the order configured
    in trouble          left alone for REST, then tried by one worker at a time, for PROBE at most
    a table that hangs  likewise

A connection to a later server is kept until an earlier one takes one again, which is tried every RETURN.

An answer that was given is given again without being judged again if the same questions have the same rows.

Law: what is waited for a database in one request ends at a share (BUDGET) of the look-up's deadline,
counted from the request's beginning, so that a database that hangs is this module's trouble and not the
supervisor's.  Every trouble is `Unavailable`.  A server that answers "no" to a question (no such table,
no right to read it) has answered: no other one is asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Options, Server

BUDGET = 0.5
"""Share of the look-up's deadline that may be spent on waiting for databases."""

CONNECT = 0.75
"""Seconds for a server to take a connection; less than TCP waits before it asks a second time."""

PROBE = 0.4
"""Seconds for a server in trouble to show that it works again."""

REST = 0.4
"""Seconds for which a server in trouble is left alone."""

RETURN = 10.0
"""Seconds after which a server before the one in use is tried again."""

_PATIENCE = 0.8
"""Share of our waiting after which the server gives up by itself: it then says so, and the connection lives on."""

_LEAST = 0.01
"""Seconds that it makes no sense to ask in."""

STATEMENTS = 256
"""Prepared statements that a connection keeps: with one table per domain there may be thousands."""

PAGE = 1000
"""Rows that are taken at a time where there may be very many."""

Row = Sequence[bytes | None]


class Select(NamedTuple):
    """``SELECT columns FROM table WHERE key = ? AND key = ?``.  All of it is ours, or follows the naming rule.

    Without keys, all rows.
    """

    columns: tuple[str, ...]
    table: str
    keys: tuple[str, ...]
    numbers: frozenset[str] = frozenset()
    """Those columns that are numbers."""


class Trouble(Exception):
    """The server could not, or would not: a constant word, and text for people.

    `lost`: the connection, or the attempt to have one, is over.
    """

    def __init__(self, reason: str, detail: str, *, lost: bool) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.lost = lost


class Connection(Protocol):
    """A connection to one server.  Each call raises `Trouble`; `until` is by time.monotonic."""

    about: str
    """The server's version, for people."""

    def rows(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """What the server finds."""
        ...

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the server finds, PAGE rows at a time, each within `seconds`.  The connection is of no more use."""
        ...

    def close(self) -> None:
        """Lets go, without waiting.  Never raises."""
        ...


class Terms(NamedTuple):
    """On which terms a connection is to be had."""

    tls: str
    ca: str
    charset: str
    """MySQL: the character set that text comes in."""
    wait: float
    """Seconds after which the server is to give up a question by itself."""
    connect: float
    """Seconds for the server to take the connection."""
    until: float


Connect = Callable[[Server, Terms], Connection]
"""Raises `Trouble`."""


class Servers:
    """See the head of this file."""

    def __init__(
        self,
        tables: Tables,
        options: Options,
        connect: Connect,
        deadline: float,
        notices: Notices,
    ) -> None:
        """`deadline`: seconds for a look-up."""
        self._tables = tables
        self._options = options
        self._connect = connect
        self._wait = deadline * BUDGET
        self._notices = notices
        self._in_use: _InUse | None = None
        self._return_at = 0.0

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        """What the database finds.  Raises `Unavailable`."""
        try:
            rows = self._rows(select, values)
        except Unavailable:
            self._tables.doubt()
            raise
        found = _digest(rows)
        self._tables.rests_on(lambda: _digest(self._rows(select, values)) == found)
        return rows

    def _rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        until = self._tables.began + self._wait
        in_use = self._in_use
        if until - time.monotonic() < _LEAST:
            raise Unavailable("database-slow", "there is no time left to ask", in_use.where if in_use else b"")
        if in_use is not None and not in_use.first and time.monotonic() >= self._return_at:
            self._go_back(until)
            in_use = self._in_use
        if in_use is not None:
            now = time.monotonic()
            try:
                return self._ask(in_use, select, values, until if in_use.only else now + (until - now) / 2)
            except Trouble as trouble:
                self.close()
                if trouble.reason == "database-slow":
                    self._failed(in_use.place, trouble)
        return self._ask_the_first_that_works(select, values, until)

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the first server finds that can be asked, in parts, each within `seconds`; no request waits for it.

        Raises `Unavailable`, perhaps when there were some already.
        """
        last = Unavailable("database-settings", "names no server")
        for server in self._servers():
            where = _where(self._place(server))
            try:
                self._tables.enter(where)
                yield from self._pages_of(server, where, select, values, seconds)
                return
            except Trouble as trouble:
                last = Unavailable(trouble.reason, trouble.detail, where)
                if not trouble.lost:
                    break
            except Unavailable as trouble:
                if trouble.reason != "shunned":
                    raise
                last = trouble
        raise last

    def _pages_of(
        self, server: Server, where: bytes, select: Select, values: Sequence[bytes], seconds: float
    ) -> Iterator[list[Row]]:
        """Raises `Trouble` while there is nothing yet; then `Unavailable`."""
        options, until = self._options, time.monotonic() + seconds
        terms = Terms(options.tls, options.ca, options.charset, seconds * _PATIENCE, CONNECT, until)
        connection = self._tables.as_self(lambda: self._connect(server, terms))
        begun = False
        try:
            for rows in connection.pages(select, values, seconds):
                begun = True
                yield rows
                self._tables.enter(where)
        except Trouble as trouble:
            if not begun:
                raise
            raise Unavailable(trouble.reason, trouble.detail, where) from None
        finally:
            connection.close()

    def close(self) -> None:
        """Lets go of the connection."""
        if self._in_use is not None:
            self._in_use.connection.close()
            self._in_use = None

    # -- asking -----------------------------------------------------------------------------------

    def _ask(self, in_use: _InUse, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """Raises `Trouble` if the connection is of no more use; else `Unavailable`."""
        self._tables.enter(in_use.where, vouched=True)
        try:
            if self._notices.calm:
                return in_use.connection.rows(select, values, until)
            return self._ask_with_care(in_use, select, values, until)
        except Trouble as trouble:
            if trouble.lost:
                raise
            if trouble.reason == "database-slow":
                self._notices.trouble(f"{in_use.place} {select.table}", trouble.reason, trouble.detail, REST)
            else:
                self._notices.say(f"{in_use.place} {trouble.reason}", f"{in_use.place}: {trouble.detail}")
            raise Unavailable(trouble.reason, trouble.detail, in_use.where) from None

    def _ask_with_care(self, in_use: _InUse, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """The same while something is in trouble: a table that hangs is asked by one worker at a time."""
        table = f"{in_use.place} {select.table}"
        if self._notices.troubled(table):
            if self._notices.resting(table):
                raise Unavailable("database-slow", "gave no answer a moment ago, and is asked again soon", in_use.where)
            self._notices.try_again(table, self._wait + REST)
        rows = in_use.connection.rows(select, values, until)
        self._notices.well(table)
        self._notices.well(in_use.place)
        return rows

    def _ask_the_first_that_works(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        servers = self._servers()
        last = Unavailable(
            "database-down", "failed a moment ago, and is asked again soon", _where(self._place(servers[0]))
        )
        for number, server in enumerate(servers):
            place = self._place(server)
            if self._notices.resting(place):
                continue
            now = time.monotonic()
            share = now + (until - now) / (len(servers) - number)
            if self._notices.troubled(place):
                self._notices.try_again(place, PROBE + REST)
                share = min(share, now + PROBE)
            if share - now < _LEAST:
                break
            try:
                in_use = self._open(server, number, len(servers), share)
                return self._ask(in_use, select, values, share)
            except Trouble as trouble:
                self.close()
                self._failed(place, trouble)
                last = Unavailable(trouble.reason, trouble.detail, _where(place))
            except Unavailable as trouble:
                if trouble.reason != "shunned":
                    raise
                last = trouble
        raise last

    def _failed(self, place: str, trouble: Trouble) -> None:
        """The server is left alone for a while; not for an answer that made no sense, which may be the question's."""
        if trouble.reason == "database-error":
            self._notices.say(f"{place} {trouble.reason}", f"{place}: {trouble.detail}")
        else:
            self._notices.trouble(place, trouble.reason, trouble.detail, REST)

    # -- connections ------------------------------------------------------------------------------

    def _servers(self) -> list[Server]:
        """As the file says now.  Raises `Unavailable`."""
        try:
            return self._tables.as_self(lambda: sqlconfig.servers(self._tables, self._options))
        except Unavailable as trouble:
            self._notices.say(trouble.reason, f"{os.fsdecode(trouble.where)}: {trouble.detail or trouble.reason}")
            raise

    def _open(self, server: Server, number: int, count: int, until: float) -> _InUse:
        """A connection, in use from now on.  Raises `Trouble`, or `Unavailable` while the server is shunned."""
        place = self._place(server)
        self._tables.enter(_where(place), vouched=True)
        wait = self._wait if count == 1 else self._wait / 2
        terms = Terms(self._options.tls, self._options.ca, self._options.charset, wait * _PATIENCE, CONNECT, until)
        connection = self._tables.as_self(lambda: self._connect(server, terms))
        self._in_use = _InUse(connection, place, _where(place), number == 0, count == 1)
        self._return_at = time.monotonic() + RETURN
        return self._in_use

    def _go_back(self, until: float) -> None:
        """To a server before the one in use, if one takes a connection."""
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
            if self._notices.resting(place):
                continue
            try:
                self._open(server, number, len(servers), min(until, time.monotonic() + PROBE))
            except Trouble as trouble:
                self._failed(place, trouble)
            except Unavailable:
                continue
            else:
                if kept is not None:
                    kept.connection.close()
                return

    def _place(self, server: Server) -> str:
        return f"{self._options.backend}:{server.name}"


def _digest(rows: list[Row]) -> int:
    """What tells rows from others, and is kept in their place: they may be long, and hold the hash of a password."""
    return hash(tuple(map(tuple, rows)))  # of bytes: with a key of this process's own


class _InUse(NamedTuple):
    connection: Connection
    place: str
    """The server, for people."""
    where: bytes
    """The same."""
    first: bool
    """Whether it is the first of those configured."""
    only: bool


def _where(place: str) -> bytes:
    return place.encode("utf-8", "surrogateescape")
