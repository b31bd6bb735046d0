"""Answers of a database that are kept for a while."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_vpopmail.notices import Notices
from cvm_vpopmail.sqlconfig import Lifetimes
from cvm_vpopmail.tables.cache import Cached

DOWN = Unavailable("database-down", "refused")


class Source:
    """A table that counts, and may fail."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {"bob": 1}
        self.asked: list[str] = []
        self.error: Unavailable | None = None

    def get(self, key: str, /) -> int | None:
        self.asked.append(key)
        if self.error is not None:
            raise self.error
        return self.rows.get(key)


class World:
    """A cache over a source, with a clock."""

    def __init__(self, **settings: str) -> None:
        given = {f"CVM_VPOPMAIL_{name}": value for name, value in settings.items()}
        lifetimes = Lifetimes.from_settings(Settings.from_environment(given))
        self.source = Source()
        self.now = 100.0
        self.valid_until: list[float] = []
        self.said: list[str] = []
        notices = Notices(self.said.append, lambda: self.now)
        self.cache = Cached(self.source, lifetimes, self.valid_until.append, notices, lambda: self.now)

    def get(self, key: str) -> int | None:
        return self.cache.get(key)


def test_what_was_found_is_cached_for_its_lifetime() -> None:
    world = World(CACHE="10")
    assert world.get("bob") == 1
    del world.source.rows["bob"]
    world.now += 9.9
    assert world.get("bob") == 1
    world.now += 0.2
    assert world.get("bob") is None
    assert world.source.asked == ["bob", "bob"]


def test_what_was_not_found_has_a_lifetime_of_its_own() -> None:
    world = World(CACHE="100", CACHE_NEGATIVE="5")
    assert world.get("new") is None
    world.source.rows["new"] = 2
    assert world.get("new") is None
    world.now += 5
    assert world.get("new") == 2


def test_without_a_lifetime_it_is_not_kept() -> None:
    world = World(CACHE="100")
    assert world.get("new") is None
    world.source.rows["new"] = 2
    assert world.get("new") == 2


def test_a_cached_answer_says_until_when_it_is_valid() -> None:
    world = World(CACHE="10", CACHE_STALE="60")
    world.get("bob")
    assert world.valid_until == []
    world.now += 5
    world.get("bob")
    assert world.valid_until == [110.0]
    world.now += 6
    world.source.error = DOWN
    world.get("bob")
    assert world.valid_until == [110.0, 111.0], "past its time it holds for this request only"


def test_a_error_is_never_kept() -> None:
    world = World(CACHE="10", CACHE_NEGATIVE="10")
    world.source.error = DOWN
    with pytest.raises(Unavailable):
        world.get("bob")
    world.source.error = None
    assert world.get("bob") == 1


def test_there_are_never_more_than_the_bound_and_the_one_asked_for_longest_ago_goes() -> None:
    world = World(CACHE="100", CACHE_SIZE="2")
    world.source.rows = {"a": 1, "b": 2, "c": 3}
    for key in ("a", "b", "a", "c"):
        world.get(key)
    world.source.asked.clear()
    for key in ("a", "c", "b"):
        world.get(key)
    assert world.source.asked == ["b"]


def test_past_its_time_it_is_temporary_as_before() -> None:
    world = World(CACHE="10")
    world.get("bob")
    world.now += 10
    world.source.error = DOWN
    with pytest.raises(Unavailable):
        world.get("bob")


def test_if_so_set_it_is_given_past_its_time_while_the_database_is_down_and_said() -> None:
    world = World(CACHE="10", CACHE_STALE="60")
    world.get("bob")
    world.now += 69
    world.source.error = DOWN
    assert world.get("bob") == 1
    assert world.get("bob") == 1
    assert len(world.said) == 1
    world.source.error = None
    del world.source.rows["bob"]
    assert world.get("bob") is None, "the database is asked each time, and is believed as soon as it answers"


@pytest.mark.parametrize("seconds", [70, 1000])
def test_there_is_an_end_to_it(seconds: int) -> None:
    world = World(CACHE="10", CACHE_STALE="60")
    world.get("bob")
    world.now += seconds
    world.source.error = DOWN
    with pytest.raises(Unavailable):
        world.get("bob")


def test_what_was_not_found_is_never_given_past_its_time() -> None:
    world = World(CACHE="10", CACHE_NEGATIVE="10", CACHE_STALE="60")
    world.get("new")
    world.now += 10
    world.source.error = DOWN
    with pytest.raises(Unavailable):
        world.get("new")


@pytest.mark.parametrize("reason", ["database-tables", "database-columns", "database-settings"])
def test_a_database_that_answers_is_not_down(reason: str) -> None:
    world = World(CACHE="10", CACHE_STALE="60")
    world.get("bob")
    world.now += 10
    world.source.error = Unavailable(reason)
    with pytest.raises(Unavailable):
        world.get("bob")
