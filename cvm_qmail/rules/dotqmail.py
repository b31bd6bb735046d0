"""Which .qmail file decides, and what its mode and lines mean.

Law: the home is judged before any name is tried; the first name that is a plain file ends the search;
what its lines would do is no part of the verdict, except for the two kinds of contents that make
qmail-local defer every message.

Source: dot-qmail(5), qmail-local(8), qmail-local.c (qmesearch, checkhome, main).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from cvm_qmail.answer import Table, Unavailable

STICKY = 0o1000
OWNER_EXECUTE = 0o100


class DotQmail(NamedTuple):
    """A plain file that could be opened.  `content` None: it exists, but this process cannot read it."""

    mode: int
    content: bytes | None


class Home(NamedTuple):
    """A home that its user can enter."""

    mode: int
    files: Table[bytes, DotQmail]
    """By name relative to the home; None for what is not a plain file.  Raises `Unavailable` where qmail defers."""


class Found(NamedTuple):
    """The file that decides."""

    name: bytes
    file: DotQmail
    default: bool
    """Whether it is a ...default file."""


def judge_home(home: Home, mask: int) -> None:
    """Raises `Unavailable` for a home in which qmail-local defers everything.  `mask`: conf-patrn."""
    if home.mode & mask:
        raise Unavailable("home-writable", f"home has mode {home.mode & 0o7777:04o}")
    if home.mode & STICKY:
        raise Unavailable("home-sticky", f"home has mode {home.mode & 0o7777:04o}: the user is editing")


def names(dash: bytes, ext: bytes) -> Iterator[tuple[bytes, bool]]:
    """The file names that qmail-local tries, in order, and whether each is a ...default one."""
    safe = ext.lower().replace(b".", b":")
    yield b".qmail" + dash + safe, False
    end = len(safe)
    while end >= 0:
        if not end or safe[end - 1] == 45:  # "-", whatever the break character is
            yield b".qmail%s%sdefault" % (dash, safe[:end]), True
        end = safe.rfind(b"-", 0, end - 1) + 1 if end else -1


def search(dash: bytes, ext: bytes, files: Table[bytes, DotQmail], mask: int) -> Found | None:
    """The deciding file; None if there is none, which with an empty dash means default delivery."""
    for name, default in names(dash, ext):
        file = files.get(name)
        if file is not None:
            if file.mode & mask:
                raise Unavailable("dotqmail-writable", f"{_text(name)} has mode {file.mode & 0o7777:04o}")
            return Found(name, file, default)
    return None


_FORWARD_ONLY = re.compile(rb"^\+list(?:\0|[ \t]*$)", re.MULTILINE)
_NOT_A_FORWARD = re.compile(rb"^[./|]", re.MULTILINE)


def judge_content(found: Found) -> None:
    """Raises `Unavailable` for contents with which qmail-local defers every message."""
    mode, content = found.file
    if content is None:
        if mode & OWNER_EXECUTE:
            raise Unavailable("dotqmail-unread", f"{_text(found.name)} is forward-only, and its lines cannot be read")
        return
    if not content:
        return
    first = content.partition(b"\n")[0].rstrip(b" \t")
    if not first or first.startswith(b"\0"):
        raise Unavailable("dotqmail-blank", f"{_text(found.name)}: the first line is blank")
    if mode & OWNER_EXECUTE:
        start = 0
    else:
        marker = _FORWARD_ONLY.search(content)
        if marker is None:
            return
        start = marker.end()
    if _NOT_A_FORWARD.search(content, start):
        raise Unavailable(
            "dotqmail-forward-only", f"{_text(found.name)}: a file or program line where only forwards may be"
        )


def lines(content: bytes) -> list[bytes]:
    """The instruction lines: without trailing spaces and tabs, comments and blank lines left out."""
    stripped = [line.rstrip(b" \t") for line in content.split(b"\n")]
    return [line for line in stripped if line and not line.startswith((b"#", b"\0"))]


def programs(content: bytes) -> list[bytes]:
    """What follows the ``|`` of each program line."""
    return [line[1:] for line in lines(content) if line.startswith(b"|")]


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
