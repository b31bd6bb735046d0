"""What workers and their supervisor share in memory.

    a slot per worker   when its lookup began (0: none), which resource it is using, whether it takes requests,
                        and for UDP the request and its sender
    the quarantine      resources where lookups hung, each with the time until which lookups skip it

Invariants: a slot is written by its worker only (by the supervisor while the worker is stopped), the quarantine
by the supervisor only.  Both are read without locks, so a half-written value must do no harm: it costs at most
one answer.
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Callable, Sequence
from struct import Struct

from cvm_qmail.answer import Unavailable

QUARANTINE = 10.0
"""Seconds for which a resource where a lookup hung is skipped."""

SHARED = frozenset({b"passwd"})
"""Resources that nearly every lookup needs."""

SHARED_QUARANTINE = 1.0
"""The seconds for one of those: without it no address can be looked up."""

_PAGE = 4096
_RESOURCE_LIMIT = 240
_ADDRESS_LIMIT = 256
_REQUEST_LIMIT = 513
_QUARANTINED = 64
_ENTRY = Struct("<dH240s")

_LENGTH = Struct("<H")
_RESOURCE = Struct(f"<H{_RESOURCE_LIMIT}s")


class Slot:
    """One worker's part."""

    def __init__(
        self, memory: memoryview, quarantined: memoryview, clock: Callable[[], float], before: Sequence[Slot] = ()
    ) -> None:
        """`before`: the slots with lower numbers."""
        self._began = memory[:8].cast("d")
        self._resource = memory[8 : 10 + _RESOURCE_LIMIT]
        self.refused = memory[254:255]
        """Its byte is 1 when the sandbox has refused a system call to this worker; read for every request."""
        self._serves = memory[255:256]
        self._address = memory[256 : 258 + _ADDRESS_LIMIT]
        self._request = memory[1024 : 1026 + _REQUEST_LIMIT]
        self._quarantined = quarantined
        self._until = quarantined[:8].cast("d")
        self._clock = clock
        self._before = before

    # -- the worker's side ------------------------------------------------------------------------

    def guard(
        self, respond: Callable[[bytes], bytes], instead: Callable[[bytes], bytes] | None = None
    ) -> Callable[[bytes], bytes]:
        """The same, with a note of when it began.

        `instead` answers a request during which the sandbox refused a system call: what `respond` says is void then.
        """
        began, resource, clock, refused = self._began, self._resource, self._clock, self.refused
        no_resource = _LENGTH.pack_into

        def guarded(request: bytes) -> bytes:
            no_resource(resource, 0, 0)
            began[0] = clock()
            try:
                response = respond(request)
                return response if instead is None or not refused[0] else instead(request)
            finally:
                began[0] = 0.0

        return guarded

    def serves(self, whether: bool) -> None:
        """Notes whether this worker takes requests."""
        self._serves[0] = whether

    @property
    def free(self) -> bool:
        """Whether its worker takes requests and has no current lookup."""
        return bool(self._serves[0]) and not self._began[0]

    def needed(self) -> bool:
        """Whether no worker of a lower number is free."""
        return not any(other.free for other in self._before)

    def received(self, request: bytes, sender: object) -> None:
        """Notes the request and its sender's address (a tuple), in case the supervisor has to answer."""
        _put(self._address, json.dumps(sender).encode())
        _put(self._request, request)

    def mark(self, resource: bytes) -> None:
        """Notes which resource the worker uses now.  Raises `Unavailable` while that is in quarantine."""
        key = resource if len(resource) <= _RESOURCE_LIMIT else resource[:_RESOURCE_LIMIT]
        if self._until[0] > 0.0 and key in _quarantined(self._quarantined, self._clock()):
            raise Unavailable("hang-backoff", "a lookup hung here a moment ago", resource)
        _RESOURCE.pack_into(self._resource, 0, len(key), key)  # `_put`, written out: it is done for every file

    # -- the supervisor's side --------------------------------------------------------------------

    @property
    def began(self) -> float:
        """When the current lookup began, by the clock; 0: there is none."""
        return self._began[0]

    @property
    def resource(self) -> bytes:
        """The resource in use; empty: unknown."""
        return _get(self._resource)

    @property
    def question(self) -> tuple[bytes, bytes]:
        """What `received` noted: the request, and the sender's address in JSON."""
        return _get(self._request), _get(self._address)

    def refuse(self) -> None:
        """The sandbox refuses a system call to this worker: its current answer is void."""
        self.refused[0] = True

    def clear(self) -> None:
        """The slot's worker has ended."""
        self._began[0] = 0.0
        self.refused[0] = False
        self._serves[0] = False


class Slots:
    """All of it, made before the workers are forked."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        memory = memoryview(mmap.mmap(-1, _PAGE * count + 8 + _ENTRY.size * _QUARANTINED))
        self._quarantined = memory[_PAGE * count :]
        self._slots: list[Slot] = []
        for at in range(0, count * _PAGE, _PAGE):
            self._slots.append(Slot(memory[at : at + _PAGE], self._quarantined, clock, tuple(self._slots)))
        self._next = 0
        self._resources: dict[bytes, int] = {}

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def quarantine(self, resource: bytes) -> None:
        """Puts `resource` into quarantine: lookups skip it for a while."""
        until = self._clock() + (SHARED_QUARANTINE if resource in SHARED else QUARANTINE)
        number = self._resources.pop(resource, None)
        if number is None:
            number = self._next
            self._next = (self._next + 1) % _QUARANTINED
            self._resources = {known: at for known, at in self._resources.items() if at != number}
        self._resources[resource] = number
        _ENTRY.pack_into(self._quarantined, 8 + number * _ENTRY.size, until, len(resource), resource)
        latest = self._quarantined[:8].cast("d")
        latest[0] = max(latest[0], until)

    def quarantined(self, now: float) -> int:
        """How many resources are in quarantine."""
        return len(_quarantined(self._quarantined, now))

    def forget(self) -> None:
        """Empties the list when nothing in it is in force any more, to save the workers time."""
        until = self._quarantined[:8].cast("d")
        if 0.0 < until[0] < self._clock():
            until[0] = 0.0


def _quarantined(memory: memoryview, now: float) -> set[bytes]:
    entries = (_ENTRY.unpack_from(memory, 8 + i * _ENTRY.size) for i in range(_QUARANTINED))
    return {resource[:length] for until, length, resource in entries if until > now}


def _put(memory: memoryview, value: bytes) -> None:
    value = value[: len(memory) - 2]
    memory[: 2 + len(value)] = _LENGTH.pack(len(value)) + value


def _get(memory: memoryview) -> bytes:
    return bytes(memory[2 : 2 + _LENGTH.unpack_from(memory)[0]])
