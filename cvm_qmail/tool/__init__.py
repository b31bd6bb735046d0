"""cvmctl: for people.  A module per subcommand, imported when it is called; click only below here."""

from __future__ import annotations

import sys

COMMANDS = {
    "ask": ("ask", "Put one question to a module, and print the facts of its answer."),
    "audit": ("audit", "Compare what qmail-send's logs say of deliveries with today's verdicts."),
    "bench": ("bench", "Put a module under load, and print how it bears it."),
    "check": ("check", "Look up many addresses, from a list or a mailbox."),
    "completion": ("completion", "Print what makes a shell complete cvmctl's words at the Tab key."),
    "decode": ("decode", "Take a captured request or response apart, field by field."),
    "lint": ("lint", "Look for mistakes on this host that make mail bounce or wait."),
    "list": ("addresses", "List every address that would be accepted."),
    "trace": ("trace", "Explain step by step how qmail treats an address."),
}
"""Name of the subcommand: the module here that has it under the same name as itself, and what it is for."""


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

    from cvm_qmail.tool.group import cvmctl

    return int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
