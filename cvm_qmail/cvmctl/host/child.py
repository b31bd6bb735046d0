"""Reads a host in a child; where that hangs, it starts again and skips that path.

    home on a dead server     the child is killed after a lookup's deadline without progress; from then
                              on the home, and all below it, is `Unavailable` at once
    a second on its mount     likewise all that is mounted there, unless qmail itself is

Progress is a new path, or processor time used.

Invariants: the result is that of one pass from beginning to end.  If nothing can be skipped, or too much would have
to be, it fails as a whole.

Source: proc_pid_stat(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import mmap
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, text
from cvm_qmail.exits import describe_exception
from cvm_qmail.process.children import readable
from cvm_qmail.process.lifeline import die_with_parent
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import HangGuard

T = TypeVar("T")

HUNG = "hang-backoff"
"""The reason word for paths that are skipped because a pass hung there; also the server's."""

LIMIT = 16
"""The number of places that may hang."""

PROGRESS_CHECKS = 10
"""How often within a deadline it is checked for progress."""

_PAGE = 4096


def in_child(settings: Settings, look: Callable[[HangGuard], T]) -> T:
    """The result of ``look(hang_guard)`` in a child.  Raises what it raises, and `Failure` if it hangs too often."""
    hung = Hung(settings.qmail_root)
    while True:
        cell = _ProgressCell(hung, settings.lookup_timeout)
        data, ended = _attempt(settings, look, cell)
        if ended:
            outcome: T = _outcome(data)
            return outcome
        place = cell.place
        if not place or len(hung.places) >= LIMIT or not hung.add(place):
            where = text(place) or "the host's own files"
            raise Failure(f"{where}: no answer within {settings.lookup_timeout:g} seconds", TEMPORARY)


class Hung:
    """Paths that are skipped."""

    def __init__(self, needed: bytes, mounts: Iterable[bytes] | None = None) -> None:
        """`needed` is a directory that cannot be skipped."""
        self.places: list[bytes] = []
        self._needed = needed
        self._mounts = None if mounts is None else list(mounts)
        self._of_mounts: set[bytes] = set()

    def add(self, place: bytes) -> bool:
        """A pass hung at `place`; returns False if it was to be skipped already."""
        if place in self:
            return False
        mount = mount_of(place, mounted() if self._mounts is None else self._mounts)
        again = mount in self._of_mounts and not below(self._needed, mount)
        self._of_mounts.add(mount)
        self.places.append(mount if again else place)
        return True

    def __contains__(self, place: bytes) -> bool:
        return any(below(place, known) for known in self.places)


def below(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory`, or in it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def mounted() -> list[bytes]:
    """Where file systems are mounted; none if that cannot be read."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    fields = [line.split(b" ") for line in lines]
    return [re.sub(rb"\\([0-7]{3})", lambda odd: bytes([int(odd[1], 8)]), words[4]) for words in fields if words[5:]]


def mount_of(place: bytes, mounts: Iterable[bytes]) -> bytes:
    """The innermost of `mounts` that `place` is below, by its name."""
    return max((mount for mount in mounts if below(place, mount)), key=len, default=b"/")


class _ProgressCell:
    """Shared memory with the path that the child is reading, and how often that has changed.  A `HangGuard`."""

    def __init__(self, hung: Hung, seconds: float) -> None:
        self._hung = hung
        self._seconds = seconds
        self._memory = memoryview(mmap.mmap(-1, _PAGE))
        self._moves = self._memory[:8].cast("Q")
        self._length = self._memory[8:16].cast("Q")

    def mark(self, resource: bytes) -> None:
        """From now on this resource is in use.  Raises `Unavailable` where a pass hung."""
        if resource in self._hung:
            raise Unavailable(HUNG, f"gave no answer within {self._seconds:g} seconds", resource)
        size = min(len(resource), _PAGE - 16)
        self._memory[16 : 16 + size] = resource[:size]
        self._length[0] = size
        self._moves[0] += 1

    @property
    def place(self) -> bytes:
        """The path that the child is reading; empty: unknown."""
        return bytes(self._memory[16 : 16 + self._length[0]])

    @property
    def moves(self) -> int:
        """How many paths it has read."""
        return self._moves[0]


def _attempt(settings: Settings, look: Callable[[HangGuard], T], cell: _ProgressCell) -> tuple[bytes, bool]:
    """What the child wrote, and whether it finished."""
    sys.stdout.flush()
    sys.stderr.flush()
    lifeline = os.pipe2(os.O_CLOEXEC)
    ready, result = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        os.close(lifeline[1])
        os.close(ready)
        _look(result, lifeline[0], look, cell)
    os.close(result)
    ended = False
    try:
        with open(ready, "rb", buffering=0) as pipe:
            data, ended = _read(pipe.fileno(), settings.lookup_timeout, lambda: (cell.moves, _processor_time(child)))
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)  # it may hang in the kernel for a while: do not wait for it
        for fd in lifeline:
            os.close(fd)
    if ended:
        os.waitpid(child, 0)
    return data, ended


def _look(result: int, lifeline: int, look: Callable[[HangGuard], object], cell: _ProgressCell) -> NoReturn:
    """The child: writes the result, and ends."""
    try:
        if die_with_parent(lifeline):
            try:
                outcome: tuple[str, object] = ("done", look(cell))
            except Unavailable as error:
                outcome = ("unavailable", error)
            except Failure as failure:
                outcome = ("failure", (failure.message, failure.exit_code))
            except BadSetting as bad:  # a plug-in's, which is read when the plug-in is made
                outcome = ("failure", (str(bad), PERMANENT))
            except Exception:  # noqa: BLE001  no traceback reaches a user
                outcome = ("fault", describe_exception())
            with open(result, "wb") as out:
                pickle.dump(outcome, out, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def _outcome(data: bytes) -> Any:
    """The child's result; raises what it raised."""
    if not data:
        raise Failure("the process that looked at the host was killed", TEMPORARY)
    kind, value = pickle.loads(data)  # noqa: S301  our own child's
    if kind == "unavailable":
        raise value
    if kind == "failure":
        raise Failure(*value)
    if kind == "fault":
        raise Failure(f"a bug, please report it: {value}", TEMPORARY)
    return value


def _read(fd: int, seconds: float, progress: Callable[[], object]) -> tuple[bytes, bool]:
    """Everything that arrives, and whether the end was reached before progress stopped for so long."""
    parts: list[bytes] = []
    since, last = time.monotonic(), progress()
    while True:
        if readable([fd], seconds / PROGRESS_CHECKS):
            data = os.read(fd, 1 << 20)
            if not data:
                return b"".join(parts), True
            parts.append(data)
        now, here = time.monotonic(), progress()
        if here != last or parts:
            since, last = now, here
        elif now - since >= seconds:
            return b"", False


def _processor_time(pid: int) -> bytes:
    """The processor time of the process; of a dead one it never changes."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b") ")[2].split()
    except OSError:
        return b""
    return b" ".join(fields[11:13])
