"""Mistakes in users/assign, and in users/cdb, which is made from it.

Source: qmail-users(5), qmail-newu.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules import users
from cvm_qmail.tool import host
from cvm_qmail.tool.explain import told
from cvm_qmail.tool.host import Line
from cvm_qmail.tool.mistakes.sight import Finding, Sight
from cvm_qmail.tool.remedies import NEWU
from cvm_qmail.tool.show import text


def assign(sight: Sight) -> Iterator[Finding]:
    """Lines of users/assign that qmail-newu refuses, or that give mail to nobody."""
    found = host.assign(sight.tables, sight.settings)
    if found is None:
        return
    lines, ended = found
    path = sight.path("users/assign")
    if not ended:
        yield Finding(
            "assign-syntax", path, None, "does not end in a line with a dot", f"{NEWU}: it fails", "add that line"
        )
    seen: dict[bytes, int] = {}
    for line, key, data in lines:
        number = line.number
        if data is None:
            what = "has fewer than seven fields, or a NUL"
            yield Finding("assign-syntax", path, number, what, "qmail-newu fails", "complete the line")
            continue
        if key in seen:
            what = f"stands in line {seen[key]} already"
            yield Finding("assign-duplicate", path, number, what, "this line is never found", "remove one of them")
        seen.setdefault(key, number)
        name = line.value[1:].partition(b":")[0]
        if key[-1:] != b"\0" and name[-1:].isupper():
            yield Finding(
                "assign-capital",
                path,
                number,
                "its prefix ends in a capital letter",
                "no address is ever compared with it",
                f"write it in lower case, {NEWU}",
            )
        yield from _bad_user(sight, Line(path, number, b"", b""), key, data)


def _bad_user(sight: Sight, line: Line, key: bytes, data: bytes) -> Iterator[Finding]:
    user = sight.user_of(key, data)
    if user is None:
        return
    try:
        if users.check(user):
            return
        what, consequence = f"home {text(user.home)} does not begin with a slash", "its mail bounces"
    except Unavailable as trouble:
        what, consequence = trouble.detail, "its mail waits in the queue until it bounces"
    yield Finding("assign-user", line.file, line.number, what, consequence, f"correct the line, {NEWU}")


def cdb(sight: Sight) -> Iterator[Finding]:
    """A users/cdb that is damaged, stale, or not what users/assign says."""
    path = sight.path("users/cdb")
    source = told(lambda: sight.tables.status(sight.path("users/assign")))
    made = told(lambda: sight.tables.status(path))
    try:
        records = host.users_cdb(sight.tables, sight.settings) or []
        database = sight.tables.users_cdb()
        sound = database is None or all(database.get(key) is not None for key, _ in records)
    except Unavailable as trouble:
        if sight.blind(trouble) or not (sight.exact or trouble.reason in ("cdb-damaged", "cdb-no-break-list")):
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
        yield Finding("cdb-stale", path, None, what, "what was changed there does not count yet", NEWU)
    yield from _different(sight, records) if made is not None and source is not None else ()


def _different(sight: Sight, records: list[tuple[bytes, bytes]]) -> Iterator[Finding]:
    """What users/cdb says otherwise than users/assign."""
    found = host.assign(sight.tables, sight.settings)
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
        name = text(host.as_assign(differing[0]))
        more = f" and {len(differing) - 1} more" if differing[1:] else ""
        what = f"says otherwise than users/assign of {name}:{more}"
        yield Finding("cdb-different", sight.path("users/cdb"), None, what, "users/cdb counts", NEWU)
