"""cvm-vpopmail: the command.  Ways to run and exit status are cvm-qmail's; ``--check`` looks at the databases."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """The command `cvm-vpopmail`."""
    gc.disable()  # a tenth of the start otherwise; a server enables it, and nothing else lives long enough
    if sys.argv[1:] == ["--check"]:
        from cvm_vpopmail import check

        return check.main()
    from cvm_qmail.cli import USAGE, run
    from cvm_vpopmail.module import module

    if sys.argv[1:] == ["--help"]:
        print(
            USAGE.format(program="cvm-vpopmail"),
            "         --check          check the databases, and print their tables",
            sep="",
        )
        return 0

    return run("cvm-vpopmail", module, sys.argv[1:])
