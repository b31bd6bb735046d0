"""Which program lines run vdelivermail.

Source: cvm_qmail.rules.program_line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cvm_qmail.rules.program_line import deciding

_EXIT = re.compile(rb"[ \t]*exit(?:[ \t]+([0-9]{1,9}))?[ \t]*;?[ \t]*")


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

    An argument that only the shell can determine is `program_line.OPAQUE`.
    """
    if b"vdelivermail" not in command:
        return None
    program = deciding(command)
    if not program or program[0].rpartition(b"/")[2] != b"vdelivermail":
        return None
    return program[1:]
