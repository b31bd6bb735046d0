"""A module that says what a test wants, and a gateway that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateways import Pair, gateway, module
from hosts import temporary_directory


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One for all tests of a file: each says first what the module is to say."""
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/module") as asked,
        gateway(asked.address, CVM_LOOKUP_SECRET="word") as running,
    ):
        yield Pair(asked, running)
