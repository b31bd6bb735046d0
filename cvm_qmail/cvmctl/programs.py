"""cvmctl and the programs in .qmail files: questions in words, targets for lists, advice, mistakes.

Invariants: nothing here decides, and nothing is run.  Of a program in a table only its name is shown.

Source: fastforward(1), setforward(1), newaliases(1), dot-forward(1), dot-qmail(5), qmail-command(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import Extension
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.program_lines import make, newer_text, table_of, words_of
from cvm_qmail.cvmctl.lint import programs as lint_programs
from cvm_qmail.cvmctl.listing.entries import Candidate
from cvm_qmail.cvmctl.trace.capture import Case
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.programs.options import BadUsage, options, switched_on
from cvm_qmail.rules import dotqmail
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables

# -- its questions --------------------------------------------------------------------------------------


def words(table: str, key: Any, value: Any) -> str | None:
    """A question to fastforward's table, and its answer."""
    if not (table.startswith("/") and isinstance(key, bytes) and key[:1] in (b":", b"?")):
        return None
    what = f"fastforward: {'target' if key.startswith(b':') else 'owner of'} {text(key[1:])}"
    if isinstance(value, Unavailable):
        return f"{what}: temporary failure: {value.detail or value.reason}"
    if value is None:
        return f"{what}: not in {table}"
    commands = [] if key.startswith(b"?") else [_command(one) for one in value.split(b"\0")[:-1] if one]
    return f"{what}: {', '.join(commands) or 'found'} ({table})"


def _command(command: bytes) -> str:
    if command[:1] in (b"|", b"!"):
        return "runs " + (text(command[1:].split(None, 1)[0]) if command[1:].split() else "nothing")
    return f"forwards to {text(command[1:])}" if command.startswith(b"&") else f"list {text(command)}"


_SAID = {
    b"bouncesaying": "bounces",
    b"except": "bounces, if its program exits 0",
    b"condredirect": "forwards, if its program exits 0",
    b"forward": "forwards",
    b"dot-forward": "forwards by a .forward file",
}


def instruction(command: bytes) -> str | None:
    """What a program that is followed does with mail."""
    found = words_of(command)
    name = found[0].rpartition(b"/")[2] if found else b""
    if name == b"fastforward":
        try:
            given, rest = options(found[1:], b"nNpPdD")
        except BadUsage:
            return "fastforward, with wrong options: bounces"
        otherwise = "goes on" if switched_on(given, b"p", b"P") else "bounces"
        return f"fastforward: forwards by {text(rest[0]) if rest else 'no table'}; {otherwise} without a target"
    return f"{text(name)}: {_SAID[name]}" if name in _SAID else None


# -- its names ------------------------------------------------------------------------------------------


def names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate] | None:
    """The targets in the tables of a user's -default files; None unless they name all that is accepted there."""
    if settings.programs is not None and "fastforward" not in settings.programs:
        return None
    try:
        found = _tables(tables, user)
    except Unavailable:
        return None  # the listing of the home's files reports it
    return _targets(tables, user, _start(user, settings.alias), found) if found else None


def _start(user: User, alias: bytes) -> bytes:
    """The beginning of the local parts whose rest is the extension."""
    if user.key is not None:
        return user.key[1:].rstrip(b"\0")
    return b"" if user.name == alias else user.name + user.dash


def _tables(tables: Tables, user: User) -> list[tuple[bytes, bytes, bytes]]:
    """What stands before ``default``, options and table; none if more than tables decides.  Raises `Unavailable`."""
    rights = Rights(user.uid, user.gid)
    start = b".qmail" + user.dash
    found = []
    for name in files.dotqmail_names(tables, user.home, rights):
        if not name.startswith(start) or not name.endswith(b"default"):
            continue
        content = tables.file(b"%s/%s" % (user.home, name), rights) or b""
        for command in dotqmail.programs(content):
            table = table_of(command, user)
            if table is not None:
                found.append((name[len(start) : -len(b"default")], *table))
            elif b"$" in command:
                return []  # what it accepts depends on the address in another way
    return found


def _targets(tables: Tables, user: User, own: bytes, found: list[tuple[bytes, bytes, bytes]]) -> Iterator[Candidate]:
    """Candidates, relative to what local parts begin with, `own`.  Raises `Unavailable`."""
    for stem, given, path in found:
        data = tables.file(path, Rights(user.uid, user.gid))
        if data is None:
            raise Unavailable("no-table", "No such file or directory", path)
        for key, _ in files.cdb_records(data, path):
            target, at, _ = key[1:].rpartition(b"@")
            if not key.startswith(b":") or not at:
                continue
            if switched_on(given, b"d", b"D"):
                yield Candidate(stem + target, not target)
            elif not target:
                yield Candidate(stem, True)
            elif target.startswith(own.lower()):
                yield Candidate(target[len(own) :], False)


# -- its remedies ---------------------------------------------------------------------------------------


def _no_target(case: Case) -> Iterator[str]:
    table = case.outcome.where
    yield from _stale(case.tables, table)
    yield f"if the address should exist: add it to the source file of {text(table)}, and {make(table)}"


def _nobody(case: Case) -> Iterator[str]:
    yield f"correct the addresses in {text(case.outcome.where)}: {_rejected(case)}"


def _rejected(case: Case) -> str:
    names = [text(note.key) for note in case.followed if note.table == "follow"]
    return f"{', '.join(names)} would all be rejected"


def _remake(case: Case) -> Iterator[str]:
    table = case.outcome.where
    if case.outcome.reason == "no-table" or any(note.table == text(table) for note in case.notes):
        yield make(table)


def _stale(tables: Tables, table: bytes) -> Iterator[str]:
    source = newer_text(tables, table, None)
    if source is not None:
        yield f"{text(source)} is newer than {text(table)}: {make(table)}"


extension = Extension(
    words=words,
    instruction=instruction,
    names=names,
    remedies={
        "forwards-to-nobody": _nobody,
        "no-target": _no_target,
        "no-table": _remake,
        "cdb-damaged": _remake,
    },
    rules=lint_programs.RULES,
)
"""The entry point."""
