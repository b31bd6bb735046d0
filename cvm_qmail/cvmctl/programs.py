"""cvmctl and the programs in .qmail files: questions in words, targets for lists, advice, mistakes.

Invariants: nothing here decides, and nothing is run.  Of a program in a table only its name is shown.

Source: fastforward(1), setforward(1), newaliases(1), dot-forward(1), dot-qmail(5), qmail-command(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.extension import Extension
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.lint.context import LintContext, Visited
from cvm_qmail.cvmctl.lint.homes import instructions
from cvm_qmail.cvmctl.listing.entries import Candidate
from cvm_qmail.cvmctl.trace.capture import Case
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.programs.options import BadUsage, options, switched_on
from cvm_qmail.programs.plugins import USUAL
from cvm_qmail.rules import dotqmail, program_line
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables

SHELL = frozenset({b"exit", b":", b"true", b"false", b"test", b"[", b"echo", b"printf", b"cd", b"umask", b"read"})
"""Commands of the shell itself."""

SEARCHED = (b"/usr/local/bin", b"/usr/bin", b"/bin")
"""Where a program without a path is found, in addition to QMAIL_ROOT/bin, as qmail is usually started."""

ELSEWHERE = (*(directory for directory in USUAL if directory not in SEARCHED), b"/usr/local/sbin", b"/sbin")

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
    yield f"if the address should exist: add it to the source file of {text(table)}, and {_make(table)}"


def _nobody(case: Case) -> Iterator[str]:
    yield f"correct the addresses in {text(case.outcome.where)}: {_rejected(case)}"


def _rejected(case: Case) -> str:
    names = [text(note.key) for note in case.followed if note.table == "follow"]
    return f"{', '.join(names)} would all be rejected"


def _remake(case: Case) -> Iterator[str]:
    table = case.outcome.where
    if case.outcome.reason == "no-table" or any(note.table == text(table) for note in case.notes):
        yield _make(table)


def _make(table: bytes) -> str:
    if table.endswith(b"/etc/aliases.cdb"):
        return "run newaliases"
    return f"run setforward {text(table)} {text(table)}.tmp with the source file as its input"


def _stale(tables: Tables, table: bytes) -> Iterator[str]:
    source = _newer_text(tables, table, None)
    if source is not None:
        yield f"{text(source)} is newer than {text(table)}: {_make(table)}"


def _newer_text(tables: Tables, table: bytes, rights: Rights | None) -> bytes | None:
    """The text beside a table, if it has changed after the table was made."""
    made = or_none(partial(tables.status, table, rights))
    stem = table.removesuffix(b".cdb")
    for source in (stem, stem + b".fwd", stem + b".txt"):
        status = or_none(partial(tables.status, source, rights)) if source != table else None
        if made is not None and status is not None and status.mtime > made.mtime:
            return source
    return None


# -- its mistakes ---------------------------------------------------------------------------------------


def _lines(context: LintContext) -> Iterator[tuple[Visited, bytes, int, bytes]]:
    """The instructions of the .qmail files that count: whose, path, number, line."""
    for home, visited in context.visited.items():
        for name, file in visited.files.items():
            for at, line in instructions(file.content or b""):
                yield visited, b"%s/%s" % (home, name), at, line


def _commands(context: LintContext) -> Iterator[tuple[Visited, bytes, int, bytes]]:
    """The commands of their program lines."""
    for visited, path, at, line in _lines(context):
        if line.startswith(b"|"):
            yield visited, path, at, line[1:]
        elif line.startswith(b"?") and context.settings.branch:
            yield visited, path, at, b" ".join(line.split(None, 1)[1:])


def tables(context: LintContext) -> Iterator[Finding]:
    """Tables of fastforward that are missing, damaged, closed to their user, or older than their text."""
    for visited, path, at, command in _commands(context):
        found = table_of(command, visited.user)
        if found is not None:
            yield from _table(context, visited.user, path, at, found[1])


def _table(context: LintContext, user: User, path: bytes, at: int, table: bytes) -> Iterator[Finding]:
    rights = Rights(user.uid, user.gid)
    waits = "mail for its addresses waits in the queue"
    try:
        data = context.tables.file(table, rights)
        if data is not None:
            for _ in files.cdb_records(data, table):
                pass
    except Unavailable as error:
        if context.blind(error):
            context.failures.append(error)
        elif error.reason == "cdb-damaged":
            yield Finding("table-damaged", table, None, f"damaged: {error.detail}", waits, _make(table))
        else:
            what = f"uid {user.uid} may not read {text(table)}: {error.detail}"
            yield Finding("table-unreadable", path, at, what, waits, f"let uid {user.uid} read it")
        return
    if data is None:
        yield Finding("table-missing", path, at, f"{text(table)} does not exist", waits, _make(table))
        return
    source = _newer_text(context.tables, table, rights)
    if source is not None:
        what = f"older than {text(source)}"
        yield Finding("table-stale", table, None, what, "what was changed there does not count yet", _make(table))


def targets(context: LintContext) -> Iterator[Finding]:
    """Targets of tables that forward to local addresses that do not exist, and to no others."""
    rejected: dict[bytes, bool] = {}
    seen: set[bytes] = set()
    for visited, _, _, command in _commands(context):
        found = table_of(command, visited.user)
        if found is None or found[1] in seen:
            continue
        seen.add(found[1])
        rights = Rights(visited.user.uid, visited.user.gid)
        data = or_none(partial(context.tables.file, found[1], rights))
        records = or_none(partial(_records, data or b"", found[1])) or {}
        for key, value in records.items():
            commands = [one for one in value.split(b"\0")[:-1] if one]
            if not key.startswith(b":") or not commands or any(not one.startswith(b"&") for one in commands):
                continue
            addresses = [one[1:] for one in commands]
            if any(b":" + address.lower() in records for address in addresses):
                continue  # a target again
            if all(_is_rejected(context, address, rejected) for address in addresses):
                what = f"target {text(key[1:])} forwards to {', '.join(map(text, addresses))}, which would be rejected"
                remedy = "correct the text of the table, and " + _make(found[1])
                yield Finding("target-to-nobody", found[1], None, what, "its mail bounces", remedy)


def _records(data: bytes, path: bytes) -> dict[bytes, bytes]:
    """Raises `Unavailable` for a damaged table."""
    return dict(files.cdb_records(data, path))


def _is_rejected(context: LintContext, address: bytes, known: dict[bytes, bool]) -> bool:
    """Whether the server would reject an address that mail is forwarded to."""
    if address not in known:
        local, at, domain = address.rpartition(b"@")
        answer = context.answer(Recipient(local, domain) if at else Recipient(address, None))
        known[address] = answer is not None and answer.verdict is Verdict.REJECTED
    return known[address]


def missing_programs(context: LintContext) -> Iterator[Finding]:
    """Programs that do not exist, or not where qmail would find them."""
    searched = (context.settings.qmail_root + b"/bin", *SEARCHED)
    for visited, path, at, command in _commands(context):
        found = words_of(command, visited.user.home)
        if not found or b"$" in found[0] or found[0] in SHELL or not found[0]:
            continue
        program, rights = found[0], Rights(visited.user.uid, visited.user.gid)
        there = partial(_exists, context, rights)
        if b"/" in program:
            place = program if program.startswith(b"/") else b"%s/%s" % (visited.user.home, program)
            if not there(place):
                what = f"{text(program)} does not exist"
                yield Finding("program-missing", path, at, what, "mail for its addresses waits", "correct the path")
        elif not any(there(b"%s/%s" % (directory, program)) for directory in searched):
            other = next((d for d in ELSEWHERE if there(b"%s/%s" % (d, program))), None)
            what = f"{text(program)} is in no directory where qmail would find it"
            remedy = f"write {text(other)}/{text(program)}" if other else "install it, or write its path"
            yield Finding("program-missing", path, at, what, "mail for its addresses waits", remedy)


def _exists(context: LintContext, rights: Rights, path: bytes) -> bool:
    """Whether a program is there, as far as that can be known."""
    try:
        return context.tables.status(path, rights) is not None
    except Unavailable:
        return True


def labels(context: LintContext) -> Iterator[Finding]:
    """Labels that lead nowhere; lines of qmail-branch on a host without the setting."""
    seen: dict[bytes, list[tuple[int, bytes]]] = {}
    for _, path, at, line in _lines(context):
        if line[:1] in (b"?", b":"):
            seen.setdefault(path, []).append((at, line))
    for path, lines in seen.items():
        if not context.settings.branch:
            what = f"{text(lines[0][1].split()[0])} is a forward to an odd address"
            remedy = "set CVM_QMAIL_BRANCH=1 if qmail-local has the qmail-branch patch, else remove the line"
            yield Finding("branch-off", path, lines[0][0], what, "a copy of the mail bounces", remedy)
            continue
        for number, (at, line) in enumerate(lines):
            label = _label(line)
            if line.startswith(b"?") and not any(
                later.startswith(b":") and _label(later) == label for _, later in lines[number + 1 :]
            ):
                what = f"no line :{text(label)} follows"
                consequence = "with exit status 99 all other lines are skipped"
                yield Finding("label-missing", path, at, what, consequence, f"add :{text(label)} further down")


def _label(line: bytes) -> bytes:
    return line[1:].replace(b"\t", b" ").partition(b" ")[0]


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
    rules=(tables, targets, missing_programs, labels),
)
"""The entry point."""
