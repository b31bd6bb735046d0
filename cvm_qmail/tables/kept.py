"""What is kept in memory of a file, for exactly as long as the file is the same.

Law: an answer rests on the file as it is when it is asked for.  A file is the same while device,
inode, size, mtime and ctime are; and since a second change within one tick of the file system's
clock would leave them all the same, what was read of a file that had changed just before is not
trusted later (git calls this "racily clean").  What is read while it changes is read again.  Where
`Changes` can vouch that nothing has happened since, not even the stat is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from stat import S_ISREG
from typing import Generic, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.files import SETTLED, Identity, describe, identity, read_all

T = TypeVar("T")

ATTEMPTS = 5

Make = Callable[[int, int, bytes], T]
"""``make(fd, size, path)``: the value of an open file, which it takes over.  Raises OSError."""

Open = Callable[[bytes], int]


def open_file(path: bytes) -> int:
    """An open file; never blocks."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def content(fd: int, size: int, _path: bytes) -> bytes:
    """A `Make`: the bytes of the file."""
    try:
        return read_all(fd, size)
    finally:
        os.close(fd)


class Kept(Generic[T]):
    """The value of one file."""

    def __init__(
        self, path: bytes, reason: str, make: Make[T], opener: Open = open_file, changes: Changes | None = None
    ) -> None:
        """`reason` is the word for the trouble of a file that cannot be read."""
        self.path = path
        self._reason = reason
        self._make = make
        self._open = opener
        self._changes = changes
        self._stamp = -1
        self._identity: Identity | None = None
        self._read_as: Identity | None = None
        self._vouched_for: Identity | None = None
        self._value: T | None = None

    @property
    def vouched(self) -> bool:
        """Whether `Changes` vouches for the value while its stamp stays."""
        return self._changes is not None and self._changes.stamp == self._stamp

    def check(self) -> bool:
        """Whether the file is what `Changes` vouches for; True if it does not."""
        if not self.vouched:
            return True
        try:
            return identity(os.stat(self.path)) == self._vouched_for
        except FileNotFoundError:
            return self._vouched_for is None
        except OSError:
            return False

    def now(self) -> T | None:
        """The value of the file as it is now; None if there is no such file.  Raises `Unavailable`."""
        changes = self._changes
        if changes is not None and changes.stamp == self._stamp:
            return self._value
        self._stamp = -1
        covered = changes is not None and changes.cover(self.path)
        stamp = changes.stamp if changes is not None and covered else -1
        try:
            st = os.stat(self.path)
            if identity(st) != self._identity:
                self._load()
            if covered and _has_one_name(self.path):
                self._stamp = stamp
                self._vouched_for = self._read_as
        except FileNotFoundError:
            self._identity = self._value = None
            if covered and not os.path.islink(self.path):
                self._stamp = stamp
                self._vouched_for = None
        except OSError as error:
            raise Unavailable(self._reason, describe(error), self.path) from None
        return self._value

    def _load(self) -> None:
        for _ in range(ATTEMPTS):
            self._identity = None
            began = time.time_ns()
            fd = self._open(self.path)
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
                if value != self._value:
                    self._value = value
                self._read_as = identity(st)
                if max(st.st_mtime_ns, st.st_ctime_ns) < began - SETTLED:
                    self._identity = self._read_as
                return
        raise Unavailable(self._reason, "changes while it is read", self.path)


def _has_one_name(path: bytes) -> bool:
    """Whether `path` is a plain file, not a link, and has no other name."""
    st = os.lstat(path)
    return S_ISREG(st.st_mode) and st.st_nlink == 1
