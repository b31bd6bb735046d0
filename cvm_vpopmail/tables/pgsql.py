"""A connection to PostgreSQL: libpq through psycopg's own module for it, psycopg.pq.

psycopg's cursors wait for an answer without an end, so this module waits itself.

Invariants: all columns come as text, in the bytes in which they are stored.  Every wait ends at `until`.

Source: PostgreSQL's manual, libpq - C Library: Database Connection Control Functions, Asynchronous Command
Processing; Appendix A for the error codes.
"""

from __future__ import annotations

import select as waiting
import time
from collections.abc import Callable, Iterator, Sequence

from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import abc

from cvm_vpopmail.credentials import Server
from cvm_vpopmail.tables.connection import PAGE, STATEMENTS, DatabaseError, Row, Select, Terms

_LAG = b"""
SELECT CASE WHEN pg_is_in_recovery() THEN
    extract(epoch FROM clock_timestamp() - greatest(
        pg_last_xact_replay_timestamp(),
        (SELECT last_msg_send_time FROM pg_stat_wal_receiver WHERE pg_last_wal_replay_lsn() >= latest_end_lsn)))
ELSE 0 END"""
"""How many seconds ago the data of a replica were those of the primary, at most; by the clocks of both.

The second time counts where all that was received is applied; it is NULL to a role without pg_read_all_stats.
"""

ROWS_LIMIT = 10_000
"""Rows of an answer: aliases have as many as they have lines."""

_REASONS = {
    b"53300": "database-full",  # too many connections
    b"28000": "database-refused",  # login
    b"28P01": "database-refused",  # wrong password
    b"3D000": "database-refused",  # no such database
    b"42501": "database-refused",  # no right to a table
    b"42P01": "database-tables",  # no such table
    b"42703": "database-columns",  # no such column
    b"42883": "database-columns",  # a column of another kind than text
    b"57014": "database-slow",  # statement_timeout
    b"55P03": "database-slow",  # lock_timeout
    b"40001": "database-slow",  # a replica: in conflict with what it applies
    b"57P01": "database-down",  # shutting down
    b"57P02": "database-down",  # crashed
    b"57P03": "database-down",  # starting up
}
_ENDS = frozenset({b"57P01", b"57P02", b"57P03", b"57P05", b"0A000"})
"""Errors with which the connection ends; or with which it had better: a prepared statement is out of date."""

_FINE = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})

_TLS = {"off": "disable", "on": "require", "verify": "verify-full"}

_COMING = ("starting up", "shutting down", "recovery mode", "not yet accepting")
_FULL = ("too many clients", "too many connections", "connection slots")


def conninfo(server: Server, terms: Terms) -> bytes:
    """The connection string of libpq for a server, with the password."""
    given: dict[str, str | int] = {
        "host": server.host,
        "port": server.port or "",
        "user": server.user,
        "dbname": server.database,
        "sslmode": _TLS[terms.tls] if not server.host.startswith("/") else "disable",
        "sslrootcert": terms.ca,
        "gssencmode": "disable",
        "fallback_application_name": "cvm-vpopmail",
    }
    text = make_conninfo("", **{name: value for name, value in given.items() if value != ""})
    info = text.encode()
    if server.password.value:
        info += b" password='%s'" % server.password.value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")
    return info


def connect(server: Server, terms: Terms) -> PgSqlConnection:
    """A connection.  Raises `DatabaseError`."""
    connection = pq.PGconn.connect_start(conninfo(server, terms))
    try:
        _log_in(connection, terms)
        return PgSqlConnection(connection, terms)
    except DatabaseError:
        connection.finish()
        raise


def _log_in(connection: abc.PGconn, terms: Terms) -> None:
    """Goes on until the connection is there.  Raises `DatabaseError`."""
    taken_by = time.monotonic() + terms.connect
    wanted: int = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and wanted != pq.PollingStatus.OK:
        if wanted == pq.PollingStatus.FAILED:
            break
        reached = connection.status not in (pq.ConnStatus.STARTED, pq.ConnStatus.BAD)
        until = terms.until if reached else min(terms.until, taken_by)
        event = waiting.POLLIN if wanted == pq.PollingStatus.READING else waiting.POLLOUT
        if not _ready(connection.socket, event, until):
            raise DatabaseError("database-slow", "gave no answer in time", lost=True)
        wanted = connection.connect_poll()
    if wanted != pq.PollingStatus.OK:
        raise no_connection(connection.error_message.decode("utf-8", "backslashreplace"))


def _ready(descriptor: int, event: int, until: float) -> bool:
    waited_for = waiting.poll()
    waited_for.register(descriptor, event)
    return bool(waited_for.poll(max(0, int((until - time.monotonic()) * 1000))))


def no_connection(text: str) -> DatabaseError:
    """What libpq says of a connection that did not come about, as a `DatabaseError`."""
    last = text.strip().rpartition("\n")[2].strip()
    server_says = last.partition("FATAL:")[2].strip()
    if not server_says:
        return DatabaseError("database-down", " ".join(text.split()), lost=True)
    reason = "database-refused"
    if any(words in server_says for words in _COMING):
        reason = "database-down"
    elif any(words in server_says for words in _FULL):
        reason = "database-full"
    return DatabaseError(reason, server_says, lost=True)


class PgSqlConnection:
    """A `connection.Connection`."""

    def __init__(self, connection: abc.PGconn, terms: Terms) -> None:
        self._connection = connection
        self._socket = connection.socket
        self._statements: dict[Select, bytes] = {}
        self._made = 0
        version = connection.parameter_status(b"server_version") or b"of unknown version"
        self.about = "PostgreSQL " + version.decode("ascii", "backslashreplace")
        self._readable = waiting.poll()
        self._readable.register(self._socket, waiting.POLLIN)
        self._do(
            b"SET default_transaction_read_only = on; SET client_encoding = SQL_ASCII; "
            b"SET standard_conforming_strings = on; SET statement_timeout = %d" % max(1, int(terms.wait * 1000)),
            terms.until,
        )

    def close(self) -> None:
        """Closes, without waiting."""
        self._connection.finish()

    def rows(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """What the server finds.  Raises `DatabaseError`."""
        name = self._statements.get(select)
        if name is None:
            name = self._prepare(select, until)
        self._send(lambda: self._connection.send_query_prepared(name, values))
        return _rows(self._result(until), select)

    @property
    def leads(self) -> bool | None:
        """Whether the server follows no other one.  It says so by itself since PostgreSQL 14, a promotion too."""
        standby = self._connection.parameter_status(b"in_hot_standby")
        return None if standby is None else standby == b"off"

    def confirm(self, select: Select, values: Sequence[bytes], until: float, max_lag: float) -> list[Row] | None:
        """The rows of a server that is at most `max_lag` seconds behind.  Raises `DatabaseError`."""
        if self.leads or not max_lag:
            return None
        self._send(lambda: self._connection.send_query_params(_LAG, None))
        lag = self._result(until).get_value(0, 0)
        if lag is None or float(lag) > max_lag:
            behind = "an unknown time" if lag is None else f"{float(lag):.1f} seconds"
            raise DatabaseError("database-lag", f"the replica is {behind} behind", lost=False)
        return self.rows(select, values, until)

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the server finds, from a cursor of its own.  Raises `DatabaseError`."""
        self._do(b"BEGIN READ ONLY", time.monotonic() + seconds)
        declare = b"DECLARE cvm NO SCROLL CURSOR FOR " + _text(select)
        self._send(lambda: self._connection.send_query_params(declare, values))
        self._result(time.monotonic() + seconds)
        more = True
        while more:
            self._send(lambda: self._connection.send_query_params(b"FETCH %d FROM cvm" % PAGE, None))
            result = self._result(time.monotonic() + seconds)
            yield _rows(result, select)
            more = result.ntuples == PAGE

    def _prepare(self, select: Select, until: float) -> bytes:
        while len(self._statements) >= STATEMENTS:
            oldest = self._statements.pop(next(iter(self._statements)))
            self._do(b"DEALLOCATE " + oldest, until)
        self._made += 1
        name = b"cvm%d" % self._made
        self._send(lambda: self._connection.send_prepare(name, _text(select)))
        self._result(until)
        self._statements[select] = name
        return name

    def _do(self, command: bytes, until: float) -> None:
        self._send(lambda: self._connection.send_query(command))
        self._result(until)

    def _send(self, send: Callable[[], None]) -> None:
        """Never waits: a question fits into the socket's buffer."""
        try:
            send()
        except OperationalError as error:
            raise DatabaseError("database-down", " ".join(str(error).split()), lost=True) from None

    def _result(self, until: float) -> abc.PGresult:
        """The last result of a command, when all of it is there.  Raises `DatabaseError` for an error."""
        connection = self._connection
        last = failed = None
        try:
            while True:
                while connection.is_busy():
                    left = until - time.monotonic()
                    if left <= 0 or not self._readable.poll(left * 1000):
                        raise DatabaseError("database-slow", "gave no answer in time", lost=True)
                    connection.consume_input()
                result = connection.get_result()
                if result is None:
                    break
                last = result
                if result.status not in _FINE:
                    failed = failed or self._refusal(result)
        except OperationalError as error:
            raise failed or DatabaseError("database-down", " ".join(str(error).split()), lost=True) from None
        if failed is not None:
            raise failed
        if last is None:
            raise DatabaseError("database-down", "closed the connection", lost=True)
        return last

    def _refusal(self, result: abc.PGresult) -> DatabaseError:
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        detail = " ".join(message.decode("utf-8", "backslashreplace").split())
        lost = state is None or state in _ENDS or self._connection.status == pq.ConnStatus.BAD
        if state is None:
            return DatabaseError("database-down", detail, lost=True)
        return DatabaseError(_REASONS.get(state, "database-error"), f"{detail} ({state.decode()})", lost=lost)


def _text(select: Select) -> bytes:
    if select.statement:
        first, *others = select.statement.split("?")
        return "".join([first, *(f"${number}{part}" for number, part in enumerate(others, 1))]).encode()
    columns = ", ".join(f'"{name}"' for name in select.columns)
    keys = " AND ".join(f'"{name}" = ${number}' for number, name in enumerate(select.keys, 1)) or "true"
    return f'SELECT {columns} FROM "{select.table}" WHERE {keys}'.encode()  # noqa: S608  see `Select`


def _rows(result: abc.PGresult, select: Select) -> list[Row]:
    count = len(select.columns)
    if result.nfields != count or result.ntuples > ROWS_LIMIT:
        raise DatabaseError("database-error", f"answered {result.ntuples} rows of {result.nfields} columns", lost=True)
    get = result.get_value
    return [[get(row, column) for column in range(count)] for row in range(result.ntuples)]
