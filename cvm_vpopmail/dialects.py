"""The kinds of databases that accounts can be in: one declaration for each.

A new one is a declaration here, a function in `credentials` that reads vpopmail's file, and a module in
`tables` that connects.  No other code asks which kind it is: all that differs is in the declaration.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvm_vpopmail import credentials
from cvm_vpopmail.credentials import Place, Server
from cvm_vpopmail.rules import table_names

if TYPE_CHECKING:
    from cvm_vpopmail.tables.connection import Connect


class Parse(Protocol):
    """Reads vpopmail's file with the credentials."""

    def __call__(self, text: bytes, *, replica: bool) -> list[Server]:
        """The servers for lookups, in order; `replica`: vpopmail was built with replication.  Raises `BadFile`."""
        ...


class Dialect(NamedTuple):
    """One kind of database."""

    name: str
    """The value of CVM_VPOPMAIL_BACKEND; also the extra of this project that installs what it needs."""
    port: int
    """The usual one for TCP."""
    needs: str
    """What the extra installs, as a message names it."""
    credentials: bytes
    """vpopmail's file with the credentials, relative to its directory."""
    parse: Parse
    at_socket: Callable[[str], Place]
    """The address of a server for which a setting gives the path of a socket."""
    table_of: Callable[[bytes], str]
    """The table of one domain's accounts.  Raises `Unavailable` for a domain that can have none."""
    login_as_given: bool
    """Whether vpopmail looks up a login under the domain's name as given, not under the real one."""
    driver: Callable[[], "Connect"]
    """Imports the module that connects.  Raises `ImportError`."""


def _mysql() -> "Connect":
    from cvm_vpopmail.tables import mysql

    return mysql.connect


def _pgsql() -> "Connect":
    from cvm_vpopmail.tables import pgsql

    return pgsql.connect


MYSQL = Dialect(
    name="mysql",
    port=3306,
    needs="PyMySQL",
    credentials=b"etc/vpopmail.mysql",
    parse=credentials.parse_mysql,
    at_socket=lambda path: Place("localhost", 0, path),
    table_of=table_names.in_mysql,
    login_as_given=False,
    driver=_mysql,
)

PGSQL = Dialect(
    name="pgsql",
    port=5432,
    needs="psycopg 3, and libpq",
    credentials=b"etc/vpopmail.pgsql",
    parse=credentials.parse_pgsql,
    at_socket=lambda path: Place(path, 0, ""),
    table_of=table_names.in_pgsql,
    login_as_given=True,
    driver=_pgsql,
)

DIALECTS = {dialect.name: dialect for dialect in (MYSQL, PGSQL)}
"""By name, in the order in which vpopmail's files are searched."""
