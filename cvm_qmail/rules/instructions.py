"""The lines of a .qmail file in the order in which qmail-local processes them.

    |COMMAND        a program: 0 continues, 99 ends the file with success, some codes bounce, others defer
    ./FILE /FILE    a delivery to a file or maildir
    +list           from here on only forwards are allowed
    ?LABEL COMMAND  with qmail-branch: as |COMMAND, but 99 continues after the next :LABEL further down
    :LABEL          with qmail-branch: nothing

Invariants: lines are followed in order, until one of them decides: a delivery by an earlier line does not save the
address.  A program whose status is not known without a run ends the file: the address is accepted.  It is accepted
too when there is more to follow than the limits below.

Source: dot-qmail(5), qmail-command(8), qmail-local.c (main, mailprogram); the qmail-branch patch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules import dotqmail
from cvm_qmail.rules.exit_status import STOP, Ran, may_defer

DIFFERENT = 1000
"""The number of different lines that are followed for one delivery."""

FOLLOWED = 100_000
"""The number of lines that are followed, equal ones included."""

_PLAIN = re.compile(rb"^[|./+][^\n]*", re.MULTILINE)
_BRANCHING = re.compile(rb"^[|./+?:][^\n]*", re.MULTILINE)
_ONE_COMMAND = re.compile(rb"\|([^\n]*[^\n \t])[ \t]*\n?")
_LABEL = re.compile(rb"[^ \t\0]*")
_LIST = re.compile(rb"\+list(?:\0.*)?", re.DOTALL)


class Instruction(NamedTuple):
    """A line that is not a comment or an address."""

    text: bytes
    """The line without trailing blanks; ``|COMMAND`` for a ``?LABEL COMMAND``."""
    label: bytes | None = None
    """The label at which status 99 continues with qmail-branch; None: at the end."""


class Course:
    """Iterates over the instructions that are processed.

    Raises `Unavailable` for others where only forwards are allowed.
    """

    def __init__(self, content: bytes, *, branch: bool) -> None:
        """`branch`: whether qmail-local has the qmail-branch patch."""
        self._lines = (match[0].rstrip(b" \t") for match in (_BRANCHING if branch else _PLAIN).finditer(content))
        self._branch = branch
        self._wanted: bytes | None = None

    def go(self, label: bytes) -> None:
        """Continues after the next line with this label; at the end if there is none."""
        self._wanted = label

    def __iter__(self) -> Iterator[Instruction]:
        forwards_only = False
        for line in self._lines:
            kind = line[:1]
            if self._wanted is not None:
                if kind == b":" and _label(line) == self._wanted:
                    self._wanted = None
            elif kind == b"+":
                forwards_only = forwards_only or bool(_LIST.fullmatch(line))
            elif kind != b":":
                if forwards_only:
                    raise Unavailable("dotqmail-forward-only", "a file or program line, but only forwards are allowed")
                instruction = self._instruction(line, kind)
                if instruction is not None:
                    yield instruction

    def _instruction(self, line: bytes, kind: bytes) -> Instruction | None:
        if kind != b"?":
            return Instruction(line)
        label = _label(line)
        command = line[1 + len(label) :].lstrip(b" \t")
        if command and not command.startswith(b"\0"):
            return Instruction(b"|" + command, label)
        self.go(label)
        return None


def _label(line: bytes) -> bytes:
    match = _LABEL.match(line, 1)
    return match[0] if match else b""


def follow(content: bytes, run: Callable[[bytes], Ran | None], *, branch: bool) -> Ran | None:
    """The result that decides the delivery, else that of the last program with a result; None: no program had one.

    `Ran.forwards` is known only where the first command decides.

    `run` returns the result that a command would have; None: not known without a run.  Raises `Unavailable` where
    qmail-local defers.
    """
    only = None if branch else _ONE_COMMAND.fullmatch(content)
    if only is not None:  # the usual case, faster
        ran = run(only[1])
        if ran is not None:
            may_defer(ran)
        return ran
    course = Course(content, branch=branch)
    known: dict[bytes, Ran] = {}
    reported: Ran | None = None
    for count, (line, label) in enumerate(course):
        if not line.startswith(b"|"):
            continue
        if count >= FOLLOWED or len(known) >= DIFFERENT:
            return Ran(None)
        ran = known.get(line)
        if ran is None:
            ran = known[line] = run(line[1:]) or Ran(None)
        if ran.status == STOP and label is not None:
            course.go(label)
        elif ran.status != 0:
            may_defer(ran)
            return ran._replace(forwards=None if count or branch else _all_forwards(ran, content))
        reported = ran._replace(forwards=None) if ran.reason else reported
    return reported


def _all_forwards(ran: Ran, content: bytes) -> tuple[bytes, ...] | None:
    """The addresses to which a program and the lines of its file forward, if they do nothing else; None: unknown."""
    if ran.forwards is None:
        return None
    addresses = [line for line in dotqmail.lines(content) if not line.startswith((b"|", b".", b"/", b"+"))]
    others = dotqmail.forwards(b"\n".join(addresses))
    return None if addresses and not others else (*ran.forwards, *others)
