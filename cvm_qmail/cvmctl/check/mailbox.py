r"""Addresses as people keep them: a list, one on a line, or a mailbox in mbox format.

    list   an address on each line, perhaps in angle brackets; blanks around it, empty lines, and lines that
           begin with # do not count.  Everything else on the line is the address: it may hold blanks.
    mbox   messages that begin with a line "From "; of the headers asked for (by default From, To, Cc and
           Delivered-To) the addresses in them, as RFC 5322 writes them: names, comments and groups are left
           out, quotes are taken off (qmail's addresses have none).  Each address is asked for once.

Delivered-To is what qmail-local was run for, after rewriting: it is taken back to the envelope's address
(`host.rewriting`) where today's control files allow that.

Invariants: memory is bounded, whatever the file holds; nothing is skipped silently.

Source: mbox(5), RFC 5322 sections 3.4 and 4.4, qmail-header(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

LINE_LIMIT = 1 << 16
"""Bytes of a line, or of a header with its continuations, that are read."""

REMEMBERED = 1 << 20
"""Addresses of a mailbox that are remembered, so that they are not asked for again."""

HEADERS = ("From", "To", "Cc", "Delivered-To")

_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)(?:"|$)|([<>(),;:\\])|[^\s"<>(),;:\\]+|\s+', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_FROM = re.compile(rb"From .*\d\d?:\d\d")
_ROUTE = re.compile(rb"@[^:]*:")


class Found(NamedTuple):
    """What a file has in a line or a header."""

    address: bytes
    line: int
    too_long: bool = False
    """Whether the line is longer than LINE_LIMIT: there is no telling what it means."""


def lines_of(file: IO[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """The lines of a file, cut after LINE_LIMIT bytes; `count` hears of the bytes read."""
    while line := file.readline(LINE_LIMIT):
        count(len(line))
        if not line.endswith(b"\n") and len(line) == LINE_LIMIT:
            while rest := file.readline(LINE_LIMIT):
                count(len(rest))
                if rest.endswith(b"\n"):
                    break
            line += b"\n"  # longer than any line that was read whole
        yield line


def is_mbox(first: bytes) -> bool:
    """Whether a file that begins with this line is a mailbox (the line has an address and a time of day)."""
    return _FROM.match(first) is not None


def in_list(lines: Iterable[bytes]) -> Iterator[Found]:
    """The addresses of a list."""
    for number, line in enumerate(lines, 1):
        address = line.strip(b" \t\r\n")
        if not address or address.startswith(b"#"):
            continue
        if address.startswith(b"<") and address.endswith(b">"):
            address = address[1:-1]
        yield Found(address, number, len(line) > LINE_LIMIT)


def in_mbox(
    lines: Iterable[bytes], names: Iterable[str] = HEADERS, original_address: Callable[[bytes], bytes] = bytes
) -> Iterator[Found]:
    """The addresses in the headers `names` of a mailbox, each once; `original_address` is for Delivered-To."""
    wanted = {name.lower().encode("utf-8", "surrogateescape") for name in names}
    seen: dict[bytes, None] = {}
    for number, name, value in _headers(lines):
        if name not in wanted:
            continue
        if len(value) > LINE_LIMIT:
            yield Found(value, number, too_long=True)
            continue
        for address in addresses(value) if name != b"delivered-to" else [original_address(value.strip())]:
            if address not in seen:
                if len(seen) >= REMEMBERED:
                    del seen[next(iter(seen))]
                seen[address] = None
                yield Found(address, number)


def _headers(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """Line number, name in lower case and value of each header in a mailbox; a value is cut after LINE_LIMIT."""
    inside, blank = False, True
    header: list[bytes] = []
    began = length = 0

    def whole() -> Iterator[tuple[int, bytes, bytes]]:
        name, colon, value = b"".join(header).partition(b":")
        if colon:
            yield began, name.rstrip(b" \t").lower(), value

    for number, line in enumerate(lines, 1):
        if inside and line[:1] in (b" ", b"\t") and line.strip():
            if length <= LINE_LIMIT:
                header.append(line)
                length += len(line)
            continue
        if inside:
            yield from whole()
            header = []
        if blank and is_mbox(line):
            inside, blank = True, False
            continue
        blank = not line.strip(b"\r\n")
        if blank:
            inside = False
        elif inside:
            header, began, length = [line], number, len(line)
    if inside:
        yield from whole()


def addresses(value: bytes) -> Iterator[bytes]:
    """The addresses in a header of addresses; what has no ``@`` is none."""
    words: list[bytes] = []
    angle: list[bytes] | None = None
    depth = 0
    glued = False  # whether the next part belongs to the last word
    closed: bytes | None = None
    for match in _TOKEN.finditer(value):
        quoted, mark = match[1], match[2]
        part = match[0] if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if depth or mark == b"(":
            depth += (mark == b"(") - (mark == b")")
        elif angle is not None and mark != b">":
            angle.append(b"" if part.isspace() and quoted is None else part)
        elif mark == b"<":
            angle = []
        elif mark == b">":
            closed, angle = b"".join(angle or ()), None
        elif mark in (b",", b";"):
            yield from _address(closed, words)
            words, closed, glued = [], None, False
        elif mark == b":":  # what came before is the name of a group
            words, closed, glued = [], None, False
        elif part.isspace() and quoted is None:
            glued = False
        else:
            if glued:
                words[-1] += part
            else:
                words.append(part)
            glued = True
    yield from _address(b"".join(angle) if angle is not None else closed, words)


def _address(angle: bytes | None, words: list[bytes]) -> Iterator[bytes]:
    if angle is not None:
        address = _ROUTE.sub(b"", angle, count=1) if angle.startswith(b"@") else angle
    else:
        address = next((word for word in words if b"@" in word), b"")
    if b"@" in address:
        yield address
