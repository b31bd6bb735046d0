r"""A record of vmailmgr's passwd.cdb: one virtual user, in any of its three versions.

    version 2    \2, pairs of a flag (8: enabled, 10: has a mailbox) and its value, \0, then as version 1
    version 1    \1, password \0, directory \0, forwards each \0, \0, personal data \0, six numbers each \0:
                 hard quota, soft quota, message size, message count, creation time, expiry
    old          ":" password ":" then a directory that begins with . or /, else forwards after an optional &,
                 with commas between them

A number is decimal, modulo 2 to the 32nd; "-" is the largest, which means never.

Source: vmailmgr's lib/vpwentry (decode.cc, from_old.cc, from_ver1.cc, from_ver2.cc), lib/misc/strtou.c.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NEVER = 0xFFFFFFFF
"""An expiry that never comes."""

_ENABLED = 8
_HAS_MAILBOX = 10

_BASE = re.compile(rb"([^\0]*)\0([^\0]*)\0((?:[^\0]+\0)*)\0[^\0]*\0", re.DOTALL)
_NUMBER = re.compile(rb"[ \t-\r]*(-[0-9]*|[0-9]*)\0", re.DOTALL)
_NUMBERS = 6


class Entry(NamedTuple):
    """One virtual user."""

    password: bytes
    directory: bytes
    """The maildir; empty: none."""
    forwards: tuple[bytes, ...]
    has_mailbox: bool
    enabled: bool
    expiry: int
    """Seconds since 1970, or `NEVER`."""

    def __repr__(self) -> str:
        return f"Entry(directory={self.directory!r}, forwards={self.forwards!r}, expiry={self.expiry})"

    @property
    def delivers(self) -> bool:
        """Whether mail goes to a maildir."""
        return self.has_mailbox and self.enabled and bool(self.directory)


def parse(data: bytes) -> Entry | None:
    """The virtual user of a record; None for one that vmailmgr cannot read."""
    kind = data[:1]
    if kind == b":":
        return _old(data.partition(b"\0")[0])
    if kind not in (b"\1", b"\2") or not data.endswith(b"\0"):
        return None
    flags: dict[int, bool] = {}
    at = 1
    if kind == b"\2":
        end = _flags(data, flags)
        if end is None:
            return None
        at = end
    return _fields(data, at, flags)


def _old(text: bytes) -> Entry | None:
    password, colon, target = text[1:].partition(b":")
    if not colon:
        return None
    if target[:1] in (b".", b"/"):
        return Entry(password, target, (), True, True, NEVER)
    forwards = tuple(filter(None, target.removeprefix(b"&").split(b",")))
    return Entry(password, b"", forwards, False, True, NEVER)


def _flags(data: bytes, flags: dict[int, bool]) -> int | None:
    """Fills `flags`; where the rest begins, None for a flag that vmailmgr does not know."""
    at = 1
    while at < len(data) and data[at]:
        if at + 1 >= len(data) or data[at] not in (_ENABLED, _HAS_MAILBOX):
            return None
        flags[data[at]] = bool(data[at + 1])
        at += 2
    return at + 1


def _fields(data: bytes, at: int, flags: dict[int, bool]) -> Entry | None:
    base = _BASE.match(data, at)
    if base is None:
        return None
    number, value = base.end(), 0
    for _ in range(_NUMBERS):
        found = _NUMBER.match(data, number)
        if found is None:
            return None
        # the last 32 digits are enough, since 2 to the 32nd divides 10 to the 32nd
        value = NEVER if found[1].startswith(b"-") else int(found[1][-32:] or b"0") & NEVER
        number = found.end()
    if number != len(data):
        return None
    password, directory, forwards = base.groups()
    has_mailbox = flags.get(_HAS_MAILBOX, True) and bool(directory)
    enabled = flags.get(_ENABLED, True)
    return Entry(password, directory, tuple(forwards.split(b"\0")[:-1]), has_mailbox, enabled, value)
