"""The connections of clients: how many there are, which has been silent longest, and which must be closed.

Invariants: a client that is silent or slow costs a descriptor.  It is closed when it has not sent a complete request
in time, or when there are too many and it has been silent longest.  A request that is complete is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """A client's connection."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, to a client that reads its answers."""
        ...

    def close(self) -> None:
        """Closes it after the current answer."""
        ...

    def drop(self) -> None:
        """Closes it at once."""
        ...


class Connections:
    """All connections of the process, the longest silent first."""

    def __init__(self, limit: int, idle: float, closed_for_others: Callable[[], None]) -> None:
        """`idle`: seconds for a client to send a request."""
        self._limit = limit
        self._idle = idle
        self._closed_for_others = closed_for_others
        self._since: OrderedDict[Connection, float] = OrderedDict()
        self._coming = 0
        """Clients that were accepted, and have not been `opened` yet."""
        self._stopping = False
        self.none_left = asyncio.Event()
        self.none_left.set()
        self._wanted = False
        """Whether a new client is waiting for room."""
        self.room: Callable[[], None] = lambda: None
        """Called when there may be room again, after `make_room` found none."""

    def __len__(self) -> int:
        return len(self._since)

    def accepted(self) -> None:
        """A client has connected, and will be `opened`, or else `failed`."""
        self._coming += 1

    def failed(self) -> None:
        """A client that was accepted cannot be served."""
        self._coming -= 1

    def opened(self, connection: Connection) -> None:
        """A client that was accepted can be served."""
        self._coming -= 1
        self.none_left.clear()
        self._since[connection] = time.monotonic()
        self._look_for_room()

    def answered(self, connection: Connection) -> None:
        """The client has got an answer."""
        if connection in self._since:
            self._since[connection] = time.monotonic()
            self._since.move_to_end(connection)
        if self._stopping:
            connection.close()
        if self._wanted:
            self._look_for_room()

    def lost(self, connection: Connection) -> None:
        """The connection has ended."""
        self._since.pop(connection, None)
        if not self._since:
            self.none_left.set()
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._wanted:
            self._wanted = False
            self.room()

    def make_room(self) -> bool:
        """Whether another client can be accepted; if necessary it closes the one that has been silent longest."""
        if len(self._since) + self._coming < self._limit:
            return True
        for connection in self._since:
            if not connection.busy:
                self._closed_for_others()
                self._since.pop(connection, None)
                connection.drop()
                return True
        self._wanted = True
        return False

    def close_overdue(self) -> None:
        """Closes clients that have been silent for too long."""
        end = time.monotonic() - self._idle
        overdue = []
        for connection, since in self._since.items():
            if since > end:
                break
            if not connection.busy:
                overdue.append(connection)
        for connection in overdue:
            connection.drop()

    def stop(self) -> None:
        """Closes every connection as soon as no request is being answered on it."""
        self._stopping = True
        for connection in list(self._since):
            connection.close()
