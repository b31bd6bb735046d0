"""What the answer to one request depends on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvm_qmail.tables.dependencies import Dependencies, Recheck, Request
from cvm_qmail.tables.identity import SETTLED, identity


def long_ago(path: Path) -> os.stat_result:
    """What lstat(2) would say of a file that has not changed for a while."""
    st = os.lstat(path)
    old = {"st_mtime_ns": st.st_mtime_ns - 2 * SETTLED, "st_ctime_ns": st.st_ctime_ns - 2 * SETTLED}
    return os.stat_result(list(st), old)


@pytest.fixture
def request_() -> Request:
    return Request(100.0, lambda: 7)


def test_an_answer_that_depends_on_nothing_depends_on_the_stamp(request_: Request) -> None:
    assert request_.dependencies() == Dependencies(7, ())


def test_a_file_is_named_with_its_identity_once(request_: Request, tmp_path: Path) -> None:
    path, st = os.fsencode(tmp_path), long_ago(tmp_path)
    for _ in range(2):
        request_.depend_on(path, st)
    assert request_.dependencies() == Dependencies(7, ((path, identity(st)),))


def test_a_file_that_changed_a_moment_ago_makes_the_answer_impossible_to_cache(
    request_: Request, tmp_path: Path
) -> None:
    request_.depend_on(os.fsencode(tmp_path), os.lstat(tmp_path))
    assert request_.dependencies() is None


def test_the_soonest_end_counts(request_: Request) -> None:
    for moment in (300.0, 200.0, 400.0):
        request_.valid_until(moment)
    assert request_.dependencies() == Dependencies(7, (), 200.0)


def test_a_recheck_says_what_it_looks_at(request_: Request) -> None:
    def holds() -> bool:
        return True

    request_.recheck_with(b"database", holds)
    assert request_.dependencies() == Dependencies(7, (), rechecks=(Recheck(b"database", holds),))


def test_what_cannot_be_checked_later_cannot_be_cached(request_: Request) -> None:
    assert request_.cacheable
    request_.not_cacheable()
    assert not request_.cacheable
    assert request_.dependencies() is None


def test_where_nobody_will_ask_nothing_is_collected(tmp_path: Path) -> None:
    request = Request(100.0, lambda: 7, cacheable=False)
    request.depend_on(os.fsencode(tmp_path), long_ago(tmp_path))
    assert request.dependencies() is None
    assert request._seen == []
