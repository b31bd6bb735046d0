"""The program lines of .qmail files as they are written, and the tables of fastforward that they name.

Source: fastforward(1), setforward(1), newaliases(1), qmail-command(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.programs.options import BadUsage, options
from cvm_qmail.rules import program_line
from cvm_qmail.rules.users import User
from cvm_qmail.tables.door import Rights, Tables

_NAMES = (b"USER", b"HOME", b"LOCAL", b"EXT", b"HOST", b"RECIPIENT", b"DEFAULT")
_AS_WRITTEN = {name: b"$" + name for name in _NAMES}


def words_of(command: bytes, home: bytes | None = None) -> Sequence[bytes]:
    """The program of a simple command with its arguments, variables as they are written; empty for any other."""
    variables = _AS_WRITTEN if home is None else {**_AS_WRITTEN, b"HOME": home}
    understood = program_line.simple(command, variables)
    return () if understood is None else understood.words


def table_of(command: bytes, user: User) -> tuple[bytes, bytes] | None:
    """The options and the path of the table, if a command runs fastforward."""
    words = words_of(command, user.home)
    if not words or words[0].rpartition(b"/")[2] != b"fastforward":
        return None
    try:
        given, rest = options(words[1:], b"nNpPdD")
    except BadUsage:
        return None
    if not rest or b"$" in rest[0]:
        return None
    return given, rest[0] if rest[0].startswith(b"/") else b"%s/%s" % (user.home, rest[0].removeprefix(b"./"))


def make(table: bytes) -> str:
    """How to make a table again."""
    if table.endswith(b"/etc/aliases.cdb"):
        return "run newaliases"
    return f"run setforward {text(table)} {text(table)}.tmp with the source file as its input"


def newer_text(tables: Tables, table: bytes, rights: Rights | None) -> bytes | None:
    """The text beside a table, if it has changed after the table was made."""
    made = or_none(partial(tables.status, table, rights))
    stem = table.removesuffix(b".cdb")
    for source in (stem, stem + b".fwd", stem + b".txt"):
        status = or_none(partial(tables.status, source, rights)) if source != table else None
        if made is not None and status is not None and status.mtime > made.mtime:
            return source
    return None
