"""cvmctl: for people.  A module per subcommand; click is imported only here and below."""

from __future__ import annotations

import sys

from cvm_qmail import __version__


def main() -> int:
    """The command `cvmctl`."""
    try:
        import click
    except ImportError:
        print("cvmctl needs the package click: install it with  pip install 'cvm-qmail[tool]'", file=sys.stderr)
        return 111

    from cvm_qmail.tool.ask import ask

    @click.group(context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(__version__, prog_name="cvmctl")
    def cvmctl() -> None:
        r"""Ask CVM modules what they think of an address.

        \b
        A MODULE is named as CVM clients name it:
          cvm-local:/path/to/socket    a server on a Unix socket
          cvm-udp:host:port            a server on UDP
          cvm-command:/path/to/program a program that reads the request on standard input
        """

    cvmctl.add_command(ask)
    return int(cvmctl(prog_name="cvmctl", standalone_mode=True) or 0)
