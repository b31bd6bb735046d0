"""Mistakes in the program lines of .qmail files, and in the tables of fastforward.

Source: fastforward(1), dot-qmail(5), qmail-command(8), the qmail-branch patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.program_lines import make, newer_text, table_of, words_of
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.lint.context import LintContext, Visited
from cvm_qmail.cvmctl.lint.homes import instructions
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.programs.plugins import USUAL
from cvm_qmail.rules.users import User
from cvm_qmail.tables.door import Rights

SHELL = frozenset({b"exit", b":", b"true", b"false", b"test", b"[", b"echo", b"printf", b"cd", b"umask", b"read"})
"""Commands of the shell itself."""

SEARCHED = (b"/usr/local/bin", b"/usr/bin", b"/bin")
"""Where a program without a path is found, in addition to QMAIL_ROOT/bin, as qmail is usually started."""

ELSEWHERE = (*(directory for directory in USUAL if directory not in SEARCHED), b"/usr/local/sbin", b"/sbin")


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
            yield Finding("table-damaged", table, None, f"damaged: {error.detail}", waits, make(table))
        else:
            what = f"uid {user.uid} may not read {text(table)}: {error.detail}"
            yield Finding("table-unreadable", path, at, what, waits, f"let uid {user.uid} read it")
        return
    if data is None:
        yield Finding("table-missing", path, at, f"{text(table)} does not exist", waits, make(table))
        return
    source = newer_text(context.tables, table, rights)
    if source is not None:
        what = f"older than {text(source)}"
        yield Finding("table-stale", table, None, what, "what was changed there does not count yet", make(table))


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
                remedy = "correct the text of the table, and " + make(found[1])
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


RULES = (tables, targets, missing_programs, labels)
