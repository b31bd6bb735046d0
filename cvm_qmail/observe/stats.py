"""A server's counters, in a file of fixed layout for other programs to map or read.

    0        "cvmstats", layout version, bytes of the head, columns, bytes of a column, cells of a column   (_HEAD)
    64       the supervisor's counters and gauges, 64 bits each (`SUPERVISOR`)
    256      JSON about the shadow process (CVM_SHADOW), with its pid; nothing while there is none
    512      JSON about the supervisor, as about a worker below
    1024     bytes of the JSON, the JSON: what runs, and the meaning of the cells (`About`)
    head     a column for each worker slot: 64-bit cells; its back ends (`observe.backends`), which end where the last
             `TEXT` bytes begin; there, JSON about the process

The cells of a column: see `FIRST`; then a cell for each latency bucket, then one for each word in `About.words`, an
outcome and a reason with a slash between.  All numbers are little-endian.  A reader of another version says so.

Invariants: a cell has one writer, and is written without a lock: a reader may see a value that is a moment old, but
not a wrong one.  Columns outlive their workers, so sums only grow while the server runs; back ends and JSON are
those of the process.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from stat import S_ISREG
from typing import Any, NamedTuple

from cvm_qmail.observe import backends
from cvm_qmail.observe.backends import Backend, BackendColumn

VERSION = 2
"""1 had no back ends."""

SUFFIX = ".stats"
"""The file's name is the socket's path with this suffix, unless CVM_STATS names another one."""

BUCKETS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of latencies, in seconds; a last bucket has the rest."""

SUPERVISOR = (
    "restarts",
    "hangs",
    "pauses",
    "refusals",
    "workers",
    "spares",
    "busy",
    "stopped",
    "quarantined",
    "seen",
)
"""Workers that were replaced, killed in a hang, killed in a pause; system calls that the sandbox refused; then
gauges: workers, spare ones among them, in a lookup, stopped, resources in quarantine; when these were written last
(seconds since 1970)."""

FIRST = ("pid", "repeats", "nanoseconds")
"""The process of the column; cached answers that were given again; the sum of the latencies."""

TEXT = 512
"""Bytes for a process's information about itself."""

_MAGIC = b"cvmstats"
_HEAD = struct.Struct("<8s5I")
_AT_SUPERVISOR = 64
_AT_SHADOW = 256
_AT_OWN = 512
_AT_ABOUT = 1024
_HEAD_BYTES = 1 << 16
_LENGTH = struct.Struct("<I")


class OtherVersion(Exception):
    """The file is not one of this version; the message is what it is."""


class About(NamedTuple):
    """What runs."""

    program: str
    version: str
    address: str
    pid: int
    started: float
    """Seconds since 1970."""
    user: str
    sandbox: str
    workers: int
    settings: Mapping[str, str]
    """Those that differ from their defaults; never the value of a secret."""
    words: Sequence[str]


class Process(NamedTuple):
    """A worker, or the shadow process."""

    pid: int
    about: Mapping[str, Any]
    """Its sandbox, for example."""
    backends: Sequence[Backend] = ()
    """What it saw of each back end."""


class Stats(NamedTuple):
    """The sums over all columns."""

    about: About
    supervisor: Mapping[str, int]
    repeats: int
    seconds: float
    """The sum of all latencies."""
    latency: Sequence[int]
    """Requests by bucket."""
    requests: Mapping[tuple[str, str], int]
    """By outcome and reason; only those that have occurred."""
    processes: Sequence[Process]
    """The workers."""
    own: Mapping[str, Any] = {}
    """What the supervisor says of itself."""
    shadow: Process | None = None
    """The process that asks another module (CVM_SHADOW); None: there is none now."""

    @property
    def total(self) -> int:
        """Requests."""
        return sum(self.latency)

    def outcomes(self) -> dict[str, int]:
        """Requests by outcome."""
        found: dict[str, int] = {}
        for (outcome, _), count in self.requests.items():
            found[outcome] = found.get(outcome, 0) + count
        return found

    @property
    def backends(self) -> list[Backend]:
        """The state of each back end, by name."""
        return backends.latest(backend for process in self.processes for backend in process.backends)

    def percentile(self, share: float) -> float:
        """The upper bound, in seconds, of the bucket that contains this share of the latencies; 0 without requests."""
        left = self.total * share
        for bound, count in zip((*BUCKETS, float("inf")), self.latency, strict=True):
            left -= count
            if left <= 0:
                return bound if self.total else 0.0
        return 0.0


def _check_replaceable(path: str) -> None:
    """Raises OSError if something else than counters is at `path`, for a wrong setting must not cost a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if not S_ISREG(os.fstat(fd).st_mode) or os.read(fd, len(_MAGIC)) not in (b"", _MAGIC):
            raise FileExistsError(errno.EEXIST, "exists, and is not a file of counters", path)
    finally:
        os.close(fd)


class StatsFile:
    """The file of a server that runs, which writes it."""

    def __init__(self, path: str, about: About, columns: int) -> None:
        """The file takes its name when it is complete.  Raises OSError; EEXIST for a name that another file has."""
        _check_replaceable(path)
        self._path = path
        cells = len(FIRST) + len(BUCKETS) + 1 + len(about.words)
        self._size = -(-(cells * 8 + backends.BYTES + TEXT) // 64) * 64
        self._words = about.words
        text = json.dumps(about._asdict()).encode()
        if _AT_ABOUT + 4 + len(text) > _HEAD_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        new = f"{path}.{os.getpid()}"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.fchmod(fd, 0o644)
            os.ftruncate(fd, _HEAD_BYTES + columns * self._size)
            self._memory = memoryview(mmap.mmap(fd, 0))
            status = os.fstat(fd)
            self._inode = status.st_dev, status.st_ino
            _HEAD.pack_into(self._memory, 0, _MAGIC, VERSION, _HEAD_BYTES, columns, self._size, cells)
            _LENGTH.pack_into(self._memory, _AT_ABOUT, len(text))
            self._memory[_AT_ABOUT + 4 : _AT_ABOUT + 4 + len(text)] = text
            os.rename(new, path)
        except OSError:
            os.unlink(new)
            raise
        finally:
            os.close(fd)
        self.cells = cells
        self.supervisor = self._memory[_AT_SUPERVISOR : _AT_SUPERVISOR + 8 * len(SUPERVISOR)].cast("Q")

    def column(self, number: int) -> memoryview:
        """The cells of a worker slot."""
        start = _HEAD_BYTES + number * self._size
        return self._memory[start : start + self.cells * 8].cast("Q")

    def backends(self, number: int) -> BackendColumn:
        """The back ends of a process that begins in a worker slot."""
        end = _HEAD_BYTES + (number + 1) * self._size - TEXT
        return BackendColumn(self._memory[end - backends.BYTES : end], self._words)

    def describe(self, number: int | None, about: Mapping[str, Any]) -> None:
        """What the process of a worker slot says of itself; None: the supervisor."""
        self._write(_AT_OWN if number is None else _HEAD_BYTES + (number + 1) * self._size - TEXT, TEXT, about)

    def describe_shadow(self, about: Mapping[str, Any]) -> None:
        """What the shadow process says of itself, with its pid; empty: it has ended."""
        self._write(_AT_SHADOW, _AT_OWN - _AT_SHADOW, about)

    def _write(self, start: int, room: int, about: Mapping[str, Any]) -> None:
        text = json.dumps(about).encode()[: room - 4] if about else b""
        _LENGTH.pack_into(self._memory, start, 0)  # the length last: no reader sees half of a text
        self._memory[start + 4 : start + 4 + len(text)] = text
        _LENGTH.pack_into(self._memory, start, len(text))

    def remove(self) -> None:
        """Removes the file, if it is still this server's."""
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self._path)
        except OSError:
            pass


def read(path: str) -> Stats:
    """The counters in the file now.  Raises OSError; `OtherVersion`."""
    with open(path, "rb") as file:
        data = file.read(1 << 26)
    if len(data) < _HEAD_BYTES or data[:8] != _MAGIC:
        raise OtherVersion(f"{path}: not a file of counters")
    _, version, head, columns, size, cells = _HEAD.unpack_from(data)
    if version != VERSION:
        raise OtherVersion(f"{path}: counters of layout {version}, expected {VERSION}: use the cvmctl of that server")
    if len(data) < head + columns * size or size < cells * 8 + backends.BYTES + TEXT:
        raise OtherVersion(f"{path}: {len(data)} bytes, expected {head + columns * size}")
    about = About(**json.loads(_text(data, _AT_ABOUT)))
    supervisor = dict(zip(SUPERVISOR, struct.unpack_from(f"<{len(SUPERVISOR)}Q", data, _AT_SUPERVISOR), strict=True))
    sums = [0] * cells
    processes: list[Process] = []
    for start in range(head, head + columns * size, size):
        values = struct.unpack_from(f"<{cells}Q", data, start)
        sums = list(map(int.__add__, sums, values))
        if values[0]:
            text = start + size - TEXT
            known = backends.backends_in(data, text - backends.BYTES, about.words)
            processes.append(Process(values[0], json.loads(_text(data, text) or "{}"), known))
    latency = sums[len(FIRST) : len(FIRST) + len(BUCKETS) + 1]
    counts = zip(about.words, sums[len(FIRST) + len(BUCKETS) + 1 :], strict=True)
    requests = {_pair(word): count for word, count in counts if count}
    own = json.loads(_text(data, _AT_OWN) or "{}")
    other = json.loads(_text(data, _AT_SHADOW) or "{}")
    shadow = Process(other.pop("pid"), other) if other else None
    return Stats(about, supervisor, sums[1], sums[2] / 1e9, latency, requests, processes, own, shadow)


def _pair(word: str) -> tuple[str, str]:
    outcome, _, reason = word.rpartition("/")
    return outcome, reason


def _text(data: bytes, at: int) -> str:
    (length,) = _LENGTH.unpack_from(data, at)
    return data[at + 4 : at + 4 + min(length, _HEAD_BYTES)].decode()
