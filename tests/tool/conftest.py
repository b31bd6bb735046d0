"""Hosts for the tests of cvmctl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host, a_folder
from planting import make_sound


@pytest.fixture
def sound() -> Iterator[Host]:
    """A host without a mistake."""
    with a_folder() as folder:
        yield make_sound(folder)
