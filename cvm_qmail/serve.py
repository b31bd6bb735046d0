"""Bind, fork workers, watch over them, drain.

Law: the supervisor decides nothing about mail and holds no table.  It binds the socket, forks
workers, and then only watches:

 - a worker whose look-up is past the deadline is killed and replaced.  Its client sees end of file,
   which CVM clients take for a temporary failure; over UDP the supervisor answers in its stead.  The
   place that it was looking at is shunned for a while, lest it eat worker after worker;
 - when all workers have been busy for a moment, it forks a spare one, within a bound;
 - a worker that dies is replaced, and dies with its supervisor;
 - if the socket's path belongs to somebody else (a new server took over), it finishes and ends; if it
   has vanished, it is made again.

SIGTERM and SIGINT: the path is removed, what is in hand is finished, exit 0.  SIGHUP: nothing needs
reloading.
"""

from __future__ import annotations

import ast
import ctypes
import fcntl
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from cvm_qmail import wire
from cvm_qmail.answer import Answer, Recipient
from cvm_qmail.log import Log, escape, unforeseen
from cvm_qmail.responder import Ask, Event, Memory, Noted, Pardon, Respond, responder
from cvm_qmail.settings import Settings
from cvm_qmail.slots import Slot, Slots
from cvm_qmail.tables import Hazards, rights
from cvm_qmail.transports import local, udp

if TYPE_CHECKING:
    from cvm_qmail.shadow import Shadow

TICK = 0.1
"""Seconds between two looks at the workers."""

BUSY = 0.1
"""Seconds that all workers have to spend on one look-up each before a spare one is forked."""

SPARE_LIFE = 30.0
"""Seconds without need after which a spare worker is sent home."""

RESTART_PAUSE = 1.0
"""Seconds between two starts of a worker that dies at once."""

TAKEOVER_GRACE = 1.0
"""Seconds for which a server whose path was taken over still takes connections: some client may
have looked the old path up just before."""

DRAIN_LIMIT = 10.0
"""Seconds for workers to finish, beyond the deadlines of a look-up and a client."""

_TO_WORKERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that a worker treats otherwise than its supervisor."""

_PR_SET_NO_NEW_PRIVS = 38


class Service(Protocol):
    """What a program serves: made once per worker, after the fork."""

    def __call__(self, settings: Settings, hazards: Hazards) -> tuple[Ask, Memory | None, Pardon | None]:
        """What answers requests, with tables of its own, what remembers the answers, and a dry run's pardon."""
        ...


class Book(Protocol):
    """Where a worker's requests are written down: its log, or what follows them for a shadow as well."""

    def request(self, event: Event) -> Noted:
        """Takes down a request, when its response is made."""
        ...

    def again(self, around: Noted, began: float) -> None:
        """Takes down that a response was given again."""
        ...

    def settle(self) -> None:
        """An answer is out."""
        ...

    def flush(self) -> None:
        """What waits must not wait any longer."""
        ...


class Door(NamedTuple):
    """Where requests come in."""

    socket: socket.socket
    path: bytes | None
    """The Unix socket's path, if it is this server's to keep."""
    inode: local.Inode | None


class _Worker(NamedTuple):
    number: int
    started: float
    spare: bool


clock = time.monotonic
"""Seconds, by the same clock in all processes."""


class Supervisor:
    """See the head of this file."""

    def __init__(
        self,
        settings: Settings,
        service: Service,
        door: Door,
        reopen: Callable[[], Door],
        log: Log,
        *,
        shadow: Shadow | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._door = door
        self._reopen = reopen
        self._log = log
        self._shadow = shadow
        self._spares = settings.workers * 2
        self._slots = Slots(settings.workers + self._spares)
        self._workers: dict[int, _Worker] = {}
        self._retiring: set[int] = set()
        """Workers that were told to stop, or killed: no longer counted, but still watched."""
        self._killed: set[int] = set()
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        """Nothing is ever written there; its writing end is this process's alone."""
        self._dead_at: list[float] = []
        self._needed_spare = 0.0
        self._stop = False
        self._next_look = 0.0
        self._gone_logged = False

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Serves until told to stop; the exit status."""
        wake = _wake_up_pipe()
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, _ignore)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        gc.collect()
        gc.freeze()
        self._log.line("Starting.")
        taken_over = False
        while not self._stop and not taken_over:
            self._reap()
            self._fill()
            if self._shadow is not None:
                self._shadow.keep(self._log, lambda: die_with(self._lifeline[0]), self._lifeline[0])
            now = clock()
            pause = min(TICK, self._enforce(now))
            self._add_or_retire_spares(now)
            if now >= self._next_look:
                self._next_look = now + 1.0
                self._shun_where_workers_hang()
                self._slots.forget()
                taken_over = self._look_at_path()
            self._log.flush()
            if select.select([wake], [], [], pause)[0]:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
        if taken_over:
            self._log.line("Another server has taken over.")
            self._wait(TAKEOVER_GRACE)
            self._stop = True
        elif self._door.path is not None and self._door.inode is not None:
            local.remove(self._door.path, self._door.inode)
        self._drain()
        if self._shadow is not None:
            self._shadow.finish()
        self._log.line("Stopping.")
        self._log.finish()
        return 0

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _wait(self, seconds: float) -> None:
        end = clock() + seconds
        while (now := clock()) < end:
            self._reap()
            self._fill()
            time.sleep(min(TICK, self._enforce(now), end - now))

    def _drain(self) -> None:
        """Lets every worker finish; kills what does not."""
        local.interrupt(self._door.socket)
        for pid in self._workers:
            _kill(pid, signal.SIGTERM)
        end = clock() + self._settings.lookup_timeout + self._settings.local_timeout + DRAIN_LIMIT
        while self._workers and (now := clock()) < end:
            self._enforce(now)
            self._reap()
            time.sleep(0.01)
        for pid in self._workers:
            _kill(pid, signal.SIGKILL)

    # -- workers ----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Forks workers until there are as many as there should be."""
        regular = sum(1 for pid, worker in self._workers.items() if not worker.spare and pid not in self._retiring)
        now = clock()
        self._dead_at = [at for at in self._dead_at if at > now - RESTART_PAUSE]
        while regular < self._settings.workers and len(self._dead_at) < self._settings.workers:
            if not self._fork(spare=False):
                return
            regular += 1

    def _fork(self, *, spare: bool) -> bool:
        taken = {worker.number for worker in self._workers.values()}
        free = [number for number in range(self._settings.workers + self._spares) if number not in taken]
        if not free:
            return False
        slot = self._slots[free[0]]
        slot.clear()
        # a signal for the child must wait until the child has a handler of its own
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_WORKERS)
        try:
            pid = os.fork()
            if not pid:
                self._work(slot)
        except OSError as error:
            self._log.line(f"? cannot fork a worker: {error.strerror}")
            self._dead_at += [clock()] * self._settings.workers
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_WORKERS)
        self._workers[pid] = _Worker(free[0], clock(), spare)
        return True

    def _work(self, slot: Slot) -> NoReturn:
        """The life of a worker."""
        status = 1
        log = self._log
        try:
            log = Log(1, self._settings.log, clock)  # its own: what waits in the supervisor's is not for us to write
            os.close(self._lifeline[1])
            if die_with(self._lifeline[0]):
                run_worker(self._settings, self._service, self._door.socket, slot, log, shadow=self._shadow)
            status = 0
        except BaseException:  # noqa: BLE001  a child must not return into its parent's code
            log.line(f"? worker {os.getpid()}: {unforeseen()}")
        finally:
            if log is not self._log:
                log.finish()
            os._exit(status)

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = self._workers.pop(pid, None)
            if worker is None:
                if self._shadow is not None and self._shadow.ended(pid) and not self._stop:
                    self._log.line(f"? shadow process {pid} ended with {_status(status)}; another one takes its place")
                continue
            self._slots[worker.number].clear()
            self._killed.discard(pid)
            if pid in self._retiring:
                self._retiring.discard(pid)
            elif not self._stop:
                self._log.line(f"? worker {pid} ended with {_status(status)}; another one takes its place")
                if clock() - worker.started < RESTART_PAUSE:
                    self._dead_at.append(clock())

    def _enforce(self, now: float) -> float:
        """Kills workers past the deadline; seconds until the next one could be."""
        limit = self._settings.lookup_timeout
        soonest = limit
        for pid, worker in self._workers.items():
            slot = self._slots[worker.number]
            began = slot.began
            if not began:
                continue
            if now - began < limit:
                soonest = min(soonest, began + limit - now)
            elif pid not in self._killed:
                place = slot.place
                self._killed.add(pid)
                self._retiring.add(pid)
                if place:
                    self._slots.shun(place)
                if self._door.path is None and self._door.socket.type == socket.SOCK_DGRAM:
                    self._answer_for(slot)
                _kill(pid, signal.SIGKILL)
                self._log.line(f"? worker {pid} killed: its look-up took {limit:g} seconds, at {escape(place) or '-'}")
        return max(soonest, 0.001)

    def _shun_where_workers_hang(self) -> None:
        """A worker that was killed and does not die hangs in the kernel: its place stays shunned as long."""
        for pid in self._killed:
            if place := self._slots[self._workers[pid].number].place:
                self._slots.shun(place)

    def _answer_for(self, slot: Slot) -> None:
        request, sender = slot.question
        with suppress(OSError, ValueError, SyntaxError):
            self._door.socket.sendto(wire.refusal(request, wire.Code.IO), ast.literal_eval(sender.decode()))

    def _add_or_retire_spares(self, now: float) -> None:
        at_work = [pid for pid in self._workers if pid not in self._retiring]
        spares = [pid for pid in at_work if self._workers[pid].spare]
        began = [self._slots[self._workers[pid].number].began for pid in at_work]
        if all(0.0 < at <= now - BUSY for at in began):
            self._needed_spare = now
            if len(spares) < self._spares:
                self._fork(spare=True)
        elif spares and now - self._needed_spare > SPARE_LIFE:
            self._retire(spares[0])
            self._needed_spare = now

    def _retire(self, pid: int) -> None:
        self._retiring.add(pid)
        _kill(pid, signal.SIGTERM)

    # -- the path ---------------------------------------------------------------------------------

    def _look_at_path(self) -> bool:
        """Whether another server has taken over; makes a vanished path again."""
        path = self._door.path
        if path is None:
            return False
        try:
            there = local.inode(path)
            if there is not None:
                return there != self._door.inode
            door = self._reopen()
        except OSError as error:
            if not self._gone_logged:
                self._log.line(f"? {escape(path)} has vanished, and cannot be made again: {error.strerror}")
                self._gone_logged = True
            return False
        self._door.socket.close()
        self._door = door
        self._gone_logged = False
        self._log.line(f"? {escape(path)} had vanished, and was made again")
        for pid in set(self._workers) - self._retiring:
            self._retire(pid)
        return False


def run_worker(
    settings: Settings, service: Service, door: socket.socket, slot: Slot, log: Log, *, shadow: Shadow | None
) -> None:
    """Answers requests that come to `door` until SIGTERM."""
    stop = False

    def on_stop(*_: object) -> None:
        nonlocal stop
        stop = True
        slot.serves(False)
        local.interrupt(door)

    datagrams = door.type == socket.SOCK_DGRAM
    signal.set_wakeup_fd(-1)  # the supervisor's
    wake = _wake_up_pipe() if datagrams else -1
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_WORKERS)
    if not os.geteuid():
        rights.keep_only_needed_capabilities()
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    slot.serves(True)
    if stop:
        slot.serves(False)
    follower = None if shadow is None else shadow.follower(log)
    book: Book = follower or log
    respond = slot.guard(make_respond(settings, service, slot, book))
    if follower is not None:
        respond = follower.noting(respond)
    if datagrams:
        udp.Worker(door, respond, received=slot.received, wake=wake, stopping=lambda: stop, afterwards=book.flush).run()
    else:
        local.Worker(
            door,
            respond,
            timeout=settings.local_timeout,
            stopping=lambda: stop,
            afterwards=book.settle,
            idle=book.flush,
            needed=slot.needed,
        ).run()


def die_with(lifeline: int) -> bool:
    """Has the kernel kill this process when nobody writes to `lifeline` any more; False: so it is already.

    PR_SET_PDEATHSIG would be simpler, but the kernel forgets it at every setfsuid.
    """
    ours = os.open(b"/proc/self/fd/%d" % lifeline, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(ours, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(ours, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return not select.select([ours], [], [], 0)[0]


def make_respond(settings: Settings, service: Service, hazards: Hazards, book: Book) -> Respond:
    """The whole way from a request's bytes to its response's."""
    ask, memory, pardon = service(settings, hazards)

    def ask_after_logging(recipient: Recipient, request: wire.Request) -> Answer:
        book.flush()  # this may hang, and the process be killed
        return ask(recipient, request)

    return responder(
        ask_after_logging,
        memory=memory,
        again=book.again,
        secret=settings.lookup_secret,
        report=book.request,
        pardon=pardon,
        clock=clock,
        unforeseen=unforeseen,
    )


def _wake_up_pipe() -> int:
    """A descriptor that becomes readable at each signal."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def _ignore(*_: object) -> None:
    """A handler that does nothing but wake the loop."""


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _status(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
