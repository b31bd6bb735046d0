"""The arguments of a subcommand: a file or standard input, an address, the name of a module.

Invariants: opening never blocks (a FIFO, a device), and reads are bounded.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISREG

import click

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure
from cvm_qmail.entry_points import installed
from cvm_qmail.plugin import ModuleFactory
from cvm_qmail.qmail import qmail


def read(name: str, limit: int) -> bytes:
    """The content of the regular file `name`, or of standard input (``-``).  Raises OSError."""
    if name == "-":
        data = sys.stdin.buffer.read(limit + 1)
    else:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not S_ISREG(os.fstat(fd).st_mode):
                raise Failure(f"{name}: not a regular file", PERMANENT)
            with open(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(fd)
    if len(data) > limit:
        raise Failure(f"{name}: more than {limit} bytes", PERMANENT)
    return data


def recipient_of(address: bytes) -> Recipient:
    """An address as a server is asked about it: split at the last ``@``; without one it has no domain."""
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
