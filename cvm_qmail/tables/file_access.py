"""The file system with one user's rights, for a plug-in that reads many files at once.

Invariants: while the plug-in's function runs, this process has the user's file access, so that each call has exactly
the result that it would have for the user, links and access lists included; its own access is restored when the
function returns or raises.  The answer depends on everything that was read below the home, and on each directory
between; if anything else was read (another place, a link, another file system), it cannot be cached.  A process that
may not switch judges by mode bits.

Source: setfsuid(2), access(2); qmail-local.c, which becomes the user before it reads.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING, Protocol, TypeVar

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.ancestors import Directories
from cvm_qmail.tables.calls import Open, check_searchable, check_writable, list_names, read_all
from cvm_qmail.tables.errors import REFUSED

if TYPE_CHECKING:
    from cvm_qmail.tables.door import Rights, Tables

HIDDEN = "(not shown)"
"""What a trace shows of a secret file."""

_ODD = re.compile(rb"//|/\.{1,2}(?:/|$)")
"""Parts of a path that are not names."""


class FileAccess(Protocol):
    """The questions that a plug-in can ask; paths are absolute.

    Each returns None (or False) for what does not exist, and raises `Unavailable` for anything else; where
    `exact`, one with an errno is the user's result too.
    """

    exact: bool

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a regular file."""
        ...

    def status(self, path: bytes, /) -> Status | None:
        """The result of stat(2)."""
        ...

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory."""
        ...

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        ...

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the directory."""
        ...

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link; where `status` is None, one that leads nowhere."""
        ...

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        ...


class ModeBitAccess:
    """The questions put to `Tables` with the user's rights, for a process that may not switch."""

    def __init__(self, tables: Tables, rights: Rights) -> None:
        self._tables = tables
        self._rights = rights
        self.exact = tables.exact(rights)

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a regular file."""
        return self._tables.file(path, self._rights, secret=secret)

    def status(self, path: bytes, /) -> Status | None:
        """The result of stat(2)."""
        return self._tables.status(path, self._rights)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory."""
        return self._tables.listing(path, self._rights)

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        return self._tables.enters(path, self._rights)

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the directory."""
        return self._tables.writable(path, self._rights)

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link."""
        return self._tables.is_link(path, self._rights)

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        return self._tables.cdb(path, self._rights, secret=secret, sound=sound)


V = TypeVar("V")


class Ask(Protocol):
    """`Tables` asking for a plug-in."""

    def __call__(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object, /) -> V | None:
        """``function(path)``; None if there is no such thing.  A trace sees `shown` instead of its value."""
        ...


OpenDatabase = Callable[[bytes, bool, bool], Table[bytes, bytes] | None]


class SetfsuidAccess:
    """Plain system calls, for as long as this process has the user's file access."""

    exact = True

    def __init__(
        self,
        home: bytes,
        directories: Directories,
        ask: Ask,
        cdb: OpenDatabase,
        *,
        opener: Open,
    ) -> None:
        """`ask` and `cdb`: those of `Tables`; they report to a trace and to the hang guard; `opener` opens a file."""
        self._below = home + b"/"
        self._directories = directories
        self._ask = ask
        self._cdb = cdb
        self._open = opener
        self._known: dict[bytes, os.stat_result | None] = {}
        """What lstat(2) said of each path below the home; None: missing."""

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a regular file."""
        return self._ask("file", self._read, path, HIDDEN if secret else None)

    def status(self, path: bytes, /) -> Status | None:
        """The result of stat(2)."""
        return self._ask("status", self._status, path, None)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory."""
        return self._ask("listing", self._listing, path, None)

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        return bool(self._ask("enters", self._enters, path, None))

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the directory."""
        return self._ask("writable", self._writable, path, None)

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        self._rely(path)
        return self._cdb(path, secret, sound)

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link."""
        return self._ask("is_link", self._is_link, path, None) or False

    # -- the calls --------------------------------------------------------------------------------

    def _read(self, path: bytes) -> bytes:
        self._rely(path)
        fd = self._open(path)
        try:
            st = os.fstat(fd)
            if not S_ISREG(st.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return read_all(fd, st.st_size) if st.st_size else b""
        finally:
            os.close(fd)

    def _status(self, path: bytes) -> Status:
        st = self._stat(path)
        return Status(st.st_uid, st.st_gid, st.st_mode, st.st_size, int(st.st_mtime))

    def _stat(self, path: bytes) -> os.stat_result:
        """stat(2)."""
        st = self._rely(path)
        return st if st is not None and not S_ISLNK(st.st_mode) else os.stat(path)

    def _is_link(self, path: bytes) -> bool:
        self._rely(path)
        return S_ISLNK(os.lstat(path).st_mode)

    def _listing(self, path: bytes) -> list[bytes]:
        self._directories.request.not_cacheable()  # a new message may appear in any of its directories
        return list_names(path)

    def _enters(self, path: bytes) -> bool:
        if not S_ISDIR(self._stat(path).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        check_searchable(path)
        return True

    def _writable(self, path: bytes) -> bool:
        if not S_ISDIR(self._stat(path).st_mode):
            return False
        try:
            check_writable(path)
        except OSError as error:
            if error.errno in REFUSED or error.errno == errno.EROFS:
                return False
            raise
        return True

    def _rely(self, path: bytes) -> os.stat_result | None:
        """lstat(2) of a path below the home, on which the answer depends, as on each directory between.

        None if there is no such file, or dependencies are not recorded.  A missing file depends on the
        directory in which it is missing.
        """
        if not self._directories.request.cacheable:
            return None
        if not path.startswith(self._below) or _ODD.search(path):
            self._directories.request.not_cacheable()
            return None
        known = self._known
        end = len(self._below) - 1
        st: os.stat_result | None = None
        while end < len(path):
            end = path.find(b"/", end + 1)
            if end < 0:
                end = len(path)
            part = path[:end]
            if part in known:
                st = known[part]
            else:
                try:
                    st = os.lstat(part)
                except FileNotFoundError:
                    st = None
                except OSError:
                    self._directories.request.not_cacheable()
                    return None
                known[part] = st
                if st is not None:
                    if S_ISLNK(st.st_mode) or not self._directories.plain(part, st):
                        self._directories.request.not_cacheable()
                    self._directories.request.depend_on(part, st)
            if st is None:
                return None
            if S_ISLNK(st.st_mode):
                return st if end == len(path) else None
        return st


def as_user_or_self(tables: Tables, rights: Rights, home: bytes, function: Callable[[FileAccess], V]) -> V:
    """`Tables.as_user`; if a file is denied to that user, the same with this process's own rights.

    For logins, which root's programs check: vchkpw, and the C program cvm-vmailmgr.
    """
    try:
        return tables.as_user(rights, home, function)
    except Unavailable as error:
        if error.errno not in REFUSED:
            raise
        return tables.as_user(tables.own, home, function)
