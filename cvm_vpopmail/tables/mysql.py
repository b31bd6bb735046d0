"""A connection to MySQL or MariaDB: PyMySQL logs in, and this asks prepared statements.

PyMySQL has no prepared statements: it writes the values into the text.  Here a statement is prepared once
per connection and the values go beside it (COM_STMT_PREPARE, COM_STMT_EXECUTE), on the socket that PyMySQL
has opened; that also costs a quarter of its time (25 us against 105 of CPU a question).

Invariants: all columns come as text, in the character set of vpopmail's own client library; numbers are cast.
Every wait ends at `until`.  What the server sends is checked before it is used, and bounded.

Source: MariaDB and MySQL client/server protocol; mysqld_error.h for the numbers of errors.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pymysql import err
from pymysql.connections import Connection
from pymysql.constants import CLIENT, CR

from cvm_vpopmail.credentials import Server
from cvm_vpopmail.tables import mysql_packets as packets
from cvm_vpopmail.tables.connection import PAGE, STATEMENTS, DatabaseError, Row, Select, Terms

T = TypeVar("T")

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108  MySQL's own
"""Where libmysqlclient, as distributions build it, looks for the host ``localhost``, whatever the port."""

LOGIN_ERRORS: tuple[type[Exception], ...] = (
    *(err.Error, OSError, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)
"""What PyMySQL raises if a server refuses, disconnects, requires an unknown login method, or is not a MySQL server."""

_PREPARE, _EXECUTE, _CLOSE, _FETCH = b"\x16", b"\x17", b"\x19", b"\x1c"
_READ_ONLY_CURSOR = 1
_VAR_STRING = b"\xfd\0"
_SYNCED = "4"
"""The wsrep_local_state of a node that is synced with its cluster."""

_execute_head = struct.Struct("<IBI")


def connect(server: Server, terms: Terms) -> MySqlConnection:
    """A connection.  Raises `DatabaseError`."""
    left = max(0.01, terms.until - time.monotonic())
    connection = logged_in(server, terms, connect=min(terms.connect, left), wait=left, autocommit=True)
    return MySqlConnection(connection, terms)


def logged_in(server: Server, terms: Terms, *, connect: float, wait: float, **more: Any) -> Any:
    """A connection of PyMySQL, over TLS if that is demanded.  Raises `DatabaseError`.

    `connect`: seconds for the server to accept it; `wait`: for each answer.  `more`: arguments of PyMySQL's own.
    """
    path = server.socket or (own_socket() if server.host == "localhost" else "")
    tls = None if path or terms.tls == "off" else tls_context(terms)
    try:
        return _Connection(
            host=server.host or "localhost",
            port=server.port or 3306,
            unix_socket=path or None,
            user=server.user,
            password=server.password.value.decode("latin-1"),  # PyMySQL sends it as latin-1: as it is
            database=server.database,
            charset="utf8mb4",
            connect_timeout=connect,
            read_timeout=wait,
            write_timeout=wait,
            ssl=tls,
            ssl_disabled=tls is None,  # else PyMySQL 1.2 uses it where it is offered, also on a Unix socket
            **more,
        )
    except LOGIN_ERRORS as error:
        raise converted(error, lost=True) from None


class _Connection(Connection):  # type: ignore[misc]  # PyMySQL has no types
    """What PyMySQL does not do, or not in all versions."""

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connects, and closes a Unix socket that cannot be connected: 1.2 leaves it to the garbage collector."""
        if self.unix_socket:
            sock = _unix_socket(self.unix_socket, self.connect_timeout)
            self._secure = True  # as if PyMySQL had made it: a password may go over it
        super().connect(sock)

    def _request_authentication(self) -> None:
        """Logs in; says nothing to a server without TLS where it is demanded: before 1.2 it logs in all the same."""
        if self.ssl and not self.server_capabilities & CLIENT.SSL:
            raise DatabaseError("database-refused", "offers no TLS, which the settings demand", lost=True)
        super()._request_authentication()


def _unix_socket(path: str, seconds: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(seconds)
        made.connect(path)
    except OSError as error:
        made.close()
        raise err.OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server ({error})") from None
    return made


def own_socket() -> str:
    """Where a server on this host listens; empty: nowhere."""
    return next((path for path in SOCKETS if os.path.exists(path)), "")


def tls_context(terms: Terms) -> ssl.SSLContext:
    """The TLS settings, which say how the server proves its identity.  Raises `DatabaseError`."""
    try:
        context = ssl.create_default_context(cafile=terms.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise DatabaseError("database-settings", f"{terms.ca}: {_words(error)}", lost=True) from None
    if terms.tls == "on":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def converted(error: Exception, *, lost: bool) -> DatabaseError:
    """An exception of PyMySQL as a `DatabaseError`."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    detail = _words(error)
    if "timed out" in detail:
        return DatabaseError("database-slow", "gave no answer in time", lost=True)
    if isinstance(error, err.MySQLError) and number and number < 2000:
        return DatabaseError(
            packets.REASONS.get(number, "database-error"), f"{detail} ({number})", lost=lost or number in packets.ENDS
        )
    return DatabaseError("database-down", detail, lost=True)


def _words(error: Exception) -> str:
    """The text of an exception, in one line."""
    text = str(error.args[1] if len(error.args) > 1 else error) or type(error).__name__
    return " ".join(text.split())


class MySqlConnection:
    """A `connection.Connection`."""

    def __init__(self, connection: Any, terms: Terms) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock  # noqa: SLF001  there is no other way to it
        self._statements: dict[tuple[Select, bytes], packets.Statement] = {}
        self._galera = False
        self.leads: bool | None = None
        self.about = str(connection.get_server_info())
        try:
            self._begin(terms)
        except DatabaseError:
            self.close()
            raise

    def _begin(self, terms: Terms) -> None:
        """Sets up the session: read-only; text as vpopmail gets it; the server aborts a query that takes too long."""
        milliseconds = max(1, int(terms.wait * 1000))
        limit = f"max_execution_time = {milliseconds}"
        if "mariadb" in self.about.lower():
            limit = f"max_statement_time = {milliseconds / 1000}"
        locks = f"lock_wait_timeout = {max(1, int(terms.wait))}"
        try:
            self._connection.query("SET SESSION TRANSACTION READ ONLY")
            self._connection.query(f"SET SESSION character_set_results = {terms.charset}, {locks}, {limit}")
            if "mariadb" in self.about.lower():
                self._galera = self._first("SELECT @@wsrep_on") == "1"
                self.leads = True if self._galera else None
        except LOGIN_ERRORS as error:
            raise converted(error, lost=True) from None

    def close(self) -> None:
        """Closes, without waiting."""
        try:
            self._socket.close()
            self._connection._force_close()  # noqa: SLF001  close() would write to it
        except (OSError, AttributeError):
            pass

    def rows(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """What the server finds.  Raises `DatabaseError`."""
        return self._execute(select, values, until, b"")

    def confirm(self, select: Select, values: Sequence[bytes], until: float, max_lag: float) -> list[Row] | None:  # noqa: ARG002  these servers do not know their lag
        """On a Galera node: the rows after everything that the cluster has committed is applied.

        Raises `DatabaseError`.
        """
        if not self._galera:
            return None
        self._connection._read_timeout = max(0.001, until - time.monotonic())  # noqa: SLF001  there is no other way to it
        try:
            state = self._first("SHOW GLOBAL STATUS LIKE 'wsrep_local_state'", 1)
        except LOGIN_ERRORS as error:
            raise converted(error, lost=True) from None
        if state != _SYNCED:
            detail = f"the node is not synced with its cluster (wsrep_local_state {state})"
            raise DatabaseError("database-lag", detail, lost=False)
        try:
            return self._execute(select, values, until, b"SET STATEMENT wsrep_sync_wait = 1 FOR ")
        except DatabaseError as error:
            if error.reason == "database-slow":
                detail = "the node did not catch up with its cluster in time"
                raise DatabaseError("database-lag", detail, lost=error.lost) from None
            raise

    def _first(self, query: str, column: int = 0) -> str:
        """A value of the first row, by PyMySQL.  Raises its exceptions."""
        self._connection.query(query)
        rows = self._connection._result.rows  # noqa: SLF001  cursors only copy it
        return str(rows[0][column]) if rows else ""

    def _execute(self, select: Select, values: Sequence[bytes], until: float, prefix: bytes) -> list[Row]:
        """`prefix`: what stands before the statement."""
        statement = self._statements.get((select, prefix))
        if statement is None:
            statement = self._prepare(select, until, prefix)
        given = b"".join(map(packets.with_length, values))
        return self._transfer(
            _EXECUTE + statement.head + given, lambda data: packets.rows(data, statement, select), until
        )

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the server finds, from a cursor of its own.  Raises `DatabaseError`."""
        statement = self._prepare(select, time.monotonic() + seconds)
        head = _execute_head.pack(statement.number, _READ_ONLY_CURSOR, 1) + statement.head[_execute_head.size :]
        given = b"".join(map(packets.with_length, values))
        until = time.monotonic() + seconds
        self._transfer(_EXECUTE + head + given, lambda data: packets.cursor(data, select), until)
        fetch = _FETCH + struct.pack("<II", statement.number, PAGE)
        more = True
        while more:
            until = time.monotonic() + seconds
            rows, more = self._transfer(fetch, lambda data: packets.page(data, len(select.columns)), until)
            yield rows

    # -- statements -------------------------------------------------------------------------------

    def _prepare(self, select: Select, until: float, prefix: bytes = b"") -> packets.Statement:
        while len(self._statements) >= STATEMENTS:
            oldest = self._statements.pop(next(iter(self._statements)))
            self._send(_CLOSE + struct.pack("<I", oldest.number), until)  # this has no answer
        number, columns, parameters = self._transfer(
            _PREPARE + prefix + packets.statement_text(select), packets.prepared, until
        )
        if (columns, parameters) != (len(select.columns), len(select.keys)):
            raise DatabaseError("database-error", "prepared another statement than the one sent", lost=True)
        head = _execute_head.pack(number, 0, 1) + bytes((parameters + 7) // 8) + b"\1" + _VAR_STRING * parameters
        self._statements[select, prefix] = statement = packets.Statement(number, head)
        return statement

    # -- bytes ------------------------------------------------------------------------------------

    def _transfer(self, command: bytes, parse: Callable[[bytes], T], until: float) -> T:
        """Sends a command; returns the result of `parse` for the complete answer."""
        self._send(command, until)
        data = b""
        while True:
            data += self._receive(until)
            try:
                return parse(data)
            except packets.Incomplete:
                if len(data) > packets.RESPONSE_LIMIT:
                    raise DatabaseError(
                        "database-error", f"answered more than {packets.RESPONSE_LIMIT} bytes", lost=True
                    ) from None

    def _send(self, command: bytes, until: float) -> None:
        try:
            self._wait_until(until)
            self._socket.sendall(struct.pack("<I", len(command)) + command)
        except TimeoutError:
            raise DatabaseError("database-slow", "did not accept the question in time", lost=True) from None
        except OSError as error:
            raise DatabaseError("database-down", _words(error), lost=True) from None

    def _receive(self, until: float) -> bytes:
        try:
            self._wait_until(until)
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise DatabaseError("database-slow", "gave no answer in time", lost=True) from None
        except OSError as error:
            raise DatabaseError("database-down", _words(error), lost=True) from None
        if not data:
            raise DatabaseError("database-down", "closed the connection", lost=True)
        return data

    def _wait_until(self, until: float) -> None:
        """The next call on the socket waits no longer.  Raises `TimeoutError` if that moment has passed."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
