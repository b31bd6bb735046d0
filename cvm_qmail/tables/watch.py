"""Whether anything has changed: one question to the kernel instead of a stat for every file.

Invariants: an answer depends on the files as they are when the request arrives; in any doubt the files are checked
by stat.  `look` is called once per request, after the request has arrived.  It returns a stamp; while the stamp is
the same, nothing has changed that was covered when the stamp was first returned.  Inotify queues its events before
the call that changes something returns, and the mount table reports its changes, so this is as fresh as a stat.
Each directory above is watched, and the file itself, by whatever name or descriptor it is written.  Not covered are

 - paths with a symbolic link in them: the target may change through another path;
 - other than local file systems: another machine's changes give no event;
 - directories that cannot be watched.

When anything relevant has changed, all watches are dropped and made again, since a path may now lead to another file
than the watched one: a removed directory lives on while a process holds it open.

Stores through mmap and writes by io_submit give no event.  To bound the time for which they go unnoticed, `Tables`
checks what was covered every `TRUST` seconds, and calls `reset` if it finds a change.

Source: inotify(7), proc(5) (mountinfo).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
from struct import Struct

from cvm_qmail.tables.filesystems import enforces_posix_modes

TRUST = 1.0
"""Seconds after which files are checked again although no event came."""

DIRECTORIES = 1024
"""The largest number of directories that are watched."""

_MODIFY, _ATTRIB = 0x2, 0x4
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW = 0x400, 0x800, 0x4000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_SELF = _ATTRIB | _DELETE_SELF | _MOVE_SELF | _DONT_FOLLOW
_DIRECTORY = _SELF | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_FILE = _SELF | _MODIFY

_event = Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """See the head of this file."""

    def __init__(self, directories: int = DIRECTORIES) -> None:
        """`directories`: the largest number that is watched; with 0 nothing is covered."""
        self.stamp = 0
        self._limit = directories
        self._inotify = -1
        self._mounts = -1
        self._epoll: select.epoll | None = None
        self._directories: dict[bytes, int] = {}
        self._names: dict[int, set[bytes]] = {}
        self.mount_points: frozenset[bytes] = frozenset()
        """The mount table, while anything is watched."""

    @property
    def watching(self) -> bool:
        """Whether anything is watched: if not, only `reset` makes a new stamp."""
        return self._epoll is not None

    def look(self) -> int:
        """Asks the kernel whether anything that is covered has changed; returns the current stamp."""
        if self._epoll is not None and (ready := self._epoll.poll(0)) and self._matters(ready):
            self.reset()
        return self.stamp

    def reset(self) -> None:
        """Something has changed: makes a new stamp; nothing is covered until `cover` is called again."""
        self.stamp += 1
        self._close()
        self._directories.clear()
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
        """Whether `look` will notice when `path` leads to another file, or its file changes.

        Call it before reading the file.
        """
        directory, _, name = path.rpartition(b"/")
        return (
            self.cover_directory(directory or b"/") and self._watch(directory or b"/", name) and self._watch_file(path)
        )

    def cover_directory(self, directory: bytes) -> bool:
        """The same for a directory: its path, its owner and its mode, but not what is in it."""
        if directory[:1] != b"/" or b"//" in directory or b"/." in directory:
            return False
        start = 0
        while start >= 0 and directory != b"/":
            end = directory.find(b"/", start + 1)
            if not self._watch(directory[:start] or b"/", directory[start + 1 : end if end > 0 else None]):
                return False
            start = end
        return self._watch(directory, b"")

    def _watch(self, directory: bytes, name: bytes) -> bool:
        """Whether changes of `name` in `directory` are seen from now on."""
        number = self._directories.get(directory)
        if number is None:
            if (
                len(self._directories) >= self._limit
                or not enforces_posix_modes(directory)
                or not (self._epoll or self._open())
            ):
                return False
            number = int(_libc.inotify_add_watch(self._inotify, directory, _DIRECTORY))
            if number < 0 or number in self._names:
                return False  # it cannot be watched, or is watched under another path
            self._directories[directory] = number
            self._names[number] = set()
        self._names[number].add(name)
        return True

    def _watch_file(self, path: bytes) -> bool:
        """Whether changes of the file are seen from now on; if it does not exist, its directory is enough."""
        if _libc.inotify_add_watch(self._inotify, path, _FILE) < 0:
            return ctypes.get_errno() == errno.ENOENT
        return enforces_posix_modes(path)  # a file of another file system may be mounted there

    def _open(self) -> bool:
        inotify = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if inotify < 0:
            return False
        mounts = -1
        try:
            mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self.mount_points = _mount_points(mounts)
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
        """Reads the events; whether one of them concerns anything that is covered."""
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


_ESCAPED = re.compile(rb"\\([0-7]{3})")


def _mount_points(mountinfo: int) -> frozenset[bytes]:
    """The fifth field of each line; blanks in it are written in octal."""
    text = b"".join(iter(lambda: os.read(mountinfo, 1 << 16), b""))
    fields = (line.split(b" ", 5)[4] for line in text.splitlines())
    return frozenset(_ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), field) for field in fields)
