"""cvmctl completion: what makes a shell complete cvmctl's subcommands, options and files at the Tab key.

The script is click's own; at each Tab the shell runs cvmctl with _CVMCTL_COMPLETE in its environment.
"""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Print a completion script for a shell.

    \b
      cvmctl completion bash > /usr/local/share/bash-completion/completions/cvmctl
      cvmctl completion zsh > /usr/local/share/zsh/site-functions/_cvmctl
      cvmctl completion fish > ~/.config/fish/completions/cvmctl.fish

    Or for this shell only:

    \b
      eval "$(cvmctl completion bash)"
    """  # noqa: D301  click knows the control character, not the backslash
    kind = get_completion_class(shell)
    assert kind is not None, shell
    whole = context.find_root().command
    # not the class's own `source`, which would start bash to see how old it is
    click.echo(ShellComplete.source(kind(whole, {}, "cvmctl", "_CVMCTL_COMPLETE")))
