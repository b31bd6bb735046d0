"""Requests over a Unix stream socket: one a connection.

Law: a request is complete when the client has shut down its sending side, not before, and it is read
once, then.  So what a silent client costs is a descriptor.  A new connection gets a moment's
patience, since most clients have sent everything by then; if it needs longer it is parked, and the
worker goes on to others.  A parked client is closed when its time is over.  Answers are shorter than
any socket's buffer, so that writing one never waits.

Source: cvm 0.97 (module_local.c, client_xfer_local.c); unix(7).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

BACKLOG = 1024
PATH_LIMIT = 107
"""Bytes of a socket's path (sun_path, without the NUL)."""

REQUEST_LIMIT = 512
DRAIN_LIMIT = 1 << 20
"""Bytes of an over-long request that are read, so that closing does not reset the connection."""

PARKED_LIMIT = 512
"""Silent clients that a worker keeps; beyond that the one that waits longest is closed."""

PATIENCE = 1
"""Milliseconds in which a new client is expected to finish its request; none for the client after one that did not."""

IDLE = 0.5
"""Seconds after which an idle worker looks for connections that another one was woken for, and did not take."""

Respond = Callable[[bytes], bytes]


class Inode(NamedTuple):
    """Which socket file it is."""

    device: int
    number: int


class NotASocket(Exception):
    """Something is at the path that no server may replace."""


class InUse(Exception):
    """Somebody answers at the path."""


def inode(path: bytes) -> Inode | None:
    """The socket file at `path`; None if there is nothing.  Raises OSError."""
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


def check_free(path: bytes) -> None:
    """Raises `InUse` if somebody answers at `path`, or might.

    A bare connection would kill the C program, so a whole request is sent.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise InUse(
                f"{os.fsdecode(path)}: cannot tell whether a server is there: {error.strerror or error}"
            ) from None
        pid = _peer(probe)
        try:
            probe.sendall(b"\2\0\0")
            probe.shutdown(socket.SHUT_WR)
            probe.recv(REQUEST_LIMIT)
        except OSError:
            pass
    raise InUse(f"{os.fsdecode(path)} is served already, by process {pid}")


def _peer(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")


def listen(path: bytes, mode: int, uid: int, gid: int) -> tuple[socket.socket, Inode]:
    """A listening socket at `path`, with this mode and owner (-1: leave).

    It gets its name only when it listens: what was there before serves until then.  Raises OSError.
    """
    folder, name = os.path.split(path)
    private = os.path.join(folder, b".%s.%d" % (name[:64], os.getpid()))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _private_folder(private) as inside:
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
def _private_folder(path: bytes) -> Iterator[bytes]:
    """A place for a socket in a folder that nobody else can write in.

    Whoever owns the folder around it could otherwise put a link in the socket's place before its
    owner and mode are changed.
    """
    with suppress(FileNotFoundError):
        os.rmdir(path)  # left by a process of the same number
    os.mkdir(path, 0o700)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            st = os.fstat(folder)
            if st.st_uid != os.geteuid() or st.st_mode & 0o077:
                raise PermissionError(errno.EPERM, "somebody else put a folder there", path)
            yield b"/proc/self/fd/%d/s" % folder
        finally:
            os.close(folder)
    finally:
        os.rmdir(path)


def remove(path: bytes, ours: Inode) -> None:
    """Removes the socket file at `path` if it is still ours."""
    try:
        if inode(path) == ours:
            os.unlink(path)
    except OSError:
        pass  # gone already, or not ours to remove any more


class Worker:
    """The loop of one worker: receives, hands over, sends; it decides nothing."""

    def __init__(
        self,
        listener: socket.socket,
        respond: Respond,
        *,
        timeout: float,
        wake: int,
        stopping: Callable[[], bool],
        afterwards: Callable[[], None],
    ) -> None:
        """`timeout`: seconds for a client to send its request.

        `wake`: a descriptor that becomes readable when `stopping` may have changed.
        `afterwards` is called when an answer is out.
        """
        self._listener = listener
        self._respond = respond
        self._timeout = timeout
        self._wake = wake
        self._stopping = stopping
        self._afterwards = afterwards
        self._epoll = select.epoll()
        self._poll = select.poll()
        self._polled = -1
        self._parked: dict[int, _Parked] = {}
        self._patience = PATIENCE
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def run(self) -> None:
        """Serves until `stopping`, then finishes what is in hand."""
        listening = self._listener.fileno()
        self._epoll.register(listening, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._epoll.register(self._wake, select.EPOLLIN)
        while not self._stopping():
            events = self._epoll.poll(self._until_next_end(IDLE) if self._parked else IDLE)
            if not events:
                self._accept()
                self._afterwards()
            for fd, event in events:
                if fd == listening:
                    self._accept()
                elif fd != self._wake:
                    self._continue(fd, event)
            if self._parked:
                self._end_overdue()
        for _ in range(BACKLOG):  # those that connected before; under load there is always one more
            if not self._accept():
                break
        self._epoll.unregister(listening)
        self._listener.close()
        self._epoll.unregister(self._wake)
        while self._parked:
            for fd, event in self._epoll.poll(self._until_next_end(IDLE)):
                self._continue(fd, event)
            self._end_overdue()

    # -- a new client -----------------------------------------------------------------------------

    def _accept(self) -> bool:
        """Takes one connection and answers it, or parks it; False if there is none."""
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  makes no socket object
        except BlockingIOError:
            return False  # another worker was faster
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return error.errno == errno.ECONNABORTED
        if fd != self._polled:  # it is nearly always the same one, the lowest that is free
            if self._polled >= 0:
                self._poll.unregister(self._polled)
            self._poll.register(fd, select.POLLRDHUP)
            self._polled = fd
        if self._poll.poll(self._patience):
            self._patience = PATIENCE
            self._answer(fd)
        else:
            self._patience = 0
            self._park(fd)
        return True

    def _turn_away(self) -> None:
        """No descriptor left: closes one connection, which its client takes for a temporary failure."""
        if self._parked:
            self._close(next(iter(self._parked)))
            return
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError:
            time.sleep(0.01)
        finally:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _answer(self, fd: int) -> None:
        """Reads the complete request, answers it, closes."""
        try:
            request = os.read(fd, REQUEST_LIMIT + 1)
            if len(request) > REQUEST_LIMIT:
                _drain(fd)
            response = self._respond(request)
            if response:
                os.write(fd, response)
        except OSError:
            pass  # the client is gone
        finally:
            os.close(fd)
        self._afterwards()

    # -- a client that takes its time -------------------------------------------------------------

    def _park(self, fd: int) -> None:
        if len(self._parked) >= PARKED_LIMIT:
            self._close(next(iter(self._parked)))
        os.set_blocking(fd, False)
        self._parked[fd] = _Parked(time.monotonic() + self._timeout)
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def _continue(self, fd: int, event: int) -> None:
        """A parked client has sent something, or everything."""
        client = self._parked.get(fd)
        if client is None:
            return  # closed while an earlier event was handled
        if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._epoll.unregister(fd)
            del self._parked[fd]
            if client.drained:
                self._answer_drained(fd, client)
            else:
                self._answer(fd)
        elif client.drained or _queued(fd) > REQUEST_LIMIT:
            client.drain(fd)
            if client.drained > DRAIN_LIMIT:
                self._close(fd)

    def _answer_drained(self, fd: int, client: _Parked) -> None:
        try:
            client.drain(fd)
            os.write(fd, self._respond(bytes(REQUEST_LIMIT + 1)))
        except OSError:
            pass
        finally:
            os.close(fd)
        self._afterwards()

    def _close(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._parked[fd]
        os.close(fd)

    def _until_next_end(self, most: float) -> float:
        """Seconds until the parked client that waits longest is overdue."""
        for client in self._parked.values():
            return min(most, max(0.0, client.end - time.monotonic()))
        return most

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for fd in list(self._overdue(now)):
            self._close(fd)

    def _overdue(self, now: float) -> Iterator[int]:
        for fd, client in self._parked.items():
            if client.end > now:
                return
            yield fd


class _Parked:
    """A client whose request is not complete; its bytes wait in the socket, unless they are too many."""

    __slots__ = ("drained", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.drained = 0

    def drain(self, fd: int) -> None:
        self.drained += _drain(fd)


def _queued(fd: int) -> int:
    """How many bytes wait to be read, as far as it matters."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        return len(connection.recv(REQUEST_LIMIT + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return 0
    finally:
        connection.detach()


def _drain(fd: int) -> int:
    """Reads what there is, up to a bound."""
    total = 0
    try:
        while total <= DRAIN_LIMIT and (data := os.read(fd, 65536)):
            total += len(data)
    except BlockingIOError:
        pass
    return total
