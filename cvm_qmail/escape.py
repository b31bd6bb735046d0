"""Escapes unusual bytes, for logs and terminals.

Invariants: the output is printable ASCII for any input: no control character reaches a terminal, and an address
cannot forge a log line.
"""

from __future__ import annotations

import re

_ODD = re.compile(rb"[^!-\[\]-~]")
_ODD_BUT_SPACE = re.compile(r"[^ -\[\]-~]")


def is_odd(text: bytes) -> bool:
    """Whether `escape` would change these bytes."""
    return _ODD.search(text) is not None


def escape(text: bytes) -> str:
    r"""Printable ASCII without blanks; any other byte, and the backslash, becomes ``\x`` and two digits."""
    if _ODD.search(text):
        text = _ODD.sub(lambda odd: b"\\x%02x" % odd[0][0], text)
    return text.decode("ascii")


def escape_text(text: str) -> str:
    """The same for human-readable text: blanks stay."""
    return _ODD_BUT_SPACE.sub(lambda odd: "".join(f"\\x{byte:02x}" for byte in _bytes_of(odd[0])), text)


def _bytes_of(character: str) -> bytes:
    """The bytes of a character; a surrogate that stands for no byte is encoded as it is."""
    try:
        return character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("utf-8", "surrogatepass")


_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    *map(chr, range(0x180B, 0x1810)),
    *map(chr, range(0xFE00, 0xFE10)),
    *map(chr, range(0xE0100, 0xE01F0)),
}
"""Characters that Python calls printable but that are invisible: fillers, joiners, variation selectors."""


def escape_unprintable(text: str) -> str:
    r"""Text for a person who reads UTF-8: printable characters stay, any other becomes its bytes in ``\x`` form.

    Control, format, direction-changing and invisible characters and unusual blanks are always escaped; so is the
    backslash, so that the result is unambiguous.
    """
    if text.isascii():
        return escape_text(text)
    return "".join(character if _is_readable(character) else escape_text(character) for character in text)


def _is_readable(character: str) -> bool:
    return character.isprintable() and character != "\\" and character not in _INVISIBLE
