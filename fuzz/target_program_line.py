"""Any bytes as a command: its words hold what the bytes hold, and it is followed to a status or not at all.

A command of letters, digits and blanks alone is split at the blanks, unless it begins as a compound one; a
status is one that a process can have; what follows a NUL counts for nothing.
"""

from __future__ import annotations

import re

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.exit_status import BOUNCES, STOP, Ran
from cvm_qmail.rules.instructions import follow
from cvm_qmail.rules.program_line import builtin_status, deciding, simple

SEEDS = [
    b'fastforward -d "$HOME/t.cdb"',
    b"exec bouncesaying 'no such person' true",
    b'exit 1"00"\0; exit 99',
    b"A=b env C=d preline -f prog 2>/dev/null",
    b"spamc | prog $EXT # comment",
    b"?a exit 99\n|exit 100\n:a\n+list\n./x",
    b'"\\"\\$a${HOME}$x"',
    b"true\\\n false",
    b"for x in a; do true; done",
]

COMPOUND = [b"case", b"for", b"if", b"until", b"while", b"time"]

VARIABLES = {b"HOME": b"/home/joe"}


def check(data: bytes) -> None:
    """See the head of this file."""
    understood = simple(data, VARIABLES)
    command = data.partition(b"\0")[0]
    assert simple(command, VARIABLES) == understood
    if understood is not None:
        status = builtin_status(understood)
        assert status is None or 0 <= status <= 255
        for word in understood.words:
            assert set(word) <= set(command + VARIABLES[b"HOME"])
    elif re.fullmatch(rb"[a-z0-9 \t]*", command):
        assert len(command) > 8192 or command.split()[0] in COMPOUND, command
    if understood is not None and re.fullmatch(rb"[a-z0-9 \t]*", command):
        words = command.split()
        assert list(understood.words) == (words[1:] if words[:1] == [b"exec"] else words)
    deciding(data)
    for branch in (False, True):
        assert reason(data, branch=branch) in ("", "program-defers", "dotqmail-forward-only")


def reason(content: bytes, *, branch: bool) -> str:
    """Why a .qmail file with these lines defers; empty: it does not."""
    try:
        ran = follow(content, status_of, branch=branch)
    except Unavailable as error:
        return error.reason
    assert ran is None or ran.status in {None, 0, STOP} | BOUNCES
    return ""


def status_of(command: bytes) -> Ran | None:
    """What a command does that the shell does itself."""
    understood = simple(command, VARIABLES)
    status = None if understood is None else builtin_status(understood)
    return None if status is None else Ran(status)
