"""One escaped line per request, on standard output.

    + joe-foo@example.org joe dotqmail /home/joe/.qmail-foo 85us
    - nobody@example.org alias no-mailbox /var/qmail/alias 91us
    ? joe@example.org joe home /home/joe 64us Permission denied

Result, address, controlling user, reason, deciding file or table, time, and for a trouble what it
was; ``-`` stands for nothing.  The first two fields are the C program's.

Law: logging never blocks an answer.  A line that a full pipe does not take waits in a bounded
buffer; beyond that lines are counted, and the count is logged when there is room again.

Under load the lines of answers given again are gathered and written a few at a time, since a write
costs as much as the look-up.  They are written before any look-up that may hang, and soon after the
last answer.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time
from collections.abc import Callable

from cvm_qmail.responder import Event

CUT = 300
"""Characters that are left of each field of an object that would be longer than ATOMIC."""

BACKLOG = 1 << 18
"""Bytes of lines that wait for a full pipe."""

GATHER = 16
"""Lines that are gathered before they are written."""

PAUSE = 0.001
"""Seconds without a request after which a line is not gathered: there is no hurry."""

Around = tuple[str, str]
"""What stands in a line before and behind the microseconds."""

ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes whole or not at all.  No line is longer: it would mix with other workers' lines."""

TIME_LIMIT = 20
"""Digits that a time may have."""

_ODD = re.compile(rb"[^!-\[\]-~]")
_ODD_BUT_SPACE = re.compile(r"[^ -\[\]-~]")


def escape(text: bytes) -> str:
    """Printable ASCII without blanks; other bytes, and the backslash, as x and two digits behind a backslash."""
    if _ODD.search(text):
        text = _ODD.sub(lambda odd: b"\\x%02x" % odd[0][0], text)
    return text.decode("ascii")


def escape_text(text: str) -> str:
    """The same for text for people: blanks stay."""
    return _ODD_BUT_SPACE.sub(lambda odd: "".join(f"\\x{byte:02x}" for byte in _bytes_of(odd[0])), text)


def _bytes_of(character: str) -> bytes:
    """The bytes that a character stands for; halves of characters, which stand for none, as they are."""
    try:
        return character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("utf-8", "surrogatepass")


def as_text(event: Event, seconds: float) -> str:
    """The line of `event`, without its end."""
    return _line(text_around(event), seconds)


def as_json(event: Event, seconds: float) -> str:
    """The same as one JSON object; odd bytes in strings as `escape` writes them."""
    return _line(json_around(event), seconds)


def _line(around: Around, seconds: float) -> str:
    return f"{around[0]}{int(seconds * 1e6)}{around[1]}"


def text_around(event: Event) -> Around:
    """The line of `event` around its time."""
    mark, _, account, domain, user, reason, where, _, detail = event
    address = account if domain is None else b"%s@%s" % (account, domain)
    if _ODD.search(b"%s%s%s%s" % (address, user, where, reason.encode())):
        address, user, where = (escape(field).encode() for field in (address, user, where))
        reason = escape_text(reason)
    before = f"{mark} {address.decode() or '-'} {user.decode() or '-'} {reason} {where.decode() or '-'} "
    return before, f"us {escape_text(detail)}" if detail else "us"


def json_around(event: Event) -> Around:
    """The object of `event` around its time."""
    import json

    fields = {
        "result": event.mark,
        "code": int(event.code),
        "account": escape(event.account),
        "domain": None if event.domain is None else escape(event.domain),
        "user": escape(event.user) or None,
        "reason": escape_text(event.reason),
        "where": escape(event.where) or None,
    }
    detail = escape_text(event.detail) or None
    around = f'{json.dumps(fields)[:-1]}, "microseconds": ', f', "detail": {json.dumps(detail)}}}'
    if sum(map(len, around)) < ATOMIC - TIME_LIMIT:
        return around
    short = {name: value[:CUT] if isinstance(value, str) else value for name, value in fields.items()}
    # it has to stay one object
    return f'{json.dumps(short)[:-1]}, "microseconds": ', f', "detail": {json.dumps(detail and detail[:CUT])}}}'


FORMATS = {"text": text_around, "json": json_around}


def unforeseen() -> str:
    """The exception that is being handled: what and where, but not its message, which may quote a request."""
    import sys
    import traceback

    kind, _, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    way = " ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}:{frame.name}" for frame in frames)
    return f"{kind.__name__ if kind else 'nothing'} at {way}"


class Log:
    """Lines to a descriptor that may be full, slow or gone."""

    def __init__(self, fd: int, form: str, clock: Callable[[], float]) -> None:
        self._write = _writer(fd)
        self._around = FORMATS[form]
        self._json = form == "json"
        self._clock = clock
        self._gathered: list[tuple[Around, float]] = []
        self._waiting = b""
        self._lost = 0
        self._due = False
        """Whether what is gathered should be written after this answer."""
        self._last = 0.0

    def request(self, event: Event) -> Around:
        """Queues the line of a request; `flush` writes it.  Returns what `again` takes."""
        around = self._around(event)
        self._queue_gathered()
        self._queue(_line(around, self._clock() - event.began))
        self._due = True
        return around

    def again(self, around: Around, began: float) -> None:
        """Gathers the line of an answer that is given again; `settle` or `flush` writes it."""
        now = self._clock()
        self._gathered.append((around, now - began))
        if began - self._last > PAUSE:
            self._due = True
        self._last = now

    def settle(self) -> None:
        """An answer is out: writes what waits, unless it can be gathered with what comes next."""
        if self._due or len(self._gathered) >= GATHER:
            self.flush()

    def line(self, text: str) -> None:
        """Writes a line of the server's own."""
        self._queue_gathered()
        self._queue(self._own(text))
        self.flush()

    def _queue_gathered(self) -> None:
        for around, seconds in self._gathered:
            self._queue(_line(around, seconds))
        self._gathered.clear()

    def _own(self, text: str) -> str:
        if not self._json:
            return text
        import json

        return json.dumps({"message": text})

    def _queue(self, line: str) -> None:
        if len(self._waiting) > BACKLOG:
            self._lost += 1
        else:
            self._waiting += line.encode()[: ATOMIC - 1] + b"\n"

    def flush(self) -> None:
        """Writes what waits, as far as there is room."""
        self._due = False
        self._queue_gathered()
        while self._waiting:
            lines = self._waiting
            if len(lines) > ATOMIC:  # whole lines only: other workers write to the same pipe
                lines = lines[: lines.rindex(b"\n", 0, ATOMIC) + 1]
            try:
                written = self._write(lines)
            except BlockingIOError:
                return
            except OSError:  # nobody reads the log any more: the answers matter more
                self._waiting = b""
                return
            self._waiting = self._waiting[written:]
            if self._lost and not self._waiting:
                self._queue(self._own(f"? {self._lost} log lines were lost: nobody read them in time"))
                self._lost = 0

    def finish(self, seconds: float = 1.0) -> None:
        """Writes what waits; gives up after a while."""
        end = self._clock() + seconds
        self.flush()
        while self._waiting and self._clock() < end:
            time.sleep(0.01)
            self.flush()


def _writer(fd: int) -> Callable[[bytes], int]:
    """A write that never blocks, if possible without touching the flags that others share with us."""
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
    os.set_blocking(fd, False)  # before Linux 6.4: the flag is shared with whoever else writes there
    return os.write(fd, data)
