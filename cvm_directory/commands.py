"""The subcommands that this package adds to cvmctl: an entry point of ``cvm_qmail.commands``."""

from __future__ import annotations

COMMANDS = {
    "publish": (
        "cvm_directory.publishing.command",
        "publish",
        "Write what this host accepts into a directory for MX hosts.",
    ),
}
"""As `cvm_qmail.cvmctl.commands`."""
