"""A qmail host as people wrote it: control files and users/assign with their line numbers, records, accounts, names.

Law: nothing here decides whether an address exists.  `trace` and `lint` say with it where a line
stands, `list` finds with it what is worth asking about; the answer is always the look-up's own.  What
cannot be read is `Unavailable`, never "nothing there".

Source: qmail-control(5), qmail-users(5), qmail-newu.c, cdb(5), dot-qmail(5); getpwent(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from stat import S_ISDIR
from struct import Struct
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.users import Account
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Note, Rights, Tables
from cvm_qmail.tables.control import entries, one_line
from cvm_qmail.tables.passwd import Accounts
from cvm_qmail.tables.rights import Switch, drop_groups
from cvm_qmail.tool.show import warn

QTRACEADDR = {"QMAIL": "QMAIL_ROOT", "QMAILBREAK": "CVM_QMAIL_BREAK", "QMAILALIAS": "CVM_QMAIL_ALIAS"}
"""Variables of qtraceaddr (2003), and ours; ours come first."""

DEPTH = 8
"""Folders below a home in which .qmail files are looked for (an address may hold slashes)."""

NAMES_LIMIT = 100_000
"""Names below one home beyond which it is a trouble."""

_pair = Struct("<LL").unpack


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment gives, with qtraceaddr's variables where ours are unset."""
    env = dict(os.environ if environment is None else environment)
    for theirs, ours in QTRACEADDR.items():
        if theirs in env:
            env.setdefault(ours, env[theirs])
    return Settings.from_environment(env)


def open_tables(settings: Settings, note: Note | None = None) -> Tables:
    """The door to the host, with the rights that a server would have."""
    drop_groups()
    return Tables(settings, note=note, lasting=False)


def warn_of_rights() -> None:
    """Says so if this process judges less exactly than a server that runs as root."""
    if not Switch().may:
        warn("not root: judging by owner and mode bits, and only what this process may see")


# -- control files ----------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of a file that counts."""

    file: bytes
    number: int
    value: bytes
    """Without what the reader strips."""
    raw: bytes


def control_lines(tables: Tables, settings: Settings, name: str) -> list[Line] | None:
    """The entries of a control file of many lines; None: there is no such file."""
    file = b"%s/control/%s" % (settings.qmail_root, name.encode())
    text = tables.file(file, tables.rights_of(b"qmails"))
    if text is None:
        return None
    return [Line(file, at, entry, raw) for at, raw in enumerate(text.split(b"\n"), 1) for entry in entries(raw)]


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
    """A line of users/assign as qmail-newu makes a record of it."""

    line: Line
    key: bytes
    data: bytes | None
    """None: it has too few fields, and qmail-newu stops here."""


def assign(tables: Tables, settings: Settings) -> tuple[list[Assigned], bool] | None:
    """The lines of users/assign, and whether it ends as it should; None: there is no such file."""
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
    """A key of users/cdb as users/assign spells it."""
    return b"=" + key[1:-1] if key.endswith(b"\0") else b"+" + key[1:]


def cdb_records(data: bytes, path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a constant database in their order.  Raises `Unavailable` if it is not whole."""
    if len(data) < 2048:
        raise Unavailable("cdb-damaged", f"{len(data)} bytes, expected at least 2048", path)
    heads = [_pair(data[at : at + 8]) for at in range(0, 2048, 8)]
    end = min(position for position, _ in heads)
    if any(position + slots * 8 > len(data) for position, slots in heads if slots) or not 2048 <= end <= len(data):
        raise Unavailable("cdb-damaged", "ends before its hash tables do", path)
    at = 2048
    while at < end:
        if at + 8 > end:
            raise Unavailable("cdb-damaged", f"half a record at byte {at}", path)
        key_length, length = _pair(data[at : at + 8])
        at += 8
        if at + key_length + length > end:
            raise Unavailable("cdb-damaged", f"half a record at byte {at - 8}", path)
        yield data[at : at + key_length], data[at + key_length : at + key_length + length]
        at += key_length + length


def users_cdb(tables: Tables, settings: Settings) -> list[tuple[bytes, bytes]] | None:
    """The records of users/cdb, that with the empty key included; None: there is no such file."""
    path = settings.qmail_root + b"/users/cdb"
    data = tables.file(path)
    return None if data is None else list(cdb_records(data, path))


# -- accounts ---------------------------------------------------------------------------------------


class _Passwd(ctypes.Structure):
    """Struct passwd, see getpwent(3)."""

    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


def accounts(tables: Tables, settings: Settings) -> dict[bytes, Account]:
    """All accounts of the system, as far as its name service lists them; of two with one name the first."""
    tables.enter(b"passwd")
    table = Accounts(settings.passwd).now()
    return dict(table) if isinstance(table, dict) else _all_accounts()


def _all_accounts() -> dict[bytes, Account]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.getpwent.restype = ctypes.POINTER(_Passwd)
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
    """The names in a folder, as this process lists it, or else its user; None: it is not there."""
    try:
        return tables.listing(path)
    except Unavailable:
        return tables.listing(path, rights)


def dotqmail_names(tables: Tables, home: bytes, rights: Rights) -> list[bytes]:
    """The names of all that could be a .qmail file in `home`, in order; what lies in folders of such a name too."""
    names = listing(tables, home, rights) or []
    found: list[bytes] = []
    ahead = [(name, 0) for name in names if name.startswith(b".qmail")]
    while ahead:
        name, depth = ahead.pop()
        found.append(name)
        if len(found) > NAMES_LIMIT:
            raise Unavailable("unreadable", f"more than {NAMES_LIMIT} names", home)
        path = b"%s/%s" % (home, name)
        if depth < DEPTH and _is_folder(tables, path, rights):
            ahead += [(b"%s/%s" % (name, below), depth + 1) for below in listing(tables, path, rights) or []]
    return sorted(found)


def _is_folder(tables: Tables, path: bytes, rights: Rights) -> bool:
    try:
        status = tables.status(path, rights)
    except Unavailable:
        return False  # a look-up will say so
    return status is not None and S_ISDIR(status.mode)
