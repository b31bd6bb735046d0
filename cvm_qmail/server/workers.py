"""The workers of a server: forked, watched, killed, replaced.

Invariants: there are always `settings.workers` regular ones, or as many as can be forked.

 - A worker whose lookup is past the deadline is killed and replaced, and so is one that is stopped for as
   long.  Its client sees end of file, which CVM clients treat as a temporary failure; over UDP,
   `answer_for` answers instead.  If the lookup hung (`hang_watch`), lookups that touch the same path fail
   fast for a while, so that one dead mount cannot exhaust the workers.
 - When all workers have been busy or stopped for a moment, a spare one is forked, up to a limit.
 - A worker that dies is replaced, and so is one to which the sandbox refused a system call.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from cvm_qmail.escape import escape
from cvm_qmail.observe.log import Log
from cvm_qmail.process.refusals import Refusals, describe
from cvm_qmail.process.seccomp import Call
from cvm_qmail.process.shared_memory import Slot, Slots
from cvm_qmail.server.counting import SPARES
from cvm_qmail.server.gauges import Gauges
from cvm_qmail.server.hang_watch import HangWatch
from cvm_qmail.server.worker import FROM_SUPERVISOR
from cvm_qmail.settings import Settings

REFUSALS = 64
"""The number of system calls that may be refused to a worker before it is killed."""

BUSY = 0.1
"""Seconds that every worker must have spent on its lookup before a spare one is forked."""

SPARE_LIFE = 30.0
"""Seconds without need after which a spare worker is stopped."""

RESTART_PAUSE = 1.0
"""Seconds between two starts, if workers die at once."""


class _Worker(NamedTuple):
    number: int
    started: float
    spare: bool


clock = time.monotonic
"""Seconds, by the same clock in all processes."""


class Workers:
    """See the head of this file."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        gauges: Gauges,
        *,
        live: Callable[[int, Slot], NoReturn],
        answer_for: Callable[[Slot], None],
    ) -> None:
        """`live` is the life of a worker, in a process of its own: the number of its slot, and the slot.

        `answer_for` is called before a worker is killed at its deadline.
        """
        self._settings = settings
        self._log = log
        self._gauges = gauges
        self._live = live
        self._answer_for = answer_for
        self._spares = settings.workers * SPARES
        self._slots = Slots(settings.workers + self._spares)
        self._watch = HangWatch(settings.lookup_timeout)
        self._workers: dict[int, _Worker] = {}
        """By pid."""
        self._retiring: set[int] = set()
        """Workers that were stopped or killed: no longer counted, but still watched."""
        self._killed: set[int] = set()
        self._refused: dict[int, int] = {}
        """How many system calls were refused to a worker."""
        self._dead_at: list[float] = []
        self._needed_spare = 0.0
        self._stopping = False
        self.refusals = Refusals()
        """The listeners to which workers' filters report refused system calls."""

    def __len__(self) -> int:
        return len(self._workers)

    # -- how many there are -----------------------------------------------------------------------

    def fill(self) -> None:
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
        # a signal for the child must wait until the child has its own handler
        signal.pthread_sigmask(signal.SIG_BLOCK, FROM_SUPERVISOR)
        try:
            pid = os.fork()
            if not pid:
                self._live(free[0], slot)
        except OSError as error:
            self._log.line(f"? cannot fork a worker: {error.strerror}")
            self._dead_at += [clock()] * self._settings.workers
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_SUPERVISOR)
        self._workers[pid] = _Worker(free[0], clock(), spare)
        return True

    def add_or_retire_spares(self, now: float) -> None:
        """Forks one more when all have been busy for a moment, and stops one that was not needed for a while."""
        at_work = [pid for pid in self._workers if pid not in self._retiring]
        spares = [pid for pid in at_work if self._workers[pid].spare]
        if all(self._is_busy(pid, now) for pid in at_work):
            self._needed_spare = now
            if len(spares) < self._spares:
                self._fork(spare=True)
        elif spares and now - self._needed_spare > SPARE_LIFE:
            self._retire(spares[0])
            self._needed_spare = now

    def _retire(self, pid: int) -> None:
        self._retiring.add(pid)
        _kill(pid, signal.SIGTERM)

    def replace_all(self) -> None:
        """Every worker finishes its current request, and another takes its place."""
        for pid in self._workers.keys() - self._retiring:
            self._retire(pid)

    def stop(self) -> None:
        """Every worker finishes its current request; none is replaced."""
        self._stopping = True
        for pid in self._workers:
            _kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kills the workers that are left."""
        for pid in self._workers:
            _kill(pid, signal.SIGKILL)

    # -- how they end -----------------------------------------------------------------------

    def reap(self) -> list[tuple[int, int]]:
        """Handles workers that have ended, were stopped or run again; returns pid and status of other children."""
        others: list[tuple[int, int]] = []
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                break
            if not pid:
                break
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                if pid in self._workers:
                    self._paused(pid, stopped=os.WIFSTOPPED(status))
            elif pid in self._workers:
                self._ended(pid, status)
            else:
                others.append((pid, status))
        return others

    def _paused(self, pid: int, *, stopped: bool) -> None:
        self._slots[self._workers[pid].number].serves(not stopped)  # so that no other worker yields to it
        if stopped:
            self._log.line(f"? worker {pid} was stopped by a signal")
            self._watch.stopped(pid, clock())
        else:
            self._watch.continued(pid)

    def _ended(self, pid: int, status: int) -> None:
        worker = self._workers.pop(pid)
        self._slots[worker.number].clear()
        self._gauges.gone(worker.number)
        self._watch.ended(pid)
        self._killed.discard(pid)
        self.refusals.forget(pid)
        self._refused.pop(pid, None)
        if pid in self._retiring:
            self._retiring.discard(pid)
        elif not self._stopping:
            self._gauges.count("restarts")
            self._log.line(f"? worker {pid} ended with {describe_status(status)}; another one takes its place")
            if clock() - worker.started < RESTART_PAUSE:
                self._dead_at.append(clock())

    def take_refusals(self, ready: Sequence[int]) -> None:
        """Reads the reports of refused calls: `ready` are descriptors."""
        self.refusals.take(ready, self._before_refusal, self._after_refusal)

    def _before_refusal(self, call: Call) -> None:
        """The sandbox is about to refuse a worker a system call: its current answer is void."""
        if worker := self._workers.get(call.pid):
            self._slots[worker.number].refuse()

    def _after_refusal(self, call: Call) -> None:
        """The worker is replaced when its current request has failed."""
        worker = self._workers.get(call.pid)
        if worker is None:
            return
        count = self._refused[call.pid] = self._refused.get(call.pid, 0) + 1
        if count == 1:
            what = f"the sandbox refused system call {describe(call.number)}"
            self._log.line(f"? worker {call.pid}: {what}; another one takes its place")
            if clock() - worker.started < RESTART_PAUSE:
                self._dead_at.append(clock())
            self._retire(call.pid)
        elif count > REFUSALS:
            _kill(call.pid, signal.SIGKILL)

    # -- deadlines ----------------------------------------------------------------------------------

    def enforce(self, now: float) -> float:
        """Kills workers past the deadline; returns the seconds until the next one could be."""
        self._watch.look(now)
        soonest = self._settings.lookup_timeout
        for pid, worker in self._workers.items():
            if pid not in self._killed:
                left = self._watch.left(pid, self._slots[worker.number].began, now)
                soonest = min(soonest, left)
                if left <= 0.0:
                    self._kill_overdue(pid, self._slots[worker.number], now)
        return max(soonest, 0.001)

    def _kill_overdue(self, pid: int, slot: Slot, now: float) -> None:
        stopped, resource = self._watch.is_stopped(pid), slot.resource
        self._killed.add(pid)
        self._retiring.add(pid)
        hung = self._watch.killed(pid, resource, now)
        self._gauges.count("hangs" if hung else "pauses")
        if hung:
            self._slots.quarantine(resource)
        self._answer_for(slot)
        _kill(pid, signal.SIGKILL)
        limit = self._settings.lookup_timeout
        what = f"was stopped for {limit:g} seconds" if stopped else f"its lookup took {limit:g} seconds"
        self._log.line(f"? worker {pid} killed: {what}, at {escape(resource) or '-'}")

    def _quarantine_where_they_hang(self, now: float) -> None:
        """A worker that was killed and does not die hangs in the kernel: its resource stays in quarantine as long."""
        for pid in self._killed:
            resource = self._slots[self._workers[pid].number].resource
            if resource and self._watch.undead(pid, now):
                self._slots.quarantine(resource)

    def next_look(self, when: float) -> None:
        """When `enforce` will be called again; if it is later than that, the supervisor itself was late."""
        self._watch.next_look(when)

    def look_around(self, now: float) -> None:
        """What is done once a second: quarantine, and the gauges."""
        self._quarantine_where_they_hang(now)
        self._slots.forget()
        self._show_gauges(now)

    def _is_busy(self, pid: int, now: float) -> bool:
        """Whether a worker has spent a moment on its lookup, or is stopped."""
        return 0.0 < self._slots[self._workers[pid].number].began <= now - BUSY or self._watch.is_stopped(pid)

    def _show_gauges(self, now: float) -> None:
        pids = self._workers.keys() - self._retiring
        self._gauges.show(
            {
                "workers": len(pids),
                "spares": sum(self._workers[pid].spare for pid in pids),
                "busy": sum(self._slots[self._workers[pid].number].began > 0.0 for pid in pids),
                "stopped": sum(self._watch.is_stopped(pid) for pid in pids),
                "quarantined": self._slots.quarantined(now),
            }
        )


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def describe_status(status: int) -> str:
    """How a child ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
