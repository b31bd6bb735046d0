"""Which .qmail file decides, and what its mode and lines mean.

Invariants: the home is judged before any name is tried; the first name that is a regular file ends the search; what
its lines would do does not affect the verdict, except for the two kinds of contents that make qmail-local defer every
message.

Source: dot-qmail(5), qmail-local(8), qmail-local.c (qmesearch, checkhome, main).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from cvm_qmail.answer import Table, Unavailable

STICKY = 0o1000
OWNER_EXECUTE = 0o100


class DotQmail(NamedTuple):
    """A regular file that could be opened.  `content` None: it exists, but this process cannot read it."""

    mode: int
    content: bytes | None


class Home(NamedTuple):
    """A home that its user can enter."""

    mode: int
    files: Table[bytes, DotQmail]
    """By name relative to the home; None if it is not a regular file.  Raises `Unavailable` where qmail defers."""


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
_NOR_A_BRANCH = re.compile(rb"^[./|?]", re.MULTILINE)


def judge_start(found: Found, *, branch: bool = False) -> None:
    """Raises `Unavailable` for contents with which qmail-local defers every message before it processes a line.

    `branch`: whether it has the qmail-branch patch.
    """
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
    if mode & OWNER_EXECUTE and (_NOR_A_BRANCH if branch else _NOT_A_FORWARD).search(content):
        raise _forwards_only(found.name)


def judge_list(found: Found) -> None:
    """Raises `Unavailable` for a file or program line after ``+list``: qmail-local defers when it comes to it.

    Only for files in which no program before that ends the delivery.
    """
    content = found.file.content or b""
    marker = _FORWARD_ONLY.search(content)
    if marker is not None and _NOT_A_FORWARD.search(content, marker.end()):
        raise _forwards_only(found.name)


def _forwards_only(name: bytes) -> Unavailable:
    return Unavailable("dotqmail-forward-only", f"{_text(name)}: a file or program line, but only forwards are allowed")


def has_instructions(content: bytes) -> bool:
    """Whether there may be a line whose exit status decides."""
    return content.startswith((b"|", b"?")) or b"\n|" in content or b"\n?" in content


def lines(content: bytes) -> list[bytes]:
    """The instruction lines: without trailing spaces and tabs, comments and blank lines left out."""
    stripped = [line.rstrip(b" \t") for line in content.split(b"\n")]
    return [line for line in stripped if line and not line.startswith((b"#", b"\0"))]


def forwards(content: bytes) -> tuple[bytes, ...]:
    """The addresses of a file that does nothing but forward; empty for any other."""
    found = []
    for line in lines(content):
        if line.startswith((b".", b"/", b"|", b"?", b":")):  # the last two: with qmail-branch
            return ()
        if not line.startswith(b"+"):
            found.append(line.removeprefix(b"&").partition(b"\0")[0])
    return tuple(found)


def programs(content: bytes) -> list[bytes]:
    """What follows the ``|`` of each program line."""
    return [line[1:] for line in lines(content) if line.startswith(b"|")]


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
