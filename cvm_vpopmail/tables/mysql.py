"""A connection to MySQL or MariaDB: PyMySQL logs in, and this asks prepared statements.

PyMySQL has no prepared statements: it writes the values into the text.  Here a statement is prepared once
per connection and the values go beside it (COM_STMT_PREPARE, COM_STMT_EXECUTE), on the socket that PyMySQL
has opened; that also costs a quarter of its time (25 us against 105 of CPU a question).

    packet      length (3 bytes), number (1), body
    answer      number of columns, a packet for each column, EOF, a packet for each row, EOF; or an error

Law: all columns come as text, in the character set of vpopmail's own client library; numbers are cast.
Every wait ends at `until`.  What the server sends is checked before it is believed, and bounded.

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

import pymysql
from pymysql import err

from cvm_vpopmail.sqlconfig import Server
from cvm_vpopmail.tables.servers import PAGE, STATEMENTS, Row, Select, Terms, Trouble

T = TypeVar("T")

RESPONSE_LIMIT = 1 << 20
"""Bytes of an answer."""

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108  MySQL's own
"""Where libmysqlclient, as distributions build it, looks for the host ``localhost``, whatever the port."""

_REASONS = {
    1040: "database-full",  # too many connections
    1203: "database-full",  # ... of this user
    1226: "database-full",  # ... within the hour
    1044: "database-refused",  # no access to the database
    1045: "database-refused",  # wrong password
    1049: "database-refused",  # no such database
    1129: "database-refused",  # this host is blocked
    1130: "database-refused",  # this host may not connect
    1142: "database-refused",  # no SELECT on the table
    1143: "database-refused",  # ... on a column
    1251: "database-refused",  # authentication protocol
    1698: "database-refused",  # login refused, without a password
    1054: "database-columns",  # no such column
    1146: "database-tables",  # no such table
    1205: "database-slow",  # lock wait timeout
    1969: "database-slow",  # max_statement_time
    3024: "database-slow",  # max_execution_time
    1053: "database-down",  # shutting down
    1927: "database-down",  # connection was killed
    4031: "database-down",  # idle for too long
    2003: "database-down",
    2013: "database-down",
}
_ENDS = frozenset({1053, 1927, 4031})
"""Errors after which the server hangs up."""

_LOGIN_TROUBLES: tuple[type[Exception], ...] = (
    *(err.Error, OSError, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)
"""What PyMySQL raises at a server that refuses, vanishes, wants a login that it does not know, or is none."""

_PREPARE, _EXECUTE, _CLOSE, _FETCH = b"\x16", b"\x17", b"\x19", b"\x1c"
_READ_ONLY_CURSOR = 1
_CURSOR, _LAST = 0x40, 0x80
"""In the server's status: there is a cursor; it has no more rows."""
_VAR_STRING = b"\xfd\0"
_TEXT_TYPES = frozenset({0x0F, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE})
_EOF, _ERROR, _OK = 0xFE, 0xFF, 0x00
_EOF_LIMIT = 9
"""Bytes of a packet from which on that first byte means a row."""

_execute_head = struct.Struct("<IBI")


class _Incomplete(Exception):
    """More is to come."""


class _Statement:
    def __init__(self, number: int, head: bytes) -> None:
        self.number = number
        self.head = head
        """Of a COM_STMT_EXECUTE packet: all before the values."""
        self.columns = b""
        """What the server said of its columns with the last answer."""


def connect(server: Server, terms: Terms) -> MySqlConnection:
    """A connection.  Raises `Trouble`."""
    path = server.socket or (_own_socket() if server.host == "localhost" else "")
    left = max(0.01, terms.until - time.monotonic())
    tls = None if path or terms.tls == "off" else _tls(terms)
    try:
        connection = pymysql.connect(
            host=server.host or "localhost",
            port=server.port or 3306,
            unix_socket=path or None,
            user=server.user,
            password=server.password.value.decode("latin-1"),  # PyMySQL sends it as latin-1: as it is
            database=server.database,
            charset="utf8mb4",
            connect_timeout=min(terms.connect, left),
            read_timeout=left,
            write_timeout=left,
            ssl=tls,
            autocommit=True,
        )
    except _LOGIN_TROUBLES as error:
        raise _trouble(error, lost=True) from None
    return MySqlConnection(connection, terms, secured=tls is not None)


def _own_socket() -> str:
    return next((path for path in SOCKETS if os.path.exists(path)), "")


def _tls(terms: Terms) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=terms.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise Trouble("database-settings", f"{terms.ca}: {_words(error)}", lost=True) from None
    if terms.tls == "on":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trouble(error: Exception, *, lost: bool) -> Trouble:
    """What an exception of PyMySQL's means."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    detail = _words(error)
    if "timed out" in detail:
        return Trouble("database-slow", "gave no answer in time", lost=True)
    if isinstance(error, err.MySQLError) and number and number < 2000:
        return Trouble(_REASONS.get(number, "database-error"), f"{detail} ({number})", lost=lost or number in _ENDS)
    return Trouble("database-down", detail, lost=True)


def _words(error: Exception) -> str:
    """What it says, in one line."""
    text = str(error.args[1] if len(error.args) > 1 else error) or type(error).__name__
    return " ".join(text.split())


class MySqlConnection:
    """A `servers.Connection`."""

    def __init__(self, connection: Any, terms: Terms, *, secured: bool) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock  # noqa: SLF001  there is no other way to it
        self._statements: dict[Select, _Statement] = {}
        self.about = str(connection.get_server_info())
        try:
            if secured and not isinstance(self._socket, ssl.SSLSocket):
                raise Trouble("database-refused", "offers no TLS, which CVM_VPOPMAIL_SQL_TLS demands", lost=True)
            self._begin(terms)
        except Trouble:
            self.close()
            raise

    def _begin(self, terms: Terms) -> None:
        """Only reading; text as vpopmail gets it; a question that takes too long is given up by the server."""
        milliseconds = max(1, int(terms.wait * 1000))
        limit = f"max_execution_time = {milliseconds}"
        if "mariadb" in self.about.lower():
            limit = f"max_statement_time = {milliseconds / 1000}"
        locks = f"lock_wait_timeout = {max(1, int(terms.wait))}"
        try:
            self._connection.query("SET SESSION TRANSACTION READ ONLY")
            self._connection.query(f"SET SESSION character_set_results = {terms.charset}, {locks}, {limit}")
        except _LOGIN_TROUBLES as error:
            raise _trouble(error, lost=True) from None

    def close(self) -> None:
        """Lets go, without waiting."""
        try:
            self._socket.close()
            self._connection._force_close()  # noqa: SLF001  close() would write to it
        except (OSError, AttributeError):
            pass

    def rows(self, select: Select, values: Sequence[bytes], until: float) -> list[Row]:
        """What the server finds.  Raises `Trouble`."""
        statement = self._statements.get(select)
        if statement is None:
            statement = self._prepare(select, until)
        given = b"".join(map(_with_length, values))
        return self._transfer(_EXECUTE + statement.head + given, lambda data: _rows(data, statement, select), until)

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """All that the server finds, from a cursor of its own.  Raises `Trouble`."""
        statement = self._prepare(select, time.monotonic() + seconds)
        head = _execute_head.pack(statement.number, _READ_ONLY_CURSOR, 1) + statement.head[_execute_head.size :]
        given = b"".join(map(_with_length, values))
        until = time.monotonic() + seconds
        self._transfer(_EXECUTE + head + given, lambda data: _cursor(data, select), until)
        fetch = _FETCH + struct.pack("<II", statement.number, PAGE)
        more = True
        while more:
            until = time.monotonic() + seconds
            rows, more = self._transfer(fetch, lambda data: _page(data, len(select.columns)), until)
            yield rows

    # -- statements -------------------------------------------------------------------------------

    def _prepare(self, select: Select, until: float) -> _Statement:
        while len(self._statements) >= STATEMENTS:
            oldest = self._statements.pop(next(iter(self._statements)))
            self._send(_CLOSE + struct.pack("<I", oldest.number), until)  # this has no answer
        number, columns, parameters = self._transfer(_PREPARE + _text(select), _prepared, until)
        if (columns, parameters) != (len(select.columns), len(select.keys)):
            raise Trouble("database-error", "prepared another statement than it was told", lost=True)
        head = _execute_head.pack(number, 0, 1) + bytes((parameters + 7) // 8) + b"\1" + _VAR_STRING * parameters
        self._statements[select] = statement = _Statement(number, head)
        return statement

    # -- bytes ------------------------------------------------------------------------------------

    def _transfer(self, command: bytes, parse: Callable[[bytes], T], until: float) -> T:
        """A command there; what `parse` makes of the answer when it is all there."""
        self._send(command, until)
        data = b""
        while True:
            data += self._receive(until)
            try:
                return parse(data)
            except _Incomplete:
                if len(data) > RESPONSE_LIMIT:
                    raise Trouble("database-error", f"answered more than {RESPONSE_LIMIT} bytes", lost=True) from None

    def _send(self, command: bytes, until: float) -> None:
        try:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            self._socket.sendall(struct.pack("<I", len(command)) + command)
        except TimeoutError:
            raise Trouble("database-slow", "took no question in time", lost=True) from None
        except OSError as error:
            raise Trouble("database-down", _words(error), lost=True) from None

    def _receive(self, until: float) -> bytes:
        try:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise Trouble("database-slow", "gave no answer in time", lost=True) from None
        except OSError as error:
            raise Trouble("database-down", _words(error), lost=True) from None
        if not data:
            raise Trouble("database-down", "closed the connection", lost=True)
        return data


def _text(select: Select) -> bytes:
    columns = ", ".join(f"CAST(`{name}` AS CHAR)" if name in select.numbers else f"`{name}`" for name in select.columns)
    keys = " AND ".join(f"`{name}` = ?" for name in select.keys) or "1"
    return f"SELECT {columns} FROM `{select.table}` WHERE {keys}".encode()  # noqa: S608  see `Select`


def _with_length(value: bytes) -> bytes:
    length = len(value)
    if length < 251:
        return b"%c%s" % (length, value)
    return b"\xfc" + struct.pack("<H", length) + value  # no credential is longer than a packet


def _packet(data: bytes, at: int) -> tuple[int, int]:
    """Where the packet's body begins, and where it ends.  Raises `_Incomplete`."""
    begin = at + 4
    end = begin + int.from_bytes(data[at : at + 3], "little")
    if len(data) < end or len(data) < begin:
        raise _Incomplete
    if end == begin:
        raise Trouble("database-error", "sent an empty packet", lost=True)
    return begin, end


def _skip(data: bytes, at: int, packets: int) -> int:
    for _ in range(packets):
        at = _packet(data, at)[1]
    return at


def _error(data: bytes, begin: int, end: int) -> Trouble:
    number = int.from_bytes(data[begin + 1 : begin + 3], "little")
    text = data[begin + 3 : end]
    if text.startswith(b"#"):
        text = text[6:]
    detail = " ".join(text.decode("utf-8", "backslashreplace").split())
    return Trouble(_REASONS.get(number, "database-error"), f"{detail} ({number})", lost=number in _ENDS)


def _prepared(data: bytes) -> tuple[int, int, int]:
    """Number, columns and parameters of a statement, if the answer is all there.  Raises as `_rows`."""
    begin, end = _packet(data, 0)
    if data[begin] == _ERROR:
        raise _error(data, begin, end)
    if data[begin] != _OK or end - begin < _EOF_LIMIT:
        raise Trouble("database-error", "does not speak the protocol", lost=True)
    number, columns, parameters = struct.unpack_from("<IHH", data, begin + 1)
    _skip(data, end, columns + bool(columns) + parameters + bool(parameters))
    return number, columns, parameters


def _rows(data: bytes, statement: _Statement, select: Select) -> list[Row]:
    """The rows, if they are all there.  Raises `_Incomplete`, and `Trouble` for an error."""
    if statement.columns and data.startswith(statement.columns):
        at = len(statement.columns)
    else:
        begin, end = _packet(data, 0)
        if data[begin] == _ERROR:
            raise _error(data, begin, end)
        if data[begin] != len(select.columns):
            raise Trouble("database-error", "answered another question", lost=True)
        at = _skip(data, end, data[begin])
    columns_end = at
    found, _ = _to_the_end(data, _skip(data, at, 1))
    if columns_end != len(statement.columns):
        _check_types(data, select)
        statement.columns = data[:columns_end]
    return [_row(data, begin, end, len(select.columns)) for begin, end in found]


def _to_the_end(data: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """Where the rows from `at` on begin and end, and the server's status behind them."""
    found: list[tuple[int, int]] = []
    while True:
        begin, end = _packet(data, at)
        if data[begin] == _ERROR:
            raise _error(data, begin, end)
        if data[begin] == _EOF and end - begin < _EOF_LIMIT:
            return found, int.from_bytes(data[begin + 3 : begin + 5], "little")
        found.append((begin, end))
        at = end


def _cursor(data: bytes, select: Select) -> None:
    """Looks whether a cursor was opened, if the answer is all there.  Raises as `_rows`."""
    begin, end = _packet(data, 0)
    if data[begin] == _ERROR:
        raise _error(data, begin, end)
    if data[begin] != len(select.columns):
        raise Trouble("database-error", "answered another question", lost=True)
    begin, end = _packet(data, _skip(data, end, data[begin]))
    if data[begin] != _EOF or not int.from_bytes(data[begin + 3 : begin + 5], "little") & _CURSOR:
        raise Trouble("database-error", "opened no cursor", lost=True)
    _check_types(data, select)


def _page(data: bytes, columns: int) -> tuple[list[Row], bool]:
    """The rows of a cursor, and whether there are more, if the answer is all there.  Raises as `_rows`."""
    found, status = _to_the_end(data, 0)
    return [_row(data, begin, end, columns) for begin, end in found], not status & _LAST


def _row(data: bytes, at: int, end: int, count: int) -> Row:
    nulls = int.from_bytes(data[at + 1 : at + 1 + (count + 9) // 8], "little") >> 2
    at += 1 + (count + 9) // 8
    row: list[bytes | None] = []
    for number in range(count):
        if nulls >> number & 1:
            row.append(None)
            continue
        begin, at = _text_at(data, at, end)
        row.append(data[begin:at])
    return row


def _text_at(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Where a text with its length before it begins, and where it ends."""
    size = data[at] if at < end else 0xFF
    at += 1
    if size > 250:
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(size, 0)
        size = int.from_bytes(data[at : at + width], "little") if width else RESPONSE_LIMIT
        at += width
    if at + size > end:
        raise Trouble("database-error", "sent a row that is not sound", lost=True)
    return at, at + size


def _check_types(data: bytes, select: Select) -> None:
    """Raises `Trouble` if a column is no text."""
    at = _packet(data, 0)[1]
    for name in select.columns:
        begin, end = _packet(data, at)
        field = begin
        for _ in range(6):  # catalogue, schema, table and its own name, the column's and its own name
            field = _text_at(data, field, end)[1]
        if end - field < 8 or data[field + 7] not in _TEXT_TYPES:
            raise Trouble("database-columns", f"column {name} of {select.table} is no text", lost=False)
        at = end
