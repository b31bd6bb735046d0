"""The file system as one user sees it.

Law: `View` answers what the user's own open(2), stat(2) or chdir(2) would meet, with the error
classes of qmail.  Three ways, from cheap to exact:

 - bits: owner and mode of every folder on the way, none of them a link, none with an access list,
   on a file system whose modes are the whole truth.  They settle a yes, and a "missing" below
   folders that the user may search;
 - the switch: the same call made with the user's fsuid and fsgid; decides all that bits cannot;
 - bits alone, for a process that may not switch and is not that user: the best it can do.

No open blocks, follows a link outside the switch, or becomes a controlling terminal; every read is
bounded.

Source: qmail-local.c (qmeopen, checkhome), qmail-getpw.c (userext), error_temp.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import time
from collections.abc import Callable
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.plain import is_plain
from cvm_qmail.tables.rights import Rights, Switch

T = TypeVar("T")

READ_LIMIT = 16 << 20
"""Bytes of a file beyond which it is a trouble, not a configuration."""

TEMPORARY = frozenset(
    {
        errno.EINTR, errno.ENOMEM, errno.ETXTBSY, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EDEADLK,
        errno.EBUSY, errno.ENFILE, errno.EMFILE, errno.EFBIG, errno.ENOSPC, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ENETRESET, errno.ECONNABORTED, errno.ECONNRESET, errno.ENOBUFS, errno.ETOOMANYREFS,
        errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EUSERS, errno.EDQUOT, errno.ESTALE,
        errno.ENOLCK,
    }
)  # fmt: skip
"""error_temp.c: errors that may go away by themselves."""

REFUSED = frozenset({errno.EACCES, errno.EPERM})

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_NO_LINK = _OPEN | os.O_NOFOLLOW

_NO_ACCESS_LIST = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_ACCESS_LIST = "system.posix_acl_access"

# Without releasing the interpreter lock, and without making an exception of what is no exception.
_readlink = ctypes.PyDLL(None, use_errno=True).readlink
_readlink.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_readlink.restype = ctypes.c_ssize_t
_one_byte = ctypes.create_string_buffer(1)

LISTING_LIMIT = 1 << 14
"""Size of a folder (st_size) beyond which it is not listed."""

NAMES_LIMIT = 50_000
"""Names of .qmail files that are kept, of all homes together."""

WAYS_CHECKED = 64
"""Ways that are looked at again every `TRUST` seconds; if there are more, all are learned anew."""

SETTLED = 2_000_000_000
"""Nanoseconds after which a file's times tell a change.  Before, a second change may carry the same
times: the clock of a file system ticks every few milliseconds, that of old ones every two seconds."""

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns, ctime_ns: equal as long as a file is the same."""


def identity(st: os.stat_result) -> Identity:
    """The identity of the file that `st` was taken of."""
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def same(path: bytes, before: Identity) -> bool:
    """Whether `path`, which was no link, is still the file it was."""
    try:
        st = os.lstat(path)
    except OSError:
        return False
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns) == before


def read_all(fd: int, size: int, limit: int = READ_LIMIT) -> bytes:
    """Everything in an open file that is thought to hold `size` bytes.  Raises OSError; EFBIG beyond `limit`."""
    data = os.read(fd, min(size, limit) + 1)
    if len(data) == size:
        return data
    parts = []
    total = 0
    while data:
        parts.append(data)
        total += len(data)
        if total > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes")
        data = os.read(fd, 1 << 20)
    return b"".join(parts)


class Folder(NamedTuple):
    """What decides whether a user may search a folder."""

    device: int
    inode: int
    st_uid: int
    st_gid: int
    st_mode: int
    without_list: bool
    """Whether it has no access list."""


class Way(NamedTuple):
    """The folders above a path, from the root on, none of them a link, all on plain file systems."""

    folders: tuple[Folder, ...]
    open_to_all: bool
    """Whether everybody may search every one of them."""


class Folders:
    """The way to homes, and what is known of the folders on it."""

    LIMIT = 4096

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._ways: dict[bytes, tuple[int, Way | None]] = {}
        self._without_list: dict[tuple[int, int], int] = {}
        self._plain: dict[int, tuple[int, bool]] = {}
        self._names: dict[bytes, tuple[Identity, frozenset[bytes] | None]] = {}
        self._names_kept = 0
        self._seen: dict[bytes, os.stat_result] = {}
        self._relied_on: dict[bytes, Identity] | None = None

    def begin(self) -> None:
        """A request begins: what was only seen, not watched, is forgotten."""
        self._seen.clear()
        self._relied_on = {}

    def rely(self, path: bytes, st: os.stat_result) -> None:
        """The answer rests on this file or folder being the same, which its identity will tell later."""
        if self._relied_on is not None:
            if max(st.st_mtime_ns, st.st_ctime_ns) < time.time_ns() - SETTLED:
                self._relied_on[path] = identity(st)
            else:
                self._relied_on = None

    def doubt(self) -> None:
        """The answer rests on something that cannot be vouched for later."""
        self._relied_on = None

    @property
    def relied_on(self) -> tuple[tuple[bytes, Identity], ...] | None:
        """What the answer rests on, beside what `Changes` vouches for; None: also on something else."""
        return None if self._relied_on is None else tuple(self._relied_on.items())

    def names(self, home: bytes, st: os.stat_result) -> frozenset[bytes] | None:
        """The names in a home, in lower case, that begin with ``.qmail``; None if they are not known.

        A home is listed when it is met the second time without having changed.
        """
        now = None if self._relied_on is None else self._relied_on.get(home)
        if now is None:
            return None
        before, names = self._names.get(home, (None, None))
        if before == now and names is not None:
            return names
        if before == now and st.st_size <= LISTING_LIMIT:
            names = _dotqmail_names(home)
        self._names_kept += 1 + len(names or ())
        if self._names_kept > NAMES_LIMIT:
            self._names.clear()
            self._names_kept = 1 + len(names or ())
        self._names[home] = now, names
        return names

    def lstat(self, path: bytes) -> os.stat_result:
        """lstat(2), once per request.  Raises OSError."""
        st = self._seen.get(path)
        if st is None:
            st = self._seen[path] = os.lstat(path)
        return st

    def way(self, folder: bytes) -> Way | None:
        """The way into `folder`, itself included; None if it holds a link, or modes are not the whole truth there."""
        known = self._ways.get(folder)
        if known is not None and known[0] == self._changes.stamp:
            return known[1]
        stamp = self._changes.stamp if self._changes.cover_folder(folder) else -1
        way = self._walk(folder)
        if stamp < 0:
            self.doubt()
        else:
            if len(self._ways) >= self.LIMIT:
                self._ways.clear()
            self._ways[folder] = stamp, way
        return way

    def check(self) -> bool:
        """Whether the ways that `Changes` vouches for are still what they were; at most some of them are looked at."""
        stamp = self._changes.stamp
        ways = [(folder, way) for folder, (seen, way) in self._ways.items() if seen == stamp]
        if len(ways) > WAYS_CHECKED:
            return False  # cheaper to learn them anew
        return all(way == self._walk(folder) for folder, way in ways)

    def _walk(self, folder: bytes) -> Way | None:
        if folder[:1] != b"/" or b"//" in folder or b"/." in folder:
            return None
        paths = [folder[: at.start()] or b"/" for at in _SLASH.finditer(folder)] if folder != b"/" else []
        paths.append(folder)
        try:
            stats = list(map(os.lstat, paths))  # now, not as seen earlier in this request: they are watched now
        except OSError:
            return None
        if not all(S_ISDIR(st.st_mode) for st in stats) or not all(map(self.plain, paths, stats)):
            return None
        without_list = list(map(self.without_list, paths, stats))
        return Way(
            tuple(
                Folder(st.st_dev, st.st_ino, st.st_uid, st.st_gid, st.st_mode, plain)
                for st, plain in zip(stats, without_list, strict=True)
            ),
            all(st.st_mode & 0o111 == 0o111 for st in stats) and all(without_list),
        )

    def plain(self, path: bytes, st: os.stat_result) -> bool:
        """Whether modes and POSIX access lists are the whole truth on the file system of `path`, which is no link."""
        stamp, plain = self._plain.get(st.st_dev, (-1, False))
        if stamp != self._changes.stamp or not self._changes.watching:  # a device number may come to mean another
            if len(self._plain) >= self.LIMIT:
                self._plain.clear()
            plain = is_plain(path)
            self._plain[st.st_dev] = self._changes.stamp, plain
        return plain

    def without_list(self, path: bytes, st: os.stat_result) -> bool:
        """Whether the folder has no access list.  Remembered while its ctime stays, unless that is very recent."""
        key = st.st_dev, st.st_ino
        changed = st.st_ctime_ns
        if self._without_list.get(key) == changed:
            return True
        if not _without_list(path):
            return False
        if changed < time.time_ns() - SETTLED:
            if len(self._without_list) >= self.LIMIT:
                self._without_list.clear()
            self._without_list[key] = changed
        return True


_SLASH = re.compile(b"/")


def _dotqmail_names(home: bytes) -> frozenset[bytes] | None:
    """Which names could open a .qmail file here; None if that cannot be told from a listing."""
    try:
        names = frozenset(name.lower() for name in os.listdir(home) if name[:6].lower() == b".qmail")
    except OSError:
        return None
    return names if all(map(bytes.isascii, names)) else None  # some file systems fold case, and not only of ASCII


def _without_list(file: bytes | int) -> bool:
    try:
        os.getxattr(file, _ACCESS_LIST)
    except OSError as error:
        return error.errno in _NO_ACCESS_LIST
    return False


class _Refused(Exception):
    """Bits refuse the user what this process may do."""


class Status(NamedTuple):
    """What stat(2) tells, as far as rules care."""

    uid: int
    gid: int
    mode: int
    size: int
    mtime: int
    """Seconds."""


class View:
    """The file system as `rights` see it, during one request; None: as this process does."""

    def __init__(self, rights: Rights | None, switch: Switch, folders: Folders) -> None:
        own = rights is None or rights == switch.own
        self._rights = rights or switch.own
        self._switch = switch
        self._folders = folders
        self._own = rights is None
        self._direct = own
        self._exact = own or switch.may

    # -- making a call as the user --------------------------------------------------------------

    def _call(self, function: Callable[..., T], *arguments: object) -> T:
        """The call with the user's rights.  Only where `_exact`."""
        self._folders.doubt()
        if self._direct:
            return function(*arguments)
        return self._switch.run(self._rights, function, *arguments)

    # -- bits -------------------------------------------------------------------------------------

    def _allows(self, st: os.stat_result | Folder, bit: int) -> bool:
        """Whether owner and mode bits grant `bit` (4 read, 1 search)."""
        uid, gid = self._rights
        if st.st_uid == uid:
            return bool(st.st_mode >> 6 & bit)
        if st.st_gid == gid:
            return bool(st.st_mode >> 3 & bit)
        return bool(st.st_mode & bit)

    def _enters(self, path: bytes, st: os.stat_result) -> bool:
        """Whether bits settle that the user may search this folder, on a plain file system."""
        return self._allows(st, 1) and (st.st_uid == self._rights.uid or self._folders.without_list(path, st))

    def _passes(self, way: Way) -> bool:
        """Whether bits settle that the user may search every folder on the way."""
        if way.open_to_all:
            return True
        return all(
            self._allows(entered, 1) and (entered.st_uid == self._rights.uid or entered.without_list)
            for entered in way.folders
        )

    def _settled(self, path: bytes) -> os.stat_result | None:
        """lstat(path), if bits settle that the user's stat(2) would say the same; else None.

        Raises FileNotFoundError where bits settle that the user would meet it.
        """
        folder = path[: path.rfind(b"/")] or b"/"
        way = self._folders.way(folder)
        if way is None or path[-1:] in b"/." or not self._passes(way):
            return None
        try:
            st = self._folders.lstat(path)
        except FileNotFoundError:
            self._folders.doubt()
            raise
        except OSError:
            return None
        if S_ISLNK(st.st_mode):
            return None
        self._folders.rely(path, st)
        return st

    # -- what rules ask ---------------------------------------------------------------------------

    def stat(self, path: bytes) -> os.stat_result:
        """What stat(2) says to the user.  Raises OSError as it does."""
        if self._direct:
            return self._call(os.stat, path)
        st = self._settled(path)
        if st is not None:
            return st
        if self._exact:
            return self._call(os.stat, path)
        return self._judge(os.path.realpath(path))

    def _judge(self, real: bytes) -> os.stat_result:
        """By bits alone: what stat(2) of `real`, which has no links, would say to the user.

        Raises OSError as it would; `Unavailable` where this process itself may not look.
        """
        self._folders.doubt()
        end = 0
        try:
            while end >= 0 and real != b"/":
                if not self._allows(self._folders.lstat(real[:end] or b"/"), 1):
                    raise _Refused(real)
                end = real.find(b"/", end + 1)
            st = self._folders.lstat(real)
            if S_ISLNK(st.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), real)
            return st
        except _Refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), real) from None
        except PermissionError:
            raise Unavailable("cannot-see", "this process may not look there", real) from None

    def _inside(self, folder: bytes) -> os.stat_result:
        """The user's chdir(2) to `folder` and stat(2) of ``.``.  Raises OSError as they do."""
        if not self._direct:
            st = self._settled(folder)
            if st is not None and S_ISDIR(st.st_mode) and self._folders.plain(folder, st) and self._enters(folder, st):
                return st
            if not self._exact:
                st = self._judge(os.path.realpath(folder))
                if not S_ISDIR(st.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
                if not self._allows(st, 1):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
                return st
        return self._call(os.stat, folder + b"/.")

    def owner(self, home: bytes) -> int | None:
        """The uid that owns `home`, as qmail-getpw finds it; None if it cannot be seen."""
        try:
            return self.stat(home).st_uid
        except OSError as error:
            raise_if_temporary(error, "passwd-home", home)
            if self._own and error.errno in REFUSED:  # what qmailp would meet is not known
                raise Unavailable("cannot-see", "this process may not look there", home) from None
            return None

    def home(self, path: bytes) -> Home:
        """The home, entered.  Any failure makes qmail-local defer."""
        try:
            st = self._inside(path)
        except OSError as error:
            raise Unavailable("home-denied" if error.errno in REFUSED else "home", describe(error), path) from None
        return Home(st.st_mode, _DotQmails(self, path, self._folders.names(path, st)))

    def dotqmail(self, home: bytes, name: bytes, names: frozenset[bytes] | None = None) -> DotQmail | None:
        """What qmail-local's open(2) of a .qmail file meets; None for all that it passes over.

        `names`: what `Folders.names` knows of the home.
        """
        if names is not None and name.lower() not in names and b"/" not in name:
            return None
        path = b"%s/%s" % (home, name)
        try:
            if self._direct:
                return _read_dotqmail(self._call(os.open, path, _OPEN))
            if not self._exact:
                return self._judge_dotqmail(path)
            if b"/" not in name:
                # readlink is the cheapest call that tells "missing" from all else
                if names is None and _readlink(path, _one_byte, 1) < 0 and ctypes.get_errno() == errno.ENOENT:
                    return None
                file = self._read_settled(path)
                if file is not None:
                    return file
            return _read_dotqmail(self._call(os.open, path, _OPEN))
        except OSError as error:
            if error.errno in REFUSED:
                raise Unavailable("dotqmail-denied", os.strerror(error.errno), path) from None
            raise_if_temporary(error, "dotqmail", path)
            return None

    def open(self, path: bytes) -> int:
        """What open(2) for reading gives the user.  Raises OSError as it does."""
        if self._exact:
            return self._call(os.open, path, _OPEN)
        return os.open(path, _OPEN)

    def content(self, path: bytes) -> bytes:
        """A whole plain file.  Raises OSError; EINVAL for what is not a plain file."""
        fd = self.open(path)
        try:
            st = os.fstat(fd)
            if not S_ISREG(st.st_mode):
                raise OSError(errno.EINVAL, "not a plain file", path)
            return read_all(fd, st.st_size)
        finally:
            os.close(fd)

    def status(self, path: bytes) -> Status:
        """What stat(2) says to the user.  Raises OSError as it does."""
        st = self.stat(path)
        return Status(st.st_uid, st.st_gid, st.st_mode, st.st_size, int(st.st_mtime))

    def listing(self, path: bytes) -> list[bytes]:
        """The names in a folder that the user may list.  Raises OSError."""
        if self._exact:
            return self._call(os.listdir, path)
        return os.listdir(path)

    def _read_settled(self, path: bytes) -> DotQmail | None:
        """The file in a home that the user can enter, if bits settle that the user may read it; else None."""
        try:
            fd = os.open(path, _OPEN_NO_LINK)
        except OSError:
            return None
        return _read_dotqmail(fd, lambda st: self._may_read(fd, path, st))

    def _may_read(self, fd: int, path: bytes, st: os.stat_result) -> bool:
        self._folders.rely(path, st)
        return (
            self._allows(st, 4)
            and self._folders.plain(path, st)
            and (st.st_uid == self._rights.uid or _without_list(fd))
        )

    def _judge_dotqmail(self, path: bytes) -> DotQmail | None:
        """By bits alone.  Without its content if this process may not read it."""
        real = os.path.realpath(path)
        st = self._judge(real)
        if not S_ISREG(st.st_mode):
            return None
        if not self._allows(st, 4):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        try:
            return _read_dotqmail(os.open(real, _OPEN))
        except PermissionError:
            return DotQmail(st.st_mode, None if st.st_size else b"")


def _read_dotqmail(fd: int, may_read: Callable[[os.stat_result], bool] | None = None) -> DotQmail | None:
    """Reads and closes `fd`; None if it is not a plain file, or `may_read` is not sure."""
    try:
        st = os.fstat(fd)
        if not S_ISREG(st.st_mode) or (may_read is not None and not may_read(st)):
            return None
        return DotQmail(st.st_mode, read_all(fd, st.st_size) if st.st_size else b"")
    finally:
        os.close(fd)


class _DotQmails:
    """The .qmail files of one home, by name."""

    def __init__(self, view: View, home: bytes, names: frozenset[bytes] | None) -> None:
        self._view = view
        self._home = home
        self._names = names

    def get(self, name: bytes, /) -> DotQmail | None:
        return self._view.dotqmail(self._home, name, self._names)


def raise_if_temporary(error: OSError, reason: str, path: bytes) -> None:
    """Qmail's error_temp: such an error tells nothing."""
    if error.errno in TEMPORARY:
        raise Unavailable(reason, describe(error), path) from None


def describe(error: OSError) -> str:
    """The error without the path, which travels beside it."""
    return os.strerror(error.errno) if error.errno else str(error)
