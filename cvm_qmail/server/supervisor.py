"""Bind, keep workers, watch the socket's path, drain.

Invariants: the supervisor decides nothing about mail and opens no table.  It binds the socket, and then only watches
its workers (`workers`), the shadow process and the path.  If the path belongs to another server (which took over), it
finishes and ends; if the path is missing, it is created again.

SIGTERM and SIGINT: the path is removed, current requests are finished, exit 0.  SIGHUP: nothing needs
reloading.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cvm_qmail.escape import escape
from cvm_qmail.exits import Failure, describe_exception
from cvm_qmail.observe.log import Log
from cvm_qmail.process.children import readable
from cvm_qmail.process.lifeline import die_with_parent
from cvm_qmail.process.sandbox import Unconfined
from cvm_qmail.process.shared_memory import Slot
from cvm_qmail.server.confinement import confine
from cvm_qmail.server.gauges import Gauges
from cvm_qmail.server.worker import MakeRespond, Respond, Worker, wake_up_pipe
from cvm_qmail.server.workers import Workers, clock, describe_status
from cvm_qmail.settings import Settings
from cvm_qmail.transports import stream, unix_socket

if TYPE_CHECKING:
    from cvm_qmail.observe.shadow import Shadow
    from cvm_qmail.observe.stats import StatsFile

TICK = 0.1
"""Seconds between two checks of the workers."""

TAKEOVER_GRACE = 1.0
"""Seconds for which a server whose path was taken over still accepts connections: a client may have
looked up the path just before."""

DRAIN_LIMIT = 10.0
"""Seconds for workers to finish, beyond the deadlines of a lookup and a client."""


class Listener(NamedTuple):
    """The socket at which requests arrive."""

    socket: socket.socket
    path: bytes | None
    """The path of the Unix socket, if this server has to remove it."""
    inode: unix_socket.Inode | None


class Supervisor:
    """See the head of this file."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        reopen: Callable[[], Listener],
        *,
        make_respond: MakeRespond,
        temporary: Respond,
        limit: int,
        make_log: Callable[[], Log],
        shadow: Shadow | None = None,
        stats: StatsFile | None = None,
    ) -> None:
        self._settings = settings
        self._make_respond = make_respond
        self._temporary = temporary
        self._limit = limit
        self._listener = listener
        self._reopen = reopen
        self._make_log = make_log
        self._log = make_log()
        self._shadow = shadow
        self._gauges = Gauges(stats)
        self._workers = Workers(settings, self._log, self._gauges, live=self._live, answer_for=self._answer_for)
        self._parent_pipe = os.pipe2(os.O_CLOEXEC)
        """A pipe to which nothing is ever written; only this process has its writing end."""
        self._stop = False
        self._next_look = 0.0
        self._gone_logged = False

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Serves until a signal stops it; returns the exit status."""
        wake = wake_up_pipe()
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, _ignore)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._confine()
        gc.freeze()  # what is shared with the workers stays shared
        gc.enable()
        self._log.line("Starting.")
        taken_over = False
        lifeline = self._parent_pipe[0]
        tied = partial(die_with_parent, lifeline)
        while not self._stop and not taken_over:
            self._reap()
            self._workers.fill()
            if self._shadow is not None:
                self._shadow.keep(self._log, tied, lifeline, self._gauges.shadow_confined)
            now = clock()
            pause = min(TICK, self._workers.enforce(now))
            self._workers.add_or_retire_spares(now)
            if now >= self._next_look:
                self._next_look = now + 1.0
                self._workers.look_around(now)
                taken_over = self._look_at_path()
            self._log.flush()
            self._workers.next_look(clock() + pause)
            self._sleep(pause, wake)
        if taken_over:
            self._log.line("Another server has taken over.")
            self._wait(TAKEOVER_GRACE)
            self._stop = True
        else:
            self._remove_path()
        self._drain()
        if self._shadow is not None:
            self._shadow.finish()
        self._gauges.close()
        self._log.line("Stopping.")
        self._log.finish()
        return 0

    def _confine(self) -> None:
        """Enters the sandbox, unless the shadow process has to run a program.  Raises `Unconfined`."""
        if self._shadow is None or not self._shadow.runs_a_program:
            try:
                confine(self._settings.sandbox, self._listener.path, self._settings.stats)
            except Unconfined:
                self._remove_path()
                self._gauges.close()
                raise
        self._gauges.confined(None)

    def _remove_path(self) -> None:
        if self._listener.path is not None and self._listener.inode is not None:
            unix_socket.remove(self._listener.path, self._listener.inode)

    def _sleep(self, seconds: float, wake: int | None = None) -> None:
        """Waits for a signal or for a refused system call."""
        signals = [] if wake is None else [wake]
        ready = readable([*signals, *self._workers.refusals.descriptors], seconds)
        if wake in ready:
            with suppress(BlockingIOError):
                os.read(wake, 4096)
        self._workers.take_refusals(ready)

    def _reap(self) -> None:
        for pid, status in self._workers.reap():
            if self._shadow is None or not self._shadow.ended(pid):
                continue
            self._gauges.shadow_gone()
            if not self._stop:
                what = f"ended with {describe_status(status)}"
                self._log.line(f"? shadow process {pid} {what}; another one takes its place")

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _wait(self, seconds: float) -> None:
        end = clock() + seconds
        while (now := clock()) < end:
            self._reap()
            self._workers.fill()
            pause = min(TICK, self._workers.enforce(now), end - now)
            self._workers.next_look(now + pause)
            self._sleep(pause)

    def _drain(self) -> None:
        """Lets every worker finish; kills what does not."""
        stream.interrupt(self._listener.socket)
        self._workers.stop()
        end = clock() + self._settings.lookup_timeout + self._settings.local_timeout + DRAIN_LIMIT
        while self._workers and (now := clock()) < end:
            self._workers.enforce(now)
            self._workers.next_look(now + TICK)
            self._reap()
            self._sleep(0.01)
        self._workers.kill()

    # -- a worker ---------------------------------------------------------------------------------

    def _live(self, number: int, slot: Slot) -> NoReturn:
        """The life of a worker, in its own process."""
        status = 1
        log = self._log
        try:
            log = self._make_log()  # its own log: the lines that wait in the supervisor's are the supervisor's to write
            os.close(self._parent_pipe[1])
            if die_with_parent(self._parent_pipe[0]):
                Worker(
                    self._settings,
                    self._listener.socket,
                    slot,
                    log,
                    make_respond=self._make_respond,
                    temporary=self._temporary,
                    refusals=self._workers.refusals,
                    limit=self._limit,
                    shadow=self._shadow,
                    backends=self._gauges.backends(number),
                    counters=self._gauges.worker(number, os.getpid(), clock),
                    confined=lambda: self._gauges.confined(number),
                ).run()
            status = 0
        except Failure as failure:
            log.line(f"? worker {os.getpid()}: {failure}")
        except BaseException:  # noqa: BLE001  a child must not return into its parent's code
            log.line(f"? worker {os.getpid()}: {describe_exception()}")
        finally:
            if log is not self._log:
                log.finish()
            os._exit(status)

    def _answer_for(self, slot: Slot) -> None:
        """Answers in place of a worker that is about to be killed, where that is possible."""
        if self._listener.path is not None or self._listener.socket.type != socket.SOCK_DGRAM:
            return  # the client sees that its connection is closed
        request, sender = slot.question
        with suppress(OSError, ValueError, TypeError):
            self._listener.socket.sendto(self._temporary(request), tuple(json.loads(sender)))

    # -- the path ---------------------------------------------------------------------------------

    def _look_at_path(self) -> bool:
        """Whether another server has taken over; creates a missing path again."""
        path = self._listener.path
        if path is None:
            return False
        try:
            there = unix_socket.inode(path)
            if there is not None:
                return there != self._listener.inode
            listener = self._reopen()
        except OSError as error:
            if not self._gone_logged:
                self._log.line(f"? {escape(path)} is missing, and cannot be created again: {error.strerror}")
                self._gone_logged = True
            return False
        self._listener.socket.close()
        self._listener = listener
        self._gone_logged = False
        self._log.line(f"? {escape(path)} was missing; created again")
        self._workers.replace_all()
        return False


def _ignore(*_: object) -> None:
    """A handler that does nothing but wake the loop."""
