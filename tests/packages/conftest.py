"""The Debian packages, built once, and a version before them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from debs import Packages, built, lowered
from hosts import temporary_directory


@pytest.fixture(scope="session")
def packages() -> Iterator[Packages]:
    """The packages of this tree."""
    with temporary_directory() as directory:
        yield built(directory)


@pytest.fixture(scope="session")
def earlier(packages: Packages) -> Iterator[Packages]:
    """The same with a lower version."""
    with temporary_directory() as directory:
        yield Packages(*(lowered(package, directory) for package in packages))
