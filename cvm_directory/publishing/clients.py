"""What differs between the databases that a directory can be written to.

Each function here imports its driver: a host without the extra never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from cvm_directory.publishing.publication import Address
from cvm_vpopmail.credentials import Server
from cvm_vpopmail.dialects import MYSQL, PGSQL
from cvm_vpopmail.tables.connection import DatabaseError, Terms

PAGE = 20_000
"""Rows that are read at a time."""


class Client(NamedTuple):
    """What differs between the kinds of databases."""

    open: Callable[[Server, Terms], Any]
    """A connection of DB-API 2 without autocommit.  Raises `DatabaseError`."""
    errors: tuple[type[Exception], ...]
    """What using a connection raises."""
    read_only: str
    """A statement: 1 if the server cannot be written to."""
    insert: Callable[[Any, str, Sequence[Address]], None]
    """Adds rows of a domain through a cursor."""
    rows: Callable[[Any, str], Iterator[tuple[str, str]]]
    """The rows of a domain in the order of their names, while others are written on the same connection."""
    statistics: str
    """What tells the server how large its tables have become; empty: it sees that itself."""
    new_domain: str
    """Makes the row of a domain, unless it is there."""


def _mysql() -> Client:
    from pymysql import err
    from pymysql.constants import CLIENT

    from cvm_vpopmail.tables import mysql

    def connect(server: Server, terms: Terms) -> Any:
        return mysql.logged_in(
            server,
            terms,
            connect=terms.connect,
            wait=terms.wait,
            client_flag=CLIENT.FOUND_ROWS,
            init_command="SET SESSION sql_mode = 'STRICT_ALL_TABLES'",  # a backslash escapes, and nothing is cut off
        )

    def insert(cursor: Any, domain: str, rows: Sequence[Address]) -> None:
        # literals: names are printable ASCII, and the driver's own way costs as much as the server's
        quoted = _literal(domain)
        values = ",".join(f"({quoted},{_literal(local)},'{verdict}')" for local, verdict in rows)
        cursor.execute(f"INSERT INTO cvm_address (domain, local, verdict) VALUES {values}")  # noqa: S608  quoted

    def rows(connection: Any, domain: str) -> Iterator[tuple[str, str]]:
        # one page after the other: nothing can be written before all rows of a statement have come
        query = "SELECT local, verdict FROM cvm_address WHERE domain = %s AND local {} %s ORDER BY local LIMIT %s"
        with connection.cursor() as cursor:
            cursor.execute(query.format(">="), (domain, "", PAGE))
            while page := cursor.fetchall():
                yield from page
                if len(page) < PAGE:
                    break
                cursor.execute(query.format(">"), (domain, page[-1][0], PAGE))

    return Client(
        connect,
        (err.Error, OSError),
        "SELECT @@global.read_only",
        insert,
        rows,
        "",
        "INSERT IGNORE INTO cvm_domain (domain, scope, percenthack, endings, addresses, digest, host)"
        " VALUES (%s, 'all', '0', '', 0, '', '')",
    )


def _literal(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"


def _pgsql() -> Client:
    import psycopg

    from cvm_vpopmail.tables import pgsql

    def connect(server: Server, terms: Terms) -> Any:
        try:
            connection = psycopg.connect(
                pgsql.conninfo(server, terms).decode(),
                connect_timeout=int(terms.connect),
                options=f"-c statement_timeout={int(terms.wait * 1000)} -c client_encoding=UTF8",
            )
        except UnicodeDecodeError:
            raise DatabaseError("database-settings", "the password is not UTF-8", lost=True) from None
        except psycopg.Error as error:
            raise pgsql.no_connection(str(error)) from None
        connection.prepare_threshold = None
        return connection

    def insert(cursor: Any, domain: str, rows: Sequence[Address]) -> None:
        name = domain.replace("\\", "\\\\")
        text = "".join(f"{name}\t{local.replace(chr(92), chr(92) * 2)}\t{verdict}\n" for local, verdict in rows)
        with cursor.copy("COPY cvm_address (domain, local, verdict) FROM STDIN") as copy:
            copy.write(text)

    def rows(connection: Any, domain: str) -> Iterator[tuple[str, str]]:
        # a cursor of the server: without statistics, right after a large publication, it would sort for each page
        with connection.cursor("cvm_rows") as cursor:
            cursor.itersize = PAGE
            cursor.execute("SELECT local, verdict FROM cvm_address WHERE domain = %s ORDER BY local", (domain,))
            yield from cursor

    return Client(
        connect,
        (psycopg.Error,),
        "SELECT CAST(pg_is_in_recovery() AS integer)",
        insert,
        rows,
        "ANALYZE cvm_domain, cvm_address",
        "INSERT INTO cvm_domain (domain, scope, percenthack, endings, addresses, digest, host)"
        " VALUES (%s, 'all', '0', '', 0, '', '') ON CONFLICT DO NOTHING",
    )


CLIENTS: dict[str, Callable[[], Client]] = {MYSQL.name: _mysql, PGSQL.name: _pgsql}
