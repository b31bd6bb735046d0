"""Hosts for the tests of vpopmail: with accounts in files, and in a database of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import Database, SqlHost, sql_host
from hosts import temporary_directory
from vdomains import VpopmailHost, begun, vpopmail_host

from cvm_qmail.tables.door import Tables


@pytest.fixture
def vhost() -> Iterator[VpopmailHost]:
    """example.com with bob, see `vdomains.vpopmail_host`."""
    with temporary_directory() as root:
        yield vpopmail_host(root)


@pytest.fixture
def tables(vhost: VpopmailHost) -> Tables:
    """What a request finds on `vhost`."""
    return begun(vhost)


@pytest.fixture(params=["mariadb", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """A server of each kind."""
    server: Database = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def host(database: Database) -> Iterator[SqlHost]:
    """A host whose accounts are in `database`, see `databases.sql_host`."""
    with temporary_directory() as root:
        yield sql_host(root, database)
