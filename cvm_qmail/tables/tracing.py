"""Tables that report each question and its answer: for `cvmctl trace`, which runs the server's own lookups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cvm_qmail.answer import Table, Unavailable

K = TypeVar("K")
V = TypeVar("V")

Note = Callable[[str, object, object], None]
"""``note(table, key, value)``: a question was asked; `value` is the answer, None, or the `Unavailable` raised."""


class TracedTable(Generic[K, V]):
    """A Table that reports its questions and answers to `note`."""

    def __init__(self, name: str, table: Table[K, V], note: Note) -> None:
        self._name = name
        self._table = table
        self._note = note

    def get(self, key: K, /) -> V | None:
        """The table's answer."""
        try:
            value = self._table.get(key)
        except Unavailable as error:
            self._note(self._name, key, error)
            raise
        self._note(self._name, key, value)
        return value
