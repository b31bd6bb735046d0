"""vpopmail's rules for `cvmctl lint`.  They change nothing.

Source: vpopmail's manual (vadduser, vmkpasswd); vcdb.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.lint.checks import LintContext
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.rules.users import User
from cvm_qmail.tables.door import Rights, Tables
from cvm_vpopmail.listing import accounts, is_stale, read_file
from cvm_vpopmail.rules.records import is_domain
from cvm_vpopmail.settings import Vpopmail


def _domains(context: LintContext) -> Iterator[tuple[bytes, User]]:
    """The domains of users/cdb, alias domains too, with their names."""
    for key, data in context.records:
        user = context.user_of(key, data)
        if user is not None and is_domain(user):
            yield key[1:-1], user


def not_virtual(context: LintContext) -> Iterator[Finding]:
    """Domains that virtualdomains does not send to vpopmail."""
    ours = {prepend.lower() for _, _, prepend in context.virtual}
    local = {line.value.lower() for line in context.local_lines}
    for name, _ in _domains(context):
        if name not in ours:
            where = "locals" if name in local else "virtualdomains"
            yield Finding(
                "vpopmail-not-virtual",
                context.path(f"control/{where}"),
                None,
                f"no line of virtualdomains leads to the vpopmail domain {text(name)}",
                "its accounts get no mail, though they can log in",
                f"add {text(name)}:{text(name)} to virtualdomains, and send qmail-send HUP",
            )


def account_files(context: LintContext) -> Iterator[Finding]:
    """A vpasswd.cdb that is damaged or stale, or differs from vpasswd; a domain without .qmail-default."""
    domains = list(_domains(context))
    if not domains or Vpopmail.from_settings(context.settings).dialect is not None:
        return
    seen: set[bytes] = set()
    for name, user in domains:
        if user.home in seen:
            continue
        seen.add(user.home)
        path = user.home + b"/vpasswd.cdb"
        made = f"vmkpasswd {text(user.name)}"
        try:
            known = list(accounts(context.tables, user))
        except Unavailable as error:
            if context.blind(error):
                context.failures.append(error)
                continue
            what = f"damaged or unreadable: {error.detail}"
            yield Finding("vpasswd-damaged", path, None, what, "mail for all its accounts waits", f"run {made}")
            continue
        if _gone(context.tables, user):
            what, consequence = "neither it nor vpasswd exists", "mail for all its accounts waits"
            yield Finding("vpasswd-gone", path, None, what, consequence, "mount the disk, or restore the files")
            continue
        if is_stale(context.tables, user):
            consequence = "changes in vpasswd have no effect yet"
            yield Finding("vpasswd-stale", path, None, "older than vpasswd", consequence, f"run {made}")
        yield from _capitals(context, user)
        yield from _without_default(context, name, user)
        yield from _homeless(context, name, known)


def _gone(tables: Tables, user: User) -> bool:
    """Whether a domain has neither of the two files of accounts."""
    rights = Rights(user.uid, user.gid)
    return all(tables.status(user.home + name, rights) is None for name in (b"/vpasswd.cdb", b"/vpasswd"))


def _capitals(context: LintContext, user: User) -> Iterator[Finding]:
    """Lines of vpasswd that match no login and no address."""
    path = user.home + b"/vpasswd"
    content = or_none(partial(read_file, context.tables, path, user)) or b""
    for at, line in enumerate(content.split(b"\n"), 1):
        name = line.partition(b":")[0]
        if name != name.lower():
            what = f"account {text(name)} has a capital letter"
            yield Finding("vpasswd-capital", path, at, what, "it is never found", "write it in lower case")


def _without_default(context: LintContext, name: bytes, user: User) -> Iterator[Finding]:
    visited = context.visited.get(user.home)
    if visited is not None and b".qmail-default" not in visited.names:
        path = user.home + b"/.qmail-default"
        consequence = f"no account of {text(name)} gets mail: all bounces"
        remedy = "write  | /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox"
        yield Finding("vpopmail-no-default", path, None, "missing", consequence, remedy)


MEANT = frozenset({"locked", "over-quota"})
"""Reasons for which it is normal that an account gets no mail."""


def _homeless(context: LintContext, domain: bytes, known: list[bytes]) -> Iterator[Finding]:
    """Accounts that get no mail."""
    place = next((name for _, name, prepend in context.virtual if prepend.lower() == domain and b"@" not in name), None)
    if not place or place.startswith(b"."):
        return
    for name in known:
        error: Unavailable | None = None
        try:
            answer = context.lookup(Recipient(name, place))
        except Unavailable as cannot:
            if context.blind(cannot):
                context.failures.append(cannot)
                continue
            error = cannot
        else:
            if answer.verdict is not Verdict.REJECTED:
                continue
        reason = answer.reason if error is None else error.reason
        where = (answer.where if error is None else error.where) or name
        if reason in MEANT or name != name.lower():
            continue
        address = f"{text(name)}@{text(place)}"
        consequence = "its mail bounces" if error is None else "its mail waits"
        remedy = f"cvmctl trace {address} explains it"
        yield Finding("vpopmail-account", where, None, f"account {address}: {reason}", consequence, remedy)


KINDS = {
    "vpopmail-not-virtual": "a vpopmail domain without a line in virtualdomains",
    "vpopmail-no-default": "a vpopmail domain without `.qmail-default`: all its mail bounces",
    "vpasswd-gone": "neither vpasswd.cdb nor vpasswd exists in a domain's directory",
    "vpasswd-stale": "vpasswd.cdb older than vpasswd",
    "vpasswd-damaged": "vpasswd.cdb is damaged, or cannot be read",
    "vpasswd-capital": "a line of vpasswd with a capital letter, which is never found",
    "vpopmail-account": "an account whose mail bounces or waits, other than locked or full ones",
}
