"""Local file systems: owner, mode bits and POSIX access lists alone decide, and all changes are made here.

Source: statfs(2), linux/magic.h.
"""

from __future__ import annotations

import ctypes

_LOCAL = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x794C7630,  # overlay
        0xF2F52010,  # f2fs
        0x858458F6,  # ramfs
    }
)

_libc = ctypes.CDLL(None, use_errno=True)


def enforces_posix_modes(path: bytes) -> bool:
    """Whether `path` is on such a file system; False if that cannot be found out."""
    buffer = (ctypes.c_long * 32)()
    return _libc.statfs(path, buffer) == 0 and (buffer[0] & 0xFFFFFFFF) in _LOCAL
