"""The command `cvmctl`.  A module for each subcommand, imported when it is called; click only below here."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from cvm_qmail.exits import TEMPORARY
from cvm_qmail.process.inherited import hold_standard_descriptors, reset_signals


def main() -> int:
    """The command `cvmctl`."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        print(f"cvmctl needs the package {missing[0]}: install it with  pip install 'cvm-qmail[tool]'", file=sys.stderr)
        return TEMPORARY

    hold_standard_descriptors()
    reset_signals()
    from cvm_qmail.cvmctl.group import cvmctl

    return int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
