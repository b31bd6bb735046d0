"""cvm-vmailmgr: the command.  Ways to run and exit status are cvm-qmail's."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-vmailmgr`."""
    if len(sys.argv) == 1:
        gc.disable()  # command mode: it ends before there is anything to collect
    from cvm_qmail.cli import run
    from cvm_vmailmgr.module import module

    return run("cvm-vmailmgr", module, sys.argv[1:])
