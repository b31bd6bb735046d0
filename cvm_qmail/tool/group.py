"""The command cvmctl with its subcommands, each imported when it is needed.

Law: no traceback reaches a user.  A wrong setting ends with status 100, what cannot be told with 111.
"""

from __future__ import annotations

import errno
import os
from importlib import import_module

import click

from cvm_qmail import __version__
from cvm_qmail.answer import Unavailable
from cvm_qmail.client import NoAnswer
from cvm_qmail.settings import BadSetting
from cvm_qmail.tool import COMMANDS
from cvm_qmail.tool.show import PERMANENT, TEMPORARY, Failure, text


class Group(click.Group):
    """The subcommands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click calls it so
        """Their names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click calls it so
        """The subcommand of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name][0]
        command: click.Command = getattr(import_module(f"cvm_qmail.tool.{module}"), module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click calls it so
        """Lists them without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the subcommand; what ends it becomes a message and an exit status."""
        try:
            return super().invoke(ctx)
        except BadSetting as bad:
            raise Failure(str(bad), PERMANENT) from None
        except Unavailable as trouble:
            raise Failure(f"{text(trouble.where)}: {trouble.reason}: {trouble.detail}", TEMPORARY) from None
        except NoAnswer as trouble:
            raise Failure(str(trouble), TEMPORARY) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click's to handle
                raise
            raise Failure(_words(error), TEMPORARY) from None


def _words(error: OSError) -> str:
    """What it says, without its number."""
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
