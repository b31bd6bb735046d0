"""What one user sees of the disk.

Invariants: nothing is ever written.  What a user may not see is missing to that user; what this process
cannot determine for that user is `Unavailable`.
"""

from __future__ import annotations

import math
import os
import time
from stat import S_ISCHR, S_ISDIR, S_ISREG, S_ISSOCK

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.door import FileAccess
from cvm_qmail.tables.errors import REFUSED, TEMPORARY


class UserView:
    """An `accounts.View`: the file system as one user sees it.

    Who owns the files decides how much there is to look at for one address.  So looking ends by the clock,
    before the supervisor kills the worker: it would be in another file each time, so that a quarantine of
    that file would not help.
    """

    def __init__(self, access: FileAccess, until: float = math.inf) -> None:
        """`access`: as that user.  `until`: by time.monotonic; later questions raise `Unavailable`."""
        self._access = access
        self._until = until

    def _in_time(self, path: bytes) -> None:
        if time.monotonic() >= self._until:
            raise Unavailable("too-much", "there is more to look at than there is time", path)

    def _raise_unless_answer(self, error: Unavailable) -> None:
        """Raises the error again, unless the user would meet the same one: then the user finds nothing there."""
        if error.errno is None or error.errno in TEMPORARY:
            raise error
        if error.errno in REFUSED and not self._access.exact:
            raise error

    def file(self, path: bytes, /) -> bytes | None:
        """Content of a regular file that can be opened, or of /dev/null; None for anything else."""
        status = self.status(path)
        if status is None or S_ISDIR(status.mode) or S_ISSOCK(status.mode):
            return None
        if S_ISCHR(status.mode) and os.path.realpath(path) == b"/dev/null":
            return b""
        if not S_ISREG(status.mode):
            raise Unavailable("not-a-file", "is not a regular file: reading it may never end", path)
        try:
            return self._access.file(path)
        except Unavailable as error:
            self._raise_unless_answer(error)
            return None

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says; None if it cannot be looked at."""
        self._in_time(path)
        try:
            return self._access.status(path)
        except Unavailable as error:
            self._raise_unless_answer(error)
            return None

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory; None if it cannot be listed."""
        self._in_time(path)
        try:
            return self._access.listing(path)
        except Unavailable as error:
            self._raise_unless_answer(error)
            return None

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        self._in_time(path)
        try:
            return self._access.enters(path)
        except Unavailable as error:
            self._raise_unless_answer(error)
            return False

    def writable(self, path: bytes, /) -> bool:
        """Whether files can be made in the directory."""
        self._in_time(path)
        try:
            return bool(self._access.writable(path))
        except Unavailable as error:
            self._raise_unless_answer(error)
            return False

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link."""
        self._in_time(path)
        try:
            return self._access.is_link(path)
        except Unavailable as error:
            self._raise_unless_answer(error)
            return False
