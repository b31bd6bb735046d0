"""The system's users, with the difference between "no such user" and "could not ask".

Invariants: Python's pwd module turns every error into "no such user", so the C library is asked directly,
with errno.  When /etc/nsswitch.conf names nothing but files, the password file is read in one pass,
parsed line by line by the C library's own parser, and kept while the file is the same; the first of two entries with
one name is used.  With ``systemd`` as well, names that are not in the file are looked up one by one, unless systemd
cannot know them.  With anything else every name is looked up. Nothing is kept per name: a dictionary attack must not
make the process grow.

NSS_WRAPPER_PASSWD, if set, replaces /etc/passwd and every other source.

Source: getpwnam(3), fgetpwent(3), nsswitch.conf(5), nss-systemd(8); qmail-getpw.c.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.process.network import EVERYTHING, NOTHING, Network
from cvm_qmail.rules.users import Account
from cvm_qmail.tables.cached_file import CachedFile, content
from cvm_qmail.tables.errors import describe
from cvm_qmail.tables.watch import Watch

NSSWITCH = b"/etc/nsswitch.conf"
PASSWD = b"/etc/passwd"

_NOT_FOUND = frozenset({0, errno.ENOENT, errno.ESRCH})

_USER_RECORDS = (b"/etc/userdb", b"/run/userdb", b"/usr/lib/userdb", b"/usr/local/lib/userdb")
_USER_SERVICES = b"/run/systemd/userdb"
_HARMLESS_SERVICES = frozenset(
    {  # they know nobody who could own a mailbox, or ask the others
        b"io.systemd.DynamicUser",
        b"io.systemd.NameServiceSwitch",
        b"io.systemd.Multiplexer",
        b"io.systemd.DropIn",
        b"io.systemd.Machine",
    }
)


class PasswdStruct(ctypes.Structure):
    """struct passwd, see getpwent(3)."""

    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fmemopen.restype = ctypes.c_void_p
_libc.fmemopen.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.fclose.argtypes = [ctypes.c_void_p]
_Result = ctypes.POINTER(PasswdStruct)
_libc.fgetpwent_r.argtypes = [ctypes.c_void_p, _Result, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_Result)]
_libc.getpwnam_r.argtypes = [ctypes.c_char_p, _Result, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_Result)]

_BUFFER = 1 << 16
_BUFFER_LIMIT = 1 << 22


def parse(text: bytes) -> Iterator[tuple[bytes, Account]]:
    """The entries of a password file.  Raises OSError if the pass does not end cleanly."""
    if not text:
        return
    stream = _libc.fmemopen(text, len(text), b"r")
    if not stream:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    entry = PasswdStruct()
    buffer = ctypes.create_string_buffer(max(_BUFFER, len(max(text.split(b"\n"), key=len)) + 1024))
    result = _Result()
    arguments = stream, ctypes.byref(entry), buffer, len(buffer), ctypes.byref(result)
    try:
        while not (code := _libc.fgetpwent_r(*arguments)):
            yield entry.pw_name, Account(entry.pw_uid, entry.pw_gid, entry.pw_dir)
        if code != errno.ENOENT:
            raise OSError(code, os.strerror(code))
    finally:
        _libc.fclose(stream)


class Passwd(NamedTuple):
    """A password file."""

    accounts: dict[bytes, Account]
    refers: bool
    """Whether it has lines for NIS (+ or - first), which are no accounts themselves."""


def read_passwd(fd: int, size: int, path: bytes) -> Passwd:
    """A `Make`: the accounts in an open password file."""
    accounts: dict[bytes, Account] = {}
    refers = False
    for name, account in parse(content(fd, size, path)):
        if name[:1] in (b"+", b"-"):
            refers = True
        else:
            accounts.setdefault(name, account)
    return Passwd(accounts, refers)


def ask(name: bytes) -> Account | None:
    """The system's answer for one name, from any source."""
    entry = PasswdStruct()
    result = _Result()
    size = _BUFFER
    while True:
        buffer = ctypes.create_string_buffer(size)
        code = _libc.getpwnam_r(name, ctypes.byref(entry), buffer, size, ctypes.byref(result))
        if code == errno.ERANGE and size < _BUFFER_LIMIT:
            size *= 4
        elif code != errno.EINTR:
            break
    if result:
        return Account(entry.pw_uid, entry.pw_gid, entry.pw_dir)
    if code in _NOT_FOUND:
        return None
    raise Unavailable("passwd", os.strerror(code), b"getpwnam")


def services(text: bytes | None) -> tuple[bytes, ...]:
    """The sources for passwd in a nsswitch.conf; without one, glibc's default."""
    found: tuple[bytes, ...] = (b"files",)
    for line in (text or b"").split(b"\n"):
        database, colon, rest = line.partition(b"#")[0].partition(b":")
        if colon and database.strip() == b"passwd":
            found = tuple(rest.split())
    return found


def _systemd_may_know() -> bool:
    """Whether nss-systemd could know a user that is in no file: user records, or a service that has some."""
    if any(_names_in(directory) for directory in _USER_RECORDS):
        return True
    return not _HARMLESS_SERVICES.issuperset(_names_in(_USER_SERVICES))


def _names_in(directory: bytes) -> list[bytes]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unavailable("passwd", describe(error), directory) from None


_BY_UNIX_SOCKET = frozenset({b"systemd", b"sss", b"winbind", b"mymachines"})
"""Sources that ask a service of this host, as libc asks nscd."""


def network(wrapper: str | None = None) -> Network:
    """The sockets that a lookup of an account opens on this host now."""
    if wrapper:
        return NOTHING
    try:
        with open(NSSWITCH, "rb") as file:
            beyond = set(services(file.read())) - {b"files"}
    except OSError:
        beyond = set()
    if not beyond:
        return NOTHING
    return Network(unix=True) if beyond <= _BY_UNIX_SOCKET else EVERYTHING


class _Asked:
    """A Table of the name service's answers."""

    def get(self, name: bytes, /) -> Account | None:
        return ask(name)


class _FileThenAsked:
    """A Table of the password file, and of what the name service knows beyond it."""

    def __init__(self, accounts: dict[bytes, Account]) -> None:
        self._accounts = accounts

    def get(self, name: bytes, /) -> Account | None:
        return self._accounts.get(name) or ask(name)


class Accounts:
    """The system's users as they are now."""

    def __init__(self, wrapper: str | None = None, watch: Watch | None = None) -> None:
        self._file = CachedFile(os.fsencode(wrapper) if wrapper else PASSWD, "passwd", read_passwd, watch=watch)
        self._nsswitch = None if wrapper else CachedFile(NSSWITCH, "nsswitch", content, watch=watch)
        self._only_files = False
        self._services: tuple[bytes | None, tuple[bytes, ...]] = (None, services(None))

    @property
    def files(self) -> list[CachedFile[Passwd] | CachedFile[bytes]]:
        """The cached files, to check their freshness."""
        return [self._file] if self._nsswitch is None else [self._file, self._nsswitch]

    @property
    def watched(self) -> bool:
        """Whether the last result of `now` was only from files that `Watch` covers."""
        return self._only_files and all(file.watched for file in self.files)

    def now(self) -> Table[bytes, Account]:
        """The table for one request: one freshness check, however many names are asked for."""
        self._only_files = False
        names = self._sources()
        if names[:1] not in ((b"files",), (b"compat",)) or names[1:] not in ((), (b"systemd",)):
            return _Asked()
        passwd = self._file.now()
        if passwd is None:
            raise Unavailable("passwd", "missing", self._file.path)
        if passwd.refers and names[0] == b"compat":
            return _Asked()
        if names[1:] and _systemd_may_know():
            return _FileThenAsked(passwd.accounts)
        self._only_files = not names[1:]
        return passwd.accounts

    def _sources(self) -> tuple[bytes, ...]:
        if self._nsswitch is None:
            return (b"files",)
        text = self._nsswitch.now()
        if text is not self._services[0]:
            self._services = text, services(text)
        return self._services[1]
