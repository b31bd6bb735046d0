"""The listening sockets: bound beside their path and renamed, never stolen, or passed by a service manager.

Invariants: a Unix socket appears under its name when it listens.  A path on which another server is listening is left
alone, unless --takeover is given.  At the end a path is removed if it is still this server's.

Source: sd_listen_fds(3); unix(7).
"""

from __future__ import annotations

import array
import os
import socket
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from cvm_qmail.gateway.listeners import Listener
from cvm_qmail.transports import unix_socket

BACKLOG = 1024

_SO_ATTACH_REUSEPORT_CBPF = 51
"""Linux 4.5; Python has no name for it."""

_RETURN_1 = struct.pack("=HBBI", 0x06, 0, 0, 1)
"""A classic BPF program of one instruction (struct sock_filter): BPF_RET, 1."""

FIRST_PASSED = 3
"""The first descriptor that a service manager passes."""


class NotOurs(Exception):
    """A socket is not available for now: it is in use, or something else is at its path."""


class Ownership(NamedTuple):
    """Mode and owner of Unix sockets; -1: leave."""

    mode: int
    uid: int
    gid: int


class Bound(NamedTuple):
    """A listener with its socket."""

    listener: Listener
    socket: socket.socket
    inode: unix_socket.Inode | None
    """The path of a Unix socket that this server must remove."""

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        if self.socket.family == socket.AF_UNIX:
            return True
        import ipaddress

        return ipaddress.ip_address(self.socket.getsockname()[0].partition("%")[0]).is_loopback

    def taken_over(self) -> bool:
        """Whether another server has taken over the path; a missing path does not count."""
        if self.inode is None or self.listener.path is None:
            return False
        try:
            there = unix_socket.inode(self.listener.path)
        except OSError:
            return False
        return there is not None and there != self.inode

    def leave_to_others(self) -> None:
        """Passes new clients of the port on to the server that shares it, if there is one.

        Without this, clients that the kernel puts into this server's queue just before it closes are lost.
        The sockets of a port are numbered in the order in which they were bound: a filter that returns 1
        chooses the newer of two, and has no effect if there is no such socket (socket(7),
        SO_ATTACH_REUSEPORT_CBPF).
        """
        if self.socket.family != socket.AF_UNIX:
            code = array.array("B", _RETURN_1)
            with suppress(OSError):  # a kernel without such filters: the queue is emptied before it is closed
                self.socket.setsockopt(
                    socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, code.buffer_info()[0])
                )

    def remove(self) -> None:
        """Removes the path, if it is still this server's."""
        if self.inode is not None and self.listener.path is not None:
            unix_socket.remove(self.listener.path, self.inode)


def bind(listener: Listener, ownership: Ownership, *, takeover: bool) -> Bound:
    """The listening socket of `listener`.  Raises `NotOurs`, OSError."""
    if listener.path is not None:
        return _bind_unix(listener, listener.path, ownership, takeover=takeover)
    return Bound(listener, _bind_inet(listener, takeover=takeover), None)


def _bind_unix(listener: Listener, path: bytes, ownership: Ownership, *, takeover: bool) -> Bound:
    try:
        unix_socket.check_kind(path)
        if not takeover:
            # To a gateway, a connection that is closed at once is not a request.
            unix_socket.check_free(path, b"")
    except unix_socket.NotASocket as other:
        raise NotOurs(str(other)) from None
    except unix_socket.InUse as in_use:
        raise NotOurs(f"{in_use} (--takeover replaces it)") from None
    bound, inode = unix_socket.listen(path, *ownership)
    return Bound(listener, bound, inode)


def _bind_inet(listener: Listener, *, takeover: bool) -> socket.socket:
    """A port, like a path, is shared with a server that has it only with --takeover.

    Two sockets share a port if both have SO_REUSEPORT.  The existing one got it after it was bound, so that
    another server cannot get the port by accident.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(listener.host, listener.port, type=listener.kind)[0]
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(takeover))
        bound.bind(address)
        if kind == socket.SOCK_STREAM:
            bound.listen(BACKLOG)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        bound.close()
        raise
    return bound


def passed(listeners: list[Listener], environment: Mapping[str, str]) -> list[Bound] | None:
    """The sockets that the service manager passed, in the order of the listeners; None: it passed none.

    Raises ValueError for what does not fit the listeners.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()) or not (count := environment.get("LISTEN_FDS")):
        return None
    if count != str(len(listeners)):
        raise ValueError(f"LISTEN_FDS: found {count!r}, expected {len(listeners)}, one for each listener")
    return [Bound(listener, _adopt(FIRST_PASSED + at, listener), None) for at, listener in enumerate(listeners)]


def _adopt(fd: int, listener: Listener) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ValueError(f"LISTEN_FDS: descriptor {fd} is not a socket, expected one for {listener.name}")
    except OSError as error:
        raise ValueError(f"LISTEN_FDS: descriptor {fd}: {error.strerror}, expected one for {listener.name}") from None
    adopted = socket.socket(fileno=fd)
    if adopted.type != listener.kind:
        raise ValueError(
            f"LISTEN_FDS: descriptor {fd} is of type {adopted.type.name}, expected {listener.kind.name}"
            f" for {listener.name}"
        )
    adopted.setblocking(False)
    os.set_inheritable(fd, False)
    return adopted
