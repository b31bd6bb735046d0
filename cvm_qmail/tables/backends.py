"""The last known state of the back ends that a process asks: database servers, files of accounts.

Invariants: tables report it and a watcher keeps it; no decision depends on it.  A name is never a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol


class BackendState(IntEnum):
    """The state of a back end when it was asked last."""

    UNKNOWN = 1
    """Not asked yet."""
    UP = 2
    DOWN = 3
    REFUSED = 4
    """It answers, but denies this process access: a wrong password, or no permission to read."""

    @property
    def word(self) -> str:
        """The state in words."""
        return "not asked" if self is BackendState.UNKNOWN else self.name.lower()


class Backends(Protocol):
    """Receives the state of back ends."""

    def expect(self, owner: object, names: Iterable[str]) -> None:
        """These are the back ends that `owner` may ask from now on; it asks no other one any more."""
        ...

    def saw(self, name: str, state: BackendState | None, reason: str = "") -> None:
        """The state of a back end; None: as before.

        `reason`: the reason word of a temporary failure that it caused.
        """
        ...


class Unwatched:
    """Nobody watches."""

    def expect(self, owner: object, names: Iterable[str]) -> None:
        """Nobody listens."""

    def saw(self, name: str, state: BackendState | None, reason: str = "") -> None:
        """Nobody listens."""
