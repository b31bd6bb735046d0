"""A lookup in words: each question of qmail's programs, and its answer.

Invariants: nothing here decides.  Line numbers come from reading the files once more.  Of a file that a plug-in
reads, only its existence is shown: it may contain passwords.

    case = look_up(recipient, settings, qmail)
    stages(case), verdict(case.outcome), smtp(case)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from cvm_qmail.answer import Outcome, Unavailable, Verdict
from cvm_qmail.cvmctl.extension import extensions
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.verdicts import WORDS, mark_of, or_none
from cvm_qmail.cvmctl.trace.capture import Case, Note, asked, control_line
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.qmail import ASSUMED, REPLACED
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.door import Rights

SHOWN = 20
"""Lines of a .qmail file that are shown."""


class Step(NamedTuple):
    """A question and its answer, as text and as data."""

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


def stages(case: Case) -> list[Stage]:
    """The questions in order, grouped by the program of qmail that asks them."""
    made = (
        Stage("qmail-send: where it goes", list(_rewriting(case))),
        Stage("qmail-lspawn: who controls it", list(_controlling(case))),
        Stage("qmail-local: the home and its .qmail files", list(_local(case))),
        Stage("delivery programs", list(_programs(case))),
        Stage("where it is forwarded to", list(_followed(case))),
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
        yield Step(f"{case.route.table} is set: so it is local", "settings", case.route.table, True)
    if isinstance(case.route, domains.Remote):
        yield Step("so it is not delivered on this host", "route")
    elif case.route is not None and case.route.local:
        yield Step(f"so its local part is {text(case.route.local)}", "route", text(case.route.local), True)
    elif case.route is not None:
        yield Step("so its local part is empty: qmail takes the message and throws it away", "route", "", True)


def _envnoathost(case: Case, value: bytes) -> Step:
    for name in ("envnoathost", "me"):
        line = or_none(partial(files.control_line, case.tables, case.settings, name))
        if line is not None:
            return _step(f"no domain: envnoathost is {text(value)}", "envnoathost", b"", line)
    return Step(f"no domain: envnoathost is {text(value)}, as neither file exists", "envnoathost", "", True)


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


def of_plugins(notes: list[Note]) -> int:
    """The index of the first question of a plug-in: after the last .qmail file that qmail-local tries."""
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
        return _failed("users/cdb", key, value)
    if not key:
        if value is None:
            return Step("users/cdb: no list of break characters", "users/cdb")
        assert isinstance(value, bytes)
        return Step(f'users/cdb: its break characters are "{text(value)}"', "users/cdb", "", True)
    name = text(files.as_assign(key))
    if value is None:
        return Step(f"users/cdb: no entry {name}:", "users/cdb", name)
    assert isinstance(value, bytes)
    fields = text(value.replace(b"\0", b":"))
    found = or_none(lambda: files.assign(case.tables, case.settings))
    line = next((one for one in found[0] if one.key == key), None) if found else None
    if line is None or line.data != value:
        otherwise = "" if found is None else " (users/assign differs)"
        return Step(f"users/cdb: {name}:{fields}{otherwise}", "users/cdb", name, True)
    return _step(f"users/cdb: {name}:{fields}", "users/cdb", files.as_assign(key), line.line)


def _passwd(key: bytes, value: object) -> Step:
    if isinstance(value, Unavailable):
        return _failed("passwd", key, value)
    if value is None:
        return Step(f"passwd: no account {_named(key)}", "passwd", text(key))
    assert isinstance(value, users.Account)
    root = "" if value.uid else ": skipped, as root gets no mail"
    words = f"passwd: {_named(key)} has uid {value.uid}, gid {value.gid}, home {_named(value.home)}{root}"
    return Step(words, "passwd", text(key), True)


def _owner(home: bytes, owner: object, account: users.Account | None) -> Step:
    if isinstance(owner, Unavailable):
        return _failed("owner", home, owner)
    if owner is None:
        return Step(f"home {_named(home)} is not visible to qmailp: account skipped", "owner", text(home))
    if account is not None and owner != account.uid:
        return Step(f"home {_named(home)} belongs to uid {owner}: account skipped", "owner", text(home), True)
    return Step(f"home {_named(home)} belongs to uid {owner}, as it should", "owner", text(home), True)


def _local(case: Case) -> Iterator[Step]:
    home = b""
    for table, key, value in case.notes:
        if table == "home":
            home = key
            if isinstance(value, Unavailable):
                yield _failed("home", key, value)
            else:
                yield Step(f"home {text(key)}: mode {value & 0o7777:04o}", "home", text(key), True, text(key))
        elif table == "dotqmail":
            yield from _dotqmail(case, home, key, value)


def _dotqmail(case: Case, home: bytes, name: bytes, value: object) -> Iterator[Step]:
    path = text(b"%s/%s" % (home, name))
    if isinstance(value, Unavailable):
        yield _failed("dotqmail", name, value)
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
    status = or_none(lambda: case.tables.status(b"%s/%s" % (home, name), rights))
    return "not there" if status is None else f"{files.kind(status.mode)}: skipped"


def _instructions(path: str, content: bytes) -> Iterator[Step]:
    """The lines of a .qmail file; of a program only its name, since the rest may contain a password."""
    lines = [(at, line) for at, raw in enumerate(content.split(b"\n"), 1) for line in dotqmail.lines(raw)]
    for at, line in lines[:SHOWN]:
        yield Step(f"line {at}: {instruction(line)}", "line", str(at), True, path, at)
    if len(lines) > SHOWN:
        yield Step(f"and {len(lines) - SHOWN} more lines", "line", "", True, path)


def instruction(line: bytes) -> str:
    """What an instruction line of a .qmail file does."""
    if line.startswith(b"|"):
        own = (extension.instruction(line[1:]) for extension in extensions())
        said = next((words for words in own if words is not None), None)
        words = line[1:].split(None, 1)
        return said or f"runs {text(words[0]) if words else 'nothing'}" + (" ..." if len(words) > 1 else "")
    if line.startswith((b".", b"/")):
        return f"{'maildir' if line.endswith(b'/') else 'mbox'} {text(line)}"
    if line.startswith(b"+"):
        return f"directive {text(line)}"
    return f"forwards to {text(line.removeprefix(b'&'))}"


def _programs(case: Case) -> Iterator[Step]:
    """The questions of plug-ins, in the words of their extension if there is one; without the contents of files."""
    for table, key, value in case.notes[of_plugins(case.notes) :]:
        if table == "users/cdb":
            continue  # the plug-in that asked reports the answer itself
        name = text(key) if isinstance(key, bytes) else ""
        own = (extension.words(table, key, value) for extension in extensions())
        words = next((words for words in own if words is not None), None) or _plainly(table, name, value)
        yield Step(words, table, name, bool(value) and not isinstance(value, Unavailable))
        if table == "file" and isinstance(value, bytes) and name.rpartition("/")[2].startswith(".qmail"):
            yield from _instructions(name, value)


def _followed(case: Case) -> Iterator[Step]:
    """The addresses that mail is only forwarded to, with the verdict on each."""
    for table, key, value in case.followed:
        name = text(key)
        if table == "forwards":
            yield Step(f"mail to {name} is only forwarded: {', '.join(map(text, value))}", table, name, True)
        elif value is None:
            yield Step(f"{name}: not certain, so the address is accepted", table, name)
        elif value.forwards and value.verdict is Verdict.ACCEPTED:
            yield Step(f"{name} is only forwarded, too: {', '.join(map(text, value.forwards))}", table, name, True)
        else:
            yield Step(f"{name}: {WORDS[mark_of(value)]}: {value.reason}", table, name, True)


def _plainly(table: str, name: str, value: object) -> str:
    """A plug-in's question, and whether its answer was found."""
    if isinstance(value, Unavailable):
        return f"{table} {name}: temporary failure: {value.detail or value.reason}"
    if table == "enters":
        return f"{name} can{'' if value else 'not'} be entered"
    if table == "writable":
        missing = "is not there" if value is None else "cannot be written to"
        return f"{name} {'can be written to' if value else missing}"
    if table == "is_link":
        return f"{name} is {'a' if value else 'no'} symbolic link"
    if isinstance(value, Status):
        return f"{name}: mode {value.mode & 0o7777:04o}, uid {value.uid}"
    if isinstance(value, list) and table == "listing":
        return f"{name} has {len(value)} names"
    what = name if table == "status" else f"{table} {name}"
    return f"{what}: {'not there' if value is None else 'found'}"


def _failed(table: str, key: bytes, error: Unavailable) -> Step:
    return Step(f"{table} {_named(key)}: temporary failure: {error.detail or error.reason}", table, text(key))


def _step(words: str, table: str, key: bytes, line: Line | None) -> Step:
    """A step that a line of a file decided."""
    if line is None:
        return Step(words, table, text(key), True)
    return Step(f"{words} ({text(line.file)} line {line.number})", table, text(key), True, text(line.file), line.number)


def _named(name: bytes) -> str:
    """A name in a sentence; an empty one is made visible."""
    return text(name) or '""'


# -- the verdict --------------------------------------------------------------------------------------

SMTP = {
    Verdict.ACCEPTED: "250, unless another plug-in of mailfront rejects it",
    Verdict.REJECTED: "553 5.1.1 Sorry, that recipient does not exist.",
    Verdict.OUT_OF_SCOPE: "what mailfront's other plug-ins decide, such as the one for rcpthosts",
}
SMTP_TEMPORARY = "451 4.1.0 Sorry, I could not verify that recipient (internal temporary error)."
SMTP_NEVER_ASKED = "mailfront never asks about an address without a domain"
"""What an SMTP client sees from mailfront 2.22 with its plug-in cvm-validate."""


def smtp(case: Case) -> str:
    """What an SMTP client would see from mailfront."""
    if case.recipient.domain is None:
        return SMTP_NEVER_ASKED
    return SMTP_TEMPORARY if isinstance(case.outcome, Unavailable) else SMTP[case.outcome.verdict]


def verdict(outcome: Outcome) -> str:
    """The lookup's own answer in one line, in the words of the log."""
    said = f"{WORDS[mark_of(outcome)]}: {outcome.reason}"
    if outcome.where:
        said += f" {text(outcome.where)}"
    if outcome.user:
        said += f", user {text(outcome.user)}"
    return f"{said} ({outcome.detail})" if outcome.detail else said
