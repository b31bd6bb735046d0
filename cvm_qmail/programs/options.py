"""Options of a program in the manner of qmail's programs.

Source: sgetopt.c, subgetopt.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import Ran

USAGE = Ran(100, "program-bounces", detail="wrong usage")
"""The result of wrong usage."""


class BadUsage(Exception):
    """An option that the program does not have."""


def options(arguments: Sequence[bytes], letters: bytes) -> tuple[bytes, Sequence[bytes]]:
    """The option letters given, in order, and the arguments after them.  Raises `BadUsage`."""
    given = b""
    for at, argument in enumerate(arguments):
        if argument == b"--":
            return given, arguments[at + 1 :]
        if not argument.startswith(b"-") or argument == b"-":
            return given, arguments[at:]
        if argument[1:].strip(letters):
            raise BadUsage
        given += argument[1:]
    return given, ()


def switched_on(given: bytes, on: bytes, off: bytes) -> bool:
    """Whether the last one given of two letters is `on`."""
    return given.rfind(on) > given.rfind(off)
