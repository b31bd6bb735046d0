"""cvm-directory: the command.  Ways to run and exit status are cvm-qmail's."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-directory`."""
    gc.disable()  # a tenth of the start otherwise; a server enables it, and nothing else lives long enough
    from cvm_directory.module import module
    from cvm_qmail.cli import run

    return run("cvm-directory", module, sys.argv[1:])
