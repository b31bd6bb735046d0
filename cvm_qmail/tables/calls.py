"""System calls that read files, with the rights that this process has when they are made.

Invariants: no open blocks or becomes a controlling terminal, and every read is bounded.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from itertools import islice
from stat import S_ISREG
from typing import BinaryIO

READ_LIMIT = 16 << 20
"""Bytes of a file beyond which it is an error, not a configuration."""

NAMES_LIMIT = 1_000_000
"""Names in a directory beyond which it is not listed."""

Open = Callable[[bytes], int]
"""Opens a path for reading; returns its descriptor.  Raises OSError."""

OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# Without releasing the interpreter lock, and without exceptions for ordinary results.
_libc = ctypes.PyDLL(None, use_errno=True)
_readlink = _libc.readlink
_readlink.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_readlink.restype = ctypes.c_ssize_t
_one_byte = ctypes.create_string_buffer(1)

# By number: the C library's own faccessat falls back on the real and effective uid where the kernel
# does not know the call, and these are not the user's; openat2 it does not have.
_syscall = _libc.syscall
_AT_FDCWD = ctypes.c_long(-100)
_FACCESSAT2 = ctypes.c_long(439)
_AT_EACCESS = ctypes.c_long(0x200)
_OPENAT2 = ctypes.c_long(437)
_RESOLVE_NO_SYMLINKS = 4
_no_link = (ctypes.c_uint64 * 3)(OPEN | os.O_NOFOLLOW, 0, _RESOLVE_NO_SYMLINKS)
_NO_LINK = ctypes.c_void_p(ctypes.addressof(_no_link)), ctypes.c_long(ctypes.sizeof(_no_link))  # made once: 0.5 us less


def open_file(path: bytes) -> int:
    """Opens a file for reading; returns its descriptor.  Raises OSError."""
    return os.open(path, OPEN)


def open_regular(path: bytes) -> int:
    """Opens a regular file and nothing else; returns its descriptor.  Raises OSError; EINVAL for anything else.

    For a privileged process: opening a device may have an effect, and a link may lead to one.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        try:
            return open_file(b"/proc/self/fd/%d" % place)
        except FileNotFoundError:
            raise OSError(errno.EIO, "cannot be opened without /proc", path) from None
    finally:
        os.close(place)


def open_stream(opener: Open, path: bytes) -> BinaryIO:
    """A regular file that `opener` opens.  Raises OSError; EINVAL for anything else."""
    fd = opener(path)
    if not S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return open(fd, "rb")


def open_without_links(path: bytes) -> int | None:
    """Opens a file if neither it nor a directory above it is a link; returns its descriptor.  Raises OSError.

    None: it is missing.  A kernel before 5.6 checks only the file itself.
    """
    fd = int(_syscall(_OPENAT2, _AT_FDCWD, path, *_NO_LINK))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return None
    if number == errno.ENOSYS:
        try:
            return os.open(path, OPEN | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
    raise OSError(number, os.strerror(number), path)


def is_missing(path: bytes) -> bool:
    """Whether nothing exists at `path`; readlink is the cheapest call for that."""
    return _readlink(path, _one_byte, 1) < 0 and ctypes.get_errno() == errno.ENOENT


def read_all(fd: int, size: int, limit: int = READ_LIMIT) -> bytes:
    """Everything in an open file that should have `size` bytes.  Raises OSError; EFBIG beyond `limit`."""
    data = os.read(fd, min(size, limit) + 1)
    if len(data) == size <= limit:
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


def list_names(directory: bytes, limit: int = NAMES_LIMIT) -> list[bytes]:
    """The names in a directory.  Raises OSError; EFBIG beyond `limit`."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in islice(entries, limit + 1)]
    if len(names) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} names", directory)
    return names


@cache
def asks_access() -> bool:
    """Whether the kernel can check the current rights (since 5.8)."""
    return _faccessat2(b"/", os.F_OK) == 0


def check_writable(directory: bytes) -> None:
    """Raises OSError unless files may be made in this directory with the current rights."""
    if _faccessat2(directory, os.W_OK | os.X_OK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)


def check_searchable(directory: bytes) -> None:
    """Raises OSError unless this directory may be searched with the current rights."""
    if _faccessat2(directory, os.X_OK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)


def _faccessat2(path: bytes, mode: int) -> int:
    return int(_syscall(_FACCESSAT2, _AT_FDCWD, path, ctypes.c_long(mode), _AT_EACCESS))
