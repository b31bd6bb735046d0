"""Mistakes in homes and their .qmail files.

Source: dot-qmail(5), qmail-local.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.files import kind
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.lint.context import LintContext, Visited
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.rules import dotqmail, users
from cvm_qmail.tables.door import Rights


def _owners(context: LintContext) -> Iterator[users.User]:
    """Every user to whom qmail would deliver."""
    catch_all = False
    for key, data in context.records:
        catch_all = catch_all or key == b"!"
        user = context.user_of(key, data) if key else None
        if user is not None:
            yield user
    settings, owners = context.settings, context.tables.owners()
    for name, account in sorted(files.accounts(context.tables, settings).items()):
        if name == settings.alias or (
            not catch_all and account.uid and context.or_none_reported(partial(owners.get, account.home)) == account.uid
        ):
            yield users.User(name, *account, b"-", b"")


def homes(context: LintContext) -> Iterator[Finding]:
    """Homes in which qmail-local defers everything.  Fills `context.visited`."""
    seen: set[tuple[bytes, Rights]] = set()
    for user in _owners(context):
        rights = Rights(user.uid, user.gid)
        if (user.home, rights) in seen or not or_none(partial(users.check, user)):
            continue  # what is wrong with a user is reported elsewhere
        seen.add((user.home, rights))
        try:
            home = context.tables.home(user.home, rights)
            names = files.dotqmail_names(context.tables, user.home, rights)
            context.visited[user.home] = Visited(user, names, {})
            dotqmail.judge_home(home, context.settings.mask)
        except Unavailable as error:
            if context.blind(error):
                context.failures.append(error)
                continue
            remedy = {"home-writable": "chmod o-w it", "home-sticky": "chmod -t it when the user is done"}.get(
                error.reason, f"make it a directory that uid {user.uid} owns and may enter"
            )
            what = f"home of {text(user.name)}: {error.detail}"
            yield Finding(error.reason, user.home, None, what, "all mail for its user waits", remedy)
            continue
        yield from _dotqmails(context, context.visited[user.home], home)


def _dotqmails(context: LintContext, visited: Visited, home: dotqmail.Home) -> Iterator[Finding]:
    """The .qmail files of a home."""
    user, names, files = visited
    for name in names:
        path = b"%s/%s" % (user.home, name)
        if name.startswith(b".qmail-") and b"/" not in name and (name != name.lower() or b"." in name[1:]):
            what = "its name has a capital letter or a dot after .qmail"
            wanted = text(b"." + name[1:].lower().replace(b".", b":"))
            yield Finding("dotqmail-unreachable", path, None, what, "no address reaches it", f"rename it to {wanted}")
            continue
        try:
            file = home.files.get(name)
            if file is None:
                yield from _passed_over(context, user, name, path)
                continue
            if file.mode & context.settings.mask:
                what = f"mode {file.mode & 0o7777:04o}: others may write"
                yield Finding("dotqmail-writable", path, None, what, "mail for its addresses waits", "chmod o-w it")
                continue
            found = dotqmail.Found(name, file, default=False)
            dotqmail.judge_start(found)
            dotqmail.judge_list(found)
            files[name] = file
        except Unavailable as error:
            if context.blind(error):
                context.failures.append(error)
                continue
            yield (
                _defers(user, path, file, error)
                if error.reason in _CONTENT
                else Finding(
                    "dotqmail-denied",
                    path,
                    None,
                    f"uid {user.uid} may not read it: {error.detail}",
                    "mail for its addresses waits",
                    f"chown it to uid {user.uid}, or chmod a+r it",
                )
            )


_CONTENT = frozenset({"dotqmail-blank", "dotqmail-forward-only"})


def _defers(user: users.User, path: bytes, file: dotqmail.DotQmail | None, error: Unavailable) -> Finding:
    """A file with lines that make qmail-local defer."""
    content = b"" if file is None or file.content is None else file.content
    forwards_only = file is not None and bool(file.mode & dotqmail.OWNER_EXECUTE)
    return Finding(
        error.reason,
        path,
        1 if error.reason == "dotqmail-blank" else _no_forward(content, forwards_only=forwards_only),
        error.detail,
        f"mail for this address of {text(user.name)} waits in the queue until it bounces",
        "begin with an instruction or a comment"
        if error.reason == "dotqmail-blank"
        else "chmod u-x it, or remove +list; or take out the lines that begin with . / or |",
    )


def _no_forward(content: bytes, *, forwards_only: bool) -> int | None:
    """The first line that is not allowed where only forwards are."""
    for at, line in instructions(content):
        forwards_only = forwards_only or line == b"+list"
        if forwards_only and line[:1] in (b".", b"/", b"|"):
            return at
    return None


def _passed_over(context: LintContext, user: users.User, name: bytes, path: bytes) -> Iterator[Finding]:
    """A name that exists but is not a regular file."""
    status = None
    try:
        status = context.tables.status(path, Rights(user.uid, user.gid))
    except Unavailable as error:
        if context.blind(error):
            raise
    if status is None:
        what = "a dangling link"
        yield Finding("dotqmail-dangling", path, None, what, "its address does not exist", "fix or remove the link")
    elif b"/" not in name:
        what = kind(status.mode)
        yield Finding("dotqmail-not-plain", path, None, what, "qmail skips it", "replace it with a regular file")


def instructions(content: bytes) -> list[tuple[int, bytes]]:
    """The instructions of a .qmail file, with their line numbers."""
    return [(at, line) for at, raw in enumerate(content.split(b"\n"), 1) for line in dotqmail.lines(raw)]
