"""The rows of the directory that have to do with an address.

One statement asks for all of them: what it finds is one state of the directory, never half of a publication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from cvm_directory.notation import units
from cvm_directory.rules import Row
from cvm_qmail.answer import Unavailable
from cvm_vpopmail.dialects import MYSQL, PGSQL
from cvm_vpopmail.tables.connection import Absence, Select, Settles
from cvm_vpopmail.tables.connection import Row as Columns

Rows = Callable[[Select, Sequence[bytes], Settles], list[Columns]]
"""What the databases find, with a second look where that does not settle it.  Raises `Unavailable`."""

_COLUMNS = ("domain", "scope", "percenthack", "endings", "age", "host", "local", "verdict")

_AGE = {
    MYSQL.name: "CAST(UNIX_TIMESTAMP() - UNIX_TIMESTAMP(published) AS CHAR)",
    PGSQL.name: "CAST(CAST(extract(epoch FROM clock_timestamp() - published) AS bigint) AS text)",
}
"""By the clock of the database, which has also written the time."""

_LEAST = 4
"""The least number of names in a statement.  It doubles where there are more, so that few statements are prepared; the
last name is repeated to fill it."""


class Directory:
    """The directory in one database."""

    def __init__(self, rows: Rows, dialect: str) -> None:
        self._rows = rows
        self._dialect = dialect

    def rows(
        self, domains: Sequence[str], names: Sequence[str], settles: Callable[[list[Row]], bool] = bool
    ) -> list[Row]:
        """What is published of these domains under these names; each domain that is published has at least one row.

        `settles`: whether rows need no second look, for who may be behind.  Raises `Unavailable`.
        """
        filled_names, filled_domains = _filled(names), _filled(domains)
        select = _select(self._dialect, len(filled_names), len(filled_domains))
        values = [name.encode() for name in (*filled_domains, *filled_domains, *filled_names)]
        return list(_rows(self._rows(select, values, lambda found: settles(list(_rows(found))))))


def _filled(names: Sequence[str]) -> list[str]:
    size = max(_LEAST, 1 << (len(names) - 1).bit_length())
    return [*names, *[names[-1]] * (size - len(names))]


@cache
def _select(dialect: str, names: int, domains: int) -> Select:
    """Both tables are asked by their keys; a join would be a search through all of a domain on MariaDB."""
    asked_names, asked_domains = (", ".join("?" * count) for count in (names, domains))
    statement = (
        f"SELECT domain, scope, percenthack, endings, {_AGE[dialect]}, host, NULL, NULL"  # noqa: S608  ours
        f" FROM cvm_domain WHERE domain IN ({asked_domains})"
        " UNION ALL SELECT domain, NULL, NULL, NULL, NULL, NULL, local, verdict"
        f" FROM cvm_address WHERE domain IN ({asked_domains}) AND local IN ({asked_names})"
    )
    keys = ("domain",) * (2 * domains) + ("local",) * names
    return Select(_COLUMNS, "cvm_domain", keys, absence=Absence.REJECTS, statement=statement)


def _rows(found: list[Columns]) -> Iterator[Row]:
    """The domains that are there, each with its addresses."""
    rows = [[None if column is None else column.decode("ascii", "backslashreplace") for column in row] for row in found]
    for domain, scope, hack, endings, age, host, local, _ in rows:
        if local is not None:
            continue
        if not (domain is not None and scope and hack and age and age.lstrip("-").isdigit()):
            raise Unavailable("directory-damaged", f"a row that cannot be: {domain} {scope} {age}", b"cvm_domain")
        row = Row(domain, scope, hack == "1", frozenset(units(endings or "")), int(age), host or "", None, "")
        yield row
        for name, *_, address, verdict in rows:
            if address is not None and name == domain:
                yield row._replace(local=address, verdict=verdict or "")
