"""The server program that belongs to this cvmctl."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure

NAMES = ("cvm-qmaild", "cvm-qmail")
"""Debian's package has the first: the second is the C program there."""


def server_program(directories: Iterable[str] | None = None) -> str:
    """Its path.  Raises `Failure`."""
    looked = [os.path.dirname(os.path.abspath(sys.argv[0])), os.path.join(sys.prefix, "bin")]
    for directory in looked if directories is None else directories:
        for name in NAMES:
            path = os.path.join(directory, name)
            if _is_ours(path):
                return path
    raise Failure("cvm-qmail: not found beside cvmctl: name it with --program", PERMANENT)


def _is_ours(path: str) -> bool:
    """Whether it is the script that installing makes, and not the C program."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and b"cvm_qmail" in head


def closed_directory(program: str) -> str | None:
    """The first directory on the path to the program, or to its interpreter, that other users may not enter."""
    for path in (program, os.path.realpath(program), *_interpreter(program)):
        parts = path.split("/")
        for depth in range(2, len(parts)):
            directory = "/".join(parts[:depth])
            try:
                if not os.stat(directory).st_mode & 1:
                    return directory
            except OSError:
                break  # it is on another host
    return None


def _interpreter(program: str) -> list[str]:
    try:
        with open(program, "rb") as file:
            line = file.readline(4096)
    except OSError:
        return []
    return [os.path.realpath(os.fsdecode(line[2:].split()[0]))] if line.startswith(b"#!/") else []
