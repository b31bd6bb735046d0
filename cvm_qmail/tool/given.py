"""What a person hands to a subcommand: a file or standard input, an address, the name of a module.

Law: opening never waits (a FIFO, a device), and what is read is bounded.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISREG

import click

from cvm_qmail.answer import Recipient
from cvm_qmail.entry_points import installed
from cvm_qmail.lookups import ModuleFactory, qmail
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


def recipient_of(address: bytes) -> Recipient:
    """An address as a server is asked for it: split at the last ``@``, without one no domain."""
    account, at, domain = address.rpartition(b"@")
    return Recipient(account, domain) if at else Recipient(address, None)


def module_named(name: str) -> ModuleFactory:
    """The module that is installed under `name`."""
    if name == "cvm-qmail":
        return qmail
    modules = installed("cvm_qmail.modules")
    if name not in modules:
        raise click.BadParameter(f"{name}: found no such module, expected one of {', '.join(sorted(modules))}")
    factory: ModuleFactory = modules[name]()
    return factory
