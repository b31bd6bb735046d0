"""What the shell would run for a program line, as far as that can be known without running it.

Invariants: a line is either understood completely or is "some program".  There are two readings.
`simple` understands a command that the shell only splits into words, with ``exec`` in front and
qmail's own variables inside double quotes.  `deciding` also skips assignments, redirections, ``env`` and qmail's
preline, and takes the last program of a pipeline, whose status is the pipeline's.

Source: POSIX shell command language, 2.2, 2.3, 2.6, 2.7, 2.9; preline(1); qmail-command(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from cvm_qmail.rules.exit_status import BOUNCES, NOT_FOUND, STOP

OPAQUE = b"\0"
"""Stands for a word whose value only the shell knows (a command contains no NUL)."""

_LIMIT = 8192
"""Bytes of a command that are read."""

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


def deciding(command: bytes) -> Sequence[bytes] | None:
    """The words of the program whose status is the command's; None if that cannot be determined.

    A word whose value only the shell knows is `OPAQUE`.  A command ends at a NUL, like a string in C.
    """
    command = command.partition(b"\0")[0]
    return None if len(command) > _LIMIT else _deciding(command)


@lru_cache(maxsize=256)
def _deciding(command: bytes) -> Sequence[bytes] | None:
    """Cached: all the domains of a host have the same few commands."""
    try:
        return tuple(_program(_last_of_pipeline(command)))
    except _Unclear:
        return None


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
            raise _Unclear  # a quotation mark without its partner
        kind = str(match.lastgroup)
        if kind == "word":
            yield kind, _unquoted(match[0])
        elif kind in ("operator", "redirection"):
            yield kind, match[0]
        at = match.end()


def _unquoted(word: bytes) -> bytes:
    """The word's value; `OPAQUE` if it contains an expansion."""
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
    """The program with its arguments, without the prefixes (assignments, env, preline)."""
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
            raise _Unclear  # it changes the address
        at += 1
    return words[at:]


# -- simple commands ----------------------------------------------------------------------------------

_Piece = tuple[bytes, bool]
"""Literal bytes (False), or the name of a variable (True)."""

_SIMPLE = re.compile(
    rb"""(?:[^\n$`;&|<>(){}*?\[~#!'"\\]|\\[^\n]|'[^']*'|"(?:[^"\\`]|\\.)*")*""",
    re.DOTALL,
)
"""No byte can be matched in two ways, so that any line of a .qmail file is parsed in linear time."""

_WORD = re.compile(rb"""(?:[^ \t'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""", re.DOTALL)
_IN_DOUBLE = re.compile(
    rb"""\\(?P<escaped>[$`"\\])|\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\$\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}"""
    rb"""|(?P<other>\$)|(?P<plain>\\|[^\\$]+)""",
    re.DOTALL,
)


class Simple(NamedTuple):
    """A command that the shell only splits into words."""

    words: tuple[bytes, ...]
    """The program and its arguments; empty: no program, status 0."""
    execs: bool
    """Whether ``exec`` comes first; it cannot run a builtin of the shell."""


def simple(command: bytes, variables: Mapping[bytes, bytes]) -> Simple | None:
    """The words of a simple command; None for any other.

    `variables` are filled in inside double quotes; a command with any other variable, or with one outside of
    quotes, is not simple.  A command ends at a NUL, like a string in C.
    """
    command = command.partition(b"\0")[0]
    parsed = _simple(command) if len(command) <= _LIMIT else None
    if parsed is None:
        return None
    words = []
    for pieces in parsed:
        word = b""
        for text, is_name in pieces:
            value = variables.get(text) if is_name else text
            if value is None:
                return None
            word += value
        words.append(word)
    execs = words[:1] == [b"exec"]
    return Simple(tuple(words[1:] if execs else words), execs)


@lru_cache(maxsize=256)
def _simple(command: bytes) -> Sequence[Sequence[_Piece]] | None:
    """The pieces of each word.  Cached, see `_deciding`."""
    if not _SIMPLE.fullmatch(command):
        return None
    words = _WORD.findall(command)
    if words and (_ASSIGNMENT.match(words[0]) or words[0] in _RESERVED):
        return None
    try:
        return tuple(tuple(_pieces(word)) for word in words)
    except _Unclear:
        return None


def _pieces(word: bytes) -> Iterator[_Piece]:
    for piece in _PIECE.finditer(word):
        text = piece[piece.lastindex or 0]
        if piece.lastgroup != "double":
            yield text, False
            continue
        for part in _IN_DOUBLE.finditer(text.replace(b"\\\n", b"")):
            if part.lastgroup == "other":
                raise _Unclear
            yield part[part.lastindex or 0], part.lastgroup in ("name", "braced")


_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")

_LARGEST = 2**31 - 1

ILLEGAL = 2
"""Status of ``exit`` with a word that is not a number, or a negative number: in every shell it defers the mail."""


def builtin_status(command: Simple) -> int | None:
    """The status of an empty command, ``exit`` or ``:``; None for a program."""
    if not command.words:
        return 0
    name, *arguments = command.words
    if name not in (b"exit", b":"):
        return None
    if command.execs:
        return NOT_FOUND
    if name == b":" or not arguments:
        return 0
    return _exit_status(arguments[0])


def _exit_status(argument: bytes) -> int | None:
    number = _NUMBER.fullmatch(argument)
    if number is None:
        return None if argument.startswith(b"-") else ILLEGAL
    if len(number[1]) > len(str(_LARGEST)) or int(number[1]) > _LARGEST:
        return None
    status = int(number[1]) & 255
    if number[1].startswith(b"-"):
        return None if status in BOUNCES or status in (0, STOP) else ILLEGAL
    return status
