"""Reads files with the rights of the user that qmail would run as.

Invariants: the process never changes its effective ids.  setfsuid and setfsgid concern this thread's file access
only, and only for the duration of one call of `Switch.run`; a process that has the file capabilities without being
uid 0 clears them from its effective set for that time (the kernel does that by itself only when the fsuid leaves
0).  Supplementary groups are dropped at start, for they would stay in force otherwise.

Source: setfsuid(2), capabilities(7); qmail-lspawn.c (prot_gid, prot_uid), qmail-getpw.c.
"""

import ctypes
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Unavailable

T = TypeVar("T")


class Rights(NamedTuple):
    """One uid, one gid, no supplementary groups: what qmail-lspawn gives a delivery."""

    uid: int
    gid: int


# The C library, without releasing the interpreter lock: these calls take less time than that does.
_libc = ctypes.PyDLL(None, use_errno=True)
_setfsuid = _libc.setfsuid
_setfsgid = _libc.setfsgid
_setfsuid.argtypes = _setfsgid.argtypes = [ctypes.c_uint32]
_setfsuid.restype = _setfsgid.restype = ctypes.c_uint32

# linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID = range(5)
_SETGID, _SETUID = 6, 7
_FILE_CAPABILITIES = sum(1 << cap for cap in (_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID))
_NEEDED = sum(1 << cap for cap in (_DAC_READ_SEARCH, _SETGID, _SETUID))

_Words = ctypes.c_uint32 * 6
_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)


def _capabilities() -> ctypes.Array[ctypes.c_uint32]:
    """Effective, permitted, inheritable (low words), then the same (high words), of this thread."""
    words = _Words()
    if _libc.capget(_header, words):
        raise OSError(ctypes.get_errno(), "capget")
    return words


def _set_capabilities(words: ctypes.Array[ctypes.c_uint32]) -> None:
    if _libc.capset(_header, words):
        raise OSError(ctypes.get_errno(), "capset")


def drop_groups() -> bool:
    """Leaves all supplementary groups; returns False if this process may not."""
    if not os.getgroups():
        return True
    try:
        os.setgroups([])
    except PermissionError:
        return False
    return True


def keep_only_needed_capabilities() -> None:
    """Keeps only the capabilities to read everything (DAC_READ_SEARCH) and to switch file access to a user."""
    words = _capabilities()
    words[0] &= _NEEDED
    words[1] &= _NEEDED
    words[2] = words[3] = words[4] = words[5] = 0
    _set_capabilities(words)


class Switch:
    """Calls a function with another user's file access."""

    def __init__(self) -> None:
        self.own = Rights(os.geteuid(), os.getegid())
        words = _capabilities()
        effective = words[0]
        self.may = bool(effective >> _SETUID & 1 and effective >> _SETGID & 1)
        self._full = words if self.own.uid and effective & _FILE_CAPABILITIES else None
        self._bare: ctypes.Array[ctypes.c_uint32] | None = None
        if self._full is not None:
            self._bare = _Words(*words)
            self._bare[0] &= ~_FILE_CAPABILITIES
        self._now = self.own

    def run(self, rights: Rights, function: Callable[..., T], *arguments: object) -> T:
        """``function(*arguments)`` with `rights`.  Raises `Unavailable` if the switch failed.

        It may be called again from within, for other rights or for the process's own.
        """
        before, self._now = self._now, rights
        if self._bare is not None:
            self._take_capabilities(rights)
        _setfsgid(rights.gid)
        _setfsuid(rights.uid)
        try:
            return function(*arguments)
        finally:
            had_uid = _setfsuid(before.uid)
            had_gid = _setfsgid(before.gid)
            self._now = before
            if self._bare is not None:
                self._take_capabilities(before)
            if (had_uid, had_gid) != rights:  # the kernel does not know this id: the result is void
                raise Unavailable("bad-id", f"cannot use uid {rights.uid}, gid {rights.gid}")

    def _take_capabilities(self, rights: Rights) -> None:
        """All that this process has for itself, none that concern files for anybody else."""
        words = self._full if rights == self.own else self._bare
        if words is not None:
            _set_capabilities(words)
