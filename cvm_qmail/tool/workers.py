"""Many questions, put to the look-ups on all cores; one that hangs costs its deadline, and no more.

A question is an address, an answer a `Told`.  The questions go out in
parcels to processes that were forked for it, each with tables of its own and the rights that a server's
worker has; the answers come back in the order of the questions.  A worker whose look-up is past
CVM_LOOKUP_TIMEOUT is killed, as the server does it (`cvm_qmail.serve`): its question could not be told,
the rest of its parcel goes to others, and where it hung nobody looks again for ten seconds.

Law: memory is bounded, however many the questions are; the parent asks no look-up itself.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, Pipe, wait
from struct import Struct
from typing import NamedTuple, NoReturn, Protocol, Self

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.log import unforeseen
from cvm_qmail.serve import die_with
from cvm_qmail.settings import Settings
from cvm_qmail.slots import Slots
from cvm_qmail.tables import Hazards, rights
from cvm_qmail.tool.given import recipient_of

PARCEL = 200
"""Questions that a worker is given at a time."""

AHEAD = 16
"""Parcels for each worker that may be under way while an earlier one is waited for."""

MOMENT = 0.05
"""Seconds that a worker is given when it is seen past the deadline: all of us may have been stopped for a while."""

ROOM = 1 << 20
"""Bytes for the answers of one task; the longest answer is some times LINE_LIMIT of `mailbox`."""

PATIENCE = 1.0
"""Seconds for which killed workers are waited for at the end."""

CANNOT_TELL = "?"

WORDS = {
    Verdict.ACCEPT.value: "accepted",
    Verdict.REJECT.value: "rejected",
    Verdict.PASS.value: "not ours to judge",
    CANNOT_TELL: "cannot be told now",
}
"""For people, what `Told.mark` means."""

NAMES = {
    Verdict.ACCEPT.value: "accept",
    Verdict.REJECT.value: "reject",
    Verdict.PASS.value: "pass",
    CANNOT_TELL: "unavailable",
}
"""For programs, the same, as `cvmctl trace --json` says it."""


_HEAD = Struct("<Q")


class Told(NamedTuple):
    """What was said of an address."""

    asked: bytes
    address: bytes
    """The address that was looked up for it, mostly the same."""
    mark: str
    """The value of a `Verdict`, or CANNOT_TELL."""
    reason: str
    user: bytes = b""
    where: bytes = b""
    detail: str = ""


class Service(Protocol):
    """Made once per worker, after the fork: what answers a question."""

    def __call__(self, settings: Settings, hazards: Hazards) -> Callable[[bytes], Told]:
        """The function that answers; it raises nothing but what nobody foresaw."""
        ...


def told(asked: bytes, address: bytes, lookup: Callable[[Recipient], Answer]) -> Told:
    """What `lookup` says of `address`."""
    try:
        verdict, reason, user, where, _ = lookup(recipient_of(address))
    except Unavailable as trouble:
        return Told(asked, address, CANNOT_TELL, trouble.reason, trouble.user, trouble.where, trouble.detail)
    return Told(asked, address, verdict.value, reason, user, where)


class _Batch:
    """Questions that were taken together, and their answers."""

    def __init__(self, questions: list[bytes]) -> None:
        self.questions = questions
        self.answers: list[Told | None] = [None] * len(questions)
        self.missing = len(questions)

    def put(self, at: int, answer: Told) -> None:
        self.answers[at] = answer
        self.missing -= 1


class _Task(NamedTuple):
    """A part of a batch."""

    batch: _Batch
    begin: int
    end: int


class _Desk:
    """Shared memory where a worker leaves the answers of its task, so that they outlive it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ROOM)
        self._end = _HEAD.size

    def clear(self) -> None:
        """A task begins."""
        _HEAD.pack_into(self._memory, 0, 0)
        self._end = _HEAD.size

    def put(self, answer: bytes) -> bool:
        """Leaves an answer; False if there is no room."""
        begin = self._end + _HEAD.size
        if begin + len(answer) > ROOM:
            return False
        _HEAD.pack_into(self._memory, self._end, len(answer))
        self._memory[begin : begin + len(answer)] = answer
        self._end = begin + len(answer)
        _HEAD.pack_into(self._memory, 0, _HEAD.unpack_from(self._memory)[0] + 1)  # now it is there
        return True

    def take(self) -> list[bytes]:
        """All answers since `clear`."""
        answers, at = [], _HEAD.size
        for _ in range(_HEAD.unpack_from(self._memory)[0]):
            (length,) = _HEAD.unpack_from(self._memory, at)
            at += _HEAD.size
            answers.append(self._memory[at : at + length])
            at += length
        return answers


class _Worker:
    def __init__(self, pid: int, number: int, connection: Connection) -> None:
        self.pid = pid
        self.number = number
        self.connection = connection
        self.task: _Task | None = None
        self.overdue = (0.0, 0.0)
        """When a look-up began that is past the deadline, and when this was seen."""


class Workers:
    """Processes that answer questions.  Use it as a context: at its end they are gone."""

    def __init__(self, settings: Settings, service: Service, count: int | None = None) -> None:
        self._settings = settings
        self._service = service
        self._count = count or settings.workers
        self._slots = Slots(self._count, time.monotonic)
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        """Nothing is ever written there; its writing end is this process's alone."""
        self._desks = [_Desk() for _ in range(self._count)]
        self._workers: dict[Connection, _Worker] = {}
        self._killed: set[int] = set()
        self._waiting: deque[_Task] = deque()

    def __enter__(self) -> Self:
        sys.stdout.flush()
        sys.stderr.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._workers.values()):
            self._end(worker)
        end = time.monotonic() + PATIENCE
        while self._killed and time.monotonic() < end:  # one that hangs in the kernel outlives this
            self._reap()
            time.sleep(0.001)
        for fd in self._lifeline:
            os.close(fd)

    def ask(self, questions: Iterable[bytes]) -> Iterator[Told]:
        """The answers in the order of the questions."""
        source = iter(questions)
        batches: deque[_Batch] = deque()
        more = True
        while more or batches:
            while more and len(batches) < self._count * AHEAD:
                batch = _Batch(list(islice(source, PARCEL)))
                more = bool(batch.questions)
                if more:
                    batches.append(batch)
                    self._waiting.append(_Task(batch, 0, len(batch.questions)))
                if len(self._waiting) >= self._count:
                    break  # there is work for everybody: see first what has come back
            self._hand_out()
            self._collect()
            while batches and not batches[0].missing:
                yield from (answer for answer in batches.popleft().answers if answer is not None)

    # -- workers ----------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers.values() if worker.task is None]
        while self._waiting:
            if idle:
                worker = idle.pop()
            elif len(self._workers) < self._count:
                worker = self._fork()
            else:
                return
            task = self._waiting.popleft()
            worker.task = task
            self._desks[worker.number].clear()
            try:
                worker.connection.send_bytes(marshal.dumps(task.batch.questions[task.begin : task.end]))
            except OSError:  # it has died: that is found when its answer is read
                pass

    def _fork(self) -> _Worker:
        taken = {worker.number for worker in self._workers.values()}
        number = next(number for number in range(self._count) if number not in taken)
        self._slots[number].clear()
        ours, theirs = Pipe()
        pid = os.fork()
        if not pid:
            ours.close()
            for connection in self._workers:
                connection.close()
            self._work(number, theirs)
        theirs.close()
        worker = self._workers[ours] = _Worker(pid, number, ours)
        return worker

    def _work(self, number: int, connection: Connection) -> NoReturn:
        """The life of a worker."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
            os.close(self._lifeline[1])
            if not die_with(self._lifeline[0]):
                raise EOFError
            gc.freeze()
            rights.drop_groups()
            if not os.geteuid():
                rights.keep_only_needed_capabilities()
            slot = self._slots[number]
            answer = self._service(self._settings, slot)

            def packed(question: bytes) -> bytes:
                try:
                    return marshal.dumps(tuple(answer(question)))
                except Exception:  # noqa: BLE001  the same law as the responder's: never a guess, never a dead worker
                    return marshal.dumps((question, question, CANNOT_TELL, "unforeseen", b"", b"", unforeseen()))

            guarded = slot.guard(packed)
            desk = self._desks[number]
            while True:
                questions = marshal.loads(connection.recv_bytes())  # noqa: S302  our parent's
                desk.clear()
                for question in questions:
                    if not desk.put(guarded(question)):
                        break  # the rest of the task is given out again
                connection.send_bytes(b"")
        except (EOFError, OSError):
            pass  # the parent has gone
        finally:
            os._exit(0)

    def _collect(self) -> None:
        """Waits for an answer, or until somebody is past the deadline."""
        busy = [connection for connection, worker in self._workers.items() if worker.task is not None]
        if not busy:
            return
        for ready in wait(busy, self._soonest()):
            if isinstance(ready, Connection):
                self._receive(self._workers[ready])
        self._enforce()
        self._reap()

    def _receive(self, worker: _Worker) -> None:
        """The worker is done with its task, or dead."""
        try:
            worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._fail(worker, "died", "the look-up killed its process")
            return
        rest = self._take(worker)
        if rest is not None:
            self._waiting.appendleft(rest)

    def _take(self, worker: _Worker) -> _Task | None:
        """Takes the answers that the worker has left; what is left of its task."""
        if worker.task is None:
            return None
        batch, at, end = worker.task
        worker.task = None
        for answer in self._desks[worker.number].take():
            batch.put(at, Told(*marshal.loads(answer)))  # noqa: S302  our own child's
            at += 1
        return _Task(batch, at, end) if at < end else None

    def _soonest(self) -> float:
        """Seconds until a worker could be past the deadline."""
        began = [self._slots[worker.number].began for worker in self._workers.values() if worker.task is not None]
        limit = self._settings.lookup_timeout
        return max(MOMENT, min((at + limit - time.monotonic() for at in began if at), default=limit))

    def _enforce(self) -> None:
        """Ends workers past the deadline."""
        now = time.monotonic()
        limit = self._settings.lookup_timeout
        for worker in list(self._workers.values()):
            slot = self._slots[worker.number]
            began = slot.began  # once: the worker goes on meanwhile
            if worker.task is None or not began or now - began < limit:
                continue
            if worker.overdue[0] != began:
                worker.overdue = (began, now)
            elif now - worker.overdue[1] >= MOMENT:
                if slot.place:
                    self._slots.shun(slot.place)
                self._fail(worker, "deadline", f"the look-up took {limit:g} seconds", slot.place)

    def _fail(self, worker: _Worker, reason: str, detail: str, where: bytes = b"") -> None:
        """The question in hand cannot be told; those after it are given out again."""
        task = self._take(worker)
        if task is not None:
            batch, at, end = task
            question = batch.questions[at]
            batch.put(at, Told(question, question, CANNOT_TELL, reason, b"", where, detail))
            if at + 1 < end:
                self._waiting.appendleft(_Task(batch, at + 1, end))
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        del self._workers[worker.connection]
        worker.connection.close()
        os.kill(worker.pid, signal.SIGKILL)
        self._killed.add(worker.pid)

    def _reap(self) -> None:
        for pid in list(self._killed):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._killed.discard(pid)
