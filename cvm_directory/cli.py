"""cvm-directory: the command.  Ways to run and exit status are cvm-qmail's."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-directory`."""
    if len(sys.argv) == 1:
        gc.disable()  # command mode: it ends before there is anything to collect
    from cvm_directory.module import module
    from cvm_qmail.cli import run

    return run("cvm-directory", module, sys.argv[1:])
