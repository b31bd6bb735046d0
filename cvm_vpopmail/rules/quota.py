"""Whether a maildir, or a whole domain, is too full to take one more message.

    quota text         parts between commas: ``5C`` messages; ``10``, ``10S``, ``10K``, ``10MB``, ``10mbs`` bytes
    maildirsize        a header line (the quota text of who wrote it), then lines "bytes count" to be added up
    counted            cur and new of the maildir and of its directories (``.name``, but not ``.Trash``)

Invariants: full means used + this message > limit, of bytes or of messages; a limit of 0 is none.  A maildirsize that
means "not full" is believed.  One that means "full" is believed if it has one line of data; otherwise, and if it is
too long or too old, everything is counted.

All numbers are 64 bits without a sign and wrap around, as vpopmail's do: the line ``-4500 -1`` subtracts, a limit of
-1 is never reached, and a maildirsize whose sum is below zero means "full".

Files that the delivering user cannot list or read are not counted, as in vpopmail.  If something cannot be
determined, or there is too much to count, that is `Unavailable`, unless the count already exceeds the limit.

Differences from vpopmail: nothing is written, so no maildirsize is removed or made again; a maildir that
changes while it is counted (vpopmail lets such a message pass) is counted once; a maildir without a usable
tmp directory, which vpopmail calls over quota when it has to count, is left to the check of its directories; and the
daemon vusaged is not asked.

Source: maildirquota.c (user_over_maildirquota, docheckquota, maildirsize_read, qcalc, docount,
maildir_parsequota, domain_over_maildirquota, readdomainquota), vpopmail.c (format_maildirquota),
vdelivermail.c (deliver_mail, read_quota_from_maildir); checked against the running programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_vpopmail.accounts import View
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.numbers import strtol

MAILDIRSIZE_LIMIT = 5120
"""Bytes from which a maildirsize is discarded (Maildir++)."""

MAILDIRSIZE_AGE = 15 * 60
"""Seconds after which it is discarded."""

HEADER_LIMIT = 79
"""Bytes of the header line that are read."""

TEXT_LIMIT = 127
"""Bytes of a quota text that are read."""

MAILDIR_NAMES = 200_000
"""Names in one maildir beyond which it is not counted."""

DOMAIN_NAMES = 1_000_000
"""Names in all maildirs of a domain beyond which they are not counted."""

PARENTS = 16
"""How many directories are followed up to a maildir."""

_WRAP = (1 << 64) - 1
_LINE = re.compile(rb"\s*([+-]?)0*([0-9]+)(?:\s*([+-]?)0*([0-9]+))?")
_DIGITS = re.compile(rb"[0-9]{0,255}")
_TRASHED = re.compile(rb"[A-Z]*T")
_UNITS = {b"K": 1 << 10, b"M": 1 << 20}


class Quota(NamedTuple):
    """Limits; 0: none."""

    size: int
    """In bytes."""
    messages: int

    def exceeded(self, size: int, messages: int) -> bool:
        """Whether this is more than the limits allow."""
        return 0 < self.size < size & _WRAP or 0 < self.messages < messages & _WRAP


UNLIMITED = Quota(0, 0)


def parse(text: bytes) -> Quota:
    """The limits in a quota text; of two of the same kind the later is used."""
    if text.startswith(b"NO"):
        return UNLIMITED
    size = messages = 0
    for part in text[:TEXT_LIMIT].partition(b"\0")[0].split(b","):
        if part.endswith(b"C"):  # a small c is unknown, and means bytes
            messages = strtol(part)
        elif part:
            size = _bytes(part)
    return Quota(size & _WRAP, messages & _WRAP)


def _bytes(part: bytes) -> int:
    """A number with K or M, perhaps B, perhaps S."""
    unit = part.upper().removesuffix(b"S").removesuffix(b"B")[-1:]
    return strtol(part) * _UNITS.get(unit, 1)


# -- one maildir --------------------------------------------------------------------------------------


def over(maildir: bytes, quota_text: bytes | None, message_bytes: int, view: View, now: Callable[[], float]) -> bool:
    """Whether a message of this size is too much for the maildir.

    `quota_text` None or empty: the header line of its maildirsize is used.  `now`: seconds since the
    epoch, asked for only where the age of maildirsize counts.  Raises `Unavailable`.
    """
    maildir = maildir.rstrip(b"/")
    quota = parse(quota_text or _header(maildir, view))
    if quota == UNLIMITED:
        return False
    maildir = _top(maildir, view)
    recorded = _recorded(maildir, view, now)
    if recorded is not None:
        if not quota.exceeded(recorded.size + message_bytes, recorded.messages + 1):
            return False
        if recorded.final:
            return True
    return _fills(quota, message_bytes, _maildir(maildir, _Names(view, MAILDIR_NAMES)))


def _top(maildir: bytes, view: View) -> bytes:
    """The maildir of which this one is a directory; itself, if it is not marked as a directory."""
    for _ in range(PARENTS):
        if view.status(maildir + b"/maildirfolder") is None:
            return maildir
        maildir += b"/.."
    raise Unavailable("quota-count", f"is a directory of a directory, more than {PARENTS} times", maildir)


def _header(maildir: bytes, view: View) -> bytes:
    text = view.file(maildir + b"/maildirsize") or b""
    return text[:HEADER_LIMIT].partition(b"\n")[0].partition(b"\0")[0]


class _Recorded(NamedTuple):
    """The data of a maildirsize."""

    size: int
    messages: int
    final: bool
    """Whether it is believed even if it means "full"."""


def _recorded(maildir: bytes, view: View, now: Callable[[], float]) -> _Recorded | None:
    """None: there is no usable one."""
    path = maildir + b"/maildirsize"
    status = view.status(path)
    if status is None or status.size >= MAILDIRSIZE_LIMIT:
        return None
    moment = int(now())
    if moment > status.mtime + MAILDIRSIZE_AGE:
        return None
    text = view.file(path)
    if text is None or len(text) >= MAILDIRSIZE_LIMIT:
        return None
    lines = text.partition(b"\0")[0].removesuffix(b"\n").split(b"\n")[1:]
    size = messages = 0
    for line in lines:
        match = _LINE.match(line)
        if match:
            size += _scanned(match[1], match[2])
            messages += _scanned(match[3], match[4])
    return _Recorded(size, messages, len(lines) == 1 and moment < status.mtime + MAILDIRSIZE_AGE)


def _scanned(sign: bytes | None, digits: bytes | None) -> int:
    """A number as scanf(3) reads it for %llu; 0 if there is none."""
    if not digits:
        return 0
    if len(digits) > 20 or int(digits) > _WRAP:
        return _WRAP
    return -int(digits) if sign == b"-" else int(digits)


# -- a domain -----------------------------------------------------------------------------------------


def domain_over(directory: bytes, limits: Limits, message_bytes: int, view: View) -> bool:
    """Whether a message of this size is too much for the domain in this directory.  Raises `Unavailable`."""
    quota = Quota((limits.diskquota << 20) & _WRAP, limits.maxmsgcount & _WRAP)
    if quota == UNLIMITED:
        return False
    return _fills(quota, message_bytes, _domain(directory.rstrip(b"/"), _Names(view, DOMAIN_NAMES)))


def _domain(directory: bytes, names: _Names) -> Iterator[int]:
    """The sizes of the messages in all maildirs of the domain.

    A name of one character is a hash directory.  vpopmail enters it with the sum at 0, so everything that it read
    before, in the directory's own order, is lost.  This is a bug of vpopmail, but it decides what is delivered.
    """
    while True:
        found = names.of(directory)
        hashed = max((at for at, name in enumerate(found) if len(name) == 1), default=-1)
        for name in found[hashed + 1 :]:
            yield from _maildir(b"%s/%s/Maildir" % (directory, name), names)
        if hashed < 0:
            return
        directory = b"%s/%s" % (directory, found[hashed])


# -- counting -----------------------------------------------------------------------------------------


class _Names:
    """The names in directories, up to so many in all."""

    def __init__(self, view: View, limit: int) -> None:
        self.view = view
        self._limit = limit
        self._seen = 0

    def of(self, directory: bytes) -> list[bytes]:
        """The names that the user can list there; empty if none."""
        found = self.view.listing(directory) or []
        self._seen += 1 + len(found)
        if self._seen > self._limit:
            raise Unavailable("quota-count", f"more than {self._limit} names to count for a quota", directory)
        return found


def _fills(quota: Quota, message_bytes: int, sizes: Iterator[int]) -> bool:
    """Whether one more message exceeds the quota.  Raises `Unavailable` if that cannot be determined."""
    used, messages = message_bytes, 1
    try:
        for size in sizes:
            used += size
            messages += 1
    except Unavailable:
        if not quota.exceeded(used, messages):
            raise
    return quota.exceeded(used, messages)


def _maildir(maildir: bytes, names: _Names) -> Iterator[int]:
    """The sizes of the messages in a maildir and its directories."""
    yield from _messages(maildir, names)
    for name in names.of(maildir):
        if name.startswith(b".") and name != b".Trash":
            yield from _messages(b"%s/%s" % (maildir, name), names)


def _messages(directory: bytes, names: _Names) -> Iterator[int]:
    for kind in (b"new", b"cur"):
        path = b"%s/%s" % (directory, kind)
        for name in names.of(path):
            if name.startswith(b".") or _TRASHED.match(name.partition(b":2,")[2]):
                continue
            size = _size_in(name)
            if size is None:
                status = names.view.status(b"%s/%s" % (path, name))
                size = None if status is None else status.size
            if size is not None:
                yield size


def _size_in(name: bytes) -> int | None:
    """The number after the last ``,S=`` before the first colon."""
    stem = name.partition(b":")[0]
    at = stem.rfind(b",S=")
    if at < 0:
        return None
    match = _DIGITS.match(stem, at + 3)
    return int(match[0]) if match and match[0] else 0
