"""Changes that would most likely make an address deliverable.

Invariants: advice only, given after the verdict.  Where nothing is certain there is no advice: a wrong guess costs an
administrator an hour.

Source: qmail-control(5), qmail-users(5), dot-qmail(5), qmail-getpw(8); the reason words of docs/reasons.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from cvm_qmail.cvmctl.extension import extensions
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.advice import HUP, NEWU
from cvm_qmail.cvmctl.host.files import kind
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.trace.capture import Case, control_line
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.tables.door import Rights


def remedies(case: Case) -> list[str]:
    """Advice for this outcome; none for one that needs none."""
    reason = case.outcome.reason
    known = [REMEDIES, *(extension.remedies for extension in extensions())]
    return [remedy for some in known if reason in some for remedy in some[reason](case)]


# -- rejected -----------------------------------------------------------------------------------------


def _no_mailbox(case: Case) -> Iterator[str]:
    user = case.user
    if user is None or not isinstance(case.route, domains.Local):
        return
    yield from stale(case)
    yield from _hidden(case, case.route.local)
    if user.key is None and user.dash and user.ext == case.route.local:
        yield from _passed_over(case)
        yield from _other_break(case, case.route.local)
    yield from _odd_file(case, user)
    name = next(dotqmail.names(user.dash, user.ext))[0]
    advice = f"make {_path(user.home, name)} a regular file (empty: as for {text(user.name)} itself)"
    if user.key is None and user.name == case.settings.alias:
        advice = f"make an account, a line in users/assign or {_path(user.home, name)} for it"
    yield f"if the address should exist: {advice}; {_path(user.home, b'.qmail' + user.dash + b'default')} takes all"


_BREAKS = b"+-.=_#"
"""Characters that hosts use as conf-break."""


def _other_break(case: Case, local: bytes) -> Iterator[str]:
    """An account that would control the address if conf-break were another character."""
    own = case.settings.breakchar
    for at, byte in enumerate(local):
        character = bytes([byte])
        if character == own or character not in _BREAKS:
            continue
        name = local[:at].lower()
        account = _account(case, name) if name else None
        if account is not None and account.uid:
            yield (
                f'account {text(name)} exists, but its extensions begin after "{text(own)}":'
                f" CVM_QMAIL_BREAK must be conf-break of the qmail build"
            )
            return


def _account(case: Case, name: bytes) -> users.Account | None:
    return or_none(lambda: case.tables.accounts().get(name))


def stale(case: Case) -> Iterator[str]:
    """Whether users/cdb is older than users/assign."""
    root = case.settings.qmail_root
    made = or_none(lambda: case.tables.status(root + b"/users/cdb"))
    source = or_none(lambda: case.tables.status(root + b"/users/assign"))
    if source is not None and (made is None or source.mtime > made.mtime):
        yield f"users/assign is newer than users/cdb: {NEWU}"


def _hidden(case: Case, local: bytes) -> Iterator[str]:
    """An account of that name that an entry of users/cdb hides."""
    user = case.user
    if user is None or user.key is None:
        return
    account = or_none(lambda: case.tables.accounts().get(local.lower()))
    if account is not None and account.uid and user.uid != account.uid:
        entry = text(files.as_assign(user.key))
        yield (
            f"there is an account {text(local.lower())}, but {entry}: in users/assign comes first:"
            f" give the account a line of its own, {NEWU}"
        )


def _passed_over(case: Case) -> Iterator[str]:
    """Accounts that would control the address, and why qmail skips them."""
    account: users.Account | None = None
    name = b""
    for table, key, value in case.notes:
        if table == "passwd":
            account, name = (value, key) if isinstance(value, users.Account) else (None, b"")
            if account is not None and not account.uid:
                yield f"account {text(key)} has uid 0: qmail skips it; give the address to another user"
        elif table == "owner" and account is not None:
            who = f"the home {text(key)} of account {text(name)}"
            if value is None:
                yield f"{who} is missing, or hidden from qmailp: make it, or let qmailp enter the directories above it"
            elif value != account.uid:
                yield f"{who} belongs to uid {value}, not to {account.uid}: chown it"


def _odd_file(case: Case, user: users.User) -> Iterator[str]:
    """A file that was probably intended, but has the wrong name or is not a regular file."""
    rights = Rights(user.uid, user.gid)
    there = or_none(lambda: files.listing(case.tables, user.home, rights)) or []
    tried = [name for name, _ in dotqmail.names(user.dash, user.ext)]
    for name in sorted(there):
        wanted = name.lower().replace(b".", b":").replace(b":", b".", 1)
        if name in tried:
            status = or_none(partial(case.tables.status, b"%s/%s" % (user.home, name), rights))
            what = "a dangling link" if status is None else kind(status.mode)
            yield f"{_path(user.home, name)} is {what}: put a regular file in its place"
        elif wanted in tried:
            yield f"{_path(user.home, name)} can never be found: rename it to {text(wanted)}"


def _path(home: bytes, name: bytes) -> str:
    return text(b"%s/%s" % (home, name))


# -- out of scope -------------------------------------------------------------------------------------


def _remote(case: Case) -> Iterator[str]:
    route = case.route
    if not isinstance(route, domains.Remote):
        return
    domain = route.host.lower()
    if not domain:
        return
    alike = False
    for name in ("locals", "virtualdomains"):
        for line in or_none(partial(files.control_lines, case.tables, case.settings, name)) or []:
            found, colon, _ = line.value.partition(b":")
            if found.strip(b" \t\r").lower() == domain and (found.lower() != domain or not colon):
                alike = True
                odd = "lacks a colon" if found.lower() == domain else "has a blank or a carriage return"
                yield f"{text(line.file)} line {line.number} {odd}: fix it {HUP}"
    listed = or_none(lambda: files.control_lines(case.tables, case.settings, "rcpthosts")) or []
    if not alike:
        taken = next((line for line in listed if line.value.lower() == domain), None)
        if taken is not None:
            yield f"{text(taken.file)} line {taken.number} accepts mail for it all the same, to relay it"
        yield (
            f"if {text(domain)} is delivered here: add it to control/locals, or {text(domain)}:USER to"
            f" control/virtualdomains, {HUP}"
        )


def _exception(case: Case) -> Iterator[str]:
    note = next((note for note in case.notes if note.table == "virtualdomains" and note.value == b""), None)
    line = None if note is None else control_line(case, "virtualdomains", note.key, b"")
    if line is not None:
        yield f"if it is delivered here: remove {text(line.file)} line {line.number} {HUP}"


# -- temporary failures ------------------------------------------------------------------------------


def _home(case: Case) -> Iterator[str]:
    user = case.user
    if user is None:
        return
    status = or_none(lambda: case.tables.status(user.home))
    if status is None:
        yield f"make or mount {text(user.home)} for uid {user.uid}, gid {user.gid}"
    elif status.uid != user.uid:
        yield f"{text(user.home)} belongs to uid {status.uid}, mode {status.mode & 0o7777:04o}: chown it to {user.uid}"
    else:
        yield f"chmod u+rwx {text(user.home)}, and see that uid {user.uid} can enter the directories above it"


def _home_mode(flags: str) -> Callable[[Case], Iterator[str]]:
    def advise(case: Case) -> Iterator[str]:
        yield f"chmod {flags} {text(case.outcome.where)}"

    return advise


def _dotqmail_writable(case: Case) -> Iterator[str]:
    names = [note.key for note in case.notes if note.table == "dotqmail"]
    if case.user is not None and names:
        yield f"chmod o-w {_path(case.user.home, names[-1])}"


def _dotqmail_denied(case: Case) -> Iterator[str]:
    user = case.user
    if user is not None:
        where = text(case.outcome.where)
        yield f"let uid {user.uid} read {where} (chown, or chmod a+r), and enter the directories above it"


def _blank(case: Case) -> Iterator[str]:
    yield f"{text(case.outcome.where)} line 1: begin with an instruction or a comment"


def _forward_only(case: Case) -> Iterator[str]:
    yield (
        f"{text(case.outcome.where)}: chmod u-x it, or remove the line +list;"
        " or take out the lines that begin with . / or |"
    )


def _control(case: Case) -> Iterator[str]:
    where = case.outcome.where
    path = text(where if where.startswith(b"/") else b"%s/%s" % (case.settings.qmail_root, where))
    yield f"make {path} a regular file that qmails can read: qmail delivers no mail until then"


def _no_alias(case: Case) -> Iterator[str]:
    yield f"make the account {text(case.settings.alias)}, or set CVM_QMAIL_ALIAS"


def _newu(case: Case) -> Iterator[str]:
    if not case.outcome.where.endswith(b"users/cdb"):
        return  # a plug-in's
    yield f"{NEWU}, which makes users/cdb again"
    yield from stale(case)


def _cdb_record(case: Case) -> Iterator[str]:
    yield f"give the line in users/assign all its fields, {NEWU}"
    yield from stale(case)


def _ids(case: Case) -> Iterator[str]:
    user = case.user
    if user is not None:
        source = "the account" if user.key is None else f"{text(files.as_assign(user.key))}: in users/assign"
        yield f"correct uid and gid of {source}"


def _not_absolute(case: Case) -> Iterator[str]:
    user = case.user
    if user is not None:
        source = "the account" if user.key is None else f"{text(files.as_assign(user.key))}: in users/assign"
        yield f"let the home of {source} begin with a slash"


def _cannot_see(_case: Case) -> Iterator[str]:
    yield "run it as root: this process has no permission to read this path"


REMEDIES: dict[str, Callable[[Case], Iterator[str]]] = {
    "no-mailbox": _no_mailbox,
    "home-not-absolute": _not_absolute,
    "remote": _remote,
    "virtual-exception": _exception,
    "control": _control,
    "cdb-unreadable": _newu,
    "cdb-damaged": _newu,
    "cdb-no-break-list": _newu,
    "cdb-record": _cdb_record,
    "bad-id": _ids,
    "uid-zero": _ids,
    "no-alias": _no_alias,
    "home": _home,
    "home-denied": _home,
    "cannot-see": _cannot_see,
    "home-writable": _home_mode("o-w"),
    "home-sticky": _home_mode("-t"),
    "dotqmail-denied": _dotqmail_denied,
    "dotqmail-writable": _dotqmail_writable,
    "dotqmail-blank": _blank,
    "dotqmail-forward-only": _forward_only,
}
"""By the reason word of the outcome."""
