r"""Who controls a local part: users/cdb, else the password file.

Invariants: everything in users/cdb comes before the password file, its catch-all included; only the first entry that
matches is used, however bad it turns out to be later.

    users/cdb   ""          the bytes at which a prefix may end
                "!name\0"    an exact entry           both: user 0 uid 0 gid 0 home 0 dash 0 ext 0
                "!prefix"   an entry for a prefix    (lower-case names, NUL where a 0 stands)

Source: qmail-users(5), qmail-lspawn.c (nughde_get, docmd), qmail-getpw(8), qmail-getpw.c.
"""

from typing import NamedTuple

from cvm_qmail.answer import Table, Unavailable, new

NAME_LIMIT = 32
"""qmail-getpw skips candidates of this length and more (GETPW_USERLEN)."""

NOBODY = 0xFFFFFFFF
"""The id that no process can have: setuid and setgid refuse it."""


class User(NamedTuple):
    """The user whom qmail-lspawn passes to qmail-local."""

    name: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes
    key: bytes | None = None
    """The entry of users/cdb that matched; None: found through the password file."""


class Account(NamedTuple):
    """The entry of a name in the password file."""

    uid: int
    gid: int
    home: bytes


def assigned(local: bytes, cdb: Table[bytes, bytes]) -> User | None:
    """The entry of users/cdb for `local`; None: qmail continues with the password file."""
    breaks = cdb.get(b"")
    if breaks is None:
        raise Unavailable("cdb-no-break-list", "users/cdb has no record with an empty key", b"users/cdb")
    lower = local.lower()
    key = b"!%s\0" % lower
    data = cdb.get(key)
    if data is not None:
        return _parse(data + b"\0", key)
    if len(lower.translate(None, breaks)) < len(lower):  # most names contain no break character
        for end in range(len(lower), 0, -1):
            if lower[end - 1] in breaks:
                data = cdb.get(b"!" + lower[:end])
                if data is not None:
                    return _parse(b"%s%s\0" % (data, local[end:]), b"!" + lower[:end])
    data = cdb.get(b"!")
    if data is not None:
        return _parse(b"%s%s\0" % (data, local), b"!")
    return None


def _parse(data: bytes, key: bytes) -> User:
    fields = data.split(b"\0", 6)
    if len(fields) < 7:
        raise Unavailable("cdb-record", f"users/cdb: {len(fields) - 1} fields, expected 6", b"users/cdb")
    name, uid, gid, home, dash, ext, _ = fields
    return new(User, (name, _number(uid), _number(gid), home, dash, ext, key))


def _number(text: bytes) -> int:
    """Leading digits, modulo 2**32; none: 0 (scan_ulong, kept in 32 bits)."""
    if text.isdigit():
        return int(text) & 0xFFFFFFFF if len(text) < 20 else _long_number(text)
    digits = len(text) - len(text.lstrip(b"0123456789"))
    return _number(text[:digits]) if digits else 0


def _long_number(digits: bytes) -> int:
    """The same for any length, in linear time, which int() is not."""
    number = 0
    for digit in digits:
        number = (number * 10 + digit - 48) & 0xFFFFFFFF
    return number


def getpw(
    local: bytes,
    accounts: Table[bytes, Account],
    owners: Table[bytes, int],
    breakchar: bytes = b"-",
    alias: bytes = b"alias",
) -> User:
    """The account for `local`.

    `accounts` is the password file; `owners` returns the uid that owns a home, read as qmailp; None if qmailp
    cannot see the home.  If no account is found it is the alias account, unchecked.
    """
    lower = local.lower()
    end = len(local)
    while end >= 0:
        if end < NAME_LIMIT:
            name = lower[:end]
            account = accounts.get(name)
            if account is not None and account.uid and owners.get(account.home) == account.uid:
                if end == len(local):
                    return User(name, *account, b"", b"")
                return User(name, *account, b"-", local[end + 1 :])
        end = local.rfind(breakchar, 0, end)
    account = accounts.get(alias)
    if account is None:
        raise Unavailable("no-alias", f"no account {alias.decode('latin-1')}", b"passwd")
    return User(alias, *account, b"-", local)


def check(user: User) -> bool:
    """Whether qmail can continue as this user; False: the home is not absolute, mail bounces.

    Raises `Unavailable` for ids that make qmail-lspawn defer.
    """
    if NOBODY in (user.uid, user.gid):
        raise Unavailable("bad-id", f"uid {user.uid}, gid {user.gid}: setuid refuses 4294967295")
    if not user.uid:
        raise Unavailable("uid-zero", "qmail-lspawn does not deliver as root")
    return user.home.startswith(b"/")
