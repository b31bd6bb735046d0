"""The kernel's filter for system calls: installs it, and reads what it refused.

Invariants: a filter stays in force until the process ends, and applies to the processes that it forks.  It needs
no_new_privs.

A filter with a listener suspends a refused call until it is answered through the listener's descriptor.
`receive` reads which call it is, `refuse` lets it fail.

Source: seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from struct import Struct
from typing import NamedTuple

from cvm_qmail.process.bpf import REFUSED

_SYSCALL = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_FLAG_LOG, _FLAG_NEW_LISTENER = 2, 8
_RECEIVE, _SEND = 0xC0502100, 0xC0182101

_notification = Struct("=QIIiIQ6Q")
_response = Struct("=Qqii")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp(operation: int, flags: int, argument: object) -> int:
    """Raises OSError."""
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = int(_libc.syscall(ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), argument))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def knows(action: int) -> bool:
    """Whether the kernel knows a verdict of a filter; False as well where there are no filters."""
    try:
        _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(action)))
    except OSError:
        return False
    return True


def put_in_force(program: bytes, *, listener: bool = False) -> int:
    """Filters this process from now on; returns the listener's descriptor, or -1.  Raises OSError.

    Without a listener the kernel's own log gets a line for each refusal.
    """
    filter_ = _Program(len(program) // 8, program)
    descriptor = _seccomp(_SET_MODE_FILTER, _FLAG_NEW_LISTENER if listener else _FLAG_LOG, ctypes.byref(filter_))
    return descriptor if listener else -1


class Call(NamedTuple):
    """A call that waits for its listener."""

    pid: int
    number: int
    cookie: int
    """The kernel's own name for it."""


def receive(listener: int) -> Call | None:
    """The call that made `listener` readable; None if it no longer waits.  Raises OSError."""
    message = bytearray(_notification.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, message)
    except OSError as error:
        if error.errno == errno.ENOENT:  # a signal has interrupted it in between
            return None
        raise
    cookie, pid, _, number, *_ = _notification.unpack(message)
    return Call(pid, number, cookie)


def refuse(listener: int, call: Call) -> None:
    """Lets the call fail with `REFUSED` and its number."""
    try:
        fcntl.ioctl(listener, _SEND, _response.pack(call.cookie, 0, -(REFUSED + call.number), 0))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
