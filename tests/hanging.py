"""A file system that never answers, as a dead file server does: a directory that can be entered, and nothing more.

    serving(host, wrapper=hanging(directory))

The program is started in a mount namespace of its own in which `directory` is such a file system (FUSE, spoken here).
It and the mount end with the program.

Source: fuse(4); linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

_INIT, _GETATTR, _ACCESS = 26, 3, 34
_HEADER = struct.Struct("<IIQQIIII")
_REPLY = struct.Struct("<IiQ")
_PR_SET_PDEATHSIG = 1
_AN_HOUR = 3600
"""Seconds for which the kernel need not ask again for what the directory is."""


def hanging(directory: Path) -> tuple[str, ...]:
    """What to put before a program."""
    return ("unshare", "--mount", "--propagation", "private", sys.executable, __file__, str(directory))


def end(pid: int) -> None:
    """Ends the file system of a program: what waits for it fails, so that the program can end."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if __file__.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)


def _mount(directory: bytes, fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fd
    if libc.mount(b"hanging", directory, b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)


def _serve(fd: int) -> None:
    """Answers what it takes to enter the directory; after that it reads nothing more, so that waits can be killed."""
    opcode = 0
    while opcode != _GETATTR:
        request = os.read(fd, 1 << 17)
        _, opcode, unique, *_ = _HEADER.unpack_from(request)
        body = {_INIT: _init, _GETATTR: _attributes, _ACCESS: bytes}.get(opcode)
        if body is not None:
            data = body()
            os.write(fd, _REPLY.pack(_REPLY.size + len(data), 0, unique) + data)
    signal.pause()


def _init() -> bytes:
    return struct.pack("<IIIIHHIIHH", 7, 31, 0, 0, 16, 12, 4096, 1, 0, 0) + bytes(32)


def _attributes() -> bytes:
    times = (0, 0, 0, 0, 0, 0)
    return (
        struct.pack("<QII", _AN_HOUR, 0, 0)
        + struct.pack("<QQQQQQIII", 1, 0, 0, *times)
        + struct.pack("<IIIIIII", 0o40777, 2, 0, 0, 0, 4096, 0)
    )


def main() -> None:
    """Mounts it, serves it in a child, and becomes the program."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    _mount(os.fsencode(sys.argv[1]), fd)
    if not os.fork():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _serve(fd)
    os.close(fd)
    os.stat(sys.argv[1])  # the only question that is answered; a later one that was read could not be killed
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
