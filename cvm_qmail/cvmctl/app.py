"""The command `cvmctl`.  A module for each subcommand, imported when it is called; click only below here."""

from __future__ import annotations

import sys

from cvm_qmail.process.inherited import hold_standard_descriptors, reset_signals


def main() -> int:
    """The command `cvmctl`."""
    try:
        import click  # noqa: F401  whether it is there
        import rich  # noqa: F401  whether it is there
    except ImportError as missing:
        print(
            f"cvmctl needs the package {missing.name or 'click'}: install it with  pip install 'cvm-qmail[tool]'",
            file=sys.stderr,
        )
        return 111

    hold_standard_descriptors()
    reset_signals()
    from cvm_qmail.cvmctl.group import cvmctl

    return int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
