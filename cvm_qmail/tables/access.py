"""The file system with one user's rights.

Invariants: `UserAccess` returns the results of the user's own open(2), stat(2) or chdir(2), with the error classes of
qmail.  There are three ways, from cheap to exact:

 - bits: owner and mode of every directory above, none of them a link, none with an access list, on a file system
   where modes decide.  They can prove that access is allowed, and that a file is missing below directories that the
   user may search;
 - the switch: the same call made with the user's fsuid and fsgid; decides everything that bits cannot;
 - bits alone, for a process that may not switch and is not that user.

Outside the switch no open follows a link, neither at the end nor above: bits have proved a path without links.

Source: qmail-local.c (qmeopen, checkhome), qmail-getpw.c (userext), error_temp.c.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.tables.ancestors import Ancestors, Directories, Directory, lacks_list
from cvm_qmail.tables.calls import (
    OPEN,
    asks_access,
    check_writable,
    is_missing,
    list_names,
    open_file,
    open_regular,
    open_without_links,
    read_all,
)
from cvm_qmail.tables.errors import REFUSED, describe, raise_if_temporary
from cvm_qmail.tables.rights import Rights, Switch

T = TypeVar("T")


class _Refused(Exception):
    """Bits deny the user what this process may do."""


class Status(NamedTuple):
    """The result of stat(2), as far as rules use it."""

    uid: int
    gid: int
    mode: int
    size: int
    mtime: int
    """Seconds."""


class UserAccess:
    """The file system with `rights`, during one request; None: with those of this process."""

    def __init__(self, rights: Rights | None, switch: Switch, directories: Directories) -> None:
        own = rights is None or rights == switch.own
        self._rights = rights or switch.own
        self._switch = switch
        self._directories = directories
        self._unnamed = rights is None  # this process looks as itself, for want of an account
        self._direct = own
        self._open = open_regular if own and switch.may else open_file
        self.exact = own or switch.may
        """Whether every call is made with exactly these rights."""

    # -- making a call as the user --------------------------------------------------------------

    def _call(self, function: Callable[..., T], *arguments: object) -> T:
        """The call with the user's rights.  Only where `exact`."""
        self._directories.request.not_cacheable()
        if self._direct:
            return function(*arguments)
        return self._switch.run(self._rights, function, *arguments)

    # -- bits -------------------------------------------------------------------------------------

    def _allows(self, st: os.stat_result | Directory, bit: int) -> bool:
        """Whether owner and mode bits grant `bit` (4 read, 1 search)."""
        uid, gid = self._rights
        if st.st_uid == uid:
            return bool(st.st_mode >> 6 & bit)
        if st.st_gid == gid:
            return bool(st.st_mode >> 3 & bit)
        return bool(st.st_mode & bit)

    def _enters(self, path: bytes, st: os.stat_result) -> bool:
        """Whether bits prove that the user may search this directory, on a local file system."""
        return self._allows(st, 1) and (st.st_uid == self._rights.uid or self._directories.without_list(path, st))

    def _passes(self, ancestors: Ancestors) -> bool:
        """Whether bits prove that the user may search every one of these directories."""
        if ancestors.open_to_all:
            return True
        return all(
            self._allows(entered, 1) and (entered.st_uid == self._rights.uid or entered.without_list)
            for entered in ancestors.directories
        )

    def _settled(self, path: bytes) -> os.stat_result | None:
        """lstat(path), if bits prove that the user's stat(2) would have the same result; else None.

        Raises FileNotFoundError if bits prove that the user's call would.
        """
        directory = path[: path.rfind(b"/")] or b"/"
        ancestors = self._directories.ancestors(directory)
        if ancestors is None or path[-1:] in b"/." or not self._passes(ancestors):
            return None
        try:
            st = self._directories.lstat(path)
        except FileNotFoundError:
            self._directories.request.not_cacheable()
            raise
        except OSError:
            return None
        if S_ISLNK(st.st_mode):
            return None
        self._directories.request.depend_on(path, st)
        return st

    # -- questions of the rules ---------------------------------------------------------------------------

    def stat(self, path: bytes) -> os.stat_result:
        """What stat(2) says to the user.  Raises OSError as it does."""
        if self._direct:
            return self._call(os.stat, path)
        st = self._settled(path)
        if st is not None:
            return st
        if self.exact:
            return self._call(os.stat, path)
        return self._judge(os.path.realpath(path))

    def _judge(self, real: bytes) -> os.stat_result:
        """By bits alone: the result that the user's stat(2) of `real`, which has no links, would have.

        Raises OSError as it would; `Unavailable` where this process itself may not read.
        """
        self._directories.request.not_cacheable()
        end = 0
        try:
            while end >= 0 and real != b"/":
                if not self._allows(self._directories.lstat(real[:end] or b"/"), 1):
                    raise _Refused(real)
                end = real.find(b"/", end + 1)
            st = self._directories.lstat(real)
            if S_ISLNK(st.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), real)
            return st
        except _Refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), real) from None
        except PermissionError:
            raise Unavailable("cannot-see", "this process has no permission to read this path", real) from None

    def _inside(self, directory: bytes) -> os.stat_result:
        """The user's chdir(2) to `directory` and stat(2) of ``.``.  Raises OSError as they do."""
        if not self._direct:
            st = self._settled(directory)
            if (
                st is not None
                and S_ISDIR(st.st_mode)
                and self._directories.plain(directory, st)
                and self._enters(directory, st)
            ):
                return st
            if not self.exact:
                st = self._judge(os.path.realpath(directory))
                if not S_ISDIR(st.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
                if not self._allows(st, 1):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)
                return st
        return self._call(os.stat, directory + b"/.")

    def owner(self, home: bytes) -> int | None:
        """The uid that owns `home`, as qmail-getpw finds it; None if qmail-getpw cannot see the home."""
        try:
            return self.stat(home).st_uid
        except OSError as error:
            raise_if_temporary(error, "passwd-home", home)
            if self._unnamed and error.errno in REFUSED:  # the result for qmailp is not known
                raise Unavailable("cannot-see", "this process has no permission to read this path", home) from None
            return None

    def home(self, path: bytes) -> Home:
        """Enters the home.  Any failure makes qmail-local defer."""
        try:
            st = self._inside(path)
        except OSError as error:
            raise Unavailable(
                "home-denied" if error.errno in REFUSED else "home", describe(error), path, errno=error.errno
            ) from None
        return Home(st.st_mode, _DotQmails(self, path, self._directories.names(path, st)))

    def dotqmail(self, home: bytes, name: bytes, names: frozenset[bytes] | None = None) -> DotQmail | None:
        """The result of qmail-local's open(2) of a .qmail file; None for everything that it skips.

        `names`: the result of `Directories.names` for the home.
        """
        if names is not None and name.lower() not in names and b"/" not in name:
            return None
        path = b"%s/%s" % (home, name)
        try:
            if self._direct:
                return _read_dotqmail(self._call(os.open, path, OPEN))
            if not self.exact:
                return self._judge_dotqmail(path)
            if b"/" not in name:
                try:
                    fd = open_without_links(path)  # a directory above may have been replaced since it was checked
                except OSError:
                    if is_missing(path):
                        return None
                else:
                    file = None if fd is None else _read_dotqmail(fd, partial(self._may_read, fd, path))
                    if fd is None or file is not None:
                        return file
            return _read_dotqmail(self._call(os.open, path, OPEN))
        except OSError as error:
            if error.errno in REFUSED:
                raise Unavailable("dotqmail-denied", os.strerror(error.errno), path) from None
            raise_if_temporary(error, "dotqmail", path)
            return None

    def open(self, path: bytes) -> int:
        """The result of the user's open(2) for reading.  Raises OSError as it does."""
        if self.exact:
            return self._call(self._open, path)
        return open_file(path)

    def content(self, path: bytes) -> bytes:
        """The content of a regular file.  Raises OSError; EINVAL for any other file."""
        fd = self.open(path)
        try:
            st = os.fstat(fd)
            if not S_ISREG(st.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return read_all(fd, st.st_size)
        finally:
            os.close(fd)

    def status(self, path: bytes) -> Status:
        """What stat(2) says to the user.  Raises OSError as it does."""
        st = self.stat(path)
        return Status(st.st_uid, st.st_gid, st.st_mode, st.st_size, int(st.st_mtime))

    def listing(self, path: bytes) -> list[bytes]:
        """The names in a directory that the user may list.  Raises OSError."""
        if self.exact:
            return self._call(list_names, path)
        return list_names(path)

    def is_link(self, path: bytes) -> bool:
        """Whether the name is a symbolic link, which is not followed.  Raises OSError as lstat(2) does."""
        st = self._call(os.lstat, path) if self.exact else os.lstat(path)
        return S_ISLNK(st.st_mode)

    def enters(self, path: bytes) -> bool:
        """True.  Raises OSError as the user's chdir(2) to `path` does."""
        self._inside(path)
        return True

    def writable(self, path: bytes) -> bool:
        """Whether the user may make files in the directory `path`.

        Raises OSError as stat(2) does, unless access is denied.
        """
        try:
            st = self.stat(path)
            if not S_ISDIR(st.st_mode):
                return False
            if self.exact and asks_access():
                self._call(check_writable, path)
                return True
            return self._allows(st, 2) and self._allows(st, 1) and not os.statvfs(path).f_flag & os.ST_RDONLY
        except OSError as error:
            if error.errno in REFUSED or error.errno == errno.EROFS:
                return False
            raise

    def _may_read(self, fd: int, path: bytes, st: os.stat_result) -> bool:
        self._directories.request.depend_on(path, st)
        return (
            self._allows(st, 4)
            and self._directories.plain(path, st)
            and (st.st_uid == self._rights.uid or lacks_list(fd))
        )

    def _judge_dotqmail(self, path: bytes) -> DotQmail | None:
        """By bits alone; without its content if this process may not read it."""
        real = os.path.realpath(path)
        st = self._judge(real)
        if not S_ISREG(st.st_mode):
            return None
        if not self._allows(st, 4):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        try:
            return _read_dotqmail(os.open(real, OPEN))
        except PermissionError:
            return DotQmail(st.st_mode, None if st.st_size else b"")


def _read_dotqmail(fd: int, may_read: Callable[[os.stat_result], bool] | None = None) -> DotQmail | None:
    """Reads and closes `fd`; None if it is not a regular file, or if `may_read` does not prove the access."""
    try:
        st = os.fstat(fd)
        if not S_ISREG(st.st_mode) or (may_read is not None and not may_read(st)):
            return None
        return DotQmail(st.st_mode, read_all(fd, st.st_size) if st.st_size else b"")
    finally:
        os.close(fd)


class _DotQmails:
    """The .qmail files of one home, by name."""

    def __init__(self, access: UserAccess, home: bytes, names: frozenset[bytes] | None) -> None:
        self._access = access
        self._home = home
        self._names = names

    def get(self, name: bytes, /) -> DotQmail | None:
        return self._access.dotqmail(self._home, name, self._names)


class Owners:
    """The uid that owns a home, as qmail-getpw finds it: by its path, which may be relative to the qmail home."""

    def __init__(self, root: bytes, enter: Callable[[bytes], None], access: UserAccess) -> None:
        self._root = root
        self._enter = enter
        self._access = access

    def get(self, home: bytes, /) -> int | None:
        """The uid; None if qmail-getpw cannot see the home.  Raises `Unavailable`."""
        if not home:
            return None
        path = home if home.startswith(b"/") else b"%s/%s" % (self._root, home)
        self._enter(path)
        return self._access.owner(path)
