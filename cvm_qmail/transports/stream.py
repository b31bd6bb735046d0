"""Requests over a Unix stream socket: one for each connection.

Invariants: a request is complete when the client has shut down its sending side, not before, and is read
once, then.  So a silent client costs a descriptor and nothing else.  A new connection gets a millisecond, since most
clients have sent everything by then; if it needs longer it is parked, and the worker continues with others.  A parked
client is closed when its time is over.  Responses are shorter than any socket's buffer, so writing one never blocks.

A worker waits in accept(2) itself: that wakes one worker for one connection, and costs a third less than waiting in
epoll and then accepting.  To stop that wait, a signal handler makes the listening socket non-blocking (`interrupt`):
the accept(2) that the signal interrupted is tried again then, and returns.  This happens when a parked client sends
something, and when the worker gets the signal to stop.  The socket is shared, so other workers may return as well, and
a signal may come just before the call: a worker that has to wait longer makes the socket blocking again, and no wait is
longer than `IDLE`.

The kernel wakes waiting workers in turn, so one client alone would wake them all.  A worker that finds
again and again that one with a lower number was free yields for a moment.

Source: cvm 0.97 (module_local.c, client_xfer_local.c); unix(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from time import monotonic, sleep

from cvm_qmail.process.children import readable

BACKLOG = 1024
"""The number of connections that are still answered after the signal to stop."""

DRAIN_LIMIT = 1 << 20
"""Bytes of a request beyond the limit that are read, so that closing does not reset the connection."""

PARKED_LIMIT = 512
"""The number of parked clients of a worker; beyond that the one that has waited longest is closed."""

GRACE = 1
"""Milliseconds for a new client to finish its request; none for the client after one that did not."""

IDLE = 0.1
"""Seconds for which a worker waits for a connection before it does something else."""

YIELD_SECONDS = 0.02
"""Seconds for which a worker that is not needed leaves the connections to others."""

IDLE_WAKEUPS = 8
"""Times in a row that a worker is woken although one with a lower number is free, before it yields."""

WAITED = 5e-6
"""Seconds in accept(2) after which it is certain that no client had been waiting."""

_TIMEVAL = Struct("@ll")

Respond = Callable[[bytes], bytes]


def interrupt(listener: socket.socket) -> None:
    """Ends a wait in accept(2), if a signal interrupts it now."""
    with suppress(OSError):  # it is closed
        os.set_blocking(listener.fileno(), False)


class Worker:
    """The loop of one worker: receives, hands over, sends; it decides nothing."""

    def __init__(
        self,
        listener: socket.socket,
        respond: Respond,
        *,
        limit: int,
        timeout: float,
        stopping: Callable[[], bool],
        afterwards: Callable[[], None],
        idle: Callable[[], None],
        needed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`limit`: bytes of a request; of a longer one, `respond` gets one byte more than that.

        `timeout`: seconds for a client to send its request.  A signal handler that changes `stopping` calls
        `interrupt`.  `afterwards` is called when a response has been sent, `idle` when no client is waiting.
        `needed` returns whether no worker with a lower number is free.
        """
        self._listener = listener
        self._accepted: Callable[[], tuple[int, object]] = listener._accept  # type: ignore[attr-defined]  # noqa: SLF001  makes no socket object
        self._respond = respond
        self._limit = limit
        self._timeout = timeout
        self._stopping = stopping
        self._afterwards = afterwards
        self._idle = idle
        self._needed = needed
        self._idle_wakeups = 0
        self._poll = select.poll()
        self._sent = self._poll.poll
        """Waits for a request that is complete."""
        self._polled = -1
        self._parked: dict[int, _Parked] = {}
        self._parked_events = select.epoll()
        self._parked_sent = False
        """Whether a parked client may have sent something."""
        self._grace = GRACE
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def run(self) -> None:
        """Serves until `stopping`, then finishes the current clients."""
        signal.signal(signal.SIGIO, self._on_parked_sent)
        signal.siginterrupt(signal.SIGIO, False)  # a wait with a time-out, like this one, is interrupted all the same
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(IDLE), int(IDLE % 1 * 1e6)))
        accept, stopping, parked = self._accept, self._stopping, self._parked
        while not stopping():
            if self._idle_wakeups >= IDLE_WAKEUPS:
                self._yield_to_others()
            if not accept():
                self._idle()
                if not self._parked_sent and not stopping():
                    os.set_blocking(self._listener.fileno(), True)
            if parked:
                self._look_after_parked(0)
        for _ in range(BACKLOG):  # only clients that connected before: under load there is always one more
            interrupt(self._listener)
            if not accept():
                break
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._listener.close()
        self._parked_sent = True
        while parked:
            self._look_after_parked(self._until_next_end())
            self._parked_sent = True

    # -- a new client -----------------------------------------------------------------------------

    def _accept(self) -> bool:
        """Accepts one connection and answers it, or parks it; False if there is none."""
        began = monotonic()
        try:
            fd, _ = self._accepted()
        except BlockingIOError:
            return False
        except OSError as error:
            return self._not_accepted(error)
        waited = monotonic() - began > WAITED
        self._idle_wakeups = 0 if not waited or self._needed() else self._idle_wakeups + 1
        if fd != self._polled:  # nearly always the same number: the lowest that is free
            if self._polled >= 0:
                self._poll.unregister(self._polled)
            self._poll.register(fd, select.POLLRDHUP)
            self._polled = fd
        if self._sent(self._grace):
            self._grace = GRACE
            self._answer(fd)
        else:
            self._grace = 0
            self._park(fd)
        return True

    def _yield_to_others(self) -> None:
        """Leaves the next connections to other workers, since one client alone would wake every worker in turn."""
        self._idle_wakeups = 0
        self._idle()
        self._parked_sent = True
        self._look_after_parked(YIELD_SECONDS)

    def _not_accepted(self, error: OSError) -> bool:
        """Handles an error of accept(2); returns whether to try again at once."""
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            if error.errno != errno.ECONNABORTED:
                sleep(IDLE)  # unexpected; it must not become a busy loop
            return error.errno == errno.ECONNABORTED
        if readable([self._listener.fileno()], IDLE):  # EMFILE comes even if no client is waiting
            self._turn_away()
        return False

    def _turn_away(self) -> None:
        """No descriptor is left: closes one connection, which its client treats as a temporary failure."""
        if self._parked:
            self._close(next(iter(self._parked)))
            return
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError:
            sleep(0.01)
        finally:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _answer(self, fd: int) -> None:
        """Reads the complete request, answers it, closes."""
        try:
            request = os.read(fd, self._limit + 1)
            if len(request) > self._limit:
                _drain(fd)
            response = self._respond(request)
            if response:
                os.write(fd, response)
        except OSError:
            pass  # the client has gone
        finally:
            os.close(fd)
        self._afterwards()

    # -- parked clients -------------------------------------------------------------

    def _park(self, fd: int) -> None:
        if len(self._parked) >= PARKED_LIMIT:
            self._close(next(iter(self._parked)))
        self._parked[fd] = _Parked(monotonic() + self._timeout)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)  # SIGIO when something comes
        self._parked_events.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._parked_sent = True  # a byte may have come just before

    def _on_parked_sent(self, *_: object) -> None:
        self._parked_sent = True
        interrupt(self._listener)

    def _look_after_parked(self, seconds: float) -> None:
        """Continues with clients that sent something, and closes those whose time is over."""
        if self._parked_sent:
            self._parked_sent = False
            for fd, event in self._parked_events.poll(seconds):
                self._continue(fd, event)
        self._end_overdue()

    def _continue(self, fd: int, event: int) -> None:
        """A parked client has sent something, or everything."""
        client = self._parked.get(fd)
        if client is None:
            return  # it is closed while an earlier event was handled
        if event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._parked_events.unregister(fd)
            del self._parked[fd]
            if client.drained:
                self._answer_drained(fd, client)
            else:
                self._answer(fd)
        elif client.drained or _queued(fd, self._limit) > self._limit:
            client.drain(fd)
            if client.drained > DRAIN_LIMIT:
                self._close(fd)

    def _answer_drained(self, fd: int, client: _Parked) -> None:
        try:
            client.drain(fd)
            os.write(fd, self._respond(bytes(self._limit + 1)))
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
        return max(0.0, next(iter(self._parked.values())).end - monotonic())

    def _end_overdue(self) -> None:
        now = monotonic()
        while self._parked:
            fd, client = next(iter(self._parked.items()))
            if client.end > now:
                return
            self._close(fd)


class _Parked:
    """A client whose request is not complete; its bytes stay in the socket, unless there are too many."""

    __slots__ = ("drained", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.drained = 0

    def drain(self, fd: int) -> None:
        self.drained += _drain(fd)


def _queued(fd: int, limit: int) -> int:
    """How many bytes wait to be read, up to one more than `limit`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        return len(connection.recv(limit + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
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
