"""cvm-vpopmail: the command.  Ways to run and exit status are cvm-qmail's."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-vpopmail`."""
    if len(sys.argv) == 1:
        gc.disable()  # command mode: it ends before there is anything to collect
    from cvm_qmail.cli import run
    from cvm_vpopmail.lookup import module

    return run("cvm-vpopmail", module, sys.argv[1:])
