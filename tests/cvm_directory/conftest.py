"""An empty directory, in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import Database
from directories import Directory, made


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Iterator[Directory]:
    """An empty directory; in MariaDB unless the test names another."""
    database: Database = request.getfixturevalue(getattr(request, "param", "mariadb"))
    with made(database) as empty:
        yield empty
