"""The disk as one user sees it, for a plug-in that looks at much of it at once.

Law: while the plug-in's function runs, this process has the user's file access, so that each call meets
exactly what the user would, links and access lists included; its own is back when the function
returns, however it does.  What was looked at below the home, with each folder on the way, is the
evidence for the answer; anything else (another place, a link, another file system) is not vouched for.
A process that may not switch looks by bits.

Source: setfsuid(2), access(2); qmail-local.c, which becomes the user before it looks.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING, Protocol, TypeVar

from cvm_qmail.answer import Table
from cvm_qmail.tables.errors import REFUSED
from cvm_qmail.tables.files import Status, list_names, make_files, read_all, search
from cvm_qmail.tables.folders import Folders

if TYPE_CHECKING:
    from cvm_qmail.tables import Rights, Tables

_ODD = re.compile(rb"//|/\.{1,2}(?:/|$)")
"""Parts of a path that are no names."""


class Looks(Protocol):
    """What can be asked; paths are absolute.

    Each gives None (or False) for what is not there, and raises `Unavailable` for anything else; where
    `exact`, one with an errno is what the user would meet too.
    """

    exact: bool

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a plain file."""
        ...

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says."""
        ...

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a folder."""
        ...

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        ...

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the folder."""
        ...

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        ...


class ByBits:
    """The doors of `Tables` with the user's rights, for a process that may not switch."""

    def __init__(self, tables: Tables, rights: Rights) -> None:
        self._tables = tables
        self._rights = rights
        self.exact = tables.exact(rights)

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a plain file."""
        return self._tables.file(path, self._rights, secret=secret)

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says."""
        return self._tables.status(path, self._rights)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a folder."""
        return self._tables.listing(path, self._rights)

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        return self._tables.enters(path, self._rights)

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the folder."""
        return self._tables.writable(path, self._rights)

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        return self._tables.cdb(path, self._rights, secret=secret, sound=sound)


V = TypeVar("V")


class Ask(Protocol):
    """`Tables` asking for a plug-in."""

    def __call__(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object, /) -> V | None:
        """``function(path)``; None if there is no such thing.  A trace sees `shown` in the place of its value."""
        ...


OpenDatabase = Callable[[bytes, bool, bool], Table[bytes, bytes] | None]


class Switched:
    """Plain system calls, for as long as this process has the user's file access."""

    exact = True

    def __init__(
        self,
        home: bytes,
        folders: Folders,
        hidden: object,
        ask: Ask,
        cdb: OpenDatabase,
        *,
        opened: Callable[[bytes], int],
    ) -> None:
        """`ask` and `cdb` are those of `Tables`, which tell a trace, and the supervisor; `opened` opens a file."""
        self._below = home + b"/"
        self._folders = folders
        self._hidden = hidden
        self._ask = ask
        self._cdb = cdb
        self._open = opened
        self._known: dict[bytes, os.stat_result | None] = {}
        """What was found on the way, below the home; None: nothing."""

    def file(self, path: bytes, /, *, secret: bool = False) -> bytes | None:
        """Content of a plain file."""
        return self._ask("file", self._read, path, self._hidden if secret else None)

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says."""
        return self._ask("status", self._status, path, None)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a folder."""
        return self._ask("listing", self._listing, path, None)

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        return bool(self._ask("enters", self._enters, path, None))

    def writable(self, path: bytes, /) -> bool | None:
        """Whether files may be made in the folder."""
        return self._ask("writable", self._writable, path, None)

    def cdb(self, path: bytes, /, *, secret: bool = False, sound: bool = False) -> Table[bytes, bytes] | None:
        """A constant database."""
        self._rely(path)
        return self._cdb(path, secret, sound)

    # -- the calls --------------------------------------------------------------------------------

    def _read(self, path: bytes) -> bytes:
        self._rely(path)
        fd = self._open(path)
        try:
            st = os.fstat(fd)
            if not S_ISREG(st.st_mode):
                raise OSError(errno.EINVAL, "not a plain file", path)
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

    def _listing(self, path: bytes) -> list[bytes]:
        self._folders.doubt()  # a message may come to lie in any of its folders
        return list_names(path)

    def _enters(self, path: bytes) -> bool:
        if not S_ISDIR(self._stat(path).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        search(path)
        return True

    def _writable(self, path: bytes) -> bool:
        if not S_ISDIR(self._stat(path).st_mode):
            return False
        try:
            make_files(path)
        except OSError as error:
            if error.errno in REFUSED or error.errno == errno.EROFS:
                return False
            raise
        return True

    def _rely(self, path: bytes) -> os.stat_result | None:
        """lstat(2) of a path below the home, each folder on the way noted as evidence; None if that cannot be had.

        What is missing rests on the folder in which it is missing.
        """
        if not self._folders.relying:
            return None
        if not path.startswith(self._below) or _ODD.search(path):
            self._folders.doubt()
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
                    self._folders.doubt()
                    return None
                known[part] = st
                if st is not None:
                    if S_ISLNK(st.st_mode) or not self._folders.plain(part, st):
                        self._folders.doubt()
                    self._folders.rely(part, st)
            if st is None:
                return None
            if S_ISLNK(st.st_mode):
                return st if end == len(path) else None
        return st
