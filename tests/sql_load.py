"""A server whose accounts are in a database, and clients that ask it all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from databases import SqlHost
from serving import Server, serving, until
from vcorpus import CVM_VPOPMAIL

from cvm_qmail.protocols.cvm import client

DEADLINE = 2.0
"""Seconds for a lookup."""

SOON = 3.0
"""Seconds until everything works again: one, as the documents say, and two for a machine with other work to do."""

WAITS = 5
"""How often whoever asks, or answers, may have to wait for a processor."""

SETTINGS = {"CVM_LOOKUP_TIMEOUT": str(int(DEADLINE * 1000)), "CVM_WORKERS": "2"}

RIGHT = {"bob": 0, "sales": 0, "nobody": 100}


@contextmanager
def serving_sql(host: SqlHost, **more: Any) -> Iterator[Server]:
    with serving(host, program=CVM_VPOPMAIL, **{**SETTINGS, **more}) as server:
        yield server
        assert "internal-error" not in server.log.read_text()
        assert "killed" not in server.log.read_text(), "the supervisor had to end what a driver should have"


class Asked(NamedTuple):
    name: str
    at: float
    seconds: float
    code: int
    """4: also no answer at all, which every client takes for a temporary failure."""

    @property
    def right(self) -> bool:
        return self.code == RIGHT[self.name]


def ask(server: Server, name: str) -> Asked:
    began = time.monotonic()
    try:
        code = server.ask(name, "example.com").code
    except client.NoAnswer:
        code = 4
    return Asked(name, began, time.monotonic() - began, code)


class Load:
    """Clients that ask one after the other, all the time."""

    def __init__(self, server: Server, clients: int = 3) -> None:
        self._server = server
        self._end = False
        self.asked: list[Asked] = []
        self.late = 0.0
        """Seconds for which somebody who wants nothing but a processor had to wait for one, at the most."""
        targets = [*[self._ask] * clients, self._look_at_the_clock]
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.asked) > 20, "the load is on")

    def _ask(self) -> None:
        while not self._end:
            for name in RIGHT:
                self.asked.append(ask(self._server, name))
                time.sleep(0.001)  # else they would load the processors, not the server

    def _look_at_the_clock(self) -> None:
        while not self._end:
            began = time.monotonic()
            time.sleep(0.02)
            self.late = max(self.late, time.monotonic() - began - 0.02)

    @property
    def temporary(self) -> int:
        return sum(1 for asked in self.asked if asked.code not in (0, 100))

    def end(self) -> None:
        self._end = True
        for thread in self._threads:
            thread.join(20)

    def well_again(self, back: float) -> float:
        """Seconds from `back` until the last answer that was not right; waits until there are enough right ones.

        Less those for which a machine with other work to do has made everybody wait.
        """
        until(lambda: len([a for a in self.asked[-60:] if a.right and a.at > back]) == 60, "right answers again")
        last = max((asked.at + asked.seconds for asked in self.asked if not asked.right), default=back)
        return max(0.0, last - back - WAITS * self.late)

    def wrong(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.right and asked.code in (0, 100)]

    def slow(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.seconds > DEADLINE + 2.0 + WAITS * self.late]


@contextmanager
def load(server: Server) -> Iterator[Load]:
    clients = Load(server)
    try:
        yield clients
    finally:
        clients.end()
    assert not clients.wrong()
    assert not clients.slow()
