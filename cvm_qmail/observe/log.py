"""One escaped line per request, on standard output.

    + joe-foo@example.org joe dotqmail /home/joe/.qmail-foo 85us
    - nobody@example.org alias no-mailbox /var/qmail/alias 91us
    ? joe@example.org joe home /home/joe 64us Permission denied

Result, address, controlling user, reason, deciding file or table, time, and the error of a temporary
failure; ``-`` stands for nothing.  The first two fields are the C program's.

Invariants: logging never blocks an answer.  A line that does not fit into a full pipe waits in a bounded buffer; when
that is full, lines are dropped and counted, and the count is logged when there is room again.

While requests follow each other, lines are gathered and written a few at a time, since a write costs as
much as the answer to a cached request.  They are written before a lookup reads a path where it may hang, and soon
after the last response; the line of a temporary failure is written at once.
"""

import errno
import math
import os
import select
import stat
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvm_qmail.answer import Outcome, Unavailable, Verdict, new
from cvm_qmail.escape import escape, escape_text, is_odd
from cvm_qmail.service.events import Event

CUT = 300
"""Characters that are left of each field of an object that would be longer than ATOMIC."""

BACKLOG = 1 << 18
"""Bytes of lines that wait for a full pipe."""

GATHER = 16
"""Lines that are gathered before they are written."""

PAUSE = 0.001
"""Seconds without a request after which a line is written at once, since the server is not busy."""

DIFFERENCE = "!"
"""First character of a line about a difference that shadow mode found."""

CodeOf = Callable[[Outcome], int]
"""The protocol's response code for an outcome, which JSON lines show."""


class LineParts(NamedTuple):
    """A line without its microseconds: made once, and written again for a cached response."""

    before: bytes
    after: bytes


ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes whole or not at all.  No line is longer, or it would mix with other workers' lines."""

ROOM = ATOMIC - 22
"""Bytes of a line without its end and its time, which has 20 digits at the most."""


def mark_of(outcome: Outcome) -> str:
    """``+`` accepted, ``-`` rejected or out of scope, ``?`` a temporary failure."""
    if isinstance(outcome, Unavailable):
        return "?"
    return "+" if outcome.verdict is Verdict.ACCEPTED else "-"


def text_parts(event: Event, mark: str, detail: str, _code_of: CodeOf) -> LineParts:
    """The text line of `event`, before and after its microseconds."""
    (account, domain), outcome = event.query.recipient, event.outcome
    user, reason, where = outcome.user, outcome.reason.encode(), outcome.where
    address = account if domain is None else b"%s@%s" % (account, domain)
    if is_odd(b"%s%s%s%s" % (address, user, where, reason)):
        address, user, where = (escape(field).encode() for field in (address, user, where))
        reason = escape_text(outcome.reason).encode()
    before = b"%s %s %s %s %s " % (mark.encode(), address or b"-", user or b"-", reason, where or b"-")
    after = b"us " + escape_text(detail).encode() if detail else b"us"
    return new(LineParts, (before[:ROOM], after[: max(0, ROOM - len(before))]))


def json_parts(event: Event, mark: str, detail: str, code_of: CodeOf) -> LineParts:
    """The JSON object of `event`, before and after its microseconds; odd bytes in strings as `escape` writes them."""
    import json

    (account, domain), outcome = event.query.recipient, event.outcome
    fields = {
        "result": mark,
        "code": int(code_of(outcome)),
        "account": escape(account),
        "domain": None if domain is None else escape(domain),
        "user": escape(outcome.user) or None,
        "reason": escape_text(outcome.reason),
        "where": escape(outcome.where) or None,
    }
    said = escape_text(detail) or None

    def parts(fields: Mapping[str, object], said: str | None) -> LineParts:
        before = f'{json.dumps(fields)[:-1]}, "microseconds": '
        return LineParts(before.encode(), f', "detail": {json.dumps(said)}}}'.encode())

    whole = parts(fields, said)
    if sum(map(len, whole)) <= ROOM:
        return whole
    short = {name: value[:CUT] if isinstance(value, str) else value for name, value in fields.items()}
    return parts(short, said and said[:CUT])  # it must remain one object


def _line(parts: LineParts, seconds: float) -> bytes:
    return b"%s%d%s\n" % (parts[0], int(seconds * 1e6), parts[1])


class Format(NamedTuple):
    """A log format."""

    parts: Callable[[Event, str, str, CodeOf], LineParts]
    """The line of an event, with this mark and detail."""
    message: Callable[[str], str]
    """A line of the server's own."""


def _json_message(text: str) -> str:
    import json

    return json.dumps({"message": text})


FORMATS = {
    "text": Format(text_parts, str),
    "json": Format(json_parts, _json_message),
}
"""By the value of CVM_LOG."""


def as_line(event: Event, seconds: float, form: str = "text", code_of: CodeOf = lambda _: 0) -> str:
    """The line of `event`, without its end."""
    outcome = event.outcome
    return _line(FORMATS[form].parts(event, mark_of(outcome), outcome.detail, code_of), seconds)[:-1].decode()


class Log:
    """Lines to a descriptor that may be full, slow or gone.  A `Sink`."""

    def __init__(self, fd: int, form: str, clock: Callable[[], float], code_of: CodeOf) -> None:
        """`form`: a name in `FORMATS`.  `clock`: seconds, the same by which events began."""
        self._write = _writer(fd)
        self._parts, self._message = FORMATS[form]
        self._clock = clock
        self._code_of = code_of
        self._gathered: list[bytes] = []
        self._waiting = b""
        """Lines that are being written."""
        self._lost = 0
        self._due = False
        """Whether the gathered lines should be written after this response."""
        self._last = -math.inf
        """When the last line was gathered."""

    def request(self, event: Event) -> LineParts:
        """Gathers the line of a request; `settle` or `flush` writes it."""
        outcome = event.outcome
        mark = mark_of(outcome)
        parts = self._parts(event, mark, outcome.detail, self._code_of)
        self.repeat(parts, event.began)
        if mark == "?":  # an administrator may be waiting for it
            self._due = True
        return parts

    def repeat(self, token: LineParts, began: float) -> None:
        """Gathers the line of a response that is sent again; `settle` or `flush` writes it."""
        now = self._clock()
        before, after = token
        self._gathered.append(b"%s%d%s\n" % (before, int((now - began) * 1e6), after))  # `_line`, written out
        if began - self._last > PAUSE:
            self._due = True
        self._last = now

    def settle(self) -> None:
        """Writes the gathered lines, unless more are likely to follow at once."""
        if self._due or len(self._gathered) >= GATHER:
            self.flush()

    def difference(self, event: Event, detail: str, began: float) -> None:
        """Queues a line of shadow mode: what differs, and how long the other module took."""
        parts = self._parts(event, DIFFERENCE, detail, self._code_of)
        self._gathered.append(_line(parts, self._clock() - began))

    def line(self, text: str) -> None:
        """Writes a line of the server's own."""
        self.add(text)
        self.flush()

    def add(self, text: str) -> None:
        """Queues a line of the server's own; `flush` writes it."""
        self._gathered.append(self._message(text).encode()[: ATOMIC - 1] + b"\n")

    def flush(self) -> None:
        """Writes the gathered lines, as far as there is room."""
        self._due = False
        for line in self._gathered:
            if len(self._waiting) > BACKLOG:
                self._lost += 1
            else:
                self._waiting += line
        self._gathered.clear()
        while self._waiting:
            lines = self._waiting
            if len(lines) > ATOMIC:  # whole lines only: other workers write to the same pipe
                lines = lines[: lines.rindex(b"\n", 0, ATOMIC) + 1]
            try:
                written = self._write(lines)
            except BlockingIOError:
                return
            except OSError:  # the log is no longer read: the answers matter more
                self._waiting = b""
                return
            self._waiting = self._waiting[written:]
            if self._lost and not self._waiting:
                lost = self._message(f"? {self._lost} log lines were lost: nobody read them in time")
                self._waiting = lost.encode() + b"\n"
                self._lost = 0

    def finish(self, seconds: float = 1.0) -> None:
        """Writes the gathered lines; gives up after a while."""
        end = self._clock() + seconds
        self.flush()
        while self._waiting and self._clock() < end:
            time.sleep(0.01)
            self.flush()


def _writer(fd: int) -> Callable[[bytes], int]:
    """A write that never blocks, if possible without changing flags that other processes share."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        try:  # a description of our own for the same pipe or terminal
            fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # a socket, or a pipe that another user made, as where chpst -u started us
            return lambda data: _write_without_waiting(fd, data)
    return lambda data: os.write(fd, data)


def _write_without_waiting(fd: int, data: bytes) -> int:
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
    os.set_blocking(fd, False)  # before Linux 6.4: the flag is shared with other writers
    return os.write(fd, data)
