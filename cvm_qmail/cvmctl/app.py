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
        return int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
    except OSError as error:  # of --help and --version; what ends a subcommand is a message already
        print(f"cvmctl: {described(error)}", file=sys.stderr)
        return TEMPORARY


def _open_standard_streams() -> None:
    """Opens /dev/null for those that were closed at start: Python has None in their place."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
