"""What a person hands to a subcommand: a file, or standard input.

Law: opening never waits (a FIFO, a device), and what is read is bounded.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISREG

from cvm_qmail.tool.show import PERMANENT, Failure


def read(name: str, limit: int) -> bytes:
    """What is in the plain file `name`, or comes from standard input (``-``).  Raises OSError."""
    if name == "-":
        data = sys.stdin.buffer.read(limit + 1)
    else:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not S_ISREG(os.fstat(fd).st_mode):
                raise Failure(f"{name}: not a plain file", PERMANENT)
            with open(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(fd)
    if len(data) > limit:
        raise Failure(f"{name}: more than {limit} bytes", PERMANENT)
    return data
