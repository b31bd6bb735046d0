"""Hosts for the tests of cvmctl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host, temporary_directory
from planting import make_sound


@pytest.fixture
def sound() -> Iterator[Host]:
    """A host without a mistake."""
    with temporary_directory() as directory:
        yield make_sound(directory)
