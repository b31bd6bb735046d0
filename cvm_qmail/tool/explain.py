"""Why an address is answered as it is: the questions that the server's own look-up asks, told in words.

Law: the verdict is the look-up's own `Answer`, given through the server's own responder, asked of tables
that note each question and its answer; nothing here decides.  Who controls the address is told by
running the rules again over what was noted; if they ask for anything else, nothing is told.  Line
numbers come from reading the files once more.  Of what a plug-in reads, only that it was there is
told: it may hold passwords.

    case = look_up(recipient, settings, qmail)
    stages(case), verdict(case.outcome), smtp(case)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK
from typing import Any, NamedTuple, TypeVar

from cvm_qmail import wire
from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.log import unforeseen
from cvm_qmail.lookups import ModuleFactory
from cvm_qmail.responder import Event, responder
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Rights, Tables
from cvm_qmail.tables.files import Status
from cvm_qmail.tool import host
from cvm_qmail.tool.helpers import helpers
from cvm_qmail.tool.host import Line
from cvm_qmail.tool.show import text

T = TypeVar("T")

SHOWN = 20
"""Lines of a .qmail file that are shown."""


class Note(NamedTuple):
    """A question that the look-up asked, and what it was told."""

    table: str
    key: Any
    value: Any


class Step(NamedTuple):
    """A question and its answer, for people and for programs."""

    text: str
    table: str
    key: str = ""
    found: bool = False
    file: str | None = None
    line: int | None = None


class Stage(NamedTuple):
    """The steps of one of qmail's programs."""

    name: str
    steps: list[Step]


class Case(NamedTuple):
    """All that is known of an address when its look-up has ended."""

    recipient: Recipient
    settings: Settings
    tables: Tables
    """To look once more; its questions are not noted."""
    notes: list[Note]
    outcome: Answer | Unavailable
    response: wire.Response
    """What a server in look-up mode sends for it."""
    route: domains.Local | domains.Remote | None
    user: users.User | None


def look_up(recipient: Recipient, settings: Settings, factory: ModuleFactory) -> Case:
    """Asks the look-up by way of the server's own responder, and hears what it asks."""
    notes: list[Note] = []
    watched = host.open_tables(settings, note=lambda table, key, value: notes.append(Note(table, key, value)))
    lookup = factory(watched, settings).lookup
    notes.clear()  # what a plug-in looks at when it is made is no part of this
    answers: list[Answer] = []
    events: list[Event] = []

    def ask(_recipient: Recipient, _request: wire.Request) -> Answer:
        answers.append(lookup(recipient))  # which may be longer than a request can hold
        return answers[0]

    respond = responder(ask, secret=b"", report=events.append, clock=time.monotonic, unforeseen=unforeseen)
    response = wire.parse_response(respond(wire.pack_request(wire.Request(2, b"", {}))))
    outcome: Answer | Unavailable = _trouble_of(events[0]) if events[0].mark == "?" else answers[0]
    tables = host.open_tables(settings)
    route = _route(recipient, settings, notes)
    user = None if not isinstance(route, domains.Local) else _user(route, settings, notes, outcome)
    return Case(recipient, settings, tables, notes, outcome, response, route, user)


def _trouble_of(event: Event) -> Unavailable:
    trouble = Unavailable(event.reason, event.detail, event.where, event.code)
    trouble.user = event.user
    return trouble


# -- the rules once more, over what was noted ---------------------------------------------------------


class _NotAsked(Exception):
    """The look-up never asked this."""


class _Said:
    """A Table of the answers that the look-up was given."""

    def __init__(self, notes: list[Note], table: str) -> None:
        self._answers = {note.key: note.value for note in notes if note.table == table}

    def get(self, key: Any, /) -> Any:
        if key not in self._answers:
            raise _NotAsked
        value = self._answers[key]
        if isinstance(value, Unavailable):
            raise value
        return value


def _route(recipient: Recipient, settings: Settings, notes: list[Note]) -> domains.Local | domains.Remote | None:
    names = ("locals", "percenthack", "virtualdomains")
    try:
        envnoathost = _Said(notes, "envnoathost").get(b"")
        controls = domains.Controls(envnoathost, *(_Said(notes, name) for name in names))
        route = domains.rewrite(domains.complete(recipient, envnoathost), controls)
    except (_NotAsked, Unavailable):
        return None
    if isinstance(route, domains.Remote) and not route.exception:
        if settings.assume_local:
            return domains.Local(route.local, route.host, ASSUMED)
        if settings.missing_domain is not None:
            return domains.Local(settings.missing_user, settings.missing_domain, REPLACED)
    return route


ASSUMED, REPLACED = "CVM_QMAIL_ASSUME_LOCAL", "CVM_QMAIL_MISSINGDOMAIN"
"""What makes an address local that neither control file does."""


def _user(
    route: domains.Local, settings: Settings, notes: list[Note], outcome: Answer | Unavailable
) -> users.User | None:
    """Who controls the local part; None if that was not found out, or the look-up says another."""
    if not route.local:
        return None
    try:
        user = users.assigned(route.local, _Said(notes, "users/cdb")) if asked(notes, "users/cdb") else None
        if user is None:
            accounts, owners = _Said(notes, "passwd"), _Said(notes, "owner")
            user = users.getpw(route.local, accounts, owners, settings.breakchar, settings.alias)
    except (_NotAsked, Unavailable):
        return None
    return user if outcome.user in (b"", user.name) else None


def asked(notes: list[Note], table: str) -> bool:
    """Whether the look-up asked this table anything."""
    return any(note.table == table for note in notes)


# -- in words -----------------------------------------------------------------------------------------


def stages(case: Case) -> list[Stage]:
    """What was asked, in order, below the program of qmail whose question it is."""
    made = (
        Stage("qmail-send: where it goes", list(_rewriting(case))),
        Stage("qmail-lspawn: who controls it", list(_controlling(case))),
        Stage("qmail-local: the home and its .qmail files", list(_local(case))),
        Stage("delivery programs", list(_programs(case))),
    )
    return [stage for stage in made if stage.steps]


def _rewriting(case: Case) -> Iterator[Step]:
    account, domain = case.recipient
    for table, key, value in case.notes:
        if table == "envnoathost":
            if domain is None and b"@" not in account:
                yield _envnoathost(case, value)
        elif table in ("locals", "percenthack", "virtualdomains"):
            yield _control(case, table, key, value)
    if isinstance(case.route, domains.Local) and case.route.table in (ASSUMED, REPLACED):
        yield Step(f"{case.route.table} is set: it is taken for local", "settings", case.route.table, True)
    if isinstance(case.route, domains.Remote):
        yield Step("so it is not delivered on this host", "route")
    elif case.route is not None and case.route.local:
        yield Step(f"so its local part is {text(case.route.local)}", "route", text(case.route.local), True)
    elif case.route is not None:
        yield Step("so its local part is empty: qmail takes the message and throws it away", "route", "", True)


def _envnoathost(case: Case, value: bytes) -> Step:
    for name in ("envnoathost", "me"):
        line = told(partial(host.control_line, case.tables, case.settings, name))
        if line is not None:
            return _step(f"no domain: envnoathost is {text(value)}", "envnoathost", b"", line)
    return Step(f"no domain: envnoathost is {text(value)}, for want of both files", "envnoathost", "", True)


def _control(case: Case, table: str, key: bytes, value: object) -> Step:
    if value is None:
        return Step(f"{table}: no entry {_named(key)}", table, text(key))
    line = control_line(case, table, key, value)
    if table == "virtualdomains":
        assert isinstance(value, bytes)
        what = f"prepends {text(value)}-" if value else "is an exception: it stays remote"
        return _step(f"virtualdomains: {_named(key)} {what}", table, key, line)
    if table == "percenthack":
        return _step(f"percenthack: {_named(key)} is listed: the last %, if any, becomes @", table, key, line)
    return _step(f"locals: {_named(key)} is local", table, key, line)


def control_line(case: Case, table: str, key: bytes, value: object) -> Line | None:
    """The line that gave `key` this value: the first, in virtualdomains the last."""
    if table == "locals":
        lines = told(lambda: host.local_lines(case.tables, case.settings))
    else:
        lines = told(lambda: host.control_lines(case.tables, case.settings, table))
    if table == "virtualdomains":
        wanted = (key, value)
        return next((line for line in reversed(lines or []) if _virtual(line.value) == wanted), None)
    return next((line for line in lines or [] if line.value.lower() == key), None)


def _virtual(entry: bytes) -> tuple[bytes, bytes | None]:
    name, colon, prepend = entry.partition(b":")
    return name.lower(), prepend if colon else None


def of_plugins(notes: list[Note]) -> int:
    """Where the questions of plug-ins begin: after the last .qmail file that qmail-local tries."""
    return max((at for at, note in enumerate(notes, 1) if note.table in ("home", "dotqmail")), default=len(notes))


def _controlling(case: Case) -> Iterator[Step]:
    if asked(case.notes, "passwd") and not asked(case.notes, "users/cdb") and case.route and case.route.local:
        yield Step("users/cdb: no such file", "users/cdb")
    account: users.Account | None = None
    for table, key, value in case.notes[: of_plugins(case.notes)]:
        if table == "users/cdb":
            yield _cdb(case, key, value)
        elif table == "passwd":
            account = value if isinstance(value, users.Account) else None
            yield _passwd(key, value)
        elif table == "owner":
            yield _owner(key, value, account)
    user = case.user
    if user is not None:
        yield Step(
            f"so it is user {_named(user.name)}, uid {user.uid}, gid {user.gid}, home {_named(user.home)},"
            f' dash "{text(user.dash)}", ext "{text(user.ext)}"',
            "user",
            text(user.name),
            True,
        )


def _cdb(case: Case, key: bytes, value: object) -> Step:
    if isinstance(value, Unavailable):
        return _trouble("users/cdb", key, value)
    if not key:
        if value is None:
            return Step("users/cdb: no list of break characters", "users/cdb")
        assert isinstance(value, bytes)
        return Step(f'users/cdb: its break characters are "{text(value)}"', "users/cdb", "", True)
    name = text(host.as_assign(key))
    if value is None:
        return Step(f"users/cdb: no entry {name}:", "users/cdb", name)
    assert isinstance(value, bytes)
    fields = text(value.replace(b"\0", b":"))
    found = told(lambda: host.assign(case.tables, case.settings))
    line = next((one for one in found[0] if one.key == key), None) if found else None
    if line is None or line.data != value:
        otherwise = "" if found is None else " (users/assign says otherwise)"
        return Step(f"users/cdb: {name}:{fields}{otherwise}", "users/cdb", name, True)
    return _step(f"users/cdb: {name}:{fields}", "users/cdb", host.as_assign(key), line.line)


def _passwd(key: bytes, value: object) -> Step:
    if isinstance(value, Unavailable):
        return _trouble("passwd", key, value)
    if value is None:
        return Step(f"passwd: no account {_named(key)}", "passwd", text(key))
    assert isinstance(value, users.Account)
    root = "" if value.uid else ": passed over, as root gets no mail"
    words = f"passwd: {_named(key)} has uid {value.uid}, gid {value.gid}, home {_named(value.home)}{root}"
    return Step(words, "passwd", text(key), True)


def _owner(home: bytes, owner: object, account: users.Account | None) -> Step:
    if isinstance(owner, Unavailable):
        return _trouble("owner", home, owner)
    if owner is None:
        return Step(f"home {_named(home)} is not there for qmailp: account passed over", "owner", text(home))
    if account is not None and owner != account.uid:
        return Step(f"home {_named(home)} belongs to uid {owner}: account passed over", "owner", text(home), True)
    return Step(f"home {_named(home)} belongs to uid {owner}, as it should", "owner", text(home), True)


def _local(case: Case) -> Iterator[Step]:
    home = b""
    for table, key, value in case.notes:
        if table == "home":
            home = key
            if isinstance(value, Unavailable):
                yield _trouble("home", key, value)
            else:
                yield Step(f"home {text(key)}: mode {value & 0o7777:04o}", "home", text(key), True, text(key))
        elif table == "dotqmail":
            yield from _dotqmail(case, home, key, value)


def _dotqmail(case: Case, home: bytes, name: bytes, value: object) -> Iterator[Step]:
    path = text(b"%s/%s" % (home, name))
    if isinstance(value, Unavailable):
        yield _trouble("dotqmail", name, value)
    elif value is None:
        yield Step(f"{text(name)}: {_absence(case, home, name)}", "dotqmail", text(name), False, path)
    else:
        assert isinstance(value, dotqmail.DotQmail)
        content = value.content
        what = "cannot be read" if content is None else f"{len(content)} bytes" if content else "empty"
        yield Step(f"{text(name)}: mode {value.mode & 0o7777:04o}, {what}", "dotqmail", text(name), True, path)
        yield from _instructions(path, content or b"")


def _absence(case: Case, home: bytes, name: bytes) -> str:
    """Why there is no such file."""
    rights = Rights(case.user.uid, case.user.gid) if case.user else None
    status = told(lambda: case.tables.status(b"%s/%s" % (home, name), rights))
    return "not there" if status is None else f"{kind(status.mode)}: passed over"


def kind(mode: int) -> str:
    """What is no plain file."""
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (S_ISREG, "a plain file"),
        (S_ISDIR, "a folder"),
        (S_ISFIFO, "a pipe"),
        (S_ISSOCK, "a socket"),
        (S_ISCHR, "a device"),
        (S_ISBLK, "a device"),
    )
    return next((word for test, word in kinds if test(mode)), "not a plain file")


def _instructions(path: str, content: bytes) -> Iterator[Step]:
    """The lines of a .qmail file; of a program only its name, for the rest may hold a password."""
    lines = [(at, line) for at, raw in enumerate(content.split(b"\n"), 1) for line in dotqmail.lines(raw)]
    for at, line in lines[:SHOWN]:
        yield Step(f"line {at}: {instruction(line)}", "line", str(at), True, path, at)
    if len(lines) > SHOWN:
        yield Step(f"and {len(lines) - SHOWN} more lines", "line", "", True, path)


def instruction(line: bytes) -> str:
    """What an instruction line of a .qmail file does."""
    if line.startswith(b"|"):
        own = (helper.instruction(line[1:]) for helper in helpers())
        said = next((words for words in own if words is not None), None)
        words = line[1:].split(None, 1)
        return said or f"runs {text(words[0]) if words else 'nothing'}" + (" ..." if len(words) > 1 else "")
    if line.startswith((b".", b"/")):
        return f"{'maildir' if line.endswith(b'/') else 'mbox'} {text(line)}"
    if line.startswith(b"+"):
        return f"directive {text(line)}"
    return f"forwards to {text(line.removeprefix(b'&'))}"


def _programs(case: Case) -> Iterator[Step]:
    """What plug-ins asked, in their own words or plainly; nothing of what files hold."""
    for table, key, value in case.notes[of_plugins(case.notes) :]:
        if table == "users/cdb":
            continue  # a plug-in that asks it says what it was told
        name = text(key) if isinstance(key, bytes) else ""
        own = (helper.words(table, key, value) for helper in helpers())
        words = next((words for words in own if words is not None), None) or _plainly(table, name, value)
        yield Step(words, table, name, bool(value) and not isinstance(value, Unavailable))
        if table == "file" and isinstance(value, bytes) and name.rpartition("/")[2].startswith(".qmail"):
            yield from _instructions(name, value)


def _plainly(table: str, name: str, value: object) -> str:
    """What a plug-in asked, and whether it was there."""
    if isinstance(value, Unavailable):
        return f"{table} {name}: cannot be told: {value.detail or value.reason}"
    if table == "enters":
        return f"{name} can{'' if value else 'not'} be entered"
    if table == "writable":
        missing = "is not there" if value is None else "cannot be written to"
        return f"{name} {'can be written to' if value else missing}"
    if isinstance(value, Status):
        return f"{name}: mode {value.mode & 0o7777:04o}, uid {value.uid}"
    if isinstance(value, list) and table == "listing":
        return f"{name} has {len(value)} names"
    what = name if table == "status" else f"{table} {name}"
    return f"{what}: {'not there' if value is None else 'found'}"


def _trouble(table: str, key: bytes, trouble: Unavailable) -> Step:
    return Step(f"{table} {_named(key)}: cannot be told: {trouble.detail or trouble.reason}", table, text(key))


def _step(words: str, table: str, key: bytes, line: Line | None) -> Step:
    """A step that a line of a file decided."""
    if line is None:
        return Step(words, table, text(key), True)
    return Step(f"{words} ({text(line.file)} line {line.number})", table, text(key), True, text(line.file), line.number)


def _named(name: bytes) -> str:
    """A name in a sentence; an empty one must be seen."""
    return text(name) or '""'


def told(look: Callable[[], T]) -> T | None:
    """What can be found out beside the verdict; None if it cannot."""
    try:
        return look()
    except Unavailable:
        return None


# -- the verdict --------------------------------------------------------------------------------------

VERDICTS = {Verdict.ACCEPT: "accepted", Verdict.REJECT: "rejected", Verdict.PASS: "not ours to judge"}

SMTP = {
    Verdict.ACCEPT: "250, unless another plug-in of mailfront refuses",
    Verdict.REJECT: "553 5.1.1 Sorry, that recipient does not exist.",
    Verdict.PASS: "what mailfront's other plug-ins decide, such as the one for rcpthosts",
}
SMTP_TROUBLE = "451 4.1.0 Sorry, I could not verify that recipient (internal temporary error)."
SMTP_NEVER_ASKED = "mailfront asks about no address without a domain"
"""What an SMTP client sees from mailfront 2.22 with its plug-in cvm-validate."""


def smtp(case: Case) -> str:
    """What an SMTP client would see from mailfront."""
    if case.recipient.domain is None:
        return SMTP_NEVER_ASKED
    return SMTP_TROUBLE if isinstance(case.outcome, Unavailable) else SMTP[case.outcome.verdict]


def verdict(outcome: Answer | Unavailable) -> str:
    """The look-up's own answer in a line: its words are those of the log."""
    said = "cannot be told now" if isinstance(outcome, Unavailable) else VERDICTS[outcome.verdict]
    said = f"{said}: {outcome.reason}"
    if outcome.where:
        said += f" {text(outcome.where)}"
    if outcome.user:
        said += f", user {text(outcome.user)}"
    detail = outcome.detail if isinstance(outcome, Unavailable) else ""
    return f"{said} ({detail})" if detail else said
