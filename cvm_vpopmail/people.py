"""What cvmctl tells people of vpopmail: its questions in words, its names, its remedies, its mistakes.

Law: nothing here decides; no hash and no password leaves `Account`.  Names are taken one by one: there
may be a million.

Source: vpopmail's manual (vadduser, vmoduser, vmkpasswd); vcdb.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Rights, Tables
from cvm_qmail.tool import host
from cvm_qmail.tool.explain import Case, told
from cvm_qmail.tool.helpers import Helper
from cvm_qmail.tool.mistakes import Finding, Sight
from cvm_qmail.tool.show import text
from cvm_qmail.tool.survey import Candidate
from cvm_vpopmail.accounts import Account, Domain, Flag
from cvm_vpopmail.rules import shell
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables import sql

# -- its questions --------------------------------------------------------------------------------------


def words(table: str, key: Any, value: Any) -> str | None:
    """What was asked of a domain or an account, and what was told."""
    if isinstance(value, Unavailable):
        return f"vpopmail account {text(key[1])}: cannot be told: {value.detail}" if table == "account" else None
    if table == "domain":
        return _domain(key, value)
    if table == "account":
        return _account(key[1], value)
    if table == "limits" and isinstance(key, Domain):
        return f"limits of {text(key.name)}: {'none' if value is None else 'found'}"
    return None


def _domain(name: bytes, domain: Domain | None) -> str:
    if domain is None:
        return f"vpopmail knows no domain {text(name)}: it has no accounts"
    alias = "" if domain.name == name else f", an alias of {text(domain.name)}"
    return f"vpopmail domain {text(name)}{alias}: uid {domain.uid}, gid {domain.gid}, folder {text(domain.directory)}"


def _account(name: bytes, account: Account | None) -> str:
    if account is None:
        return f"vpopmail has no account {text(name)}"
    flags = [flag.name for flag in Flag if account.flags & flag and flag.name is not None]
    return (
        f"vpopmail account {text(name)}: home {text(account.directory) or '(none)'},"
        f" quota {text(account.quota) or '(none)'}, flags {' '.join(flags) or '(none)'}"
    )


def instruction(command: bytes) -> str | None:
    """What vdelivermail does with names that nobody has; what ``exit N`` says."""
    status = shell.exit_status(command)
    if status is not None:
        return f"exits with {status}"
    arguments = shell.vdelivermail(command)
    if arguments is None:
        return None
    if len(arguments) != 2:
        return "vdelivermail, with wrong arguments"
    other = arguments[1]
    if other.startswith(b"|"):
        other = b"a program"
    return f"vdelivermail: an account, else {text(other)}"


# -- its names ------------------------------------------------------------------------------------------


def is_domain(user: User) -> bool:
    """Whether an entry of users/cdb is a vpopmail domain's."""
    key = user.key
    return key is not None and key.startswith(b"!") and key.endswith(b"-") and user.dash == b"-" and b"." in user.name


def names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate] | None:
    """The accounts and aliases of a domain; None: it is none.  Raises `Unavailable` on the way."""
    return _names(tables, settings, user) if is_domain(user) else None


def _names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate]:
    policy = Vpopmail.from_settings(settings)
    for name in filter(None, known(tables, settings, user, policy)):
        yield Candidate(name, False)
        if policy.qmail_ext or policy.tmda:
            yield Candidate(name + b"-", True)
    if policy.backend != "cdb" and policy.sql_aliases:
        for name in filter(None, sql.alias_names(_servers(tables, settings, policy), user.name, _wait(settings))):
            yield Candidate(name, False)
            if name.endswith(b"-default"):
                yield Candidate(name.removesuffix(b"default"), True)
            if policy.qmail_ext:
                yield Candidate(name + b"-", True)
    if policy.ezmlm_directory:
        for name in host.listing(tables, user.home, Rights(user.uid, user.gid)) or []:
            yield Candidate(name + b"-", True)


def known(tables: Tables, settings: Settings, user: User, policy: Vpopmail) -> Iterator[bytes]:
    """The names of a domain's accounts.  Raises `Unavailable`."""
    if policy.backend == "cdb":
        return iter(accounts(tables, user))
    database = _servers(tables, settings, policy)
    return sql.names(database, user.name, policy.backend, _wait(settings), many_domains=policy.many_domains)


def _servers(tables: Tables, settings: Settings, policy: Vpopmail) -> sql.Paged:
    from cvm_vpopmail.tables.databases import sql as sql_of

    return sql_of(tables, settings, policy).servers


def _wait(settings: Settings) -> float:
    """Seconds for a page: less than after which this process is taken to hang."""
    return settings.lookup_timeout * 0.8


def accounts(tables: Tables, user: User) -> list[bytes]:
    """The names in vpasswd.cdb, or in vpasswd where there is none."""
    path = user.home + b"/vpasswd.cdb"
    data = _file(tables, path, user)
    if data is not None:
        return [name for name, _ in host.cdb_records(data, path)]
    lines = (_file(tables, user.home + b"/vpasswd", user) or b"").split(b"\n")
    return [line.partition(b":")[0] for line in lines if b":" in line]


def _file(tables: Tables, path: bytes, user: User) -> bytes | None:
    """A file as this process reads it, or else its user."""
    try:
        return tables.file(path, secret=True)
    except Unavailable:
        return tables.file(path, Rights(user.uid, user.gid), secret=True)


# -- its remedies ---------------------------------------------------------------------------------------


def _address(case: Case) -> str:
    """The account as vpopmail's tools name it."""
    note = next((note for note in case.notes if note.table == "account"), None)
    if note is None:
        return text(case.recipient.address)
    domain, name = note.key
    return f"{text(name)}@{text(domain.name)}"


def _no_account(case: Case) -> Iterator[str]:
    note = next((note for note in case.notes if note.table == "domain"), None)
    if note is not None and note.value is None:
        yield f"vpopmail does not know the domain: vaddaliasdomain {text(note.key)} REAL-DOMAIN, if it is one"
        return
    yield from _stale(case)
    yield f"if the address should exist: vadduser {_address(case)}, or a file .qmail-NAME in {_folder(case)}"


def _folder(case: Case) -> str:
    return "the domain's folder" if case.user is None else text(case.user.home)


def _stale(case: Case) -> Iterator[str]:
    """Whether vpasswd is newer than what is looked at."""
    if case.user is not None and is_domain(case.user) and is_stale(case.tables, case.user):
        yield f"{text(case.user.home)}/vpasswd is newer than vpasswd.cdb: run vmkpasswd {text(case.user.name)}"


def is_stale(tables: Tables, user: User) -> bool:
    """Whether vpasswd.cdb is older than vpasswd."""
    rights = Rights(user.uid, user.gid)
    source = told(partial(tables.status, user.home + b"/vpasswd", rights))
    made = told(partial(tables.status, user.home + b"/vpasswd.cdb", rights))
    return source is not None and made is not None and made.mtime < source.mtime


def _locked(case: Case) -> Iterator[str]:
    yield f"the account is locked: vmoduser -x {_address(case)} clears its flags (all of them)"


def _home_not_made(case: Case) -> Iterator[str]:
    yield f"its home is missing, and vpopmail cannot make it: make it and its Maildir for the owner of {_folder(case)}"


def _maildir(case: Case) -> Iterator[str]:
    user = case.user
    if user is not None:
        yield f"make {text(case.outcome.where)} for uid {user.uid}, gid {user.gid}"


def _over_quota(case: Case) -> Iterator[str]:
    yield f"the mailbox is full: delete mail, or vsetuserquota {_address(case)} QUOTA"


def _arguments(case: Case) -> Iterator[str]:
    yield f"{text(case.outcome.where)}: write  | /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox"


# -- its mistakes ---------------------------------------------------------------------------------------


def _domains(sight: Sight) -> Iterator[tuple[bytes, User]]:
    """The domains of users/cdb, alias domains too, with their names."""
    for key, data in sight.records:
        user = sight.user_of(key, data)
        if user is not None and is_domain(user):
            yield key[1:-1], user


def not_virtual(sight: Sight) -> Iterator[Finding]:
    """Domains that virtualdomains does not send to vpopmail."""
    ours = {prepend.lower() for _, _, prepend in sight.virtual}
    local = {line.value.lower() for line in sight.local_lines}
    for name, _ in _domains(sight):
        if name not in ours:
            where = "locals" if name in local else "virtualdomains"
            yield Finding(
                "vpopmail-not-virtual",
                sight.path(f"control/{where}"),
                None,
                f"no line of virtualdomains leads to the vpopmail domain {text(name)}",
                "its accounts get no mail, though they can log in",
                f"add {text(name)}:{text(name)} to virtualdomains, and send qmail-send HUP",
            )


def account_files(sight: Sight) -> Iterator[Finding]:
    """A vpasswd.cdb that is unsound, stale, or not what vpasswd says; a domain without .qmail-default."""
    seen: set[bytes] = set()
    for name, user in _domains(sight):
        if user.home in seen or Vpopmail.from_settings(sight.settings).backend != "cdb":
            continue
        seen.add(user.home)
        path = user.home + b"/vpasswd.cdb"
        made = f"vmkpasswd {text(user.name)}"
        try:
            known = accounts(sight.tables, user)
        except Unavailable as trouble:
            if sight.blind(trouble):
                sight.troubles.append(trouble)
                continue
            what = f"damaged or unreadable: {trouble.detail}"
            yield Finding("vpasswd-damaged", path, None, what, "mail for all its accounts waits", f"run {made}")
            continue
        if is_stale(sight.tables, user):
            consequence = "what was changed in vpasswd does not count yet"
            yield Finding("vpasswd-stale", path, None, "older than vpasswd", consequence, f"run {made}")
        yield from _capitals(sight, user)
        yield from _without_default(sight, name, user)
        yield from _homeless(sight, name, known)


def _capitals(sight: Sight, user: User) -> Iterator[Finding]:
    """Lines of vpasswd that are never found."""
    path = user.home + b"/vpasswd"
    content = told(partial(_file, sight.tables, path, user)) or b""
    for at, line in enumerate(content.split(b"\n"), 1):
        name = line.partition(b":")[0]
        if name != name.lower():
            what = f"account {text(name)} has a capital letter"
            yield Finding("vpasswd-capital", path, at, what, "it is never found", "write it in lower case")


def _without_default(sight: Sight, name: bytes, user: User) -> Iterator[Finding]:
    visited = sight.visited.get(user.home)
    if visited is not None and b".qmail-default" not in visited.names:
        path = user.home + b"/.qmail-default"
        consequence = f"no account of {text(name)} gets mail: all bounces"
        remedy = "write  | /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox"
        yield Finding("vpopmail-no-default", path, None, "missing", consequence, remedy)


MEANT = frozenset({"locked", "over-quota"})
"""Reasons for which an account may well get no mail."""


def _homeless(sight: Sight, domain: bytes, known: list[bytes]) -> Iterator[Finding]:
    """Accounts that get no mail."""
    place = next((name for _, name, prepend in sight.virtual if prepend.lower() == domain and b"@" not in name), None)
    if not place or place.startswith(b"."):
        return
    for name in known:
        trouble: Unavailable | None = None
        try:
            answer = sight.lookup(Recipient(name, place))
        except Unavailable as cannot:
            if sight.blind(cannot):
                sight.troubles.append(cannot)
                continue
            trouble = cannot
        else:
            if answer.verdict is not Verdict.REJECT:
                continue
        reason = answer.reason if trouble is None else trouble.reason
        where = (answer.where if trouble is None else trouble.where) or name
        if reason in MEANT or name != name.lower():
            continue
        address = f"{text(name)}@{text(place)}"
        consequence = "its mail bounces" if trouble is None else "its mail waits"
        remedy = f"cvmctl trace {address} tells why"
        yield Finding("vpopmail-account", where, None, f"account {address}: {reason}", consequence, remedy)


def _cdb(case: Case) -> Iterator[str]:
    if case.user is not None and case.outcome.where.endswith(b"/vpasswd.cdb"):
        yield f"run vmkpasswd {text(case.user.name)}, which makes vpasswd.cdb anew from vpasswd"


REMEDIES: dict[str, Callable[[Case], Iterator[str]]] = {
    "no-account": _no_account,
    "cdb-damaged": _cdb,
    "cdb-unreadable": _cdb,
    "locked": _locked,
    "home-not-made": _home_not_made,
    "maildir": _maildir,
    "over-quota": _over_quota,
    "vdelivermail-arguments": _arguments,
}

helper = Helper(
    words=words,
    instruction=instruction,
    names=names,
    remedies=REMEDIES,
    rules=(not_virtual, account_files),
)
"""The entry point."""
