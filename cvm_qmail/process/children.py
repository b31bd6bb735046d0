"""Children that must not exceed a deadline.

Invariants: a child leaves by os._exit and never returns into its parent's code; a parent never waits for a child that
hangs in the kernel: it kills it and does not wait.

Source: fork(2), kill(2), poll(2).
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterable

SIGKILL = 9
"""That of the module `signal`, which costs command mode more than a fork."""


def readable(descriptors: Iterable[int], seconds: float | None) -> list[int]:
    """Waits, at most so many seconds (None: without a limit), until a descriptor can be read or is at its end.

    Returns those that can, perhaps none.  By poll(2): select(2) cannot take a descriptor of 1024 or more, and a
    server with many workers has more.
    """
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in waiting.poll(None if seconds is None else math.ceil(seconds * 1000))]


def run_with_deadline(work: Callable[[Callable[[bytes], None]], None], seconds: float) -> tuple[bytes, bool]:
    """Runs ``work(write)`` in a child.

    Returns everything that it wrote within so many seconds, and whether it ended by then.  A child that did not
    end is killed, without waiting for it: it may hang in the kernel.  Raises OSError if it cannot fork.
    """
    ready, result = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(ready)
        os.close(result)
        raise
    if not child:
        try:
            os.close(ready)
            work(lambda data: _write_all(result, data))
        finally:
            os._exit(0)
    os.close(result)
    try:
        data, ended = _read_until(ready, time.monotonic() + seconds)
    finally:
        os.close(ready)
    if ended:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            pass  # SIGCHLD was ignored when this process started: the kernel has reaped it
    else:
        os.kill(child, SIGKILL)
    return data, ended


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read_until(fd: int, end: float) -> tuple[bytes, bool]:
    """Everything that arrives until then, and whether that was the end."""
    parts: list[bytes] = []
    while True:
        if not readable([fd], max(0.0, end - time.monotonic())):
            return b"".join(parts), False
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part)
