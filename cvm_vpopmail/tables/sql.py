"""Accounts, aliases and limits in a database.

    many domains        vpopmail        pw_name, pw_domain
    else                one table per domain, named by `rules.table_names`, without pw_domain
    valias              one row for each line of an alias, in the order in which the server gives them
    limits              the row of the domain, else the file etc/vlimits.default

A table valias or limits that was never there is empty: vpopmail makes it when it is first asked for.  One
that has gone since this server has seen it is a temporary failure.

Invariants: the server compares names, by the collation of its columns, so that `Bob` is found or not as vpopmail finds
it.  Values are bound, never written into a statement.  NULL is empty, or 0.

Source: vmysql.c, vpgsql.c (vauth_getpw, valias_select, vget_limits).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol
from unicodedata import normalize

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.passwords import StoredPassword
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.dialects import Dialect
from cvm_vpopmail.notices import Board
from cvm_vpopmail.rules import limits
from cvm_vpopmail.rules.numbers import bits, strtol
from cvm_vpopmail.tables.connection import Absence, Row, Select
from cvm_vpopmail.tables.limit_files import LimitFiles

_COLUMNS = ("pw_name", "pw_passwd", "pw_gid", "pw_gecos", "pw_dir", "pw_shell")
_CLEAR = "pw_clear_passwd"
_NUMBERS = frozenset({"pw_gid"})

ALIASES = Select(("valias_line",), "valias", ("alias", "domain"), absence=Absence.CONTRIBUTES)

LIMITS_COLUMNS = (
    "disable_pop",
    "disable_imap",
    "disable_smtp",
    "disable_webmail",
    "disable_relay",
    "diskquota",
    "maxmsgcount",
)
LIMITS = Select(LIMITS_COLUMNS, "limits", ("domain",), frozenset(LIMITS_COLUMNS))


class Database(Protocol):
    """What answers a `Select`."""

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        """What it finds.  Raises `Unavailable`."""
        ...


class Paged(Protocol):
    """What answers with very many rows, in parts."""

    def pages(self, select: Select, values: Sequence[bytes], seconds: float) -> Iterator[list[Row]]:
        """What it finds, in parts.  Raises `Unavailable`."""
        ...


class SqlAccounts:
    """A Table of accounts by domain and name in lower case."""

    def __init__(self, database: Database, dialect: Dialect, *, many_domains: bool, clear: bool) -> None:
        """`clear`: whether vpopmail was built with clear passwords."""
        self._database = database
        self._dialect = dialect
        self._columns = (*_COLUMNS, _CLEAR) if clear else _COLUMNS
        self._of_all = (
            Select(self._columns, "vpopmail", ("pw_name", "pw_domain"), _NUMBERS, Absence.REJECTS)
            if many_domains
            else None
        )

    def select(self, domain: bytes) -> Select:
        """The statement for accounts of this domain.  Raises `Unavailable`."""
        return self._of_all or Select(
            self._columns, self._dialect.table_of(domain), ("pw_name",), _NUMBERS, Absence.REJECTS
        )

    def get(self, key: tuple[Domain, bytes], /) -> Account | None:
        """The account; None if there is none.  Raises `Unavailable`."""
        domain, name = key
        if not name:
            return None
        values = (name, domain.name) if self._of_all else (name,)
        rows = self._database.rows(self.select(domain.name), values)
        if not rows:
            return None
        stored, hashed, flags, gecos, directory, quota, *clear = [value or b"" for value in rows[0]]
        return Account(stored, bits(flags), gecos, directory, quota, StoredPassword(hashed, *(clear or [b""])))


class Logins:
    """A Table of accounts for logins, by domain, the domain's name as it was given, and the user.

    vpopmail on PostgreSQL looks for a login under the name that was given: in an alias domain nobody logs
    in, unless there is a row for it.
    """

    def __init__(self, accounts: Table[tuple[Domain, bytes], Account], *, as_given: bool) -> None:
        """`as_given`: whether the domain's name counts as it was given (`Dialect.login_as_given`)."""
        self._accounts = accounts
        self._as_given = as_given

    def get(self, key: tuple[Domain, bytes, bytes], /) -> Account | None:
        """The account; None if there is none.  Raises `Unavailable`."""
        domain, given, user = key
        if not self._as_given or given == domain.name:
            return self._accounts.get((domain, user))
        try:
            return self._accounts.get((domain._replace(name=given), user))
        except Unavailable as error:
            if error.reason == "database-tables":
                return None  # nobody makes a table for an alias domain
            raise


def names(database: Paged, domain: bytes, dialect: Dialect, seconds: float, *, many_domains: bool) -> Iterator[bytes]:
    """The names of all accounts of a domain in their spellings, a page at a time.  Raises `Unavailable`."""
    if many_domains:
        return _first_column(database.pages(Select(("pw_name",), "vpopmail", ("pw_domain",)), (domain,), seconds))
    return _first_column(database.pages(Select(("pw_name",), dialect.table_of(domain), ()), (), seconds))


def alias_names(database: Paged, domain: bytes, seconds: float) -> Iterator[bytes]:
    """The names of all aliases of a domain likewise, once for each line of theirs.  Raises `Unavailable`."""
    try:
        yield from _first_column(database.pages(Select(("alias",), "valias", ("domain",)), (domain,), seconds))
    except Unavailable as error:
        if error.reason != "database-tables":
            raise


def _first_column(pages: Iterator[list[Row]]) -> Iterator[bytes]:
    return (name for rows in pages for row in rows for name in spellings(row[0] or b""))


def spellings(name: bytes) -> Iterator[bytes]:
    """What a server may find `name` under: collations of MySQL ignore case, blanks at the end, and accents."""
    name = name.lower()
    yield name
    if name.endswith(b" "):
        yield name.rstrip(b" ")
    if not name.isascii():
        try:
            text = name.decode()
        except UnicodeDecodeError:
            text = name.decode("latin-1")
        yield normalize("NFKD", text).encode("ascii", "ignore").lower().rstrip(b" ")


class MayBeMissing:
    """A `Database` in which a table that nobody has seen yet has no rows."""

    def __init__(self, database: Database, seen: Board) -> None:
        self._database = database
        self._seen = seen
        self._known: set[str] = set()

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Row]:
        """What it finds.  Raises `Unavailable`."""
        try:
            rows = self._database.rows(select, values)
        except Unavailable as error:
            if error.reason != "database-tables" or self._seen.get(select.table):
                raise
            return []
        if select.table not in self._known:
            self._known.add(select.table)
            self._seen.put(select.table, 1.0)
        return rows


class SqlAliases:
    """A Table of the lines of aliases by name of the domain and of the alias."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: tuple[bytes, bytes], /) -> Sequence[bytes] | None:
        """The lines; None if there are none.  Raises `Unavailable`."""
        domain, alias = key
        if not alias:
            return None
        rows = self._database.rows(ALIASES, (alias, domain))
        return [line or b"" for (line,) in rows] or None


class SqlLimits:
    """A Table of limits by domain."""

    def __init__(self, database: Database, files: LimitFiles) -> None:
        self._database = database
        self._files = files

    def get(self, domain: Domain, /) -> limits.Limits:
        """The limits; none at all if there is neither row nor file.  Raises `Unavailable`."""
        rows = self._database.rows(LIMITS, (domain.name,))
        if not rows:
            return limits.parse(self._files.default())
        return limits.from_row(
            {name: strtol(value or b"") for name, value in zip(LIMITS_COLUMNS, rows[0], strict=True)}
        )
