"""Landlock: the kernel restricts what a process may do with files, whatever its user and capabilities allow.

Invariants: it can only be made narrower, and applies to all processes that this one forks.  Reading, writing,
making, removing and executing is refused, except below the paths that are named.

Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import NamedTuple

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

_WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIRECTORY, _REMOVE_FILE, _MAKE_DIRECTORY, _MAKE_SOCKET, _MOVE = 1 << 4, 1 << 5, 1 << 7, 1 << 9, 1 << 13
_CONNECT_TCP = 1 << 1

_FILES = (13, 14, 15, 15, 16)
"""The number of rights about files, by the version of the interface; later versions have as many as the last."""

READ = _READ_FILE | _READ_DIRECTORY
REMOVE = READ | _REMOVE_FILE
"""To remove a server's socket."""
SOCKETS = REMOVE | _REMOVE_DIRECTORY | _MAKE_DIRECTORY | _MAKE_SOCKET | _MOVE
"""To make one as well, in a directory of its own from which it is moved.  Version 1 does not allow that."""
WRITE = _WRITE_FILE
"""To write to an existing file or terminal."""

_libc = ctypes.CDLL(None, use_errno=True)


class Rule(NamedTuple):
    """The rights at and below a path."""

    path: str | bytes
    rights: int


READ_ALL = Rule("/", READ)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("rights", ctypes.c_uint64), ("port", ctypes.c_uint64))


def _call(number: int, *arguments: object) -> int:
    """Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def version() -> int:
    """The version of this kernel's interface; 0: none, or it is switched off."""
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def restrict(rules: Iterable[Rule], ports: Iterable[int] | None) -> int:
    """Restricts this process; returns the version in force.  Raises OSError.

    `ports`: of TCP, to which it may connect; None: to all.  From version 4 on; then it may bind none.  From
    version 6 on it cannot signal processes outside, nor reach them by an abstract Unix socket.
    """
    known = version()
    files = (1 << _FILES[min(known, len(_FILES)) - 1]) - 1
    ruleset = _Ruleset(files, 3 if known >= 4 and ports is not None else 0, 3 if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    fd = _call(_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for rule in rules:
            _allow_path(fd, rule, files)
        for port in ports or () if known >= 4 else ():
            _allow_port(fd, port)
        _call(_RESTRICT, ctypes.c_int(fd), ctypes.c_uint32(0))
    finally:
        os.close(fd)
    return known


def _allow_path(ruleset: int, rule: Rule, known: int) -> None:
    try:
        parent = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        attributes = _PathBeneath(rule.rights & known, parent)
        _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(attributes), ctypes.c_uint32(0))
    finally:
        os.close(parent)


def _allow_port(ruleset: int, port: int) -> None:
    attributes = _NetPort(_CONNECT_TCP, port)
    _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_NET_PORT), ctypes.byref(attributes), ctypes.c_uint32(0))
