"""A value made from a file, cached for exactly as long as the file is unchanged.

Invariants: the value is that of the file at the moment of the question.  A file is unchanged while
device, inode, size, mtime and ctime are; and since a second change within one tick of the file system's
clock would leave them all as they are, the content of a file that had changed just before it was read
is not trusted later (git calls this "racily clean").  A file that changes while it is read is read
again.  While the watch covers the file, not even the stat is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.calls import Open, open_file, read_all
from cvm_qmail.tables.errors import describe
from cvm_qmail.tables.identity import Identity, identity, is_settled
from cvm_qmail.tables.watch import Watch

T = TypeVar("T")

ATTEMPTS = 5

Make = Callable[[int, int, bytes], T]
"""``make(fd, size, path)`` returns the value of an open file, and takes over `fd`.  Raises OSError."""


def content(fd: int, size: int, _path: bytes) -> bytes:
    """A `Make`: the bytes of the file."""
    try:
        return read_all(fd, size)
    finally:
        os.close(fd)


class CachedFile(Generic[T]):
    """The value of one file."""

    def __init__(
        self, path: bytes, reason: str, make: Make[T], opener: Open | None = None, watch: Watch | None = None
    ) -> None:
        """`reason`: the reason word for a file that cannot be read.

        `opener` opens the file with some user's rights (default: this process's).
        """
        self.path = path
        self._reason = reason
        self._make = make
        self._opener = opener
        self._watch = watch
        self._stamp = -1
        """The stamp of the watch while it covers the value."""
        self._identity: Identity | None = None
        """The identity of the file that the value was made from; None: there is no such file."""
        self._settled = False
        """Whether this identity would differ after a change."""
        self._value: T | None = None

    @property
    def watched(self) -> bool:
        """Whether the watch covers the value while its stamp stays."""
        return self._watch is not None and self._watch.stamp == self._stamp

    def check(self) -> bool:
        """Whether the file is unchanged, if the watch covers it; True if it does not."""
        if not self.watched:
            return True
        try:
            return identity(os.stat(self.path)) == self._identity
        except FileNotFoundError:
            return self._identity is None
        except OSError:
            return False

    def now(self) -> T | None:
        """The value of the file as it is now; None if there is no such file.  Raises `Unavailable`."""
        watch = self._watch
        if watch is not None and watch.stamp == self._stamp:
            return self._value
        self._stamp = -1
        covered = watch is not None and watch.cover(self.path)
        try:
            st = os.stat(self.path)
            if not self._settled or identity(st) != self._identity:
                self._load()
            elif self._opener is not None:
                os.close(self._opener(self.path))  # the user may have lost the right to read it
        except FileNotFoundError:
            self._identity = self._value = None
            self._settled = False
        except OSError as error:
            raise Unavailable(self._reason, describe(error), self.path, errno=error.errno) from None
        if watch is not None and covered and not os.path.islink(self.path):
            self._stamp = watch.stamp
        return self._value

    def _load(self) -> None:
        for _ in range(ATTEMPTS):
            self._settled = False
            began = time.time_ns()
            fd = (self._opener or open_file)(self.path)
            try:
                st = os.fstat(fd)
                spare = os.dup(fd)
            except OSError:
                os.close(fd)
                raise
            try:
                value = self._make(fd, st.st_size, self.path)
                same = identity(os.fstat(spare)) == identity(st)
            finally:
                os.close(spare)
            if same:
                if value != self._value:  # else the old file and its value stay in memory
                    self._value = value
                self._identity = identity(st)
                self._settled = is_settled(st, began)
                return
        raise Unavailable(self._reason, "changes while it is read", self.path)
