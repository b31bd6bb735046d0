"""What cvmctl says of vmailmgr: vdeliver's questions in words, virtual users for lists, advice, mistakes.

Invariants: nothing here decides.  No password is shown.

Source: vdeliver(1), vchattr(1) of vmailmgr.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import Extension
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.program_lines import words_of
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.cvmctl.lint.homes import instructions
from cvm_qmail.cvmctl.listing.entries import Candidate
from cvm_qmail.cvmctl.trace.capture import Case
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.programs.vmailmgr import PASSWORD_FILE
from cvm_qmail.programs.vmailmgr_config import OWN, Policy
from cvm_qmail.programs.vmailmgr_record import NEVER, parse
from cvm_qmail.rules import dotqmail
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables


def is_vdeliver(command: bytes) -> bool:
    """Whether a command runs vdeliver."""
    words = words_of(command)
    return bool(words) and words[0].rpartition(b"/")[2] == b"vdeliver"


# -- its questions --------------------------------------------------------------------------------------


def words(table: str, key: Any, value: Any) -> str | None:
    """Which virtual user was found, without a password."""
    if table != "vmailmgr":
        return None
    what = f"vmailmgr user {text(key)}"
    if value is None:
        return f"{what}: neither this one nor a default user"
    who = "" if value.name == key else f"the default user {text(value.name)}, "
    if value.entry is None:
        return f"{what}: {who}a record that vmailmgr cannot read"
    entry = value.entry
    goes = [f"to {text(entry.directory)}"] if entry.delivers else []
    goes += [f"forwarded to {', '.join(map(text, entry.forwards))}"] if entry.forwards else []
    expiry = "" if entry.expiry == NEVER else f", expires at {entry.expiry}"
    return f"{what}: {who}{' and '.join(goes) or 'no mailbox that takes mail, no forwards'}{expiry}"


def instruction(command: bytes) -> str | None:
    """What vdeliver does."""
    return "vdeliver: a virtual user of vmailmgr, else the default user" if is_vdeliver(command) else None


# -- its names ------------------------------------------------------------------------------------------


def names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate] | None:
    """The virtual users of an owner whose .qmail-default runs vdeliver alone; None: it does not."""
    if settings.programs is not None and "vmailmgr" not in settings.programs:
        return None
    rights = Rights(user.uid, user.gid)
    path = b"%s/.qmail%sdefault" % (user.home, user.dash)
    try:
        commands = list(dotqmail.programs(tables.file(path, rights) or b""))
    except Unavailable:
        return None  # the listing of the home's files reports it
    if len(commands) != 1 or not is_vdeliver(commands[0]):
        return None
    return _users(tables, settings, user)


def _users(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate]:
    """Raises `Unavailable`."""
    path = _table(tables, Policy.from_settings(settings), user)
    records = tables.cdb_records(path, Rights(user.uid, user.gid))
    if records is None:
        raise Unavailable("no-table", "No such file or directory", path)
    for name, _ in records:
        if name and name == name.lower():
            yield Candidate(name, False)


def _table(tables: Tables, policy: Policy, user: User) -> bytes:
    """Where an owner's virtual users are.  Raises `Unavailable`."""
    name = b""
    for directory in (b"%s/%s" % (user.home, OWN), policy.directory):
        content = tables.file(directory + b"/password-file", Rights(user.uid, user.gid))
        name = name or (content or b"").split(b"\n", 1)[0].strip()
    name = (name or PASSWORD_FILE) + b".cdb"
    return name if name.startswith(b"/") else b"%s/%s" % (user.home, name.removeprefix(b"./"))


# -- its remedies ---------------------------------------------------------------------------------------


def _no_user(case: Case) -> Iterator[str]:
    owner = "the owner of the domain" if case.user is None else text(case.user.name)
    yield f"if the address should exist: vadduser NAME, or vaddalias NAME ADDRESS, as {owner}"


# -- its mistakes ---------------------------------------------------------------------------------------


def virtual_tables(context: LintContext) -> Iterator[Finding]:
    """Tables of vdeliver that are missing, damaged or closed to their owner, and records that it cannot read."""
    for home, visited in context.visited.items():
        for name, file in visited.files.items():
            for at, line in instructions(file.content or b""):
                if line.startswith(b"|") and is_vdeliver(line[1:]):
                    yield from _checked(context, visited.user, b"%s/%s" % (home, name), at)


def _checked(context: LintContext, user: User, file: bytes, at: int) -> Iterator[Finding]:
    waits = "vdeliver bounces all mail for its users; here it waits"
    remedy = f"write it with vmailmgr's tools, as {text(user.name)}"
    try:
        path = _table(context.tables, Policy.from_settings(context.settings), user)
        records = context.tables.cdb_records(path, Rights(user.uid, user.gid))
        if records is None:
            yield Finding("table-missing", file, at, f"{text(path)} does not exist", waits, remedy)
            return
        for name, data in records:
            if parse(data) is None:
                what = f"the record of {text(name)} is not one of vmailmgr's"
                yield Finding("virtual-user-damaged", path, None, what, "its mail waits", remedy)
    except Unavailable as error:
        if context.blind(error):
            context.failures.append(error)
        elif error.reason == "cdb-damaged":
            yield Finding("table-damaged", error.where, None, f"damaged: {error.detail}", waits, remedy)
        else:
            what = f"uid {user.uid} may not read {text(error.where)}: {error.detail}"
            yield Finding("table-unreadable", file, at, what, waits, f"let uid {user.uid} read it")


extension = Extension(
    words=words,
    instruction=instruction,
    names=names,
    remedies={"no-virtual-user": _no_user},
    rules=(virtual_tables,),
)
"""The entry point."""
