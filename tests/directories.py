"""A published directory in a real database, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from calling import called
from databases import PASSWORD, Database
from hosts import temporary_directory
from serving import CVM_QMAIL

from cvm_directory.module import published_addresses
from cvm_directory.publishing.schema import schema
from cvm_directory.settings import DirectorySettings
from cvm_qmail.answer import Answer, Recipient
from cvm_qmail.plugin import Lookup
from cvm_qmail.process.network import EVERYTHING
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

NAME = "directory"

CVM_DIRECTORY = CVM_QMAIL.with_name("cvm-directory")

_MADE = {
    "mysql": """
        CREATE DATABASE IF NOT EXISTS {name};
        CREATE USER IF NOT EXISTS publisher@'%' IDENTIFIED BY '{password}';
        CREATE USER IF NOT EXISTS reader@'%' IDENTIFIED BY '{password}';
        GRANT ALL ON {name}.* TO publisher@'%'; GRANT SELECT ON {name}.* TO reader@'%';
        USE {name};
        {schema}
        DELETE FROM cvm_address; DELETE FROM cvm_domain;
        """,
    "pgsql": """
        SET SESSION AUTHORIZATION publisher; SET client_min_messages = error;
        {schema}
        TRUNCATE cvm_address, cvm_domain;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
        """,
}

_POSTGRESQL = """
    CREATE ROLE publisher LOGIN PASSWORD '{password}';
    CREATE ROLE reader LOGIN PASSWORD '{password}';
    CREATE DATABASE {name} OWNER publisher;
    """


class Directory(NamedTuple):
    """An empty directory; `publisher` may write it, `reader` may read it."""

    database: Database
    files: Path
    """The directory of the files with credentials."""
    closing: ExitStack

    def environment(self, user: str, **more: str) -> dict[str, str]:
        """What a program needs to be this user there."""
        mine = {"CVM_DIRECTORY_DATABASE": self.database.kind, "CVM_DIRECTORY_FILE": str(self.files / user)}
        return {**os.environ, **mine, "CVM_LOOKUP_SECRET": "", **more}

    def publish(
        self, host: Mapping[str, str], *arguments: str, name: str = "mail.example.org", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """What cvmctl publish says on a host."""
        env = {**self.environment("publisher"), **host, "CVM_DIRECTORY_HOST": name, **more}
        return called("publish", *arguments, env=env)

    def lookup(self, **more: str) -> Lookup:
        """What cvm-directory looks up with, each call a request of its own."""
        settings = Settings.from_environment(self.environment("reader", **more))
        tables = Tables(settings)
        published, servers = published_addresses(
            tables, settings, DirectorySettings.from_settings(settings), EVERYTHING
        )
        self.closing.callback(servers.close)

        def look_up(recipient: Recipient) -> Answer:
            tables.request(cacheable=False)
            return published.lookup(recipient)

        return look_up

    def rows(self, columns: str = "domain, local, verdict", table: str = "cvm_address") -> list[str]:
        """What is in a table, as the database's own client prints it."""
        said = self.database.sql(f"SELECT {columns} FROM {table} ORDER BY 1, 2;", NAME)
        return [line.replace("\t", "|") for line in said.splitlines()]


class Nowhere(NamedTuple):
    """A host without qmail."""

    environment: dict[str, str]


def mx(directory: Directory, **more: str) -> Nowhere:
    """An MX host that answers from the directory."""
    return Nowhere({**directory.environment("reader"), "QMAIL_ROOT": "/nonexistent", **more})


@contextmanager
def made(database: Database) -> Iterator[Directory]:
    """An empty directory in `database`."""
    values = {"name": NAME, "password": PASSWORD, "schema": "\n".join(schema(database.kind))}
    database.start()
    if database.kind == "pgsql":
        database.sql(_POSTGRESQL.format(**values), check=False)  # they may be there
    database.sql(_MADE[database.kind].format(**values), NAME if database.kind == "pgsql" else "")
    with temporary_directory() as files, ExitStack() as closing:
        for user in ("publisher", "reader"):
            file = files / user
            file.write_text(f"{database.place}|{user}|{PASSWORD}|{NAME}\n")
            file.chmod(0o600)
        yield Directory(database, files, closing)
