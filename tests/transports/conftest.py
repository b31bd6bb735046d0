"""A server for the tests of transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import plain_host, temporary_directory
from serving import AN_HOUR, Server, serving


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    """A server that gives its clients all the time in the world."""
    with temporary_directory() as directory, serving(plain_host(directory), CVM_LOCAL_TIMEOUT=AN_HOUR) as running:
        yield running
