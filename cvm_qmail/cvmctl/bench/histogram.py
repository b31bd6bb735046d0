"""How long many things took, in bounded memory: a histogram with buckets of one to two per cent.

Nanoseconds go into 64 buckets for each power of two (below 128 each has its own), as in Tene's
HdrHistogram; so a percentile is exact to that precision, and the least, the most and the mean exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_SUB = 6
"""Binary digits that tell buckets within a power of two apart."""

_ROW = 5
"""Binary digits that are left out where people look: two rows for each power of two."""


class Row(NamedTuple):
    """A part of the histogram: from `start` to below `end`, in nanoseconds."""

    start: int
    end: int
    times: int


class Latencies:
    """Many durations."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0
        self.least = 0
        self.most = 0

    def add(self, nanoseconds: int) -> None:
        """One more."""
        self.buckets[_bucket(nanoseconds)] += 1
        self.least = min(self.least, nanoseconds) if self.count else nanoseconds
        self.most = max(self.most, nanoseconds)
        self.count += 1
        self.total += nanoseconds

    def merge(self, other: Latencies) -> None:
        """All of `other` as well."""
        if other.count:
            self.least = min(self.least, other.least) if self.count else other.least
            self.most = max(self.most, other.most)
            self.count += other.count
            self.total += other.total
            self.buckets.update(other.buckets)

    @property
    def mean(self) -> float:
        """Of all; 0 if there is none."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """What `percent` of them do not exceed; 0 if there is none."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return max(self.least, min(self.most, _start(bucket + 1) - 1))
        return 0

    def rows(self) -> Iterator[Row]:
        """The histogram for people, from the least to the most, with empty rows between."""
        counts: Counter[int] = Counter()
        for bucket, count in self.buckets.items():
            counts[bucket >> _ROW] += count
        for number in range(min(counts, default=0), max(counts, default=-1) + 1):
            yield Row(_start(number << _ROW), _start((number + 1) << _ROW), counts[number])


def _bucket(nanoseconds: int) -> int:
    shift = max(0, nanoseconds.bit_length() - _SUB - 1)
    return (shift << _SUB) + (nanoseconds >> shift)


def _start(bucket: int) -> int:
    """The least duration in a bucket."""
    shift = max(0, (bucket >> _SUB) - 1)
    return (bucket - (shift << _SUB)) << shift
