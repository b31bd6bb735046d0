"""Sockets that are served without a turn of asyncio's loop for each event.

A turn of asyncio's loop costs as much as the rest of a question.  So the stream clients and the connections to the
module have an epoll of their own, which asyncio's loop watches as a single descriptor.  When it becomes ready, events
are served one after the other; after the last one it waits a moment for the next.

Invariants: asyncio's loop gets its next turn at the latest after `TURN` seconds plus `PATIENCE`, and at once after
`give_way`.  A callback must expect an event that is out of date: its descriptor may have been closed, and opened
again for another purpose, by another callback of the same batch.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TURN = 0.002
"""Seconds that are served before asyncio's loop has its turn."""

PATIENCE = 0.001
"""Seconds to wait for the next event; the kernel counts in milliseconds."""

BATCH = 64
"""Events that are fetched together."""

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT

Ready = Callable[[], object]
"""Called when a descriptor can be read or written, or has an error; the callback finds out which."""


class Turns:
    """Descriptors with their callbacks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._way_given = False
        self.elsewhere = 0
        """Activities in asyncio's own loop; while there are any, this loop does not wait."""

    def start(self) -> None:
        """Serves from now on, in the running loop."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._turn)

    def watch(self, fd: int, ready: Ready) -> None:
        """Calls `ready` whenever the descriptor can be read."""
        self._ready[fd] = ready
        self._epoll.register(fd, READABLE)

    def change(self, fd: int, events: int) -> None:
        """Calls `ready` for these events from now on; 0: for errors only."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stops calling; to be used before the descriptor is closed."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def give_way(self) -> None:
        """Gives asyncio's loop its turn as soon as the current events are served, because something is ready there."""
        self._way_given = True

    async def value(self, ask: Callable[[Callable[[T], None]], object]) -> T:
        """The value that `ask` passes to its callback, at once or later: for coroutines."""
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(value: T) -> None:
            if not waiting.done():  # else nobody waits any more
                waiting.set_result(value)
                self.give_way()

        ask(done)
        return await waiting

    def serve(self) -> None:
        """Serves ready descriptors, and those that become ready meanwhile."""
        while self._serve(0):
            pass

    def _turn(self) -> None:
        self._way_given = False
        end = time.monotonic() + TURN
        wait = 0.0
        while self._serve(wait) and not self._way_given and time.monotonic() < end:
            wait = 0.0 if self.elsewhere else PATIENCE

    def _serve(self, wait: float) -> bool:
        """Serves one batch; returns whether there was one."""
        events = self._epoll.poll(wait, BATCH)
        for fd, _ in events:
            ready = self._ready.get(fd)
            if ready is not None:
                ready()
        return bool(events)
