"""qmail-send's log: messages, and deliveries with their outcome.

    new msg 7                                          7 is an inode: reused as soon as the message has ended
    info msg 7: bytes 251 from <ann@remote.test> qp 4260 uid 5091
    starting delivery 3: msg 7 to local joe-foo@example.org
    status: local 1/10 remote 0/20
    delivery 3: failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/
    bounce msg 7 qp 4270
    end msg 7

Deliveries are numbered from 1 in the life of one qmail-send.  So a number that is not higher than the
last one, or a status of zeros while deliveries are running, means that another qmail-send began, or that lines are
missing: the running deliveries have no end in this log.  Messages in the queue outlive it.

Invariants: memory is bounded by the size of the queue; lines that are not understood are counted, and some are kept
as examples.

Source: qmail-log(5), qmail-send.c; the address after ``to`` is the rewritten one (see `host.rewriting`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from cvm_qmail.cvmctl.audit.bounces import bounce_of
from cvm_qmail.cvmctl.host.timestamps import Line
from cvm_qmail.reasons import Rejection

SHOWN = 5
"""The number of lines that were not understood, to show as examples."""

_UNDER_WAY = 1 << 17
"""The number of deliveries that can run at a time; a real qmail-send has some hundreds."""

_QUEUED = 1 << 20
"""The number of messages that are remembered."""

_RECIPIENTS = 1 << 12
"""The number of failed recipients that are kept for one message."""


class Outcome(Enum):
    """The outcome of a delivery."""

    SUCCESS = "success"
    FAILURE = "failure"
    DEFERRAL = "deferral"
    UNFINISHED = "unfinished"


class Delivery(NamedTuple):
    """One attempt, when it has ended (or has no end in this log)."""

    run: int
    """The number of the qmail-send process that made the delivery, from 0."""
    number: int
    message: int
    local: bool
    recipient: bytes
    """As logged: rewritten, and unusual bytes replaced by ``_``."""
    size: int | None
    """Bytes of the message; None: it came before this log."""
    outcome: Outcome
    text: bytes
    began: int | None
    ended: int | None

    @property
    def bounce(self) -> Rejection | None:
        """What a failed local delivery reports about the mailbox; None if nothing."""
        return bounce_of(self.text) if self.local and self.outcome is Outcome.FAILURE else None


class Message(NamedTuple):
    """A message that has ended."""

    number: int
    size: int | None
    sender: bytes
    qp: int
    uid: int
    bounce_qp: int | None
    """The number of its bounce, if there was one."""
    ended: bool
    """Whether qmail-send has finished it."""
    failed: tuple[bytes, ...]
    """If all recipients were local and failed: these; otherwise, or if there are too many, empty."""
    when: int | None


Event = Delivery | Message


class _Start(NamedTuple):
    message: int
    local: bool
    recipient: bytes
    when: int | None


class _Queued:
    """A message in the queue."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.sender = b""
        self.qp = self.uid = 0
        self.bounce_qp: int | None = None
        self.failed: list[bytes] = []
        self.others = False
        """Whether there was a recipient that did not fail, or a remote one."""

    def ended(self, number: int, when: int | None, *, ended: bool) -> Message:
        failed = () if self.others or self.size is None else tuple(self.failed)
        return Message(number, self.size, self.sender, self.qp, self.uid, self.bounce_qp, ended, failed, when)


_STATUS = re.compile(rb"status: (?:exiting|local (\d+)/\d+ remote (\d+)/\d+(?: exitasap)?)")
_NEW = re.compile(rb"new msg (\d{1,20})")
_INFO = re.compile(rb"info msg (\d{1,20}): bytes (\d{1,15}) from <(.*)> qp (\d{1,20}) uid (\d{1,20})", re.DOTALL)
_STARTING = re.compile(rb"starting delivery (\d{1,20}): msg (\d{1,20}) to (local|remote) (.*)", re.DOTALL)
_DELIVERY = re.compile(
    rb"delivery (\d{1,20}): (?:(success|failure|deferral): (.*)|report mangled, will defer)", re.DOTALL
)
_BOUNCE = re.compile(rb"bounce msg (\d{1,20}) qp (\d{1,20})")
_DISCARDED = re.compile(rb"(?:double|triple) bounce: discarding .*", re.DOTALL)
_END = re.compile(rb"end msg (\d{1,20})")
_WARNING = re.compile(rb"(?:alert|warning): .*", re.DOTALL)


class SendLog:
    """The state of one log while it is read."""

    def __init__(self) -> None:
        self.warnings = 0
        """Lines with an alert or a warning."""
        self.began_before = 0
        """The number of deliveries that ended in this log but began before it, to unknown addresses."""
        self.not_understood = 0
        self.examples: list[bytes] = []
        """Examples of lines that were not understood."""
        self._run = -1
        self._last = 0
        self._under_way: dict[int, _Start] = {}
        self._queue: dict[int, _Queued] = {}
        self._words: dict[bytes, tuple[re.Pattern[bytes], Callable[[re.Match[bytes], int | None], Iterable[Event]]]] = {
            b"status:": (_STATUS, self._status),
            b"new": (_NEW, self._new),
            b"info": (_INFO, self._info),
            b"starting": (_STARTING, self._starting),
            b"delivery": (_DELIVERY, self._delivery),
            b"bounce": (_BOUNCE, self._bounce),
            b"double": (_DISCARDED, self._nothing),
            b"triple": (_DISCARDED, self._nothing),
            b"end": (_END, self._end),
            b"alert:": (_WARNING, self._warning),
            b"warning:": (_WARNING, self._warning),
        }

    def follow(self, lines: Iterable[Line]) -> Iterator[Event]:
        """Deliveries and messages in the order in which they end; those without an end come last."""
        for when, text, _ in lines:
            known = self._words.get(text[: text.find(b" ")])
            match = known[0].fullmatch(text) if known else None
            if known is None or match is None:
                self.not_understood += 1
                if len(self.examples) < SHOWN:
                    self.examples.append(text)
                continue
            yield from known[1](match, when)
        yield from self._abandon()
        for number, message in self._queue.items():
            yield message.ended(number, None, ended=False)

    def _status(self, match: re.Match[bytes], _: int | None) -> Iterable[Event]:
        if self._under_way and match[1] == b"0" == match[2]:
            return self._abandon()
        return ()

    def _abandon(self) -> list[Event]:
        """Ends the running deliveries, which have no end in this log."""
        abandoned: list[Event] = [
            self._ended(number, start, Outcome.UNFINISHED, b"", None) for number, start in self._under_way.items()
        ]
        self._under_way.clear()
        return abandoned

    def _ended(self, number: int, start: _Start, outcome: Outcome, text: bytes, when: int | None) -> Delivery:
        queued = self._queue.get(start.message)
        size = None if queued is None else queued.size
        run = self._run
        return Delivery(run, number, start.message, start.local, start.recipient, size, outcome, text, start.when, when)

    def _new(self, match: re.Match[bytes], when: int | None) -> Iterable[Event]:
        number = int(match[1])
        before = self._queue.pop(number, None)
        if len(self._queue) >= _QUEUED:
            oldest = next(iter(self._queue))
            yield self._queue.pop(oldest).ended(oldest, None, ended=False)
        self._queue[number] = _Queued()
        if before is not None:
            yield before.ended(number, when, ended=False)

    def _info(self, match: re.Match[bytes], _: int | None) -> Iterable[Event]:
        queued = self._queue.setdefault(int(match[1]), _Queued())
        queued.size, queued.sender, queued.qp, queued.uid = int(match[2]), match[3], int(match[4]), int(match[5])
        return ()

    def _starting(self, match: re.Match[bytes], when: int | None) -> Iterable[Event]:
        number = int(match[1])
        if number <= self._last or self._run < 0:
            yield from self._abandon()
            self._run += 1
        self._last = number
        if len(self._under_way) >= _UNDER_WAY:
            oldest = next(iter(self._under_way))
            yield self._ended(oldest, self._under_way.pop(oldest), Outcome.UNFINISHED, b"", None)
        self._under_way[number] = _Start(int(match[2]), match[3] == b"local", match[4], when)

    def _delivery(self, match: re.Match[bytes], when: int | None) -> Iterable[Event]:
        number = int(match[1])
        start = self._under_way.pop(number, None)
        if start is None:
            self.began_before += 1
            return
        outcome = Outcome((match[2] or b"deferral").decode())
        delivery = self._ended(number, start, outcome, match[3] or b"", when)
        queued = self._queue.get(start.message)
        if queued is not None and outcome is not Outcome.DEFERRAL:  # it is tried again, and counted then
            if start.local and outcome is Outcome.FAILURE and len(queued.failed) < _RECIPIENTS:
                queued.failed.append(start.recipient)
            else:
                queued.others = True
        yield delivery

    def _bounce(self, match: re.Match[bytes], _: int | None) -> Iterable[Event]:
        if queued := self._queue.get(int(match[1])):
            queued.bounce_qp = int(match[2])
        return ()

    def _end(self, match: re.Match[bytes], when: int | None) -> Iterable[Event]:
        number = int(match[1])
        queued = self._queue.pop(number, None)
        return () if queued is None else (queued.ended(number, when, ended=True),)

    def _warning(self, _match: re.Match[bytes], _when: int | None) -> Iterable[Event]:
        self.warnings += 1
        return ()

    def _nothing(self, _match: re.Match[bytes], _when: int | None) -> Iterable[Event]:
        return ()
