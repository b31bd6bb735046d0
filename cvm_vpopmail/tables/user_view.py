"""What one user sees of the disk.

Invariants: nothing is ever written.  What a user may not see is missing to that user; what this process
cannot determine for that user is `Unavailable`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from stat import S_ISCHR, S_ISDIR, S_ISREG, S_ISSOCK
from typing import TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.door import FileAccess
from cvm_qmail.tables.errors import REFUSED, TEMPORARY

T = TypeVar("T")


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

    def _ask(self, question: Callable[[bytes], T], path: bytes) -> T | None:
        """An answer of the file system; None where the user finds nothing there.  Raises `Unavailable`."""
        if time.monotonic() >= self._until:
            raise Unavailable("too-much", "there is more to look at than there is time", path)
        try:
            return question(path)
        except Unavailable as error:
            if error.errno is None or error.errno in TEMPORARY:
                raise
            if error.errno in REFUSED and not self._access.exact:  # the user may be allowed to
                raise
            return None

    def file(self, path: bytes, /) -> bytes | None:
        """Content of a regular file that can be opened, or of /dev/null; None for anything else."""
        status = self.status(path)
        if status is None or S_ISDIR(status.mode) or S_ISSOCK(status.mode):
            return None
        if S_ISCHR(status.mode) and os.path.realpath(path) == b"/dev/null":
            return b""
        if not S_ISREG(status.mode):
            raise Unavailable("not-a-file", "is not a regular file: reading it may never end", path)
        return self._ask(self._access.file, path)

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says; None if it cannot be looked at."""
        return self._ask(self._access.status, path)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory; None if it cannot be listed."""
        return self._ask(self._access.listing, path)

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        return bool(self._ask(self._access.enters, path))

    def writable(self, path: bytes, /) -> bool:
        """Whether files can be made in the directory."""
        return bool(self._ask(self._access.writable, path))

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link."""
        return bool(self._ask(self._access.is_link, path))
