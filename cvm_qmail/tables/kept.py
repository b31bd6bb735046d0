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
from typing import Generic, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.errors import describe
from cvm_qmail.tables.files import open_file, read_all
from cvm_qmail.tables.identity import SETTLED, Identity, identity

T = TypeVar("T")

ATTEMPTS = 5

Make = Callable[[int, int, bytes], T]
"""``make(fd, size, path)``: the value of an open file, which it takes over.  Raises OSError."""

Open = Callable[[bytes], int]


def content(fd: int, size: int, _path: bytes) -> bytes:
    """A `Make`: the bytes of the file."""
    try:
        return read_all(fd, size)
    finally:
        os.close(fd)


class Kept(Generic[T]):
    """The value of one file."""

    def __init__(
        self, path: bytes, reason: str, make: Make[T], opener: Open | None = None, changes: Changes | None = None
    ) -> None:
        """`reason` is the word for the trouble of a file that cannot be read.

        `opener` opens the file with somebody's rights (default: this process's).
        """
        self.path = path
        self._reason = reason
        self._make = make
        self._opener = opener
        self._changes = changes
        self._stamp = -1
        """That of `Changes` while it vouches for the value."""
        self._identity: Identity | None = None
        """Of the file that the value was made from; None: there is none."""
        self._settled = False
        """Whether that identity will tell a change."""
        self._value: T | None = None

    @property
    def vouched(self) -> bool:
        """Whether `Changes` vouches for the value while its stamp stays."""
        return self._changes is not None and self._changes.stamp == self._stamp

    def check(self) -> bool:
        """Whether the file is still what `Changes` vouches for, if it does."""
        if not self.vouched:
            return True
        try:
            return identity(os.stat(self.path)) == self._identity
        except FileNotFoundError:
            return self._identity is None
        except OSError:
            return False

    def now(self) -> T | None:
        """The value of the file as it is now; None if there is no such file.  Raises `Unavailable`."""
        changes = self._changes
        if changes is not None and changes.stamp == self._stamp:
            return self._value
        self._stamp = -1
        covered = changes is not None and changes.cover(self.path)
        try:
            st = os.stat(self.path)
            if not self._settled or identity(st) != self._identity:
                self._load()
            elif self._opener is not None:
                os.close(self._opener(self.path))  # its user may have lost the right to read it
        except FileNotFoundError:
            self._identity = self._value = None
            self._settled = False
        except OSError as error:
            raise Unavailable(self._reason, describe(error), self.path, errno=error.errno) from None
        if changes is not None and covered and not os.path.islink(self.path):
            self._stamp = changes.stamp
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
                if value != self._value:  # else the old one serves, and what was made of it
                    self._value = value
                self._identity = identity(st)
                self._settled = max(st.st_mtime_ns, st.st_ctime_ns) < began - SETTLED
                return
        raise Unavailable(self._reason, "changes while it is read", self.path)
