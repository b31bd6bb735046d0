"""Back ends in a worker's column: who saw one last is right, and there is always room."""

from __future__ import annotations

import os

import pytest

from cvm_qmail.observe.backends import BYTES, ENTRIES, Backend, BackendColumn, backends_in, latest
from cvm_qmail.observe.counters import WORDS
from cvm_qmail.tables.backends import BackendState

UNKNOWN, UP, DOWN, REFUSED = BackendState


class Column:
    """One worker's, with a clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._memory = bytearray(BYTES)
        self.writer = BackendColumn(memoryview(self._memory), WORDS, lambda: self.now)

    def saw(self, at: float, name: str, state: BackendState | None, reason: str = "") -> None:
        self.now = at
        self.writer.saw(name, state, reason)

    def read(self) -> list[Backend]:
        return backends_in(bytes(self._memory), 0, WORDS)


def test_since_when_it_is_so_and_what_failed_last() -> None:
    column = Column()
    column.writer.expect(column, ["db1"])
    assert column.read() == [Backend("db1", UNKNOWN, 1000, 1000, "", 0)]
    column.saw(1001, "db1", UP)
    column.saw(1002, "db1", DOWN, "database-down")
    column.saw(1003, "db1", DOWN, "database-slow")
    assert column.read() == [Backend("db1", DOWN, 1002, 1003, "database-slow", 1003)]
    column.saw(1004, "db1", UP)
    column.saw(1005, "db1", None, "database-columns")
    assert column.read() == [Backend("db1", UP, 1004, 1005, "database-columns", 1005)]


def test_a_reason_that_nobody_declared_is_other() -> None:
    column = Column()
    column.saw(1001, "db1", DOWN, "made-up")
    assert column.read()[0].error == "other"


def test_what_is_not_asked_any_more_goes_unless_somebody_else_asks_it() -> None:
    column = Column()
    first, second = object(), object()
    column.writer.expect(first, ["db1", "db2"])
    column.writer.expect(second, ["db2"])
    column.writer.expect(first, ["db3"])
    assert {backend.name for backend in column.read()} == {"db2", "db3"}


def test_the_one_that_was_seen_first_makes_room() -> None:
    column = Column()
    for number in range(ENTRIES + 2):
        column.saw(1000 + number, f"db{number}", UP)
    assert {backend.name for backend in column.read()} == {f"db{number}" for number in range(2, ENTRIES + 2)}
    column.saw(2000, "db0", DOWN)
    assert [backend.state for backend in column.read() if backend.name == "db0"] == [DOWN]


def test_names_of_any_length_and_bytes() -> None:
    column = Column()
    column.saw(1000, os.fsdecode(b"\xff" + b"x" * 1000), UP)
    column.saw(1001, os.fsdecode(b"\xff" + b"x" * 1000), DOWN)
    assert [(len(backend.name) > 100, backend.state) for backend in column.read()] == [(True, DOWN)]


@pytest.mark.parametrize(
    ("seen", "state", "since", "error"),
    [
        ([("db", UP, 1, 1, "", 0), ("db", DOWN, 5, 9, "database-down", 9)], DOWN, 5, "database-down"),
        ([("db", UP, 10, 10, "", 0), ("db", DOWN, 5, 9, "database-down", 9)], UP, 10, "database-down"),
        ([("db", DOWN, 5, 9, "database-slow", 9), ("db", DOWN, 4, 8, "database-down", 8)], DOWN, 4, "database-slow"),
        ([("db", UP, 1, 1, "", 0), ("db", UP, 20, 20, "database-down", 19)], UP, 20, "database-down"),
        ([("db", UP, 1, 12, "", 0), ("db", DOWN, 5, 9, "database-down", 9)], UP, 12, "database-down"),
        ([("db", UP, 7, 7, "", 0), ("db", UP, 3, 3, "", 0)], UP, 3, ""),
        ([("db", UP, 3, 3, "", 0), ("db", UNKNOWN, 30, 30, "", 0)], UP, 3, ""),
    ],
)
def test_what_workers_saw_together(
    seen: list[tuple[str, BackendState, float, float, str, float]], state: BackendState, since: float, error: str
) -> None:
    (found,) = latest(Backend(*one) for one in seen)
    assert (found.state, found.since, found.error) == (state, since, error)
