"""dot-forward [-nN] FILE...: forwards a message by the first FILE with an address in it.

    any addresses of a mail header, by the line        commas may be missing
      "|COMMAND"      without @: a program             /FILE: not supported, a temporary failure
      USER  USER@HOST                                  the user's own: the next lines of .qmail follow
    #...              a comment

Invariants: a FILE that is missing, or without an address, is skipped; if none is left, the status is 0.  One that
cannot be read or parsed is a temporary failure.  Otherwise it is 99, or 0 if an address is the user's own. Lines are
processed in order: a program whose status is not known without a run ends the search before the later lines.

Source: dot-forward(1), dot-forward.c, token822.c of dot-forward 0.71; checked against the running program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from cvm_qmail.plugin import BOUNCES, STOP, Delivery, FileAccess, Ran, Rights, Tables, Unavailable
from cvm_qmail.programs.options import USAGE, BadUsage, options

LIMIT = 1 << 16
"""Bytes of a file beyond which it is not followed."""

_TOKEN = re.compile(
    rb"""[ \t\r\n]+
    | (?P<special>[.,@<>:;])
    | (?P<quote>"(?P<quoted>(?:[^"\\]|\\.)*)")
    | (?P<literal>\[(?:[^\]\\]|\\.)*\])
    | (?P<comment>\()
    | (?P<atom>(?:[^ \t\r\n.,@<>:;"(\[\\)\]]|\\.|\\\Z)(?:[^ \t\r\n.,@<>:;"(\[\\]|\\.|\\\Z)*)""",
    re.VERBOSE | re.DOTALL,
)
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_COMMENT = re.compile(rb"[^()\\]+|\\.|(?P<open>\()|(?P<close>\))", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.?)", re.DOTALL)


class Token(NamedTuple):
    """A word, or one of the signs between words."""

    kind: str
    text: bytes


_AT, _COMMA, _DOT, _LEFT, _RIGHT = (Token("special", sign) for sign in (b"@", b",", b".", b"<", b">"))
_IGNORED = frozenset({Token("special", b":"), Token("special", b";")})
_PHRASE = frozenset({"atom", "quote", "comment"})


class Unparsable(Exception):
    """A line that is not a list of addresses."""


def program(arguments: Sequence[bytes], delivery: Delivery, tables: Tables) -> Ran:
    """What dot-forward would exit with.  Raises `Unavailable` where it defers."""
    try:
        _, names = options(arguments, b"nN")
    except BadUsage:
        return USAGE
    if not names:
        return USAGE

    def look(files: FileAccess) -> Ran:
        for name in names:
            path = delivery.path(name)
            content = _content(path, files)
            ran = Ran(None, "dot-forward", path) if content is None else forwards(content, path, delivery, files)
            if ran is not None:
                return ran
        return Ran(0)

    return tables.as_user(Rights(delivery.user.uid, delivery.user.gid), delivery.user.home, look)


def _content(path: bytes, files: FileAccess) -> bytes | None:
    """The content of a file, empty if there is none; None if it is not followed.  Raises `Unavailable`."""
    status = files.status(path)
    if status is None:
        return b""
    if S_ISDIR(status.mode):
        raise Unavailable("unreadable", "Is a directory", path)
    if not S_ISREG(status.mode):
        return None
    content = files.file(path) or b""
    return content if len(content) <= LIMIT else None


def forwards(content: bytes, path: bytes, delivery: Delivery, files: FileAccess) -> Ran | None:
    """The result of the addresses in a file; None if there is none.  Raises `Unavailable`."""
    user, host = delivery.user.name.lower(), delivery.host.lower()
    himself = anybody = False
    try:
        for has_at, address in _addresses(content):
            anybody = True
            if address.lower() == (b"%s@%s" % (user, host) if has_at else user):
                himself = True
            elif not has_at and address.startswith(b"|"):
                ran = _command(address[1:], path, delivery, files)
                if ran is not None:
                    return ran
            elif not has_at and address.startswith(b"/"):
                raise Unavailable("dot-forward-line", "delivery to a file is not supported", path)
    except Unparsable:
        raise Unavailable("dot-forward-line", "a line that is not a list of addresses", path) from None
    if not anybody:
        return None
    return Ran(0 if himself else STOP, "dot-forward", path)


def _addresses(content: bytes) -> Iterator[tuple[bool, bytes]]:
    for line in _LINE.findall(content):
        if not line.startswith(b"#"):
            yield from (found for found in parse(line) if found[1])


def _command(command: bytes, path: bytes, delivery: Delivery, files: FileAccess) -> Ran | None:
    """The result of a program among the addresses; None: the next address follows."""
    ran = delivery.shell(command)
    if ran is None and _missing(command, files):
        raise Unavailable("program-defers", "a program that does not exist", path)
    if ran is None or ran.status is None:
        return Ran(None, "dot-forward", path)
    if ran.status in BOUNCES:
        return Ran(100, "program-bounces", path)
    if ran.status:
        raise Unavailable("program-defers", f"a program exits {ran.status}", path)
    return None


def parse(line: bytes) -> Iterator[tuple[bool, bytes]]:
    """The addresses of a line in the order in which they are processed: from right to left; whether with ``@``.

    Raises `Unparsable`.
    """
    tokens = list(_tokens(line))
    address: list[Token] = []
    joins = True
    while tokens:
        token = tokens.pop()
        if token.kind == "comment" or token in _IGNORED:
            continue
        if token in (_COMMA, _RIGHT):
            yield from _taken(address)
            joins = True
            if token == _RIGHT:
                yield from _angle(tokens)
                joins = False
            continue
        word = token.kind != "special"
        if word and not joins:
            yield from _taken(address)
        joins = not word
        address.append(token)
    yield from _taken(address)


def _angle(tokens: list[Token]) -> Iterator[tuple[bool, bytes]]:
    """The address in angle brackets; the phrase before it is dropped."""
    inside: list[Token] = []
    while tokens and tokens[-1] != _LEFT:
        inside.append(tokens.pop())
    if not tokens:
        raise Unparsable
    tokens.pop()
    yield from _taken([token for token in inside if token.kind != "comment"])
    while tokens and (tokens[-1].kind in _PHRASE or tokens[-1] in (_DOT, _AT)):
        tokens.pop()


def _taken(address: list[Token]) -> Iterator[tuple[bool, bytes]]:
    """The address gathered from right to left, if there is any; it is gone afterwards."""
    if address:
        yield _AT in address, b"".join(token.text for token in reversed(address))
        address.clear()


def _tokens(line: bytes) -> Iterator[Token]:
    at = 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            raise Unparsable
        at = match.end()
        kind = match.lastgroup
        if kind == "comment":
            at = _end_of_comment(line, at)
            yield Token("comment", b"")
        elif kind in ("quote", "quoted"):
            yield Token("quote", _ESCAPED.sub(rb"\1", match["quoted"]))
        elif kind is not None:
            text = match[0] if kind == "special" else _ESCAPED.sub(rb"\1", match[0])
            yield Token(kind, text)


def _end_of_comment(line: bytes, at: int) -> int:
    depth = 1
    while depth:
        match = _COMMENT.match(line, at)
        if match is None:
            raise Unparsable
        depth += bool(match["open"]) - bool(match["close"])
        at = match.end()
    return at


def _missing(command: bytes, files: FileAccess) -> bool:
    """Whether the shell would not find the program of a simple command; known only for one with a path."""
    from cvm_qmail.rules import program_line

    understood = program_line.simple(command, {})
    if understood is None or not understood.words or not understood.words[0].startswith(b"/"):
        return False
    return files.status(understood.words[0]) is None
