"""cvm-vmailmgr: the command.  Ways to run and exit status are cvm-qmail's."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-vmailmgr`."""
    gc.disable()  # a tenth of the start otherwise; a server enables it, and nothing else lives long enough
    from cvm_qmail.cli import run
    from cvm_vmailmgr.module import module

    return run("cvm-vmailmgr", module, sys.argv[1:])
