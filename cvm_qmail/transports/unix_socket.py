"""Binding a Unix socket: its path, its owner and mode, taking over from another server.

Invariants: the path appears when the socket listens, not before (bound beside it, then renamed), so a new server
takes over without a refused connection.  The path of a live server is never taken by accident, and a path is removed
only if it is still this server's.

Source: unix(7), rename(2).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

BACKLOG = 1024
"""Connections that may wait to be accepted."""

PATH_LIMIT = 107
"""Bytes of a socket's path (sun_path, without the NUL)."""


class Inode(NamedTuple):
    """The identity of a socket file."""

    device: int
    number: int


class NotASocket(Exception):
    """The file at the path is not a socket: no server may replace it."""


class InUse(Exception):
    """Another server is listening at the path."""


def inode(path: bytes) -> Inode | None:
    """The file at `path`; None if there is none.  Raises OSError."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return None
    return Inode(st.st_dev, st.st_ino)


def check_kind(path: bytes) -> None:
    """Raises `NotASocket` if something else is at `path`."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise NotASocket(f"{os.fsdecode(path)} exists and is not a socket")
    except FileNotFoundError:
        pass


def check_free(path: bytes, probe: bytes) -> None:
    """Raises `InUse` if a server is listening at `path`, or may be.

    `probe`: a harmless request; a connection without one would kill the C program.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2)
        try:
            connection.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise InUse(
                f"{os.fsdecode(path)}: cannot find out whether a server is there: {error.strerror or error}"
            ) from None
        pid = _peer(connection)
        try:
            connection.sendall(probe)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(512)
        except OSError:
            pass
    raise InUse(f"{os.fsdecode(path)} is already served by process {pid}")


def _peer(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")


def listen(path: bytes, mode: int, uid: int, gid: int) -> tuple[socket.socket, Inode]:
    """A listening socket at `path`, with this mode and owner (-1: leave).

    It gets its name only when it listens: an older server at that path serves until then.  Raises OSError.
    """
    directory, name = os.path.split(path)
    private = os.path.join(directory, b".%s.%d" % (name[:64], os.getpid()))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _private_directory(private) as inside:
            listener.bind(inside)  # never too long, see PATH_LIMIT
            try:
                if (uid, gid) != (-1, -1):
                    os.chown(inside, uid, gid)
                os.chmod(inside, mode)
                listener.listen(BACKLOG)
                made = os.lstat(inside)
                os.rename(inside, path)
            except BaseException:
                os.unlink(inside)
                raise
    except BaseException:
        listener.close()
        raise
    return listener, Inode(made.st_dev, made.st_ino)


@contextmanager
def _private_directory(path: bytes) -> Iterator[bytes]:
    """A path for a socket, in a directory where no other user can write.

    Otherwise the owner of the directory above could replace the socket by a link before its owner and mode are changed.
    """
    with suppress(FileNotFoundError):
        os.rmdir(path)  # left by an earlier process with the same id
    os.mkdir(path, 0o700)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            st = os.fstat(directory)
            if st.st_uid != os.geteuid() or st.st_mode & 0o077:
                raise PermissionError(errno.EPERM, "another user made a directory there", path)
            yield b"/proc/self/fd/%d/s" % directory
        finally:
            os.close(directory)
    finally:
        os.rmdir(path)


def remove(path: bytes, ours: Inode) -> None:
    """Removes the socket file at `path` if it is still this server's."""
    try:
        if inode(path) == ours:
            os.unlink(path)
    except OSError:
        pass  # already removed, or no longer this server's
