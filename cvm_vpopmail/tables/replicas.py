"""What databases find, where one of them may not have heard of an account that another one has.

    rows                from the first server that answers
    no account          before that rejects an address, a second look:
      at the primary    `Options.primary`, unless the server that answered follows no other one
      at the server     Galera: when the node has applied all that the cluster has; PostgreSQL: a replica that is at
                        most `Options.max_lag` behind; else the next server
      at neither        a temporary failure: database-lag

Invariants: what a second look finds counts.  Where an absence cannot be confirmed, nothing is rejected.  A cached
answer is checked in the same way as a new one.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.answer import Unavailable
from cvm_qmail.process.network import Network
from cvm_qmail.tables.dependencies import Request
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Options
from cvm_vpopmail.tables.connection import Absence, Connect, Row, Select, Settles
from cvm_vpopmail.tables.servers import Servers


class Replicas:
    """A `sql.Database`."""

    def __init__(self, tables: Tables, servers: Servers, primary: Servers | None, *, check_lag: bool) -> None:
        """`check_lag`: whether servers know how far behind they may be, where the primary cannot be asked."""
        self._tables = tables
        self._servers = servers
        self._primary = primary
        self._check_lag = check_lag
        self._request: Request | None = None
        self._absent: list[tuple[Select, Sequence[bytes]]] = []
        """What contributes to a rejection in this request."""

    @classmethod
    def of(
        cls,
        tables: Tables,
        options: Options,
        connect: Connect,
        deadline: float,
        notices: Notices,
        *,
        allowed: Network,
    ) -> Replicas:
        """Those that the options name; nothing is connected yet.  For the rest see `Servers`."""
        servers = Servers(tables, options, connect, deadline, notices, allowed=allowed)
        primary = None
        if options.primary:
            alone = options._replace(servers=options.primary)
            primary = Servers(tables, alone, connect, deadline, notices, allowed=allowed)
        if tables.lasting:
            for asked in (servers, primary):
                if asked is not None:
                    asked.expect()
        return cls(tables, servers, primary, check_lag=options.max_lag > 0)

    def close(self) -> None:
        """Closes the connections."""
        self._servers.close()
        if self._primary is not None:
            self._primary.close()

    def rows(self, select: Select, values: Sequence[bytes], settles: Settles = bool) -> list[Row]:
        """What the databases find; a second look where that does not settle it (without `settles`: where it is none).

        Raises `Unavailable`.
        """
        try:
            rows = self._rows(select, values, settles)
        except Unavailable:
            self._tables.current.not_cacheable()
            raise
        found = _digest(rows)
        self._tables.current.recheck_with(
            self._servers.where, lambda: _digest(self._rows(select, values, settles)) == found
        )
        return rows

    def _rows(self, select: Select, values: Sequence[bytes], settles: Settles) -> list[Row]:
        rows = self._servers.rows(select, values)
        if select.absence is Absence.HARMLESS or settles(rows):
            return rows
        if self._request is not self._tables.current:
            self._request = self._tables.current
            self._absent = []
        if select.absence is Absence.CONTRIBUTES:
            self._absent.append((select, values))
            return rows
        rows = self._confirm(select, values, rows, settles)
        if not settles(rows) and any(self._confirm(*absent, [], bool) for absent in self._absent):
            raise Unavailable("database-lag", "a row of another table has just been made", self._servers.where)
        return rows

    def _confirm(self, select: Select, values: Sequence[bytes], rows: list[Row], settles: Settles) -> list[Row]:
        if self._primary is None or self._servers.leads:
            return self._servers.confirm(select, values, rows, settles)
        try:
            return self._primary.rows(select, values)
        except Unavailable:
            if not self._check_lag:
                raise
            return self._servers.confirm(select, values, rows, settles)


def _digest(rows: list[Row]) -> int:
    """Kept in place of the rows, to compare with: they may be long, and hold the hash of a password."""
    return hash(tuple(map(tuple, rows)))  # of bytes: with a key of this process's own
