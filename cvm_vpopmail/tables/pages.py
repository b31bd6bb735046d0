"""All rows of a table, in parts: for cvmctl, which lists accounts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.credentials import Server
from cvm_vpopmail.sqlconfig import Options
from cvm_vpopmail.tables.connection import Connect, DatabaseError, Row, Select, Terms
from cvm_vpopmail.tables.servers import CONNECT, SERVER_SHARE, place_of, where_of


class Pages:
    """A `sql.Paged`: each question has a connection of its own."""

    def __init__(self, tables: Tables, options: Options, connect: Connect) -> None:
        self._tables = tables
        self._options = options
        self._connect = connect

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All rows of the first server that answers, in parts, each within `seconds`; no request waits for it.

        Raises `Unavailable`, perhaps after some rows.
        """
        last = Unavailable("database-settings", "names no server")
        for server in self._tables.as_self(lambda: sqlconfig.servers(self._tables, self._options)):
            where = where_of(place_of(self._options, server))
            try:
                self._tables.mark(where)
                yield from self._pages_of(server, where, select, values, seconds)
                return
            except DatabaseError as error:
                last = Unavailable(error.reason, error.detail, where)
                if not error.lost:
                    break
            except Unavailable as error:
                if error.reason != "hang-backoff":
                    raise
                last = error
        raise last

    def _pages_of(
        self, server: Server, where: bytes, select: Select, values: Sequence[bytes], seconds: float
    ) -> Iterator[list[Row]]:
        """Raises `DatabaseError` before the first row; after it `Unavailable`."""
        options, until = self._options, time.monotonic() + seconds
        terms = Terms(options.tls, options.ca, options.charset, seconds * SERVER_SHARE, CONNECT, until)
        connection = self._tables.as_self(lambda: self._connect(server, terms))
        begun = False
        try:
            for rows in connection.pages(select, values, seconds):
                begun = True
                yield rows
                self._tables.mark(where)
        except DatabaseError as error:
            if not begun:
                raise
            raise Unavailable(error.reason, error.detail, where) from None
        finally:
            connection.close()
