"""What is released, built once for all workers, and Debian packages before that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from debs import Packages, lowered, packages_in, released
from hosts import temporary_directory


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree in which scripts/release has run."""
    own = tmp_path_factory.getbasetemp()
    return released(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session")
def packages(release: Path) -> Packages:
    """The Debian packages of this tree."""
    return packages_in(release / "dist")


@pytest.fixture(scope="session")
def earlier(packages: Packages) -> Iterator[Packages]:
    """The same with a lower version."""
    with temporary_directory() as directory:
        yield Packages(*(lowered(package, directory) for package in packages))
