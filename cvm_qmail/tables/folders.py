"""The way to homes, and what is known of the folders on it.

Law: what is remembered of a folder was either looked at in this request, or `Changes` vouches for it,
or the folder's identity shows that it is the same.  What an answer rests on is noted here as it is
looked at, so that the answer may be given again while all of it is the same.

Source: path_resolution(7), acl(5).
"""

from __future__ import annotations

import errno
import os
import re
import time
from stat import S_ISDIR
from typing import NamedTuple

from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.identity import SETTLED, Identity, identity
from cvm_qmail.tables.plain import is_plain

LISTING_LIMIT = 1 << 14
"""Size of a folder (st_size) beyond which it is not listed."""

NAMES_LIMIT = 50_000
"""Names of .qmail files that are kept, of all homes together."""

WAYS_CHECKED = 64
"""Ways that are looked at again every `TRUST` seconds; if there are more, all are learned anew."""

_NO_ACCESS_LIST = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_ACCESS_LIST = "system.posix_acl_access"


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

    def begin(self, *, collecting: bool = True) -> None:
        """A request begins: what was only seen, not watched, is forgotten.

        `collecting`: whether anybody will ask what the answer rests on.
        """
        self._seen.clear()
        self._relied_on = {} if collecting else None

    def rely(self, path: bytes, st: os.stat_result) -> None:
        """The answer rests on this file or folder being the same, which its identity will tell later."""
        if self._relied_on is not None:
            if _settled(st):
                self._relied_on[path] = identity(st)
            else:
                self._relied_on = None

    def doubt(self) -> None:
        """The answer rests on something that cannot be vouched for later."""
        self._relied_on = None

    @property
    def relying(self) -> bool:
        """Whether what the answer rests on can still be vouched for later."""
        return self._relied_on is not None

    @property
    def relied_on(self) -> tuple[tuple[bytes, Identity], ...] | None:
        """What the answer rests on, beside what `Changes` vouches for; None: also on something else."""
        return None if self._relied_on is None else tuple(self._relied_on.items())

    def names(self, home: bytes, st: os.stat_result) -> frozenset[bytes] | None:
        """The names in a home, in lower case, that begin with ``.qmail``; None if they are not known.

        A home is listed when it is met the second time without having changed.
        """
        if self._seen.get(home) is not st or not _settled(st) or not self.plain(home, st):
            return None  # a link, or a file system whose times do not tell a change
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
        if not lacks_list(path):
            return False
        if changed < time.time_ns() - SETTLED:
            if len(self._without_list) >= self.LIMIT:
                self._without_list.clear()
            self._without_list[key] = changed
        return True


def _settled(st: os.stat_result) -> bool:
    """Whether a later change would show in the times."""
    return max(st.st_mtime_ns, st.st_ctime_ns) < time.time_ns() - SETTLED


_SLASH = re.compile(b"/")


def _dotqmail_names(home: bytes) -> frozenset[bytes] | None:
    """Which names could open a .qmail file here; None if that cannot be told from a listing."""
    try:
        names = frozenset(name.lower() for name in os.listdir(home) if name[:6].lower() == b".qmail")
    except OSError:
        return None
    return names if all(map(bytes.isascii, names)) else None  # some file systems fold case, and not only of ASCII


def lacks_list(file: bytes | int) -> bool:
    """Whether a file, open or by its path, surely has no POSIX access list."""
    try:
        os.getxattr(file, _ACCESS_LIST)
    except OSError as error:
        return error.errno in _NO_ACCESS_LIST
    return False
