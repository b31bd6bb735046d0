"""The first few of many, and their total number."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

SHOWN = 5
"""How many are kept; the others are counted."""


class Samples(Generic[T]):
    """Things of which some are shown as examples."""

    def __init__(self) -> None:
        self.first: list[T] = []
        self.count = 0

    def add(self, value: T) -> None:
        """One more."""
        if self.count < SHOWN:
            self.first.append(value)
        self.count += 1

    @property
    def others(self) -> int:
        """How many are not among the first."""
        return self.count - len(self.first)
