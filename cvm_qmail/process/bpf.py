"""Builds a seccomp filter from rules: which system calls are allowed, with which arguments.

    rules      number of a call -> cases: the first whose arguments match decides; () always allows the call
    quiet      number of a call -> errno with which it fails, without notifying the listener

Everything else is refused with `refusal`.  Calls of another architecture, and those of the x32 ABI, kill the
process: their numbers mean other calls.

Pure.  The numbers are found by binary search: a call takes about eight comparisons, and one that is always allowed
next to nothing from Linux 5.11 on, which caches such verdicts.

Source: seccomp(2), linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
TRACE = 0x7FF00000
"""Without a tracer the call fails with ENOSYS.  A USER_NOTIF of another filter of the process goes first."""
USER_NOTIF = 0x7FC00000
KILL_PROCESS = 0x80000000

REFUSED = 1024
"""A refused call fails with errno `REFUSED` + its number, which no code takes for an answer of the system."""

LIMIT = 4096
"""The largest number of instructions of a filter."""

_LOAD, _EQUAL, _AT_LEAST, _JUMP, _RETURN, _AND, _ADD, _RETURN_IT = 0x20, 0x15, 0x35, 0x05, 0x06, 0x54, 0x04, 0x16
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_FAR = 255

_instruction = Struct("<HBBI")

_Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, operand."""


class Argument(NamedTuple):
    """A condition: an argument of a call has one of these values."""

    place: int
    """The index of the argument, from 0."""
    values: frozenset[int]
    mask: int = 0xFFFFFFFF
    """The mask: which bits are compared."""
    high: bool = False
    """Whether its upper 32 bits are compared."""


class Case(NamedTuple):
    """A case: a call whose arguments match all these conditions."""

    arguments: Sequence[Argument]
    error: int = 0
    """The errno with which the call fails, without notifying the listener; 0: it is allowed."""


Cases = Sequence[Case]
"""No condition: the call is always allowed."""


def program(
    audit: int, rules: Mapping[int, Cases], quiet: Mapping[int, int], newest: int, refusal: Sequence[_Instruction]
) -> bytes:
    """The filter, as the kernel wants it.  Calls from `newest` on fail with ENOSYS, as on an older kernel."""
    blocks: dict[int, Sequence[_Instruction]] = {
        **{number: [(_RETURN, 0, 0, ERRNO | error)] for number, error in quiet.items()},
        **{number: _checked(cases, refusal) for number, cases in rules.items()},
    }
    spans = _spans(blocks, newest, refusal)
    found = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        *_search(spans),
    ]
    assert len(found) <= LIMIT
    return b"".join(_instruction.pack(*instruction) for instruction in found)


def returning(verdict: int) -> Sequence[_Instruction]:
    """A refusal that is a single verdict."""
    return [(_RETURN, 0, 0, verdict)]


def failing() -> Sequence[_Instruction]:
    """A refusal with `REFUSED` and the number as errno."""
    return [(_LOAD, 0, 0, _NUMBER), (_ADD, 0, 0, ERRNO | REFUSED), (_RETURN_IT, 0, 0, 0)]


def _checked(cases: Cases, refusal: Sequence[_Instruction]) -> list[_Instruction]:
    if not cases:
        return [(_RETURN, 0, 0, ALLOW)]
    found: list[_Instruction] = []
    for case in cases:
        block: list[_Instruction] = [(_RETURN, 0, 0, ERRNO | case.error if case.error else ALLOW)]
        for argument in reversed(case.arguments):
            block = [*_compared(argument, len(block)), *block]
        found += block
    return [*found, *refusal]


def _compared(argument: Argument, rest: int) -> list[_Instruction]:
    """Continues if the argument has one of the values, else skips `rest` instructions."""
    at = _ARGUMENTS + 8 * argument.place + 4 * argument.high
    values = sorted(argument.values)
    tests: list[_Instruction] = [
        (_EQUAL, len(values) - 1 - number, rest if number == len(values) - 1 else 0, value)
        for number, value in enumerate(values)
    ]
    return [(_LOAD, 0, 0, at), (_AND, 0, 0, argument.mask), *tests]


_Span = tuple[int, Sequence[_Instruction]]
"""The first number of a span, and the treatment of all its calls."""


def _spans(blocks: Mapping[int, Sequence[_Instruction]], newest: int, refusal: Sequence[_Instruction]) -> list[_Span]:
    """All numbers in spans of the same treatment."""
    unknown = returning(ERRNO | 38)  # ENOSYS
    spans: list[_Span] = [(0, refusal)]
    for number in sorted(blocks):
        spans += [(number, blocks[number]), (number + 1, blocks.get(number + 1, refusal))]
    spans += [(newest, unknown), (_X32, returning(KILL_PROCESS))]
    last = [span for span, after in pairwise([*spans, (1 << 32, refusal)]) if span[0] != after[0]]
    return [span for place, span in enumerate(last) if not place or span[1] != last[place - 1][1]]


def _search(spans: Sequence[_Span]) -> list[_Instruction]:
    if len(spans) == 1:
        return list(spans[0][1])
    middle = len(spans) // 2
    below, above = _search(spans[:middle]), _search(spans[middle:])
    if len(below) <= _FAR:
        return [(_AT_LEAST, len(below), 0, spans[middle][0]), *below, *above]
    return [(_AT_LEAST, 0, 1, spans[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]
