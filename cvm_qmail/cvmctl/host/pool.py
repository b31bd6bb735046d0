"""Many lookups on all cores; one that hangs costs its deadline, and no more.

A question is an address, an answer a `Result`.  The questions go in parcels to forked processes, each with its own
tables and the rights of a server's worker; the answers come back in the order of the questions.  A worker whose
lookup is past CVM_LOOKUP_TIMEOUT is killed, as the server does it (`cvm_qmail.server.supervisor`): its question gets no
answer, the rest of its parcel goes to others, and the path where it hung is skipped for ten seconds.

Invariants: memory is bounded for any number of questions; the parent makes no lookup itself.
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

from cvm_qmail.answer import Answer, Recipient, Unavailable
from cvm_qmail.cvmctl.host.verdicts import FAILED
from cvm_qmail.cvmctl.ui.arguments import recipient_of
from cvm_qmail.exits import describe_exception
from cvm_qmail.process.lifeline import die_with_parent
from cvm_qmail.process.shared_memory import Slots
from cvm_qmail.settings import Settings
from cvm_qmail.tables import rights
from cvm_qmail.tables.door import HangGuard

PARCEL = 200
"""The number of questions that a worker gets at a time."""

AHEAD = 16
"""The number of parcels for each worker that may be out while an earlier one is awaited."""

GRACE = 0.05
"""Seconds of grace for a worker past the deadline: all processes may have been stopped for a while."""

ROOM = 1 << 20
"""Bytes for the answers of one task; the longest answer is a few times `check.mailbox.LINE_LIMIT`."""

PATIENCE = 1.0
"""Seconds for which killed workers are waited for at the end."""

_HEAD = Struct("<Q")


class Result(NamedTuple):
    """The verdict on an address."""

    asked: bytes
    address: bytes
    """The address that was looked up for it, usually the same."""
    mark: str
    """The value of a `Verdict`, or FAILED."""
    reason: str
    user: bytes = b""
    where: bytes = b""
    detail: str = ""


class Service(Protocol):
    """Makes the function that answers a question, once per worker, after the fork."""

    def __call__(self, settings: Settings, hang_guard: HangGuard) -> Callable[[bytes], Result]:
        """The function that answers; it raises only unexpected exceptions."""
        ...


def look_up_one(asked: bytes, address: bytes, lookup: Callable[[Recipient], Answer]) -> Result:
    """The result of `lookup` for `address`."""
    try:
        answer = lookup(recipient_of(address))
    except Unavailable as error:
        return Result(asked, address, FAILED, error.reason, error.user, error.where, error.detail)
    return Result(asked, address, answer.verdict.value, answer.reason, answer.user, answer.where)


class _Batch:
    """Questions that were taken together, and their answers."""

    def __init__(self, questions: list[bytes]) -> None:
        self.questions = questions
        self.answers: list[Result | None] = [None] * len(questions)
        self.missing = len(questions)

    def put(self, at: int, answer: Result) -> None:
        self.answers[at] = answer
        self.missing -= 1


class _Task(NamedTuple):
    """A part of a batch."""

    batch: _Batch
    begin: int
    end: int


class _AnswerBuffer:
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
        """When a lookup past the deadline began, and when that was noticed."""


class Pool:
    """Processes that answer questions.  Use it as a context manager, which ends them."""

    def __init__(self, settings: Settings, service: Service, count: int | None = None) -> None:
        self._settings = settings
        self._service = service
        self._count = count or settings.workers
        self._slots = Slots(self._count, time.monotonic)
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        """A pipe to which nothing is ever written; only this process has its writing end."""
        self._buffers = [_AnswerBuffer() for _ in range(self._count)]
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

    def ask(self, questions: Iterable[bytes]) -> Iterator[Result]:
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
                    break  # every worker has work: first collect what has come back
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
            self._buffers[worker.number].clear()
            try:
                worker.connection.send_bytes(marshal.dumps(task.batch.questions[task.begin : task.end]))
            except OSError:  # it has died, which is noticed when its answer is read
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
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
            os.close(self._lifeline[1])
            if not die_with_parent(self._lifeline[0]):
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
                except Exception:  # noqa: BLE001 as in the responder: never a guess, never a dead worker
                    return marshal.dumps((question, question, FAILED, "internal-error", b"", b"", describe_exception()))

            guarded = slot.guard(packed)
            buffer = self._buffers[number]
            while True:
                questions = marshal.loads(connection.recv_bytes())  # noqa: S302  our parent's
                buffer.clear()
                for question in questions:
                    if not buffer.put(guarded(question)):
                        break  # the rest of the task is distributed again
                connection.send_bytes(b"")
        except (EOFError, OSError):
            pass  # the parent has gone
        finally:
            os._exit(0)

    def _collect(self) -> None:
        """Waits for an answer, or until a worker is past the deadline."""
        busy = [connection for connection, worker in self._workers.items() if worker.task is not None]
        if not busy:
            return
        for ready in wait(busy, self._soonest()):
            if isinstance(ready, Connection):
                self._receive(self._workers[ready])
        self._enforce()
        self._reap()

    def _receive(self, worker: _Worker) -> None:
        """The worker has finished its task, or is dead."""
        try:
            worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._fail(worker, "died", "the lookup killed its process")
            return
        rest = self._take(worker)
        if rest is not None:
            self._waiting.appendleft(rest)

    def _take(self, worker: _Worker) -> _Task | None:
        """Collects the answers of the worker; returns the rest of its task."""
        if worker.task is None:
            return None
        batch, at, end = worker.task
        worker.task = None
        for answer in self._buffers[worker.number].take():
            batch.put(at, Result(*marshal.loads(answer)))  # noqa: S302  our own child's
            at += 1
        return _Task(batch, at, end) if at < end else None

    def _soonest(self) -> float:
        """Seconds until a worker could be past the deadline."""
        began = [self._slots[worker.number].began for worker in self._workers.values() if worker.task is not None]
        limit = self._settings.lookup_timeout
        return max(GRACE, min((at + limit - time.monotonic() for at in began if at), default=limit))

    def _enforce(self) -> None:
        """Ends workers past the deadline."""
        now = time.monotonic()
        limit = self._settings.lookup_timeout
        for worker in list(self._workers.values()):
            slot = self._slots[worker.number]
            began = slot.began  # only once, since the worker continues
            if worker.task is None or not began or now - began < limit:
                continue
            if worker.overdue[0] != began:
                worker.overdue = (began, now)
            elif now - worker.overdue[1] >= GRACE:
                if slot.resource:
                    self._slots.quarantine(slot.resource)
                self._fail(worker, "deadline", f"the lookup took {limit:g} seconds", slot.resource)

    def _fail(self, worker: _Worker, reason: str, detail: str, where: bytes = b"") -> None:
        """The current question gets no answer; those after it are distributed again."""
        task = self._take(worker)
        if task is not None:
            batch, at, end = task
            question = batch.questions[at]
            batch.put(at, Result(question, question, FAILED, reason, b"", where, detail))
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
