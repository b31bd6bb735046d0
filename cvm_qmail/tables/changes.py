"""Whether anything has changed: one question to the kernel in the place of a stat for every file.

Law: an answer rests on the files as they are when the request arrives, and any doubt means stats.
`look` is asked once per request, after the request has arrived.  It returns a stamp; while the stamp
is the same, nothing has changed of what was covered when it was first seen.  Inotify queues its
events before the call that changes something returns, and the mount table says when it changes, so
this is as fresh as a stat.  Each folder on the way is watched, and the file itself, by whatever name
or descriptor it is written.  Nothing is covered

 - by a path with a symbolic link in it: its target may change by another way;
 - off local file systems: another machine's changes give no event;
 - where a folder cannot be watched.

When anything that matters has changed, all watches are given up and made anew, for what is watched may
no longer be what its path means: a folder that was removed lives on while somebody holds it open.

Stores through mmap and writes by io_submit give no event.  So that even these do not go unseen for
long, `Tables` looks at what was covered every `TRUST` seconds, and calls `doubt` if it finds a change.

Source: inotify(7), proc(5) (mountinfo).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from struct import Struct

from cvm_qmail.tables.plain import is_plain

TRUST = 1.0
"""Seconds after which files are looked at again although nothing seems to have changed."""

FOLDERS = 1024
"""Folders that are watched at the most."""

_MODIFY, _ATTRIB = 0x2, 0x4
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW = 0x400, 0x800, 0x4000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_SELF = _ATTRIB | _DELETE_SELF | _MOVE_SELF | _DONT_FOLLOW
_FOLDER = _SELF | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_FILE = _SELF | _MODIFY

_event = Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """See the head of this file."""

    def __init__(self, folders: int = FOLDERS) -> None:
        """`folders`: how many are watched at the most; with 0 `cover` always says no."""
        self.stamp = 0
        self._limit = folders
        self._inotify = -1
        self._mounts = -1
        self._epoll: select.epoll | None = None
        self._folders: dict[bytes, int] = {}
        self._names: dict[int, set[bytes]] = {}

    @property
    def watching(self) -> bool:
        """Whether anything is watched: else only `doubt` makes a new stamp."""
        return self._epoll is not None

    def look(self) -> int:
        """The stamp of this moment."""
        if self._epoll is not None and (ready := self._epoll.poll(0)) and self._matters(ready):
            self.doubt()
        return self.stamp

    def doubt(self) -> None:
        """Something has changed: a new stamp, and nothing is covered until it is asked for again."""
        self.stamp += 1
        self._close()
        self._folders.clear()
        self._names.clear()

    def _close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
            os.close(self._inotify)
            os.close(self._mounts)
        self._epoll = None

    def __del__(self) -> None:
        self._close()  # a user may have no more than some hundred instances of inotify

    def cover(self, path: bytes) -> bool:
        """Whether `look` will see it when `path` comes to mean something else, or its file changes.

        To be asked before the file is looked at.
        """
        folder, _, name = path.rpartition(b"/")
        return self.cover_folder(folder or b"/") and self._watch(folder or b"/", name) and self._watch_file(path)

    def cover_folder(self, folder: bytes) -> bool:
        """The same for a folder: its path, its owner and its mode, but not what is in it."""
        if folder[:1] != b"/" or b"//" in folder or b"/." in folder:
            return False
        start = 0
        while start >= 0 and folder != b"/":
            end = folder.find(b"/", start + 1)
            if not self._watch(folder[:start] or b"/", folder[start + 1 : end if end > 0 else None]):
                return False
            start = end
        return self._watch(folder, b"")

    def _watch(self, folder: bytes, name: bytes) -> bool:
        """Whether changes of `name` in `folder` are seen from now on."""
        number = self._folders.get(folder)
        if number is None:
            if len(self._folders) >= self._limit or not is_plain(folder) or not (self._epoll or self._open()):
                return False
            number = int(_libc.inotify_add_watch(self._inotify, folder, _FOLDER))
            if number < 0 or number in self._names:
                return False  # it cannot be watched, or has another path as well
            self._folders[folder] = number
            self._names[number] = set()
        self._names[number].add(name)
        return True

    def _watch_file(self, path: bytes) -> bool:
        """Whether changes of the file are seen from now on; where there is none, its folder is enough."""
        if _libc.inotify_add_watch(self._inotify, path, _FILE) < 0:
            return ctypes.get_errno() == errno.ENOENT
        return is_plain(path)  # a file of another file system may be mounted there

    def _open(self) -> bool:
        inotify = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if inotify < 0:
            return False
        mounts = -1
        try:
            mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            epoll = select.epoll()
            epoll.register(inotify, select.EPOLLIN)
            epoll.register(mounts, select.EPOLLPRI | select.EPOLLERR)
        except OSError:
            os.close(inotify)
            if mounts >= 0:
                os.close(mounts)
            return False
        self._inotify, self._mounts, self._epoll = inotify, mounts, epoll
        return True

    def _matters(self, ready: list[tuple[int, int]]) -> bool:
        """Takes the events; whether one of them concerns anything that is covered."""
        if any(fd == self._mounts for fd, _ in ready):
            return True
        while True:
            try:
                data = os.read(self._inotify, 65536)
            except BlockingIOError:
                return False
            except OSError:
                return True
            at = 0
            while at < len(data):
                watch, mask, _, length = _event.unpack_from(data, at)
                at += _event.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                if not name or mask & _OVERFLOW or name in self._names.get(watch, ()):
                    return True
