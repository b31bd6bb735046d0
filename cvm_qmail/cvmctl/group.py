"""The command cvmctl with its subcommands, each imported when it is needed.

Invariants: no traceback reaches a user.  A wrong setting ends with status 100, what cannot be determined with 111.
"""

from __future__ import annotations

import errno
import os
from importlib import import_module

import click

from cvm_qmail import __version__
from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.commands import commands
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, text
from cvm_qmail.protocols.cvm.client import NoAnswer
from cvm_qmail.settings import BadSetting


class Group(click.Group):
    """The subcommands, which `commands` names."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click calls it so
        """Their names."""
        return sorted(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click calls it so
        """The subcommand of that name."""
        if cmd_name not in commands():
            return None
        module, function, _ = commands()[cmd_name]
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click calls it so
        """Lists them without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, _, purpose) in sorted(commands().items())])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the subcommand; what ends it becomes a message and an exit status."""
        try:
            return super().invoke(ctx)
        except BadSetting as bad:
            raise Failure(str(bad), PERMANENT) from None
        except Unavailable as error:
            raise Failure(f"{text(error.where)}: {error.reason}: {error.detail}", TEMPORARY) from None
        except NoAnswer as error:
            raise Failure(str(error), TEMPORARY) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click's to handle
                raise
            raise Failure(described(error), TEMPORARY) from None


def described(error: OSError) -> str:
    """The error in words, with the name of the file if it has one."""
    if not isinstance(error.filename, str | bytes) or error.strerror is None:
        return error.strerror or str(error)
    return f"{text(os.fsencode(error.filename))}: {error.strerror}"


@click.command(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cvmctl")
def cvmctl() -> None:
    """Ask, explain and check: which addresses a qmail host would take, and why.

    \b
    A MODULE is named as CVM clients name it:
      cvm-local:/path/to/socket    a server on a Unix socket
      cvm-udp:host:port            a server on UDP
      cvm-command:/path/to/program a program that reads the request on standard input
    """  # noqa: D301  click knows the control character, not the backslash
