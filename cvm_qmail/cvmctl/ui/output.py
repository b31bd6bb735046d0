"""The output of cvmctl: trees, tables, JSON; in colour on a terminal, plain in a pipe.

Invariants: text from outside is escaped here, once, on its way out, and nowhere else: every function that
prints takes text as it is (bytes through `text`).  In text, printable UTF-8 stays as it is; JSON has only printable
ASCII, as the log has.  No text is ever interpreted as markup.  rich is imported for terminals only.

    tree([Node("joe@example.org", children=[Node("accepted: mailbox", "yes")])])
    table(("verdict", "addresses"), [("accepted", "17")])
    json_line({"address": text(b"joe@example.org")})
    raise Failure("list.txt: no such file", TEMPORARY)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cvm_qmail.escape import escape_text, escape_unprintable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

SOME = 1
"""Exit status: something was found (a rejection, a mistake), as the command's manual says."""
PERMANENT = 100
"""Exit status: a setting or an argument is wrong."""
TEMPORARY = 111
"""Exit status: it could not be determined."""

STYLES = {
    "": "",
    "yes": "bold green",
    "no": "bold red",
    "failure": "bold yellow",
    "pass": "bold cyan",
    "title": "bold",
    "remedy": "magenta",
    "dim": "dim",
}
"""What a line can be, and how it looks on a terminal."""

INDENT = "  "


class Failure(click.ClickException):
    """The command cannot go on: a message for standard error, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click means it for whole classes, and reads it so

    def show(self, file: Any = None) -> None:
        """Prints the message."""
        click.echo(f"cvmctl: {escaped(self.message)}", err=file is None, file=file)


class Node(NamedTuple):
    """A line, and what belongs below it."""

    label: str
    style: str = ""
    children: Sequence[Node] = ()


def text(value: bytes) -> str:
    """Bytes from outside as text; unusual ones are preserved until they are escaped."""
    return value.decode("utf-8", "surrogateescape")


def counted(count: int, what: str) -> str:
    """A number of things: ``1 file``, ``1,234 addresses``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def console(*, err: bool = False) -> Console:
    """The terminal, for progress bars and the like.  What is printed on it must have passed `escaped`."""
    from rich.console import Console

    return Console(stderr=err, highlight=False, markup=False, emoji=False)


def escaped(value: str) -> str:
    """For what is printed on a `console` directly; all other functions here escape by themselves."""
    shown = escape_unprintable(value)
    try:
        shown.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        return escape_text(value)
    return shown


def line(value: str, style: str = "") -> None:
    """Prints one line."""
    _line(escaped(value), style)


def log_line(value: str, style: str = "") -> None:
    """Prints one line of a log, in which a backslash begins an escape already, and stays."""
    _line("\\".join(map(escaped, value.split("\\"))), style)


def _line(shown: str, style: str) -> None:
    if on_terminal():
        console().print(shown, style=STYLES[style], soft_wrap=True)
    else:
        click.echo(shown)


def tree(nodes: Iterable[Node]) -> None:
    """Prints trees, one below the other."""
    if on_terminal():
        terminal = console()
        for node in nodes:
            terminal.print(_branch(node))
    else:
        for node in nodes:
            _plain(node, "")


def _branch(node: Node) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    branch = Tree(Text(escaped(node.label), style=STYLES[node.style]), guide_style="dim")
    branch.children = [_branch(child) for child in node.children]
    return branch


def _plain(node: Node, indent: str) -> None:
    click.echo(indent + escaped(node.label))
    for child in node.children:
        _plain(child, indent + INDENT)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Prints a table; the columns named in `right` are aligned to the right."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    if on_terminal():
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=SIMPLE)
        for column in columns:
            drawn.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
        for row in cells:
            drawn.add_row(*map(Text, row))
        console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        placed = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo(INDENT.join(placed).rstrip())


def json_line(value: object) -> None:
    """Prints `value` as JSON on one line, with unusual bytes in strings escaped as in the log."""
    json_exactly(_escaped(value))


def json_exactly(value: object) -> None:
    """Prints `value` as JSON on one line; a program reads the strings as they are."""
    click.echo(json.dumps(value))


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, bytes):
        return escape_text(text(value))
    if isinstance(value, Mapping):
        return {str(_escaped(key)): _escaped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return value


def warn(message: str) -> None:
    """Prints a warning on standard error."""
    click.echo(f"cvmctl: {escaped(message)}", err=True)
