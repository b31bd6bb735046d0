"""Mistakes in homes and their .qmail files.

Source: dot-qmail(5), qmail-local.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules import dotqmail, users
from cvm_qmail.tables import Rights
from cvm_qmail.tool import host
from cvm_qmail.tool.explain import kind, told
from cvm_qmail.tool.mistakes.sight import Finding, Sight, Visited
from cvm_qmail.tool.show import text


def _owners(sight: Sight) -> Iterator[users.User]:
    """Everybody whom qmail would deliver to."""
    catch_all = False
    for key, data in sight.records:
        catch_all = catch_all or key == b"!"
        user = sight.user_of(key, data) if key else None
        if user is not None:
            yield user
    settings, owners = sight.settings, sight.tables.owners()
    for name, account in sorted(host.accounts(sight.tables, settings).items()):
        if name == settings.alias or (
            not catch_all and account.uid and sight.told(partial(owners.get, account.home)) == account.uid
        ):
            yield users.User(name, *account, b"-", b"")


def homes(sight: Sight) -> Iterator[Finding]:
    """Homes in which qmail-local defers everything.  Fills `sight.visited`."""
    seen: set[tuple[bytes, Rights]] = set()
    for user in _owners(sight):
        rights = Rights(user.uid, user.gid)
        if (user.home, rights) in seen or not told(partial(users.check, user)):
            continue  # what is wrong with a user is told of elsewhere
        seen.add((user.home, rights))
        try:
            home = sight.tables.home(user.home, rights)
            names = host.dotqmail_names(sight.tables, user.home, rights)
            sight.visited[user.home] = Visited(user, names, {})
            dotqmail.judge_home(home, sight.settings.mask)
        except Unavailable as trouble:
            if sight.blind(trouble):
                sight.troubles.append(trouble)
                continue
            remedy = {"home-writable": "chmod o-w it", "home-sticky": "chmod -t it when the user is done"}.get(
                trouble.reason, f"make it a folder that uid {user.uid} owns and may enter"
            )
            what = f"home of {text(user.name)}: {trouble.detail}"
            yield Finding(trouble.reason, user.home, None, what, "all mail for its user waits", remedy)
            continue
        yield from _dotqmails(sight, sight.visited[user.home], home)


def _dotqmails(sight: Sight, visited: Visited, home: dotqmail.Home) -> Iterator[Finding]:
    """The .qmail files of a home."""
    user, names, files = visited
    for name in names:
        path = b"%s/%s" % (user.home, name)
        if name.startswith(b".qmail-") and b"/" not in name and (name != name.lower() or b"." in name[1:]):
            what = "its name has a capital letter or a dot behind .qmail"
            wanted = text(b"." + name[1:].lower().replace(b".", b":"))
            yield Finding("dotqmail-unreachable", path, None, what, "no address reaches it", f"rename it to {wanted}")
            continue
        try:
            file = home.files.get(name)
            if file is None:
                yield from _passed_over(sight, user, name, path)
                continue
            if file.mode & sight.settings.mask:
                what = f"mode {file.mode & 0o7777:04o}: others may write"
                yield Finding("dotqmail-writable", path, None, what, "mail for its addresses waits", "chmod o-w it")
                continue
            dotqmail.judge_content(dotqmail.Found(name, file, default=False))
            files[name] = file
        except Unavailable as trouble:
            if sight.blind(trouble):
                sight.troubles.append(trouble)
                continue
            yield (
                _defers(user, path, file, trouble)
                if trouble.reason in _CONTENT
                else Finding(
                    "dotqmail-denied",
                    path,
                    None,
                    f"uid {user.uid} may not read it: {trouble.detail}",
                    "mail for its addresses waits",
                    f"chown it to uid {user.uid}, or chmod a+r it",
                )
            )


_CONTENT = frozenset({"dotqmail-blank", "dotqmail-forward-only"})


def _defers(user: users.User, path: bytes, file: dotqmail.DotQmail | None, trouble: Unavailable) -> Finding:
    """A file with lines that make qmail-local defer."""
    content = b"" if file is None or file.content is None else file.content
    forwards_only = file is not None and bool(file.mode & dotqmail.OWNER_EXECUTE)
    return Finding(
        trouble.reason,
        path,
        1 if trouble.reason == "dotqmail-blank" else _no_forward(content, forwards_only=forwards_only),
        trouble.detail,
        f"mail for this address of {text(user.name)} waits in the queue until it bounces",
        "begin with an instruction or a comment"
        if trouble.reason == "dotqmail-blank"
        else "chmod u-x it, or remove +list; or take out the lines that begin with . / or |",
    )


def _no_forward(content: bytes, *, forwards_only: bool) -> int | None:
    """The first line that may not be where only forwards may."""
    for at, line in instructions(content):
        forwards_only = forwards_only or line == b"+list"
        if forwards_only and line[:1] in (b".", b"/", b"|"):
            return at
    return None


def _passed_over(sight: Sight, user: users.User, name: bytes, path: bytes) -> Iterator[Finding]:
    """What is there but is no plain file."""
    status = None
    try:
        status = sight.tables.status(path, Rights(user.uid, user.gid))
    except Unavailable as trouble:
        if sight.blind(trouble):
            raise
    if status is None:
        what = "a dangling link"
        yield Finding("dotqmail-dangling", path, None, what, "its address does not exist", "mend or remove the link")
    elif b"/" not in name:
        what = kind(status.mode)
        yield Finding("dotqmail-not-plain", path, None, what, "qmail passes it over", "put a plain file in its place")


def instructions(content: bytes) -> list[tuple[int, bytes]]:
    """The lines of a .qmail file that mean something, with their numbers."""
    return [(at, line) for at, raw in enumerate(content.split(b"\n"), 1) for line in dotqmail.lines(raw)]
