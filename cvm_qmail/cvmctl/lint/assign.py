"""Mistakes in users/assign, and in users/cdb, which is made from it.

Source: qmail-users(5), qmail-newu.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.advice import NEWU
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.rules import users


def assign(context: LintContext) -> Iterator[Finding]:
    """Lines of users/assign that qmail-newu rejects, or that match no address."""
    found = files.assign(context.tables, context.settings)
    if found is None:
        return
    lines, ended = found
    path = context.path("users/assign")
    if not ended:
        yield Finding(
            "assign-syntax", path, None, "does not end in a line with a dot", "qmail-newu fails", "add that line"
        )
    seen: dict[bytes, int] = {}
    for line, key, data in lines:
        number = line.number
        if data is None:
            what = "has fewer than seven fields, or a NUL"
            yield Finding("assign-syntax", path, number, what, "qmail-newu fails", "complete the line")
            continue
        if key in seen:
            what = f"repeats the entry of line {seen[key]}"
            yield Finding("assign-duplicate", path, number, what, "this line is never found", "remove one of them")
        seen.setdefault(key, number)
        name = line.value[1:].partition(b":")[0]
        if key[-1:] != b"\0" and name[-1:].isupper():
            yield Finding(
                "assign-capital",
                path,
                number,
                "its prefix ends in a capital letter",
                "it never matches an address",
                f"write it in lower case, {NEWU}",
            )
        yield from _bad_user(context, Line(path, number, b"", b""), key, data)


def _bad_user(context: LintContext, line: Line, key: bytes, data: bytes) -> Iterator[Finding]:
    user = context.user_of(key, data)
    if user is None:
        return
    try:
        if users.check(user):
            return
        what, consequence = f"home {text(user.home)} does not begin with a slash", "its mail bounces"
    except Unavailable as error:
        what, consequence = error.detail, "its mail waits in the queue until it bounces"
    yield Finding("assign-user", line.file, line.number, what, consequence, f"correct the line, {NEWU}")


def cdb(context: LintContext) -> Iterator[Finding]:
    """A users/cdb that is damaged, stale, or differs from users/assign."""
    path = context.path("users/cdb")
    source = or_none(lambda: context.tables.status(context.path("users/assign")))
    made = or_none(lambda: context.tables.status(path))
    try:
        records = files.users_cdb(context.tables, context.settings) or []
        database = context.tables.users_cdb()
        sound = database is None or all(database.get(key) is not None for key, _ in records)
    except Unavailable as error:
        if context.blind(error) or not (context.exact or error.reason in ("cdb-damaged", "cdb-no-break-list")):
            raise
        records, sound = [], False
    if not sound:
        yield Finding(
            "cdb-damaged", path, None, "damaged, or not a constant database", "mail for its users waits", NEWU
        )
        return
    if made is not None and all(key for key, _ in records):
        what = "has no list of break characters"
        yield Finding("cdb-damaged", path, None, what, "all local mail waits", NEWU)
    if source is not None and (made is None or made.mtime < source.mtime):
        what = "missing" if made is None else "older than users/assign"
        yield Finding("cdb-stale", path, None, what, "changes in users/assign have no effect yet", NEWU)
    yield from _different(context, records) if made is not None and source is not None else ()


def _different(context: LintContext, records: list[tuple[bytes, bytes]]) -> Iterator[Finding]:
    """Entries of users/cdb that differ from users/assign."""
    found = files.assign(context.tables, context.settings)
    if found is None:
        return
    wanted: dict[bytes, bytes | None] = {}
    for line in found[0]:
        wanted.setdefault(line.key, line.data)
    there: dict[bytes, bytes] = {}
    for key, data in records:
        if key:
            there.setdefault(key, data)
    differing = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
    if differing:
        name = text(files.as_assign(differing[0]))
        more = f" and {len(differing) - 1} more" if differing[1:] else ""
        what = f"differs from users/assign: {name}:{more}"
        yield Finding("cdb-different", context.path("users/cdb"), None, what, "qmail uses users/cdb", NEWU)
