"""The command `cvmctl`.  A module for each subcommand, imported when it is called; click only below here."""

from __future__ import annotations

import os
import sys

from cvm_qmail.exits import TEMPORARY
from cvm_qmail.process.inherited import hold_standard_descriptors, reset_signals


def main() -> int:
    """The command `cvmctl`."""
    try:
        import click  # noqa: F401  whether it can be imported
        import rich  # noqa: F401  whether it can be imported
    except ImportError as missing:
        print(
            f"cvmctl needs the package {missing.name or 'click'}: install it with  pip install 'cvm-qmail[tool]'",
            file=sys.stderr,
        )
        return TEMPORARY

    hold_standard_descriptors()
    _open_standard_streams()
    reset_signals()
    from cvm_qmail.cvmctl.group import cvmctl, described

    try:
        status = int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        status = end.code
    except OSError as error:  # of --help and --version; what ends a subcommand is a message already
        print(f"cvmctl: {described(error)}", file=sys.stderr)
        status = TEMPORARY
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1
        )  # else the interpreter tries once more, and complains
        if status == 0:
            print(f"cvmctl: {described(error)}", file=sys.stderr)
            status = TEMPORARY
    return status


def _open_standard_streams() -> None:
    """Opens /dev/null for those that were closed at start: Python has None in their place."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
