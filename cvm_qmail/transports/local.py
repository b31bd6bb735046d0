"""Requests over a Unix stream socket: one a connection.

Law: a request is complete when the client has shut down its sending side, not before, and it is read
once, then.  So what a silent client costs is a descriptor.  A new connection gets a moment's
patience, since most clients have sent everything by then; if it needs longer it is parked, and the
worker goes on to others.  A parked client is closed when its time is over.  Answers are shorter than
any socket's buffer, so that writing one never waits.

A worker waits in accept(2) itself: that wakes one worker for one connection, and costs a third of
what waiting in epoll and then accepting does.  A parked client that stirs, and whoever else wants the
worker to look about, makes the listening socket non-blocking by a signal's handler: the accept that
the signal interrupted is tried again then, and returns.  The socket is shared, so that other workers
may return as well, and a signal may come just before the call: whoever still wants to wait makes it
blocking again, and no wait is longer than `IDLE`.

The kernel wakes waiting workers in turn, so that one client alone would wake them all.  A worker that
finds time and again that another one, which goes before it, would have come at once, stands back for
a moment.

Source: cvm 0.97 (module_local.c, client_xfer_local.c); unix(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import Struct
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

IDLE = 0.1
"""Seconds that a worker waits for a connection before it looks about."""

STAND_BACK = 0.02
"""Seconds for which a worker that is not needed leaves the connections to others."""

NEEDLESS = 8
"""Times in a row that it was woken although another worker would have come at once."""

WAITED = 5e-6
"""Seconds in accept(2) that tell that nobody was there yet."""

_TIMEVAL = Struct("@ll")

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


def interrupt(listener: socket.socket) -> None:
    """Makes a worker that waits for a connection look about, if a signal interrupts it now."""
    with suppress(OSError):  # closed
        os.set_blocking(listener.fileno(), False)


class Worker:
    """The loop of one worker: receives, hands over, sends; it decides nothing."""

    def __init__(
        self,
        listener: socket.socket,
        respond: Respond,
        *,
        timeout: float,
        stopping: Callable[[], bool],
        afterwards: Callable[[], None],
        idle: Callable[[], None],
        needed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`timeout`: seconds for a client to send its request.

        A signal that may have changed `stopping` calls `interrupt`.  `afterwards` is called when an
        answer is out, `idle` when nobody is waiting for one.  `needed` says whether no worker that
        goes before this one is free.
        """
        self._listener = listener
        self._respond = respond
        self._timeout = timeout
        self._stopping = stopping
        self._afterwards = afterwards
        self._idle = idle
        self._needed = needed
        self._needless = 0
        self._poll = select.poll()
        self._polled = -1
        self._parked: dict[int, _Parked] = {}
        self._parked_events = select.epoll()
        self._stirred = False
        """Whether a parked client may have sent something."""
        self._patience = PATIENCE
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def run(self) -> None:
        """Serves until `stopping`, then finishes what is in hand."""
        signal.signal(signal.SIGIO, self._on_stir)
        signal.siginterrupt(signal.SIGIO, False)  # a wait with a time-out, as ours, is interrupted all the same
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(IDLE), int(IDLE % 1 * 1e6)))
        accept, stopping, parked = self._accept, self._stopping, self._parked
        while not stopping():
            if self._needless >= NEEDLESS:
                self._stand_back()
            if not accept():
                self._idle()
                if not self._stirred and not stopping():
                    os.set_blocking(self._listener.fileno(), True)
            if parked:
                self._look_after_parked(0)
        for _ in range(BACKLOG):  # those that connected before; under load there is always one more
            interrupt(self._listener)
            if not accept():
                break
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._listener.close()
        self._stirred = True
        while parked:
            self._look_after_parked(self._until_next_end())
            self._stirred = True

    # -- a new client -----------------------------------------------------------------------------

    def _accept(self) -> bool:
        """Takes one connection and answers it, or parks it; False if there is none."""
        began = time.monotonic()
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  makes no socket object
        except BlockingIOError:
            return False
        except OSError as error:
            return self._not_accepted(error)
        waited = time.monotonic() - began > WAITED
        self._needless = 0 if not waited or self._needed() else self._needless + 1
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

    def _stand_back(self) -> None:
        """Leaves the next connections to others: one client alone would wake every worker in turn."""
        self._needless = 0
        self._idle()
        self._stirred = True
        self._look_after_parked(STAND_BACK)

    def _not_accepted(self, error: OSError) -> bool:
        """What to do about an error of accept(2); whether to try again at once."""
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            if error.errno != errno.ECONNABORTED:
                time.sleep(IDLE)  # nothing that could happen here; it must not become a busy loop
            return error.errno == errno.ECONNABORTED
        if select.select([self._listener], [], [], IDLE)[0]:  # it is said even if nobody is there
            self._turn_away()
        return False

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
        self._parked[fd] = _Parked(time.monotonic() + self._timeout)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)  # SIGIO when something comes
        self._parked_events.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._stirred = True  # it may have come just before

    def _on_stir(self, *_: object) -> None:
        self._stirred = True
        interrupt(self._listener)

    def _look_after_parked(self, seconds: float) -> None:
        """Goes on with those who sent something, and closes those whose time is over."""
        if self._stirred:
            self._stirred = False
            for fd, event in self._parked_events.poll(seconds):
                self._continue(fd, event)
        self._end_overdue()

    def _continue(self, fd: int, event: int) -> None:
        """A parked client has sent something, or everything."""
        client = self._parked.get(fd)
        if client is None:
            return  # closed while an earlier event was handled
        if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._parked_events.unregister(fd)
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
        self._parked_events.unregister(fd)
        del self._parked[fd]
        os.close(fd)

    def _until_next_end(self) -> float:
        """Seconds until the parked client that waits longest is overdue."""
        return max(0.0, next(iter(self._parked.values())).end - time.monotonic())

    def _end_overdue(self) -> None:
        now = time.monotonic()
        while self._parked:
            fd, client = next(iter(self._parked.items()))
            if client.end > now:
                return
            self._close(fd)


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
