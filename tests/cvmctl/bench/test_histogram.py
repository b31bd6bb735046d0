"""Durations in bounded memory: percentiles within two per cent, the ends exactly."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.bench.histogram import Latencies

durations = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 10**12)), min_size=1, max_size=60)


def of(values: list[int]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


@given(durations, st.floats(0, 100, exclude_min=True))
def test_a_percentile_is_what_so_many_do_not_exceed_to_two_per_cent(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
    assert exact <= of(values).percentile(percent) <= exact * 65 / 64


@given(durations)
def test_the_least_the_most_and_the_mean_are_exact(values: list[int]) -> None:
    latencies = of(values)
    assert (latencies.least, latencies.most) == (min(values), max(values))
    assert latencies.mean == sum(values) / len(values)
    assert latencies.percentile(100) == max(values)


@given(durations)
def test_every_duration_is_in_its_row_and_rows_leave_no_gap(values: list[int]) -> None:
    rows = list(of(values).rows())
    for before, after in pairwise(rows):
        assert before.end == after.start
    for start, end, times in rows:
        assert times == sum(start <= value < end for value in values)
    assert rows[0].times
    assert rows[-1].times


@given(durations, durations)
def test_two_merged_are_as_if_all_had_been_added_to_one(some: list[int], others: list[int]) -> None:
    merged, together = of(some), of(some + others)
    merged.merge(of(others))
    assert vars(merged) == vars(together)


def test_memory_is_bounded_whatever_is_added() -> None:
    latencies = of([number**3 for number in range(20000)])
    assert len(latencies.buckets) < 64 * 64


def test_of_nothing_there_is_nothing_to_say() -> None:
    nothing = Latencies()
    assert (nothing.percentile(50), nothing.mean, list(nothing.rows())) == (0, 0, [])
    some = of([5])
    some.merge(nothing)
    assert vars(some) == vars(of([5]))
