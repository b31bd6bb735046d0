"""Hosts that change, and a worker that caches what it was asked: for tests that see no change missed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hosts import Host
from serving import until

from cvm_qmail.answer import Answer, Recipient
from cvm_qmail.pipeline import make_responder
from cvm_qmail.plugin import Module
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.identity import SETTLED

YES, NO, TEMPORARY = 0, 100, 4


class Change(Protocol):
    """From one answer to another, and back."""

    @property
    def address(self) -> str: ...
    @property
    def before(self) -> int: ...
    @property
    def after(self) -> int: ...
    @property
    def there(self) -> Callable[[Any], object]: ...
    @property
    def back(self) -> Callable[[Any], object]: ...


def there_and_back(host: Host, change: Change, ask: Callable[[str], int], turns: int) -> None:
    """The first request after each change sees it."""
    assert ask(change.address) == change.before
    for turn in range(turns):
        change.there(host)
        assert ask(change.address) == change.after, f"there, turn {turn}"
        change.back(host)
        assert ask(change.address) == change.before, f"back, turn {turn}"


class Worker:
    """What a worker does with a packet, with everything that it caches."""

    def __init__(self, settings: Settings, make: Callable[[Tables, Settings], Module]) -> None:
        tables = Tables(settings)
        module = make(tables, settings)
        self._lookups = 0

        def lookup(recipient: Recipient) -> Answer:
            self._lookups += 1
            return module.lookup(recipient)

        counted = module._replace(lookup=lookup)
        self._respond = make_responder(tables, counted, settings._replace(lookup_secret=b""), [])

    def says(self, address: str) -> int:
        """The code of its answer."""
        account, at, domain = address.encode().partition(b"@")
        credentials = {1: account, 2: domain} if at else {1: account}
        return self._respond(packets.pack_request(packets.Request(2, b"", credentials)))[0]

    def says_often(self, address: str) -> set[int]:
        """The codes of so many answers that everything is cached that may be."""
        return {self.says(address) for _ in range(5)}

    def remembers(self, address: str) -> bool:
        """Whether the answer comes without a lookup."""
        before = self._lookups
        self.says(address)
        return self._lookups == before


def until_old(hosts: Iterable[Host]) -> None:
    """Waits until nothing below these has changed for so long that it may be cached."""
    waiting = list(hosts)
    until(lambda: all(_newest(host) < time.time_ns() - SETTLED for host in waiting), "everything is old")


def _newest(host: Host) -> int:
    return max(
        os.lstat(os.path.join(directory, name)).st_ctime_ns
        for directory, _, names in os.walk(host.root)
        for name in ["", *names]
    )
