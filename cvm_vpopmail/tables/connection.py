"""The interface of a connection to any kind of database, which `mysql` and `pgsql` implement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from cvm_vpopmail.credentials import Server

STATEMENTS = 256
"""The number of prepared statements that a connection keeps: with one table per domain there may be thousands."""

PAGE = 1000
"""The number of rows that are read at a time where there may be very many."""

Row = Sequence[bytes | None]


class Absence(Enum):
    """The consequence if a `Select` finds no row."""

    HARMLESS = 0
    """A default is used."""
    CONTRIBUTES = 1
    """Together with another absence it may lead to a rejection: no such alias."""
    REJECTS = 2
    """It may lead to a rejection by itself: no such account."""


class Select(NamedTuple):
    """``SELECT columns FROM table WHERE key = ? AND key = ?``.  All its parts are constants or follow the naming rule.

    Without keys, all rows.
    """

    columns: tuple[str, ...]
    table: str
    keys: tuple[str, ...]
    numbers: frozenset[str] = frozenset()
    """Those columns that are numbers."""
    absence: Absence = Absence.HARMLESS
    statement: str = ""
    """The whole statement, if it is not of that form, with ``?`` for the value of each key; all columns are text."""


class DatabaseError(Exception):
    """The server did not answer, or refused to: a reason word of reasons.py, and human-readable text.

    `lost`: the connection, or the attempt to open one, has ended.
    """

    def __init__(self, reason: str, detail: str, *, lost: bool) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.lost = lost


class Connection(Protocol):
    """A connection to one server.  Each call raises `DatabaseError`; `until` is by time.monotonic."""

    about: str
    """The server's version, human-readable."""

    def rows(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """The rows that the server finds."""
        ...

    @property
    def leads(self) -> bool | None:
        """Whether the server follows no other one, so that no other can know more.  None: unknown."""
        ...

    def confirm(self, select: Select, values: Sequence[bytes], until: float, max_lag: float) -> list[Row] | None:
        """The rows once more, after `rows` found too little: as they are now, as far as a server can know.

        None: it knows no more than it has said.  `max_lag`: seconds that a server may be behind the one it follows;
        0: any.  Raises `DatabaseError` with ``database-lag`` if the server is further behind, or that cannot be
        determined.
        """
        ...

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the server finds, PAGE rows at a time, each within `seconds`; the last use of the connection."""
        ...

    def close(self) -> None:
        """Closes, without waiting.  Never raises."""
        ...


class Terms(NamedTuple):
    """How a connection is opened.  Seconds; `until` is by time.monotonic."""

    tls: str
    ca: str
    charset: str
    """MySQL: the character set that text comes in."""
    wait: float
    """Seconds after which the server itself aborts a query."""
    connect: float
    """Seconds for the server to accept the connection."""
    until: float


Settles = Callable[[list[Row]], bool]
"""Whether rows need no second look: no address is rejected because of them."""

Connect = Callable[[Server, Terms], Connection]
"""Opens a connection.  Raises `DatabaseError`."""
