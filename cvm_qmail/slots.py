"""What workers leave in shared memory for their supervisor, and the supervisor for them.

    a slot per worker   when its look-up began (0: none), where it is looking, whether it takes requests,
                        and for UDP who asked what
    the shunned         places where look-ups hung, each with the time until which nobody looks there

Law: a slot is written by its worker only, the list of the shunned by the supervisor only; both are
read without locks, so that a value half written must do no harm: it costs one answer at the most.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Sequence
from struct import Struct

from cvm_qmail.answer import Unavailable

SHUN = 10.0
"""Seconds for which a place where a look-up hung is not looked at again."""

_PAGE = 4096
_PLACE_LIMIT = 240
_ADDRESS_LIMIT = 256
_REQUEST_LIMIT = 513
_SHUNNED = 64
_ENTRY = Struct("<dH240s")

_length = Struct("<H")


class Slot:
    """One worker's part."""

    def __init__(
        self, memory: memoryview, shunned: memoryview, clock: Callable[[], float], before: Sequence[Slot] = ()
    ) -> None:
        """`before`: those with lower numbers."""
        self._began = memory[:8].cast("d")
        self._place = memory[8 : 10 + _PLACE_LIMIT]
        self._serves = memory[255:256]
        self._address = memory[256 : 258 + _ADDRESS_LIMIT]
        self._request = memory[1024 : 1026 + _REQUEST_LIMIT]
        self._shunned = shunned
        self._until = shunned[:8].cast("d")
        self._clock = clock
        self._before = before

    # -- the worker's side ------------------------------------------------------------------------

    def guard(self, respond: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """The same, with a note of when it began."""
        began, place, clock, nowhere = self._began, self._place, self._clock, b"\0\0"

        def guarded(request: bytes) -> bytes:
            place[:2] = nowhere
            began[0] = clock()
            try:
                return respond(request)
            finally:
                began[0] = 0.0

        return guarded

    def serves(self, whether: bool) -> None:
        """Notes whether this worker takes requests."""
        self._serves[0] = whether

    @property
    def free(self) -> bool:
        """Whether its worker takes requests and has no look-up in hand."""
        return bool(self._serves[0]) and not self._began[0]

    def needed(self) -> bool:
        """Whether no worker of a lower number is free."""
        return not any(other.free for other in self._before)

    def received(self, request: bytes, sender: object) -> None:
        """Notes who asked what, in case somebody else has to answer."""
        _put(self._address, repr(sender).encode())
        _put(self._request, request)

    def enter(self, place: bytes) -> None:
        """Notes where the worker looks now.  Raises `Unavailable` if a look-up hung there a moment ago."""
        key = place[:_PLACE_LIMIT]
        if self._until[0] > 0.0 and key in _shunned(self._shunned, self._clock()):
            raise Unavailable("shunned", "a look-up hung here a moment ago", place)
        _put(self._place, key)

    # -- the supervisor's side --------------------------------------------------------------------

    @property
    def began(self) -> float:
        """When the look-up in hand began, by the clock; 0: there is none."""
        return self._began[0]

    @property
    def place(self) -> bytes:
        """Where it is looking; empty: unknown."""
        return _get(self._place)

    @property
    def question(self) -> tuple[bytes, bytes]:
        """What `received` noted: the request, and the repr of the sender's address."""
        return _get(self._request), _get(self._address)

    def clear(self) -> None:
        """Nobody works here any more."""
        self._began[0] = 0.0
        self._serves[0] = False


class Slots:
    """All of it, made before the workers are forked."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        memory = memoryview(mmap.mmap(-1, _PAGE * count + 8 + _ENTRY.size * _SHUNNED))
        self._shunned = memory[_PAGE * count :]
        self._slots: list[Slot] = []
        for at in range(0, count * _PAGE, _PAGE):
            self._slots.append(Slot(memory[at : at + _PAGE], self._shunned, clock, tuple(self._slots)))
        self._next = 0
        self._places: dict[bytes, int] = {}

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def shun(self, place: bytes) -> None:
        """Let nobody look at `place` for a while, from now on."""
        until = self._clock() + SHUN
        number = self._places.pop(place, None)
        if number is None:
            number = self._next
            self._next = (self._next + 1) % _SHUNNED
            self._places = {known: at for known, at in self._places.items() if at != number}
        self._places[place] = number
        _ENTRY.pack_into(self._shunned, 8 + number * _ENTRY.size, until, len(place), place)
        self._shunned[:8].cast("d")[0] = until

    def forget(self) -> None:
        """Spares the workers the list when nothing in it is in force any more."""
        until = self._shunned[:8].cast("d")
        if 0.0 < until[0] < self._clock():
            until[0] = 0.0


def _shunned(memory: memoryview, now: float) -> set[bytes]:
    entries = (_ENTRY.unpack_from(memory, 8 + i * _ENTRY.size) for i in range(_SHUNNED))
    return {place[:length] for until, length, place in entries if until > now}


def _put(memory: memoryview, value: bytes) -> None:
    value = value[: len(memory) - 2]
    memory[: 2 + len(value)] = _length.pack(len(value)) + value


def _get(memory: memoryview) -> bytes:
    return bytes(memory[2 : 2 + _length.unpack_from(memory)[0]])
