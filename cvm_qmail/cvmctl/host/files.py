"""A qmail host's files as written: control files and users/assign with their line numbers, records, accounts, names.

Invariants: nothing here decides whether an address exists.  `trace` and `lint` find line numbers with it, `list`
finds candidates; the answer is always the lookup's own.  What cannot be read is `Unavailable`, never "does not
exist".

Source: qmail-control(5), qmail-users(5), qmail-newu.c, cdb(5), dot-qmail(5); getpwent(3).
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.ui.output import warn
from cvm_qmail.rules.users import Account
from cvm_qmail.settings import Settings
from cvm_qmail.tables.cdb import records
from cvm_qmail.tables.control import entries, one_line
from cvm_qmail.tables.door import Rights, Tables
from cvm_qmail.tables.passwd import Accounts, PasswdStruct
from cvm_qmail.tables.rights import Switch, drop_groups
from cvm_qmail.tables.tracing import Note

QTRACEADDR = {"QMAIL": "QMAIL_ROOT", "QMAILBREAK": "CVM_QMAIL_BREAK", "QMAILALIAS": "CVM_QMAIL_ALIAS"}
"""Variables of qtraceaddr (2003), and this software's, which come first."""

DEPTH = 8
"""The depth of directories below a home that are searched for .qmail files (an address may contain slashes)."""

NAMES_LIMIT = 100_000
"""Names below one home beyond which listing fails."""


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in the environment, with qtraceaddr's variables where this software's are unset."""
    env = dict(os.environ if environment is None else environment)
    for theirs, ours in QTRACEADDR.items():
        if theirs in env:
            env.setdefault(ours, env[theirs])
    return Settings.from_environment(env)


def open_tables(settings: Settings, note: Note | None = None) -> Tables:
    """The host's `Tables`, with the rights that a server would have."""
    drop_groups()
    return Tables(settings, note=note, lasting=False)


def warn_of_rights() -> None:
    """Warns if this process judges less exactly than a server that runs as root."""
    if not Switch().may:
        warn("not root: judging by owner and mode bits only, and only files that this process may read")


# -- control files ----------------------------------------------------------------------------------


class Line(NamedTuple):
    """An entry of a file, with its line."""

    file: bytes
    number: int
    value: bytes
    """Without what qmail strips."""
    raw: bytes


def control_lines(tables: Tables, settings: Settings, name: str) -> list[Line] | None:
    """The entries of a control file of many lines; None: there is no such file."""
    file = b"%s/control/%s" % (settings.qmail_root, name.encode())
    text = tables.file(file, tables.rights_of(b"qmails"))
    if text is None:
        return None
    return lines_in(file, text)


def lines_in(file: bytes, text: bytes) -> list[Line]:
    """The entries of a text of many lines, read as a control file is."""
    return [Line(file, at, entry, raw) for at, raw in enumerate(text.split(b"\n"), 1) for entry in entries(raw)]


class Virtual(NamedTuple):
    """An entry of virtualdomains."""

    line: Line
    name: bytes
    """In lower case; empty: every other domain."""
    prepend: bytes
    """Empty: the domain is an exception."""


def virtual_entries(tables: Tables, settings: Settings) -> list[Virtual]:
    """The entries of virtualdomains that count: those with a colon, and of two with one name the last."""
    found: dict[bytes, Virtual] = {}
    for line in control_lines(tables, settings, "virtualdomains") or ():
        name, colon, prepend = line.value.partition(b":")
        if colon:
            found[name.lower()] = Virtual(line, name.lower(), prepend)
    return list(found.values())


def control_line(tables: Tables, settings: Settings, name: str) -> Line | None:
    """The value of a control file of one line; None: there is no such file."""
    file = b"%s/control/%s" % (settings.qmail_root, name.encode())
    text = tables.file(file, tables.rights_of(b"qmails"))
    return None if text is None else Line(file, 1, one_line(text), text.partition(b"\n")[0])


def local_lines(tables: Tables, settings: Settings) -> list[Line]:
    """The entries of locals, or that of me where there is no locals."""
    lines = control_lines(tables, settings, "locals")
    if lines is not None:
        return lines
    me = control_line(tables, settings, "me")
    return [] if me is None else [me._replace(value=value) for value in me.value.split(b"\0")]


# -- users/assign and users/cdb ---------------------------------------------------------------------


class Assigned(NamedTuple):
    """A line of users/assign, and the record that qmail-newu makes of it."""

    line: Line
    key: bytes
    data: bytes | None
    """None: it has too few fields, and qmail-newu stops here."""


def assign(tables: Tables, settings: Settings) -> tuple[list[Assigned], bool] | None:
    """The lines of users/assign, and whether its last line is correct; None: there is no such file."""
    file = settings.qmail_root + b"/users/assign"
    text = tables.file(file)
    if text is None:
        return None
    found: list[Assigned] = []
    for at, raw in enumerate(text.split(b"\n"), 1):
        if raw.startswith(b"."):
            return found, True
        if raw:
            found.append(_assigned(Line(file, at, raw, raw)))
    return found, False


def _assigned(line: Line) -> Assigned:
    name, *fields = line.value[1:].split(b":")
    exact = b"" if line.value.startswith(b"+") else b"\0"
    data = b"\0".join(fields[:6]) if len(fields) > 6 and b"\0" not in line.value else None
    return Assigned(line, b"!%s%s" % (name.lower(), exact), data)


def as_assign(key: bytes) -> bytes:
    """A key of users/cdb as it is written in users/assign."""
    return b"=" + key[1:-1] if key.endswith(b"\0") else b"+" + key[1:]


def cdb_records(data: bytes, path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a constant database in their order.  Raises `Unavailable` if it is not complete."""
    return records(io.BytesIO(data), len(data), path)


def users_cdb(tables: Tables, settings: Settings) -> list[tuple[bytes, bytes]] | None:
    """The records of users/cdb, that with the empty key included; None: there is no such file."""
    path = settings.qmail_root + b"/users/cdb"
    data = tables.file(path)
    return None if data is None else list(cdb_records(data, path))


# -- accounts ---------------------------------------------------------------------------------------


def accounts(tables: Tables, settings: Settings) -> dict[bytes, Account]:
    """All accounts of the system, as far as its name service lists them; of two with one name the first."""
    tables.mark(b"passwd")
    table = Accounts(settings.passwd).now()
    return dict(table) if isinstance(table, dict) else _all_accounts()


def _all_accounts() -> dict[bytes, Account]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.getpwent.restype = ctypes.POINTER(PasswdStruct)
    found: dict[bytes, Account] = {}
    libc.setpwent()
    try:
        while True:
            ctypes.set_errno(0)
            entry = libc.getpwent()
            if not entry:
                break
            account = entry.contents
            found.setdefault(account.pw_name, Account(account.pw_uid, account.pw_gid, account.pw_dir))
        if (code := ctypes.get_errno()) not in (0, errno.ENOENT):
            raise Unavailable("passwd", os.strerror(code), b"getpwent")
    finally:
        libc.endpwent()
    return found


# -- homes ------------------------------------------------------------------------------------------


def listing(tables: Tables, path: bytes, rights: Rights) -> list[bytes] | None:
    """The names in a directory, listed by this process, or else as its user; None: it does not exist."""
    try:
        return tables.listing(path)
    except Unavailable:
        return tables.listing(path, rights)


def dotqmail_names(tables: Tables, home: bytes, rights: Rights) -> list[bytes]:
    """The names of everything that could be a .qmail file in `home`, in order, also in directories with such a name."""
    names = listing(tables, home, rights) or []
    found: list[bytes] = []
    ahead = [(name, 0) for name in names if name.startswith(b".qmail")]
    while ahead:
        name, depth = ahead.pop()
        found.append(name)
        if len(found) > NAMES_LIMIT:
            raise Unavailable("unreadable", f"more than {NAMES_LIMIT} names", home)
        path = b"%s/%s" % (home, name)
        if depth < DEPTH and _is_directory(tables, path, rights):
            ahead += [(b"%s/%s" % (name, below), depth + 1) for below in listing(tables, path, rights) or []]
    return sorted(found)


def _is_directory(tables: Tables, path: bytes, rights: Rights) -> bool:
    try:
        status = tables.status(path, rights)
    except Unavailable:
        return False  # a lookup will report it
    return status is not None and S_ISDIR(status.mode)


def kind(mode: int) -> str:
    """What kind of file it is."""
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (S_ISREG, "a regular file"),
        (S_ISDIR, "a directory"),
        (S_ISFIFO, "a pipe"),
        (S_ISSOCK, "a socket"),
        (S_ISCHR, "a device"),
        (S_ISBLK, "a device"),
    )
    return next((word for test, word in kinds if test(mode)), "not a regular file")
