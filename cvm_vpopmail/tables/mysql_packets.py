"""The bytes that MySQL and MariaDB send as answers to prepared statements.

    packet      length (3 bytes), number (1), body
    answer      number of columns, a packet for each column, EOF, a packet for each row, EOF; or an error

Invariants: no input or output.  What the server sent is checked before it is used, and bounded.  Each function raises
`Incomplete` while the answer is not complete, and `DatabaseError` for an error or a malformed answer.

Source: MariaDB and MySQL client/server protocol; mysqld_error.h for the numbers of errors.
"""

from __future__ import annotations

import struct

from cvm_vpopmail.tables.connection import DatabaseError, Row, Select

RESPONSE_LIMIT = 1 << 20
"""Bytes of an answer."""

REASONS = {
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
    1047: "database-down",  # Galera: not part of a quorum
    1053: "database-down",  # shutting down
    1927: "database-down",  # connection was killed
    4031: "database-down",  # idle for too long
    2003: "database-down",
    2013: "database-down",
}
ENDS = frozenset({1047, 1053, 1927, 4031})
"""Errors after which the server disconnects, or should not be asked again."""

_CURSOR, _LAST = 0x40, 0x80
"""In the server's status: there is a cursor; it has no more rows."""
_TEXT_TYPES = frozenset({0x0F, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE})
_EOF, _ERROR, _OK = 0xFE, 0xFF, 0x00
_EOF_LIMIT = 9
"""Bytes of a packet from which on that first byte means a row."""


class Incomplete(Exception):
    """The answer is not complete yet."""


class Statement:
    """A prepared statement of one connection."""

    def __init__(self, number: int, head: bytes) -> None:
        self.number = number
        self.head = head
        """The part of a COM_STMT_EXECUTE packet before the values."""
        self.columns = b""
        """The server's description of its columns in the last answer."""


def statement_text(select: Select) -> bytes:
    """The statement in SQL, with ``?`` for each value."""
    if select.statement:
        return select.statement.encode()
    columns = ", ".join(f"CAST(`{name}` AS CHAR)" if name in select.numbers else f"`{name}`" for name in select.columns)
    keys = " AND ".join(f"`{name}` = ?" for name in select.keys) or "1"
    return f"SELECT {columns} FROM `{select.table}` WHERE {keys}".encode()  # noqa: S608  see `Select`


def with_length(value: bytes) -> bytes:
    """A value as COM_STMT_EXECUTE sends it."""
    length = len(value)
    if length < 251:
        return b"%c%s" % (length, value)
    return b"\xfc" + struct.pack("<H", length) + value  # no credential is longer than a packet


def _packet(data: bytes, at: int) -> tuple[int, int]:
    """Where the packet's body begins, and where it ends.  Raises `Incomplete`."""
    begin = at + 4
    end = begin + int.from_bytes(data[at : at + 3], "little")
    if len(data) < end or len(data) < begin:
        raise Incomplete
    if end == begin:
        raise DatabaseError("database-error", "sent an empty packet", lost=True)
    return begin, end


def _skip(data: bytes, at: int, packets: int) -> int:
    for _ in range(packets):
        at = _packet(data, at)[1]
    return at


def _error(data: bytes, begin: int, end: int) -> DatabaseError:
    number = int.from_bytes(data[begin + 1 : begin + 3], "little")
    text = data[begin + 3 : end]
    if text.startswith(b"#"):
        text = text[6:]
    detail = " ".join(text.decode("utf-8", "backslashreplace").split())
    return DatabaseError(REASONS.get(number, "database-error"), f"{detail} ({number})", lost=number in ENDS)


def prepared(data: bytes) -> tuple[int, int, int]:
    """Number, columns and parameters of a statement, if the answer is all there.  Raises as `rows`."""
    begin, end = _packet(data, 0)
    if data[begin] == _ERROR:
        raise _error(data, begin, end)
    if data[begin] != _OK or end - begin < _EOF_LIMIT:
        raise DatabaseError("database-error", "does not speak the protocol", lost=True)
    number, columns, parameters = struct.unpack_from("<IHH", data, begin + 1)
    _skip(data, end, columns + bool(columns) + parameters + bool(parameters))
    return number, columns, parameters


def rows(data: bytes, statement: Statement, select: Select) -> list[Row]:
    """The rows, if they are all there.  Raises `Incomplete`, and `DatabaseError` for an error."""
    if statement.columns and data.startswith(statement.columns):
        at = len(statement.columns)
    else:
        begin, end = _packet(data, 0)
        if data[begin] == _ERROR:
            raise _error(data, begin, end)
        if data[begin] != len(select.columns):
            raise DatabaseError("database-error", "answered another question", lost=True)
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


def cursor(data: bytes, select: Select) -> None:
    """Checks that a cursor was opened, if the answer is all there.  Raises as `rows`."""
    begin, end = _packet(data, 0)
    if data[begin] == _ERROR:
        raise _error(data, begin, end)
    if data[begin] != len(select.columns):
        raise DatabaseError("database-error", "answered another question", lost=True)
    begin, end = _packet(data, _skip(data, end, data[begin]))
    if data[begin] != _EOF or not int.from_bytes(data[begin + 3 : begin + 5], "little") & _CURSOR:
        raise DatabaseError("database-error", "opened no cursor", lost=True)
    _check_types(data, select)


def page(data: bytes, columns: int) -> tuple[list[Row], bool]:
    """The rows of a cursor, and whether there are more, if the answer is all there.  Raises as `rows`."""
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
        raise DatabaseError("database-error", "sent a malformed row", lost=True)
    return at, at + size


def _check_types(data: bytes, select: Select) -> None:
    """Raises `DatabaseError` if a column is not text."""
    at = _packet(data, 0)[1]
    for name in select.columns:
        begin, end = _packet(data, at)
        field = begin
        for _ in range(6):  # catalogue, schema, table and its own name, the column's and its own name
            field = _text_at(data, field, end)[1]
        if end - field < 8 or data[field + 7] not in _TEXT_TYPES:
            raise DatabaseError("database-columns", f"column {name} of {select.table} is no text", lost=False)
        at = end
