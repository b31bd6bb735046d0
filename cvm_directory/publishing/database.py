"""A connection that writes the directory, whatever the database.

Invariants: a domain is written in one transaction, which begins by locking its row.  Foreign exceptions become
`Unavailable` here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from cvm_directory.notation import units
from cvm_directory.publishing.clients import CLIENTS, Client
from cvm_directory.publishing.publication import Address, Domain
from cvm_directory.settings import DirectorySettings
from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.tables.door import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.tables.connection import DatabaseError, Terms
from cvm_vpopmail.tables.databases import driver

CONNECT = 10.0
"""Seconds for a server to take the connection."""

WAIT = 300.0
"""Seconds for a server to execute a statement."""

BATCH = 1000
"""Rows that are deleted or read at a time."""

BULK = 5000
"""Rows that are added at a time: less than the 16 MB that MariaDB takes in a statement, however long names are."""


# {} stands for as many places of values as there are values.
_PUBLISHED = "SELECT domain, addresses, digest, host FROM cvm_domain WHERE domain IN ({})"
_OF_HOST = (
    "SELECT domain, addresses, digest, host FROM cvm_domain WHERE host = %s AND domain > %s ORDER BY domain LIMIT %s"
)
_LOCK = "SELECT domain, addresses, digest, host FROM cvm_domain WHERE domain = %s FOR UPDATE"
_CONFIRM = "UPDATE cvm_domain SET published = CURRENT_TIMESTAMP WHERE domain IN ({})"
_VERDICTS = "SELECT local, verdict FROM cvm_address WHERE domain = %s AND local IN ({})"
_REMOVE = "DELETE FROM cvm_address WHERE domain = %s AND local IN ({})"


class Published(NamedTuple):
    """A domain as the directory has it."""

    name: str
    addresses: int
    digest: str
    host: str


class DirectoryDatabase:
    """The directory as its publisher sees it.  Each method raises `Unavailable`."""

    def __init__(self, connection: Any, client: Client, name: str) -> None:
        self._connection = connection
        self._client = client
        self.name = name

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within is done as a whole, or not at all.  Errors of the driver become `Unavailable`."""
        try:
            yield
            self._connection.commit()
        except BaseException as error:
            self._roll_back()
            if isinstance(error, self._client.errors):
                raise unavailable(error, self.name) from None
            raise

    def takes_writes(self) -> bool:
        """Whether the server is neither read-only nor a replica."""
        with self.transaction():
            return not self._execute(self._client.read_only, ())[0][0]

    def take_back(self) -> None:
        """Undoes what was done in this transaction."""
        self._connection.rollback()

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
        except self._client.errors:
            pass  # the connection is gone, and the transaction with it

    def create(self, statements: Sequence[str]) -> None:
        """Makes the tables."""
        with self.transaction():
            for statement in statements:
                self._execute(statement, ())

    def note_sizes(self) -> None:
        """Renews the statistics by which the database plans, where it does not do so itself."""
        if self._client.statistics:
            with self.transaction():
                self._execute(self._client.statistics, ())

    # -- domains ----------------------------------------------------------------------------------

    def published(self, names: Sequence[str]) -> dict[str, Published]:
        """The domains among `names` that are published, by name.  Within a transaction."""
        rows = self._execute(_PUBLISHED.format(_places(names)), names)
        return {row[0]: Published(*row) for row in rows}

    def of_host(self, host: str) -> Iterator[list[Published]]:
        """The domains that a host has published, in the order of their names, up to `BATCH` at a time."""
        last = ""
        while True:
            with self.transaction():
                rows = self._execute(_OF_HOST, (host, last, BATCH))
            if rows:
                yield [Published(*row) for row in rows]
                last = rows[-1][0]
            if len(rows) < BATCH:
                return

    def confirm(self, names: Sequence[str]) -> None:
        """Renews the time of domains that are still as they were published."""
        with self.transaction():
            self._execute(_CONFIRM.format(_places(names)), names)

    def lock(self, name: str) -> Published:
        """Locks the row of a domain until the transaction ends; it is made if it is missing, with an empty host."""
        rows = self._execute(_LOCK, (name,))
        if not rows:
            self._execute(self._client.new_domain, (name,))
            rows = self._execute(_LOCK, (name,))
        return Published(*rows[0])

    def write_domain(self, domain: Domain, endings: str, host: str) -> None:
        """Writes the row of a domain that was locked, with the time of now."""
        self._execute(
            "UPDATE cvm_domain SET scope = %s, percenthack = %s, endings = %s, addresses = %s, digest = %s, host = %s,"
            " published = CURRENT_TIMESTAMP, changed = CURRENT_TIMESTAMP WHERE domain = %s",
            (domain.scope, domain.percenthack, endings, domain.addresses, domain.digest, host, domain.name),
        )

    def remove_domain(self, name: str) -> None:
        """Removes a domain and all its addresses."""
        self.remove_all(name)
        self._execute("DELETE FROM cvm_domain WHERE domain = %s", (name,))

    def touch_domain(self, name: str, addresses: int) -> None:
        """Notes that one address has changed: the digest is void; `addresses`: how many there are now."""
        self._execute(
            "UPDATE cvm_domain SET digest = '', addresses = %s, changed = CURRENT_TIMESTAMP WHERE domain = %s",
            (addresses, name),
        )

    # -- addresses --------------------------------------------------------------------------------

    def addresses(self, domain: str) -> Iterator[Address]:
        """The rows of a domain, in the order of their names, as they are when it begins."""
        return map(Address._make, self._client.rows(self._connection, domain))

    def endings(self, domain: str) -> list[str]:
        """The `units` with which the patterns of a domain end."""
        ((text,),) = self._execute("SELECT endings FROM cvm_domain WHERE domain = %s", (domain,))
        return units(text)

    def verdicts(self, domain: str, names: Sequence[str]) -> dict[str, str]:
        """The verdicts under those of these names that are published."""
        return dict(self._execute(_VERDICTS.format(_places(names)), (domain, *names)))

    def remove_all(self, domain: str) -> None:
        """Removes all addresses of a domain."""
        self._execute("DELETE FROM cvm_address WHERE domain = %s", (domain,))

    def remove(self, domain: str, names: Iterable[str]) -> None:
        """Removes the rows of a domain with these names."""
        waiting = iter(names)
        while some := list(islice(waiting, BATCH)):
            self._execute(_REMOVE.format(_places(some)), (domain, *some))

    def add(self, domain: str, rows: Iterable[Address]) -> None:
        """Adds rows to a domain, which has none with these names."""
        waiting = iter(rows)
        with self._connection.cursor() as cursor:
            while some := list(islice(waiting, BULK)):
                self._client.insert(cursor, domain, some)

    def _execute(self, statement: str, values: Sequence[object]) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []


def _places(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def unavailable(error: Exception, where: str) -> Unavailable:
    """An exception of a driver as ours."""
    text = " ".join(str(error.args[-1] if error.args else error).split()) or type(error).__name__
    return Unavailable("database-error", text, os.fsencode(where))


def connected(tables: Tables, own: DirectorySettings) -> DirectoryDatabase:
    """A connection to the primary, or the first server that can be written to.  Raises `Unavailable`, `BadSetting`."""
    options = own.options
    if options.primary:  # another one might be written to as well, and would no longer follow it
        options = options._replace(servers=options.primary)
    driver(options.dialect, "CVM_DIRECTORY_DATABASE")  # whether it is installed
    client = CLIENTS[options.dialect.name]()
    last = Unavailable("database-settings", "names no server", kind=Kind.MISCONFIGURED)
    for server in sqlconfig.servers(tables, options):
        name = f"{options.dialect.name}:{server.name}"
        terms = Terms(options.tls, options.ca, options.charset, WAIT, CONNECT, time.monotonic() + CONNECT)
        try:
            database = DirectoryDatabase(client.open(server, terms), client, name)
        except DatabaseError as error:
            last = Unavailable(error.reason, error.detail, os.fsencode(name))
            continue
        try:
            if database.takes_writes():
                return database
            last = Unavailable(
                "database-error", "cannot be written to: it is read-only, or a replica", os.fsencode(name)
            )
        except Unavailable as error:
            last = error
        database.close()
    raise last
