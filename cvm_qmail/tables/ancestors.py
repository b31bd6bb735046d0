"""The directories above a path, access lists, and the names in homes.

Invariants: information about a directory was either read in this request, or the watch covers the directory, or its
identity shows that it is unchanged.

Source: path_resolution(7), acl(5).
"""

import errno
import os
import re
import time
from stat import S_ISDIR
from typing import NamedTuple

from cvm_qmail.tables.dependencies import Request
from cvm_qmail.tables.filesystems import enforces_posix_modes
from cvm_qmail.tables.identity import SETTLED, Identity, identity, is_settled
from cvm_qmail.tables.watch import Watch

LISTING_LIMIT = 1 << 14
"""Size of a directory (st_size) beyond which it is not listed."""

NAMES_LIMIT = 50_000
"""The number of names of .qmail files that are kept, for all homes together."""

RARELY = 8
"""Uses of a home before it is listed: a listing costs as much as ten lookups of names."""

PATHS_CHECKED = 64
"""The number of paths that are checked again every `TRUST` seconds; if there are more, all are read anew."""

_NO_ACCESS_LIST = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_ACCESS_LIST = "system.posix_acl_access"


class Directory(NamedTuple):
    """What decides whether a user may search a directory."""

    device: int
    inode: int
    st_uid: int
    st_gid: int
    st_mode: int
    without_list: bool
    """Whether it has no access list."""


class Ancestors(NamedTuple):
    """A directory and those above it, from the root: none is a link, all are on local file systems."""

    directories: tuple[Directory, ...]
    open_to_all: bool
    """Whether every user may search every one of them."""


class Directories:
    """Information about directories; see the head of this file."""

    LIMIT = 4096

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._ancestors: dict[bytes, tuple[int, Ancestors | None]] = {}
        self._without_list: dict[tuple[int, int], int] = {}
        self._plain: dict[int, tuple[int, bool]] = {}
        self._names: dict[bytes, tuple[Identity, frozenset[bytes] | None]] = {}
        self._names_kept = 0
        self._uses: dict[bytes, int] = {}
        self._seen: dict[bytes, os.stat_result] = {}
        self._request = Request(0.0, lambda: 0)

    def begin(self, request: Request) -> None:
        """A request begins: information that is not watched is discarded.

        The request depends on what is read from now on.
        """
        self._seen.clear()
        self._request = request

    @property
    def request(self) -> Request:
        """The current request."""
        return self._request

    def names(self, home: bytes, st: os.stat_result) -> frozenset[bytes] | None:
        """The names in a home, in lower case, that begin with ``.qmail``; None if they are not known.

        A home that is used often is listed when it is used again without having changed.
        """
        uses = self._uses.get(home, 0)
        if uses < RARELY:
            if len(self._uses) >= self.LIMIT:
                self._uses.clear()
            self._uses[home] = uses + 1
            return None
        # `st` is the one from `lstat` only if bits decided about the home: its path then has no link.
        if self._seen.get(home) is not st or not is_settled(st, time.time_ns()) or not self.plain(home, st):
            return None  # a link, or a file system whose times do not show a change
        now = identity(st)
        before, names = self._names.get(home, (None, None))
        if before != now:
            names = None
        elif names is not None:
            return names
        elif st.st_size <= LISTING_LIMIT:
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

    def ancestors(self, directory: bytes) -> Ancestors | None:
        """`directory` and the directories above it; None if one is a link, or modes do not decide there."""
        known = self._ancestors.get(directory)
        if known is not None and known[0] == self._watch.stamp:
            return known[1]
        stamp = self._watch.stamp if self._watch.cover_directory(directory) else -1  # before it is read
        found = self._walk(directory)
        if stamp < 0:
            self._request.not_cacheable()
        else:
            if len(self._ancestors) >= self.LIMIT:
                self._ancestors.clear()
            self._ancestors[directory] = stamp, found
        return found

    def local(self, path: bytes) -> bool:
        """Whether `path` is known to be on a local file system, so that lstat(2) does not hang."""
        known = self._ancestors.get(path[: path.rfind(b"/")] or b"/")
        if known is None or known[0] != self._watch.stamp or known[1] is None:
            return False
        return path not in self._watch.mount_points

    def check(self) -> bool:
        """Whether the directories that the watch covers are unchanged; False if there are too many to check."""
        stamp = self._watch.stamp
        covered = [(directory, before) for directory, (seen, before) in self._ancestors.items() if seen == stamp]
        if len(covered) > PATHS_CHECKED:
            return False  # it is cheaper to read them anew
        return all(before == self._walk(directory) for directory, before in covered)

    def _walk(self, directory: bytes) -> Ancestors | None:
        if directory[:1] != b"/" or b"//" in directory or b"/." in directory:
            return None
        paths = [directory[: at.start()] or b"/" for at in _SLASH.finditer(directory)] if directory != b"/" else []
        paths.append(directory)
        try:
            stats = list(map(os.lstat, paths))  # not as read earlier in this request: they are watched only now
        except OSError:
            return None
        if not all(S_ISDIR(st.st_mode) for st in stats) or not all(map(self.plain, paths, stats)):
            return None
        without_list = list(map(self.without_list, paths, stats))
        return Ancestors(
            tuple(
                Directory(st.st_dev, st.st_ino, st.st_uid, st.st_gid, st.st_mode, plain)
                for st, plain in zip(stats, without_list, strict=True)
            ),
            all(st.st_mode & 0o111 == 0o111 for st in stats) and all(without_list),
        )

    def plain(self, path: bytes, st: os.stat_result) -> bool:
        """Whether modes and POSIX access lists decide on the file system of `path`, which is not a link."""
        stamp, plain = self._plain.get(st.st_dev, (-1, False))
        if stamp != self._watch.stamp or not self._watch.watching:  # a device number may come to mean another
            if len(self._plain) >= self.LIMIT:
                self._plain.clear()
            plain = enforces_posix_modes(path)
            self._plain[st.st_dev] = self._watch.stamp, plain
        return plain

    def without_list(self, path: bytes, st: os.stat_result) -> bool:
        """Whether the directory has no access list.  Cached while its ctime is the same, unless that is very recent."""
        key = st.st_dev, st.st_ino
        changed = st.st_ctime_ns
        if self._without_list.get(key) == changed:
            return True
        if not lacks_list(path):
            return False
        if changed < time.time_ns() - SETTLED:
            if len(self._without_list) >= self.LIMIT:
                self._without_list.clear()
            self._without_list[key] = changed
        return True


_SLASH = re.compile(b"/")


def _dotqmail_names(home: bytes) -> frozenset[bytes] | None:
    """The names that could open a .qmail file here; None if a listing cannot show it."""
    try:
        names = frozenset(name.lower() for name in os.listdir(home) if name[:6].lower() == b".qmail")
    except OSError:
        return None
    return names if all(map(bytes.isascii, names)) else None  # some file systems fold case, and not only of ASCII


def lacks_list(file: bytes | int) -> bool:
    """Whether a file, open or by its path, certainly has no POSIX access list."""
    try:
        os.getxattr(file, _ACCESS_LIST)
    except OSError as error:
        return error.errno in _NO_ACCESS_LIST
    return False
