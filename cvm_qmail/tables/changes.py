"""Whether anything has changed: one question to the kernel in the place of a stat for every file.

Law: an answer rests on the files as they are when the request arrives, and any doubt means stats.
`look` is asked once per request, after the request has arrived.  It returns a stamp; while the stamp
is the same, nothing has changed of what was covered when it was first seen.  Inotify queues its
events before the call that changes something returns, and the mount table says when it changes, so
this is as fresh as a stat.  It is not taken for an answer

 - for a path with a symbolic link in it, or a file with more than one name: a change that comes by
   another way gives no event;
 - off plain local file systems: another machine's changes give none;
 - where a folder cannot be watched, or the kernel's queue overflowed.

A store through mmap gives no event.  So that even this does not go unseen for long, `Tables` looks at
what was vouched for every `TRUST` seconds, and calls `doubt` if it finds a change.

Source: inotify(7), proc(5) (mountinfo).
"""

from __future__ import annotations

import ctypes
import os
import select
from struct import Struct
from typing import NamedTuple

from cvm_qmail.tables.plain import is_plain

TRUST = 1.0
"""Seconds after which files are looked at again although nothing seems to have changed."""

FOLDERS = 1024
"""Folders that are watched at the most."""

_MODIFY, _ATTRIB = 0x2, 0x4
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_ON_THE_WAY = (
    _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _DONT_FOLLOW
)
_WITH_FILES = _ON_THE_WAY | _MODIFY
_STRUCTURE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _OVERFLOW | _IGNORED

_event = Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class _Watch(NamedTuple):
    number: int
    mask: int


class Changes:
    """See the head of this file."""

    def __init__(self, folders: int = FOLDERS) -> None:
        """`folders`: how many are watched at the most; with 0 `cover` always says no."""
        self.stamp = 0
        self._limit = folders
        self._inotify = -1
        self._mounts = -1
        self._epoll: select.epoll | None = None
        self._folders: dict[bytes, _Watch] = {}
        self._names: dict[int, set[bytes]] = {}

    def look(self) -> int:
        """The stamp of this moment."""
        if self._epoll is not None and (ready := self._epoll.poll(0)):
            self._note(self._epoll, ready)
        return self.stamp

    def doubt(self) -> None:
        """Something changed that no event told of."""
        self.stamp += 1

    def cover(self, path: bytes) -> bool:
        """Whether `look` will see it when `path` comes to mean something else, or its file changes.

        To be asked before the file is looked at.
        """
        folder, _, name = path.rpartition(b"/")
        return self.cover_folder(folder or b"/") and self._watch(folder or b"/", name, _WITH_FILES)

    def cover_folder(self, folder: bytes) -> bool:
        """The same for a folder: its path, its owner and its mode, but not what is in it."""
        if folder[:1] != b"/" or b"//" in folder or b"/." in folder:
            return False
        start = 0
        while start >= 0 and folder != b"/":
            end = folder.find(b"/", start + 1)
            if not self._watch(folder[:start] or b"/", folder[start + 1 : end if end > 0 else None], _ON_THE_WAY):
                return False
            start = end
        return self._watch(folder, b"", _ON_THE_WAY)

    def _watch(self, folder: bytes, name: bytes, mask: int) -> bool:
        """Whether changes of `name` in `folder` are seen from now on."""
        known = self._folders.get(folder)
        if known is None or known.mask & mask != mask:
            if len(self._folders) >= self._limit or not is_plain(folder):
                return False
            if self._epoll is None and not self._open():
                return False
            number: int = _libc.inotify_add_watch(self._inotify, folder, mask)
            if number < 0 or (number in self._names and (known is None or known.number != number)):
                return False  # it cannot be watched, or is a folder that has another path as well
            known = self._folders[folder] = _Watch(number, mask)
        self._names.setdefault(known.number, set()).add(name)
        return True

    def _open(self) -> bool:
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            return False
        try:
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._inotify)
            return False
        self._epoll = select.epoll()
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._mounts, select.EPOLLPRI | select.EPOLLERR)
        return True

    def _forget(self, epoll: select.epoll) -> None:
        """Forgets everything: what is watched may not be what its path means any more."""
        epoll.close()
        os.close(self._inotify)
        os.close(self._mounts)
        self._epoll = None
        self._folders.clear()
        self._names.clear()

    def _note(self, epoll: select.epoll, ready: list[tuple[int, int]]) -> None:
        """Takes the events, and makes a new stamp if they matter."""
        mounts_changed = any(fd == self._mounts for fd, _ in ready)
        relevant, structure = self._events()
        if structure or mounts_changed:
            self._forget(epoll)
        if relevant or structure or mounts_changed:
            self.stamp += 1

    def _events(self) -> tuple[bool, bool]:
        """Whether an event concerned a name that matters, and whether one concerned a watched folder itself."""
        relevant = False
        while True:
            try:
                data = os.read(self._inotify, 65536)
            except BlockingIOError:
                return relevant, False
            except OSError:
                return True, True
            at = 0
            while at < len(data):
                watch, mask, _, length = _event.unpack_from(data, at)
                at += _event.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                if mask & _STRUCTURE:
                    return True, True
                relevant = relevant or not name or name in self._names.get(watch, ())
