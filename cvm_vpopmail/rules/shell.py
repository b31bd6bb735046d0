"""What the shell would run for a program line, as far as it can be told without running it.

Law: a line is either understood whole or is "some program".  Understood are simple commands, with
assignments, redirections, ``exec``, ``env`` and qmail's preline in front, and pipelines of them, of
which the last one's status counts.

Source: POSIX shell command language, 2.2, 2.3, 2.7, 2.9; preline(1); qmail-command(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

OPAQUE = b"\0"
"""Stands for a word whose value only the shell knows (a command holds no NUL)."""

_LIMIT = 8192
"""Bytes of a command that are looked at."""

_EXIT = re.compile(rb"[ \t]*exit(?:[ \t]+([0-9]{1,9}))?[ \t]*;?[ \t]*")

_TOKEN = re.compile(
    rb"""(?P<blank>[ \t]+)
    | (?P<redirection>[0-9]*(?:>>|>\||>&|<&|<>|<<|[<>]))
    | (?P<operator>\|\||&&|;;|[|&;()\n])
    | (?P<comment>\#[^\n]*)
    | (?P<word>(?:[^ \t\n|&;()<>'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(
    rb"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^'"\\]+)""", re.DOTALL
)
_ASSIGNMENT = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*=")
_SAFE_IN_DOUBLE = re.compile(rb"\\([$`\"\\\n])")
_RESERVED = frozenset({b"!", b"{", b"}", b"case", b"for", b"if", b"until", b"while", b"time"})
_DECIDING = (b"EXT=", b"HOST=")


class _Unclear(Exception):
    """More than is understood here."""


def exit_status(command: bytes) -> int | None:
    """The status of a command that is only ``exit N``; None for any other.

    A command ends at a NUL, as C's strings do.
    """
    match = _EXIT.fullmatch(command.partition(b"\0")[0])
    if match is None:
        return None
    return int(match[1] or b"0") & 255


def vdelivermail(command: bytes) -> Sequence[bytes] | None:
    """The arguments of vdelivermail, if that is what decides the command's status; None for any other program.

    An argument that only the shell can tell is `OPAQUE`.
    """
    command = command.partition(b"\0")[0]
    if b"vdelivermail" not in command or len(command) > _LIMIT:
        return None
    return _understood(command)


@lru_cache(maxsize=256)
def _understood(command: bytes) -> Sequence[bytes] | None:
    """Remembered: all the domains of a host have the same few commands."""
    try:
        words = _last_of_pipeline(command)
        program = _program(words)
    except _Unclear:
        return None
    if not program or program[0].rpartition(b"/")[2] != b"vdelivermail":
        return None
    return tuple(program[1:])


def _last_of_pipeline(command: bytes) -> list[bytes]:
    words: list[bytes] = []
    redirected = ended = False
    for kind, text in _tokens(command):
        if kind == "operator":
            if redirected:
                raise _Unclear
            if text == b"|":
                if not words:
                    raise _Unclear
                words = []
            elif text == b";":
                ended = True
            else:
                raise _Unclear
        elif ended:
            raise _Unclear  # a second command
        elif kind == "redirection":
            if redirected or text.endswith(b"<<"):
                raise _Unclear
            redirected = True
        elif redirected:
            redirected = False  # the file
        else:
            words.append(text)
    if redirected:
        raise _Unclear
    return words


def _tokens(command: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(command):
        match = _TOKEN.match(command, at)
        if match is None:
            raise _Unclear  # a quotation without an end
        kind = str(match.lastgroup)
        if kind == "word":
            yield kind, _unquoted(match[0])
        elif kind in ("operator", "redirection"):
            yield kind, match[0]
        at = match.end()


def _unquoted(word: bytes) -> bytes:
    """The word's value; `OPAQUE` if it holds an expansion."""
    if word in _RESERVED:
        raise _Unclear
    value = b""
    opaque = False
    for piece in _PIECE.finditer(word):
        kind, text = piece.lastgroup, piece[piece.lastindex or 0]
        if kind == "plain":
            if b"`" in text:
                raise _Unclear
            if any(sign in text for sign in (b"$", b"*", b"?", b"[")) or text.startswith(b"~"):
                opaque = True
        elif kind == "double":
            plain = _SAFE_IN_DOUBLE.sub(b"", text)
            if b"`" in plain or b"$(" in plain:
                raise _Unclear
            if b"$" in plain:
                opaque = True
            text = _SAFE_IN_DOUBLE.sub(lambda match: match[1].replace(b"\n", b""), text)
        elif kind == "escaped":
            text = text.replace(b"\n", b"")
        value += text
    return OPAQUE if opaque else value


def _program(words: list[bytes]) -> list[bytes]:
    """The program with its arguments, after all that only stands before it."""
    words = _after_assignments(words)
    if words and words[0] == b"exec":
        words = words[1:]
    while words:
        name = words[0].rpartition(b"/")[2]
        if name == b"env":
            words = _after_assignments(words[1:])
        elif name == b"preline":
            words = words[1:]
            while words and re.fullmatch(rb"-[dfr]+", words[0]):
                words = words[1:]
        else:
            break
    return words


def _after_assignments(words: list[bytes]) -> list[bytes]:
    at = 0
    while at < len(words) and _ASSIGNMENT.match(words[at]):
        if words[at].startswith(_DECIDING):
            raise _Unclear  # another address than the one asked for
        at += 1
    return words[at:]
