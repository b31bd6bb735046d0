"""The supervisor's own counters and gauges; without a file of counters its methods do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from cvm_qmail.observe.counters import Counters
from cvm_qmail.observe.stats import SUPERVISOR, StatsFile
from cvm_qmail.process import sandbox
from cvm_qmail.tables.backends import Backends, Unwatched


class Gauges:
    """See the head of this file."""

    def __init__(self, stats: StatsFile | None) -> None:
        self._stats = stats
        self._cells = {} if stats is None else {name: at for at, name in enumerate(SUPERVISOR)}

    def count(self, name: str, more: int = 1) -> None:
        """Adds one to a counter."""
        if self._stats is not None:
            self._stats.supervisor[self._cells[name]] += more

    def show(self, values: Mapping[str, int]) -> None:
        """Sets the gauges."""
        if self._stats is not None:
            for name, value in (*values.items(), ("seen", int(time.time()))):
                self._stats.supervisor[self._cells[name]] = value

    def worker(self, number: int, pid: int, clock: Callable[[], float]) -> Counters | None:
        """The sink of counters for a worker that begins in this slot."""
        if self._stats is None:
            return None
        column = self._stats.column(number)
        column[0] = pid
        self._stats.describe(number, {})  # what another worker said here
        return Counters(column, clock)

    def backends(self, number: int) -> Backends:
        """Receives the state of the back ends from a worker that begins in this slot."""
        return Unwatched() if self._stats is None else self._stats.backends(number)

    def confined(self, number: int | None) -> None:
        """A worker reports its sandbox; None: the supervisor does."""
        if self._stats is not None:
            self._stats.describe(number, {"sandbox": sandbox.report()})

    def shadow_confined(self) -> None:
        """The shadow process reports its sandbox."""
        if self._stats is not None:
            self._stats.describe_shadow({"pid": os.getpid(), "sandbox": sandbox.report()})

    def shadow_gone(self) -> None:
        """The shadow process has ended."""
        if self._stats is not None:
            self._stats.describe_shadow({})

    def gone(self, number: int) -> None:
        """The worker of a slot has ended."""
        if self._stats is not None:
            self._stats.column(number)[0] = 0

    def close(self) -> None:
        """The server ends."""
        if self._stats is not None:
            self._stats.remove()
