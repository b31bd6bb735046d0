"""Which workers are past their deadline, and whether it was a hang or a pause.

    hang      the lookup was blocked in a system call all the time: a dead file server, a database, a lock.
              Its resource goes into quarantine, or it would block worker after worker
    pause     the worker did not run: stopped by a signal or a debugger, starved of the processor, or
              suspended together with its machine.  It is replaced; its resource is not the cause

From inside the process the two look alike.  From outside, the state of a hanging process in /proc/PID/stat is
"sleeping" or "disk sleep" at every observation; any other state in between means that it was a pause.  Where /proc
does not show it, and where a lookup only takes too much processor time, it counts as a hang the second time at one
resource.

Invariants: a delay of the supervisor itself is never counted against a worker: if it was late, every deadline starts
again.

Source: proc_pid_stat(5), waitpid(2) (WUNTRACED).
"""

from __future__ import annotations

from collections.abc import Callable

LATE = 0.5
"""Seconds by which the supervisor must be late for it to count as paused itself."""

WATCHED_FROM = 0.25
"""Share of the deadline after which the state of a worker is observed."""

LOOKS = 2
"""The number of observations that it takes to be certain."""

REPEAT = 60.0
"""Seconds within which a second late lookup at the same resource is not chance."""

UNDEAD = 1.0
"""Seconds for a killed process to end; one that takes longer hangs in the kernel."""

_BLOCKED = "DS"


def state_of(pid: int) -> str:
    """The letter of a process's state (proc_pid_stat(5)); empty: unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(512).rpartition(b") ")[2][:1].decode()
    except OSError:
        return ""


class _Observed:
    """What was observed of one worker."""

    __slots__ = ("began", "blocked", "killed_at", "looks", "stopped_at")

    def __init__(self) -> None:
        self.began = 0.0
        """The lookup to which `looks` and `blocked` belong."""
        self.looks = 0
        self.blocked = 0
        self.stopped_at = 0.0
        """0: it is not stopped."""
        self.killed_at = 0.0


class HangWatch:
    """The supervisor's observations of all its workers."""

    def __init__(self, limit: float, state: Callable[[int], str] = state_of) -> None:
        """`limit`: seconds for a lookup."""
        self._limit = limit
        self._state = state
        self._observed: dict[int, _Observed] = {}
        self._next_look = 0.0
        self._resumed = 0.0
        """When the supervisor itself was late."""
        self._suspects: dict[bytes, float] = {}
        """Resources at which a lookup took too long without being blocked all the time, and when."""

    def look(self, now: float) -> None:
        """The supervisor observes its workers now."""
        if self._next_look and now > self._next_look + LATE:
            self._resumed = now
            for observed in self._observed.values():
                observed.looks = observed.blocked = 0

    def next_look(self, at: float) -> None:
        """When it intends to do so again."""
        self._next_look = at

    def stopped(self, pid: int, now: float) -> None:
        """A signal has stopped a worker."""
        self._of(pid).stopped_at = now

    def continued(self, pid: int) -> None:
        """The worker runs again."""
        self._of(pid).stopped_at = 0.0

    def is_stopped(self, pid: int) -> bool:
        """Whether it takes no request because it is stopped."""
        return bool(self._of(pid).stopped_at)

    def ended(self, pid: int) -> None:
        """The worker has ended."""
        self._observed.pop(pid, None)

    def left(self, pid: int, began: float, now: float) -> float:
        """Seconds until a worker is past its deadline; `began`: when its lookup did, 0 if there is none.

        A stopped worker has a deadline even without a lookup: it may have a client.
        """
        observed = self._of(pid)
        starts = [at for at in (began, observed.stopped_at) if at]
        if not starts:
            return self._limit
        left = max(min(starts), self._resumed) + self._limit - now
        if began and left < self._limit * (1 - WATCHED_FROM):
            self._observe(pid, observed, began)
        return left

    def _observe(self, pid: int, observed: _Observed, began: float) -> None:
        if observed.began != began:
            observed.began, observed.looks, observed.blocked = began, 0, 0
        state = self._state(pid)
        observed.looks += 1
        observed.blocked += state != "" and state in _BLOCKED

    def killed(self, pid: int, resource: bytes, now: float) -> bool:
        """A worker is killed; whether it hung at `resource`."""
        observed = self._of(pid)
        observed.killed_at = now
        if observed.stopped_at or not resource:
            return False
        if observed.looks >= LOOKS and observed.blocked == observed.looks:
            return True
        return self._is_second(resource, now)

    def _is_second(self, resource: bytes, now: float) -> bool:
        self._suspects = {known: at for known, at in self._suspects.items() if at > now - REPEAT}
        again = resource in self._suspects
        self._suspects[resource] = now
        return again

    def undead(self, pid: int, now: float) -> bool:
        """Whether a worker does not end although it was killed, so that it hangs in the kernel."""
        killed_at = self._of(pid).killed_at
        return bool(killed_at) and now - max(killed_at, self._resumed) > UNDEAD

    def _of(self, pid: int) -> _Observed:
        observed = self._observed.get(pid)
        if observed is None:
            observed = self._observed[pid] = _Observed()
        return observed
