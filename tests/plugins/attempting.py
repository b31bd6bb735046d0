"""A plug-in for tests: what a worker that was taken over might try, as lines of a .qmail file.

|try NAME PATH   tries one of `ATTEMPTS`, and writes to standard error what came of it
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
from collections.abc import Callable

from cvm_qmail.answer import Answer
from cvm_qmail.plugin import Delivery, Plugin
from cvm_qmail.rules import dotqmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _open_by_openat2(path: bytes) -> int:
    how = (ctypes.c_uint64 * 3)(os.O_WRONLY | os.O_CREAT, 0o600, 0)
    return _checked(_libc.syscall(ctypes.c_long(_OPENAT2), ctypes.c_long(-100), path, how, ctypes.c_long(24)))


def _connect(port: bytes) -> None:
    socket.create_connection(("127.0.0.1", int(port)), 1).close()


def _connect_unix(path: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def _core(_: bytes) -> int:
    return _checked(_libc.prctl(4, 1, 0, 0, 0))


ATTEMPTS: dict[str, Callable[[bytes], object]] = {
    "write": lambda path: os.open(path, os.O_WRONLY),
    "write-openat2": _open_by_openat2,
    "make": lambda path: os.open(path + b".new", os.O_WRONLY | os.O_CREAT),
    "truncate": lambda path: os.truncate(path, 0),
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, path + b".new"),
    "link": lambda path: os.link(path, path + b".new"),
    "chmod": lambda path: os.chmod(path, 0o777),
    "chown": lambda path: os.chown(path, 5001, 5001),
    "touch": os.utime,
    "run": lambda _: os.execv("/bin/true", ["true"]),
    "fork": lambda _: os.fork() or os._exit(0),
    "connect": _connect,
    "connect-unix": _connect_unix,
    "raw": lambda _: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet": lambda _: socket.socket(17, socket.SOCK_RAW),
    "netlink": lambda _: socket.socket(16, socket.SOCK_RAW),
    "trace": lambda _: _checked(_libc.ptrace(16, os.getppid(), 0, 0)),
    "read-memory": lambda _: os.open(b"/proc/%d/mem" % os.getppid(), os.O_RDONLY),
    "signal": lambda _: os.kill(os.getppid(), 0),
    "signal-by-owner": lambda _: __import__("fcntl").fcntl(0, 8, os.getppid()),
    "uid": lambda _: os.setresuid(0, 0, 0),
    "gid": lambda _: os.setgroups([0]),
    "mount": lambda _: _checked(_libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "namespace": lambda _: _checked(_libc.unshare(0x10000000)),
    "root": lambda _: os.chroot("/"),
    "core": _core,
    "limits": lambda _: __import__("resource").setrlimit(4, (1, 1)),
    "code": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "keys": lambda _: _checked(
        _libc.syscall(ctypes.c_long(250), ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0))
    ),
    "terminal": lambda _: __import__("fcntl").ioctl(0, 0x5412, b"x"),
}
"""What is tried; each raises OSError if it is refused."""


def _outcome(attempt: Callable[[bytes], object], argument: bytes) -> str:
    try:
        attempt(argument)
    except OSError as error:
        return f"refused {error.errno}"
    return "DONE"


def factory(tables: Tables, settings: Settings) -> Plugin:
    """See the entry point."""

    def program(delivery: Delivery) -> Answer | None:
        for line in dotqmail.programs(delivery.file.file.content or b""):
            word, *words = line.split()
            if word == b"try":
                name = words[0].decode()
                signal.pthread_sigmask(signal.SIG_BLOCK, [])  # which is allowed
                os.write(2, f"tried {name}: {_outcome(ATTEMPTS[name], words[1])}\n".encode())
        return None

    return Plugin(program)
