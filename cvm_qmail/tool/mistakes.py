"""The mistakes on a qmail host that make mail bounce or wait, and how each is found.

Law: a rule is a generator of findings over one `Sight` of the host; it changes nothing and decides no
address: whether one exists is the server's own look-up's to say.  What cannot be read raises
`Unavailable` and ends that rule only; the caller says that it could not be told.

Source: qmail-control(5), qmail-users(5), dot-qmail(5), qmail-send(8), qmail-smtpd(8); qmail-local.c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.lookups import qmail
from cvm_qmail.rules import dotqmail, users
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Rights, Tables
from cvm_qmail.tables.control import NAMES
from cvm_qmail.tables.passwd import PASSWD
from cvm_qmail.tables.rights import Switch
from cvm_qmail.tool import host
from cvm_qmail.tool.explain import kind, told
from cvm_qmail.tool.host import Line
from cvm_qmail.tool.remedies import HUP, NEWU
from cvm_qmail.tool.show import text

PROBE = b"zz9cvmctlprobe"
"""A name that nobody has."""

PEOPLE = range(1000, 60_000)
"""Uids of accounts that are people's: of the system's own nobody expects a mailbox."""


QMAILS = frozenset({b"qmaild", b"qmaill", b"qmailp", b"qmailq", b"qmailr", b"qmails"})
"""Qmail's own accounts, which get no mail."""


class Finding(NamedTuple):
    """A mistake."""

    kind: str
    """A constant word."""
    file: bytes
    line: int | None
    what: str
    consequence: str
    remedy: str


class Visited(NamedTuple):
    """A home that qmail would deliver in."""

    user: users.User
    names: list[bytes]
    """Of its .qmail files."""
    files: dict[bytes, dotqmail.DotQmail]
    """Those that can be read and do not make qmail-local defer."""


class Sight:
    """What there is to see of a host, looked at once."""

    def __init__(self, settings: Settings) -> None:
        host.open_tables(settings)  # drops groups
        self.settings = settings
        self.tables = Tables(settings)
        self.lookup = qmail(self.tables, settings).lookup
        self.exact = Switch().may
        """Whether a refusal is the host's doing, and not for want of rights here."""
        self.visited: dict[bytes, Visited] = {}

    def path(self, name: str) -> bytes:
        """A file below the qmail home."""
        return b"%s/%s" % (self.settings.qmail_root, name.encode())

    def lines(self, name: str) -> list[Line]:
        """The entries of a control file; none if it cannot be read, which `unreadable_controls` says."""
        try:
            return host.control_lines(self.tables, self.settings, name) or []
        except Unavailable:
            return []

    @cached_property
    def local_lines(self) -> list[Line]:
        """The entries of locals, or that of me."""
        try:
            return host.local_lines(self.tables, self.settings)
        except Unavailable:
            return []

    @cached_property
    def virtual(self) -> list[tuple[Line, bytes, bytes]]:
        """The entries of virtualdomains that count: line, name in lower case, what is prepended."""
        by_name = {}
        for line in self.lines("virtualdomains"):
            name, colon, prepend = line.value.partition(b":")
            if colon:
                by_name[name.lower()] = (line, name.lower(), prepend)
        return list(by_name.values())

    @cached_property
    def records(self) -> list[tuple[bytes, bytes]]:
        """Those of users/cdb; none if it is damaged, which `cdb` says.  Raises `Unavailable`."""
        try:
            return host.users_cdb(self.tables, self.settings) or []
        except Unavailable as trouble:
            if not self.exact and trouble.reason != "cdb-damaged":
                raise
            return []

    def user_of(self, key: bytes, data: bytes) -> users.User | None:
        """Who a record of users/cdb gives its addresses to."""
        name = key[1:].removesuffix(b"\0")
        try:
            return users.assigned(name, {b"": name[-1:], key: data})
        except Unavailable:
            return None

    def controller(self, local: bytes) -> users.User:
        """Who controls a local part.  Raises `Unavailable`."""
        cdb = self.tables.users_cdb()
        user = None if cdb is None else users.assigned(local, cdb)
        settings, tables = self.settings, self.tables
        if user is None:
            user = users.getpw(local, tables.accounts(), tables.owners(), settings.breakchar, settings.alias)
        return user

    def answer(self, recipient: Recipient) -> Answer | None:
        """What the server says; None: it cannot tell."""
        return told(lambda: self.lookup(recipient))


Rule = Callable[[Sight], Iterator[Finding]]


# -- control files ------------------------------------------------------------------------------------


def unreadable_controls(sight: Sight) -> Iterator[Finding]:
    """Files with which qmail-send does not start."""
    for name in NAMES:
        try:
            host.control_line(sight.tables, sight.settings, name)
        except Unavailable as trouble:
            if not sight.exact:
                raise
            yield Finding(
                "control-unreadable",
                trouble.where,
                None,
                f"cannot be read: {trouble.detail}",
                "qmail-send does not start: no mail is delivered at all",
                "make it a plain file that the user qmails can read",
            )
    me, locals_ = (told(partial(sight.tables.status, sight.path(name))) for name in ("control/me", "control/locals"))
    if me is None and locals_ is None:
        yield Finding(
            "control-me-missing",
            sight.path("control/me"),
            None,
            "missing, and so is locals",
            "qmail-send does not start: no mail is delivered at all",
            "write this host's name into it",
        )


def control_syntax(sight: Sight) -> Iterator[Finding]:
    """Lines that say something else than was meant."""
    for name in ("locals", "virtualdomains", "percenthack", "rcpthosts", "morercpthosts"):
        for line in sight.lines(name):
            domain = line.value.partition(b":")[0] if name == "virtualdomains" else line.value
            what = _odd(name, line, domain)
            if what:
                yield Finding(
                    "control-syntax",
                    line.file,
                    line.number,
                    what,
                    f"{text(domain.strip() or line.value.strip())} is not found in it",
                    f"mend the line {HUP}",
                )


def _odd(name: str, line: Line, domain: bytes) -> str:
    """What is wrong with a line; nothing: nothing."""
    if line.raw.rstrip(b" \t").endswith(b"\r"):
        return "ends in a carriage return, which becomes part of the entry"
    if 0 in line.raw:
        return "holds a NUL, which begins another entry"
    if domain[:1] in (b" ", b"\t"):
        return "begins with a blank, which becomes part of the name"
    if b" " in domain or b"\t" in domain:
        return "has a blank inside: a comment needs a line of its own"
    if name == "virtualdomains" and b":" not in line.value:
        return "has no colon, and is ignored"
    if domain.startswith(b"*"):
        return "begins with *, which is no wildcard: one begins with a dot"
    if name in ("locals", "percenthack") and domain.startswith(b"."):
        return "begins with a dot: there are no wildcards in this file"
    if name != "virtualdomains" and b"@" in domain:
        return "has an @: expected a domain"
    return ""


def duplicates(sight: Sight) -> Iterator[Finding]:
    """Entries of virtualdomains that a later one overrides."""
    counting = {name: (line, prepend) for line, name, prepend in sight.virtual}
    for line in sight.lines("virtualdomains"):
        name, colon, prepend = line.value.partition(b":")
        last = counting.get(name.lower())
        if colon and last is not None and last[0].number != line.number and prepend != last[1]:
            yield Finding(
                "virtualdomains-overridden",
                line.file,
                line.number,
                f"{text(name)} stands in line {last[0].number} again, with another value",
                f"line {last[0].number} counts, this one does not",
                f"remove one of them {HUP}",
            )


def both(sight: Sight) -> Iterator[Finding]:
    """Domains in locals and in virtualdomains."""
    local = {line.value.lower(): line for line in reversed(sight.local_lines)}
    for line, name, _ in sight.virtual:
        first = local.get(name.rpartition(b"@")[2])
        if first is not None:
            yield Finding(
                "local-and-virtual",
                line.file,
                line.number,
                f"{text(name)} is in {text(first.file)} line {first.number} as well",
                "locals comes first: this line is never looked at",
                f"remove one of them {HUP}",
            )


def nobody(sight: Sight) -> Iterator[Finding]:
    """Entries of virtualdomains whose user there is not, or has no address for them."""
    for line, name, prepend in sight.virtual:
        account, _, domain = name.rpartition(b"@")
        if not prepend or any(local.value.lower() == domain for local in sight.local_lines):
            continue
        if b"@" in name:
            answer = sight.answer(Recipient(account, domain))
            missing = answer is not None and answer.verdict is Verdict.REJECT
        else:
            missing = told(partial(_takes_any, sight, prepend)) is False
        if missing:
            yield Finding(
                "virtualdomains-no-user",
                line.file,
                line.number,
                f"nobody has an address that begins with {text(prepend)}-",
                f"all mail for {text(name) or 'any other domain'} bounces",
                f"make the user {text(prepend)}, or its .qmail files, or correct the line {HUP}",
            )


def _takes_any(sight: Sight, prepend: bytes) -> bool:
    """Whether whoever controls these addresses has a .qmail file for one of them, or takes all."""
    user = sight.controller(prepend + b"-" + PROBE)
    if not user.dash or not user.home.startswith(b"/"):
        return True
    safe = user.ext[: -len(PROBE)].lower().replace(b".", b":")
    start = b".qmail" + user.dash
    for name in host.dotqmail_names(sight.tables, user.home, Rights(user.uid, user.gid)):
        rest = name.removeprefix(start)
        stem = rest.removesuffix(b"default")
        if rest != name and (rest.startswith(safe) or (stem != rest and safe.startswith(stem))):
            return True
    longer = b"!" + prepend.lower() + b"-"
    return any(key.startswith(longer) and key.rstrip(b"\0") != longer for key, _ in sight.records)


def rcpthosts(sight: Sight) -> Iterator[Finding]:
    """Domains that are taken from strangers but not delivered here."""
    path = sight.path("control/rcpthosts")
    if sight.tables.status(path) is None:
        yield Finding(
            "rcpthosts-missing",
            path,
            None,
            "missing",
            "qmail-smtpd takes mail for every domain from everybody: an open relay",
            "list the domains that this host takes mail for",
        )
    if told(sight.tables.controls) is None:
        return  # it is not known what is ours
    local = {line.value.lower() for line in sight.local_lines}
    hack = {line.value.lower() for line in sight.lines("percenthack")}
    virtual = {name for _, name, _ in sight.virtual}
    virtual |= {name.rpartition(b"@")[2] for name in virtual if b"@" in name}
    for line in (*sight.lines("rcpthosts"), *sight.lines("morercpthosts")):
        domain = line.value.lower()
        if not _known(domain, local | hack, virtual):
            yield Finding(
                "rcpthosts-not-ours",
                line.file,
                line.number,
                f"{text(domain)} is neither in locals nor in virtualdomains",
                "mail for it is taken from everybody and passed on: its bounces go to innocent people",
                f"remove it; or add it to locals or virtualdomains {HUP}; if this host passes it on by intent,"
                f" add {text(domain)}: to virtualdomains",
            )
    yield from _stale_morercpthosts(sight)


def _known(domain: bytes, local: set[bytes], virtual: set[bytes]) -> bool:
    """Whether a name of rcpthosts, perhaps a wildcard, is local or virtual."""
    if domain in local or domain in virtual or b"" in virtual:
        return True
    if domain.startswith(b".") and any(name.endswith(domain) for name in local | virtual):
        return True
    dots = [at for at, byte in enumerate(domain) if byte == 46]
    return any(domain[at:] in virtual for at in dots)


def _stale_morercpthosts(sight: Sight) -> Iterator[Finding]:
    source = sight.tables.status(sight.path("control/morercpthosts"))
    made = sight.tables.status(sight.path("control/morercpthosts.cdb"))
    if source is not None and (made is None or made.mtime < source.mtime):
        yield Finding(
            "morercpthosts-stale",
            sight.path("control/morercpthosts.cdb"),
            None,
            "missing" if made is None else "older than morercpthosts",
            "qmail-smtpd does not know the new domains",
            "run qmail-newmrh",
        )


# -- users/assign and users/cdb -----------------------------------------------------------------------


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
        if not sight.exact and trouble.reason not in ("cdb-damaged", "cdb-no-break-list"):
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


# -- accounts -----------------------------------------------------------------------------------------


def accounts(sight: Sight) -> Iterator[Finding]:
    """Accounts that qmail passes over, though somebody may expect mail there."""
    settings = sight.settings
    known = host.accounts(settings)
    if settings.alias not in known:
        what = f"no account {text(settings.alias)}"
        consequence = "mail for unknown names waits instead of bouncing"
        yield Finding(
            "no-alias", *_account(sight, settings.alias), what, consequence, "make it, with a home of its own"
        )
    if any(key == b"!" for key, _ in sight.records):
        return  # nobody asks the password file
    for name, account in sorted(known.items()):
        what = _why_passed_over(sight, name, account)
        if what:
            consequence = "qmail passes the account over: its mail bounces, or goes to alias"
            remedy = "chown the home" if what.startswith("home") else "give it a line in users/assign"
            yield Finding("account-passed-over", *_account(sight, name), what, consequence, remedy)


def _why_passed_over(sight: Sight, name: bytes, account: users.Account) -> str:
    """Why a person's account gets no mail; empty: it does, or is no person's."""
    if account.uid not in PEOPLE or name in QMAILS:
        return ""
    if name != name.lower():
        return f"account {text(name)} has a capital letter"
    if len(name) >= users.NAME_LIMIT:
        return f"account {text(name)} has more than {users.NAME_LIMIT - 1} letters"
    status = told(partial(sight.tables.status, account.home))
    if status is not None and status.uid != account.uid:
        return f"home {text(account.home)} of account {text(name)} belongs to uid {status.uid}, not to {account.uid}"
    return ""


def _account(sight: Sight, name: bytes) -> tuple[bytes, int | None]:
    """The password file, and the line of an account if it is there."""
    path = os.fsencode(sight.settings.passwd or PASSWD)
    lines = (told(partial(sight.tables.file, path)) or b"").split(b"\n")
    return path, next((at for at, line in enumerate(lines, 1) if line.startswith(name + b":")), None)


# -- homes and their .qmail files ---------------------------------------------------------------------


def _owners(sight: Sight) -> Iterator[users.User]:
    """Everybody whom qmail would deliver to."""
    catch_all = False
    for key, data in sight.records:
        catch_all = catch_all or key == b"!"
        user = sight.user_of(key, data) if key else None
        if user is not None:
            yield user
    settings, owners = sight.settings, sight.tables.owners()
    for name, account in sorted(host.accounts(settings).items()):
        if name == settings.alias or (
            not catch_all and account.uid and told(partial(owners.get, account.home)) == account.uid
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
            if not sight.exact and trouble.reason in ("cannot-see", "refused", "home-denied"):
                raise
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
            if not sight.exact:
                raise
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
    for at, line in _instructions(content):
        forwards_only = forwards_only or line == b"+list"
        if forwards_only and line[:1] in (b".", b"/", b"|"):
            return at
    return None


def _passed_over(sight: Sight, user: users.User, name: bytes, path: bytes) -> Iterator[Finding]:
    """What is there but is no plain file."""
    status = told(lambda: sight.tables.status(path, Rights(user.uid, user.gid)))
    if status is None:
        what = "a dangling link"
        yield Finding("dotqmail-dangling", path, None, what, "its address does not exist", "mend or remove the link")
    elif b"/" not in name:
        what = kind(status.mode)
        yield Finding("dotqmail-not-plain", path, None, what, "qmail passes it over", "put a plain file in its place")


# -- where mail goes from there -------------------------------------------------------------------------


def _instructions(content: bytes) -> list[tuple[int, bytes]]:
    return [(at, line) for at, raw in enumerate(content.split(b"\n"), 1) for line in dotqmail.lines(raw)]


_SHELL = frozenset(b"$'\"\\`|;&<>*?()[]{}~#")


def forwards(content: bytes) -> Iterator[tuple[int, Recipient]]:
    """The addresses that a .qmail file forwards to, with their lines."""
    for at, line in _instructions(content):
        addresses: list[bytes] = []
        if line.startswith(b"|"):
            program, *words = line[1:].split() or [b""]
            if program.rpartition(b"/")[2] == b"forward" and not _SHELL.intersection(line[1:]):
                addresses = words
        elif line[:1] not in (b".", b"/", b"+"):
            addresses = [line.removeprefix(b"&")]
        for address in addresses:
            account, has_domain, domain = address.rpartition(b"@")
            yield at, Recipient(account, domain) if has_domain else Recipient(domain, None)


def missing_targets(sight: Sight) -> Iterator[Finding]:
    """Aliases that point to local addresses that do not exist."""
    for home, visited in sorted(sight.visited.items()):
        for name, file in sorted(visited.files.items()):
            for at, recipient in forwards(file.content or b""):
                answer = sight.answer(recipient)
                if answer is not None and answer.verdict is Verdict.REJECT:
                    yield Finding(
                        "forward-to-nobody",
                        b"%s/%s" % (home, name),
                        at,
                        f"forwards to {text(recipient.address)}, which is refused: {answer.reason}",
                        "the forwarded message bounces",
                        f"correct the line; cvmctl trace {text(recipient.address)} tells why",
                    )


def loops(sight: Sight) -> Iterator[Finding]:
    """Files that forward to themselves, perhaps by way of others."""
    edges: dict[bytes, list[tuple[int, bytes, bytes]]] = {}
    for home, visited in visited_in_order(sight):
        for name, file in sorted(visited.files.items()):
            path = b"%s/%s" % (home, name)
            for at, recipient in forwards(file.content or b""):
                answer = sight.answer(recipient)
                if answer is not None and answer.verdict is Verdict.ACCEPT:
                    edges.setdefault(path, []).append((at, recipient.address, answer.where))
    reported: set[bytes] = set()
    for start in sorted(edges):
        way = [] if start in reported else _way_back(start, edges)
        if way:
            reported.update(path for path, _, _ in way)
            number, address = way[0][1:]
            others = "".join(f", by way of {text(path)} line {at}" for path, at, _ in way[1:])
            yield Finding(
                "catch-all-loop" if start.endswith(b"default") else "forward-loop",
                start,
                number,
                f"forwards to {text(address)}, which comes back to this file{others}",
                "the message bounces as soon as qmail sees its own Delivered-To",
                "let one of them deliver, or forward elsewhere",
            )


def visited_in_order(sight: Sight) -> list[tuple[bytes, Visited]]:
    """The homes by name."""
    return sorted(sight.visited.items())


def _way_back(start: bytes, edges: dict[bytes, list[tuple[int, bytes, bytes]]]) -> list[tuple[bytes, int, bytes]]:
    """The files (with line and address) from `start` back to it, shortest first; none if there is no such way."""
    ways: list[tuple[bytes, list[tuple[bytes, int, bytes]]]] = [(start, [])]
    seen: set[bytes] = set()
    for path, way in ways:
        for at, address, target in edges.get(path, ()):
            here = [*way, (path, at, address)]
            if target == start:
                return here
            if target not in seen:
                seen.add(target)
                ways.append((target, here))
    return []


def postmaster(sight: Sight) -> Iterator[Finding]:
    """Whether somebody reads what every host must take."""
    for line in sight.local_lines[:1]:
        answer = sight.answer(Recipient(b"postmaster", line.value))
        if answer is not None and answer.verdict is Verdict.REJECT:
            yield Finding(
                "no-postmaster",
                line.file,
                line.number,
                f"postmaster@{text(line.value)} does not exist",
                "every host has to take mail for it (RFC 5321, 4.5.1)",
                "make .qmail-postmaster in the home of alias",
            )


RULES: tuple[Rule, ...] = (
    unreadable_controls,
    control_syntax,
    duplicates,
    both,
    nobody,
    rcpthosts,
    assign,
    cdb,
    accounts,
    homes,
    missing_targets,
    loops,
    postmaster,
)
"""In this order; those about forwards look at what `homes` has visited."""
