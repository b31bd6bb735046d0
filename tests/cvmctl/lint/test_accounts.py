"""Accounts that get no mail are found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hosts import Host
from planting import Mistake, is_found

pytestmark = pytest.mark.root


def no_alias(host: Host) -> None:
    path = host.root / "passwd"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("alias:")))


def account(line: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        with (host.root / "passwd").open("a") as out:
            out.write(line.format(root=host.root) + "\n")

    return plant


MISTAKES = [
    Mistake("no alias", no_alias, "no-alias", "passwd", None),
    Mistake("another's home", account("eve:x:5009:5009::{root}/home/joe:/bin/sh"), "account-skipped", "passwd", 6),
    Mistake("a capital account", account("Eve:x:5009:5009::/nowhere:/bin/sh"), "account-skipped", "passwd", 6),
    Mistake("a long account", account(f"{'e' * 32}:x:5009:5009::/nowhere:/bin/sh"), "account-skipped", "passwd", 6),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    is_found(sound, mistake)
