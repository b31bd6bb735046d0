"""Whether a file is unchanged.

Invariants: device, inode, size and times in nanoseconds show a change, unless the last one is so recent that another
may have the same times.

Source: stat(2), inode(7); git's "racily clean" entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

SETTLED = 2_000_000_000
"""Nanoseconds after which a file's times show a change.

Before that, a second change may have the same times: the clock of a file system ticks every few milliseconds, that
of old ones every two seconds.
"""

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns, ctime_ns: equal as long as a file is the same."""


def identity(st: os.stat_result) -> Identity:
    """The identity of the file that `st` was taken of."""
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def is_settled(st: os.stat_result, moment: int) -> bool:
    """Whether a change after `moment` (nanoseconds since 1970) would show in the times of the file."""
    return max(st.st_mtime_ns, st.st_ctime_ns) < moment - SETTLED


def unchanged(files: Iterable[tuple[bytes, Identity]], mark: Callable[[bytes], None]) -> bool:
    """Whether these paths, none of which was a link, are unchanged; `mark` is called with each before it is read."""
    for path, before in files:
        mark(path)
        try:
            st = os.lstat(path)
        except OSError:
            return False
        # `identity`, written out: it is called for every file of every cached answer
        if (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns) != before:
            return False
    return True
