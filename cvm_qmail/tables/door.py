"""`Tables`: the only way to the file system for rules and plug-ins.

    qmail's own     control files, users/cdb, the system's users, homes
    for plug-ins    files and constant databases, as any user sees them
    each request    what its answer depends on (`Tables.request`, `still_valid`)

Invariants: a rule never opens a file; a table never knows why it is asked.  One `Tables` belongs to one worker.
Each file is checked for freshness once per request.  `before_risk` is called before a lookup reads any path except
a known one on a local file system.  `note`, if given, receives every question that a rule asks and its answer:
`cvmctl trace` runs the server's own lookups with it, the server runs them without.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.rules.domains import Controls
from cvm_qmail.rules.dotqmail import Home
from cvm_qmail.rules.users import Account
from cvm_qmail.settings import Settings
from cvm_qmail.tables.access import Owners, Status, UserAccess
from cvm_qmail.tables.ancestors import Directories
from cvm_qmail.tables.backends import Backends, Unwatched
from cvm_qmail.tables.cached_file import CachedFile
from cvm_qmail.tables.calls import Open, asks_access, open_file, open_regular, open_stream
from cvm_qmail.tables.cdb import Database, file_records, open_database
from cvm_qmail.tables.control import ControlFiles
from cvm_qmail.tables.dependencies import Dependencies, Request
from cvm_qmail.tables.errors import REFUSED, describe
from cvm_qmail.tables.file_access import HIDDEN, FileAccess, ModeBitAccess, SetfsuidAccess
from cvm_qmail.tables.identity import unchanged
from cvm_qmail.tables.passwd import Accounts
from cvm_qmail.tables.rights import Rights, Switch
from cvm_qmail.tables.user_databases import UserDatabases
from cvm_qmail.tables.watch import TRUST, Watch

if TYPE_CHECKING:
    from cvm_qmail.tables.tracing import Note

__all__ = ["FileAccess", "HangGuard", "Rights", "Tables"]

K = TypeVar("K")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

CDB_LIMIT = 256
"""The number of plug-ins' databases that are kept open at a time."""

CDB_WHOLE = 1 << 16
"""Bytes up to which one of these is kept in memory: 16 MB all together."""


class HangGuard(Protocol):
    """Knows which resource a lookup uses, so that one that hangs can be ended, and the next ones skip it."""

    def mark(self, resource: bytes) -> None:
        """From now on the lookup uses `resource`: a path, or the name of a service.

        Raises `Unavailable` (hang-backoff) while that is in quarantine.
        """
        ...


class _Kept(Protocol[V_co]):
    """Something that is kept in memory while files are unchanged."""

    @property
    def watched(self) -> bool:
        """Whether `Watch` covers it while its stamp stays."""
        ...

    def now(self) -> V_co:
        """Its value now.  Raises `Unavailable`."""
        ...


class _NoGuard:
    def mark(self, resource: bytes) -> None:
        pass


class Tables:
    """All tables, for rules and plug-ins."""

    def __init__(
        self,
        settings: Settings,
        *,
        note: Note | None = None,
        hang_guard: HangGuard | None = None,
        backends: Backends | None = None,
        lasting: bool = True,
    ) -> None:
        """`lasting`: whether more than one request is to come, so that watching for changes pays."""
        self.lasting = lasting
        """Whether more than one request is to come."""
        self.backends: Backends = backends or Unwatched()
        """Receives the state of back ends."""
        self.before_risk: Callable[[], None] = lambda: None
        """Called before a lookup reads a path where it may hang."""
        self._root = settings.qmail_root
        self._note = note
        self._hang_guard = hang_guard or _NoGuard()
        self._switch = Switch()
        self._watch = Watch() if lasting else Watch(directories=0)
        self._directories = Directories(self._watch)
        self._accounts = Accounts(settings.passwd, self._watch)
        self._controls = ControlFiles(
            self._root + b"/control", self._open_as_qmails if self._switch.may else None, self._watch
        )
        self._users_cdb = CachedFile(self._root + b"/users/cdb", "cdb-unreadable", open_database, watch=self._watch)
        self._check_at = 0.0
        self._databases: dict[tuple[bytes, Rights | None, bool], CachedFile[Database]] = {}
        self._user_databases = UserDatabases(self._directories)
        self._arrived = time.monotonic()
        """When the current request arrived."""
        self.current = Request(self._arrived, self._stamp)
        """The current lookup's request."""

    # -- requests, and what their answers depend on -----------------------------------------------

    def arrived(self) -> float:
        """A request has arrived: asks whether anything has changed.  Returns the moment, by time.monotonic."""
        moment = self._arrived = time.monotonic()
        self._watch.look()
        if moment >= self._check_at:
            self._check()
        return moment

    def begin(self, *, cacheable: bool = True) -> Request:
        """The lookup of the request that has arrived: information about directories from the last one is discarded.

        `cacheable`: whether its answer may be cached; if not, its dependencies are not collected.
        """
        request = self.current = Request(
            self._arrived, self._stamp, self.before_risk, cacheable=cacheable and self._note is None
        )
        self._directories.begin(request)
        return request

    def request(self, *, cacheable: bool = True) -> Request:
        """Both: a request arrives, and its lookup begins."""
        self.arrived()
        return self.begin(cacheable=cacheable)

    def still_valid(self, dependencies: Dependencies) -> bool:
        """Whether everything that an answer depended on is unchanged since.  Raises `Unavailable`."""
        if dependencies.stamp != self._watch.stamp or self._arrived >= dependencies.until:
            return False
        if not unchanged(dependencies.files, self._hang_guard.mark):
            return False
        if dependencies.rechecks:
            self.begin(cacheable=False)  # the deadlines of their waits are counted from it
        for resource, holds in dependencies.rechecks:
            self._risk(resource)
            if not holds():
                return False
        return True

    def mark(self, resource: bytes, *, checked: bool = False) -> None:
        """From now on the lookup uses `resource`: something that may hang but is not a file, such as a database.

        `checked`: `Request.valid_until` or `recheck_with` describes the result, so that the answer may be
        cached.  Raises `Unavailable` while it is in quarantine because a lookup hung there.
        """
        self._risk(resource)
        if not checked:
            self.current.not_cacheable()

    def _risk(self, resource: bytes) -> None:
        """From now on the lookup uses `resource`, which may hang.  Raises `Unavailable`."""
        self.before_risk()
        self._hang_guard.mark(resource)

    def _enter(self, path: bytes) -> None:
        """The same for a home, which cannot hang if it is on a local file system."""
        if not self._directories.local(path):
            self.before_risk()
        self._hang_guard.mark(path)

    def _now(self, file: _Kept[V]) -> V:
        """The value of something that is cached.  Raises `Unavailable`."""
        if file.watched:
            return file.now()
        self.before_risk()
        value = file.now()
        if not file.watched:
            self.current.not_cacheable()
        return value

    def _stamp(self) -> int:
        return self._watch.stamp

    def _check(self) -> None:
        """Checks whether the files are unchanged, as the watch reports: some writes give no event."""
        self._check_at = time.monotonic() + TRUST
        files = (*self._controls.files, *self._accounts.files, self._users_cdb)
        if not all(file.check() for file in files) or not self._directories.check():
            self._watch.reset()

    def traced(self, name: str, table: Table[K, V]) -> Table[K, V]:
        """`table`, reporting to `note` under this name, if there is one."""
        if self._note is None:
            return table
        from cvm_qmail.tables.tracing import TracedTable  # for a trace only

        return TracedTable(name, table, self._note)

    # -- qmail's own ------------------------------------------------------------------------------

    def controls(self) -> Controls:
        """The control files as they are now.  Raises `Unavailable` if qmail-send could not start with them."""
        controls = self._now(self._controls)
        if self._note is None:
            return controls
        self._note("envnoathost", b"", controls.envnoathost)
        return Controls(
            controls.envnoathost,
            self.traced("locals", controls.locals),
            self.traced("percenthack", controls.percenthack),
            self.traced("virtualdomains", controls.virtualdomains),
        )

    def _open_as_qmails(self, path: bytes) -> int:
        rights = self.rights_of(b"qmails")
        if rights is None:
            return open_file(path)
        return self._switch.run(rights, open_file, path)

    def rights_of(self, name: bytes) -> Rights | None:
        """The rights of one of qmail's own accounts; None if there is none.  Raises `Unavailable`."""
        account = self._system_users().get(name)
        return Rights(account.uid, account.gid) if account is not None and account.uid else None

    def users_cdb(self) -> Table[bytes, bytes] | None:
        """users/cdb as it is now; None if there is none.  Raises `Unavailable`."""
        database = self._now(self._users_cdb)
        return None if database is None else self.traced("users/cdb", database)

    def accounts(self) -> Table[bytes, Account]:
        """The system's users as they are now.  Raises `Unavailable`."""
        self._hang_guard.mark(b"passwd")
        return self.traced("passwd", self._system_users())

    def _system_users(self) -> Table[bytes, Account]:
        return self._now(self._accounts)

    def owners(self) -> Table[bytes, int]:
        """Which uid owns a home (a path; a relative one is below the qmail home), as qmailp sees it."""
        access = self._access(self.rights_of(b"qmailp"))
        return self.traced("owner", Owners(self._root, self._enter, access))

    def home(self, path: bytes, rights: Rights) -> Home:
        """The home at the absolute `path` as its user finds it.  Raises `Unavailable` where qmail defers."""
        self._enter(path)
        try:
            home = self._access(rights).home(path)
        except Unavailable as error:
            if self._note is not None:
                self._note("home", path, error)
            raise
        if self._note is None:
            return home
        self._note("home", path, home.mode)
        return Home(home.mode, self.traced("dotqmail", home.files))

    # -- for plug-ins -----------------------------------------------------------------------------

    # These single questions are not watched, so the answer is not cached. `as_user` collects what the answer
    # depends on.

    def file(self, path: bytes, rights: Rights | None = None, *, secret: bool = False) -> bytes | None:
        """Content of a regular file, as `rights` (default: this process) may read it; None if there is none.

        A trace does not show what is `secret`.  Raises `Unavailable` for anything else: a denied access, a
        file that is not regular, or too long.
        """
        return self._ask("file", self._access(rights).content, path, HIDDEN if secret else None)

    def status(self, path: bytes, rights: Rights | None = None) -> Status | None:
        """The result of stat(2) for `path`; None if it does not exist."""
        return self._ask("status", self._access(rights).status, path)

    def listing(self, path: bytes, rights: Rights | None = None) -> list[bytes] | None:
        """The names in a directory; None if it does not exist."""
        return self._ask("listing", self._access(rights).listing, path)

    def enters(self, path: bytes, rights: Rights | None = None) -> bool:
        """Whether chdir(2) to `path` succeeds.  Raises `Unavailable` if access is denied."""
        return self._ask("enters", self._access(rights).enters, path) or False

    def writable(self, path: bytes, rights: Rights | None = None) -> bool | None:
        """Whether files can be made in the directory `path`: False for other kinds of files, None if it is missing."""
        return self._ask("writable", self._access(rights).writable, path)

    def is_link(self, path: bytes, rights: Rights | None = None) -> bool:
        """Whether the name is a symbolic link; where `status` is None, one that leads nowhere."""
        return self._ask("is_link", self._access(rights).is_link, path) or False

    def cdb(
        self, path: bytes, rights: Rights | None = None, *, secret: bool = False, sound: bool = False
    ) -> Table[bytes, bytes] | None:
        """A constant database as it is now, kept while it stays the same; None if it does not exist.

        A trace does not show what is in a `secret` one.  `sound`: raises `Unavailable` if the file as a
        whole does not look like a constant database, not only where a search comes to the damage.
        """
        self.current.not_cacheable()
        opener = None if rights is None else self._access(rights).open
        return self._cdb(rights, opener, path, secret, sound)

    def cdb_records(self, path: bytes, rights: Rights | None = None) -> Iterator[tuple[bytes, bytes]] | None:
        """All keys and data of a constant database of any size, read as they are asked for; None if it does not exist.

        A trace does not show them.  Raises `Unavailable`, also while they are read.
        """
        file = self._ask("records", partial(open_stream, self._access(rights).open), path, HIDDEN)
        return None if file is None else file_records(file, path)

    def as_user(self, rights: Rights, home: bytes, function: Callable[[FileAccess], V]) -> V:
        """``function(access)``: many reads with `rights`, most of them below `home`, which `home()` has entered.

        The answer may be cached if all of it is below `home` on a local file system.  Anything else must be
        read through `as_self`.
        """
        if not (self._switch.may or rights == self._switch.own) or not asks_access():
            return function(ModeBitAccess(self, rights))
        opener = open_regular if self._switch.may and rights == self._switch.own else None
        cdb = partial(self._cdb, rights, opener)
        access = SetfsuidAccess(home, self._directories, self._asked, cdb, opener=opener or open_file)
        if not self._switch.may:
            return function(access)
        return self._switch.run(rights, function, access)

    def user_cdb(self, rights: Rights, home: bytes, path: bytes) -> Table[bytes, bytes] | None:
        """The same as ``as_user(rights, home, lambda files: files.cdb(path))``, cheaper while nothing has changed."""
        self._enter(path)
        key = rights, home, path
        known = self._user_databases.get(key)
        if known is not None:
            return known
        way = self._user_databases.way(key) if self._switch.may or rights == self._switch.own else []
        found = self.as_user(rights, home, lambda files: files.cdb(path))
        if isinstance(found, Database):  # there is no trace
            self._user_databases.put(key, way, found)
        return found

    def as_self(self, function: Callable[[], V]) -> V:
        """``function()`` with this process's own rights, from within `as_user`."""
        return self._switch.run(self._switch.own, function) if self._switch.may else function()

    @property
    def own(self) -> Rights:
        """The rights of this process."""
        return self._switch.own

    def exact(self, rights: Rights | None) -> bool:
        """Whether this process reads with exactly these rights: an access denied to it is denied to that user."""
        self.current.not_cacheable()
        return self._access(rights).exact

    def _access(self, rights: Rights | None) -> UserAccess:
        return UserAccess(rights, self._switch, self._directories)

    def _cdb(
        self, rights: Rights | None, opener: Open | None, path: bytes, secret: bool, sound: bool
    ) -> Table[bytes, bytes] | None:
        self._risk(path)
        key = path, rights, opener is None
        kept = self._databases.pop(key, None)
        if kept is None:
            if len(self._databases) >= CDB_LIMIT:
                del self._databases[next(iter(self._databases))]
            kept = CachedFile(path, "cdb-unreadable", partial(open_database, whole=CDB_WHOLE, sound=sound), opener)
        self._databases[key] = kept  # the most recently used is the last
        database = kept.now()
        if database is None or secret:
            return database
        return self.traced(os.fsdecode(path), database)

    def _ask(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object = None) -> V | None:
        """``function(path)``, which the answer cannot be cached with; see `_asked`."""
        self.current.not_cacheable()
        return self._asked(name, function, path, shown)

    def _asked(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object) -> V | None:
        """``function(path)``; None if there is no such file.  Raises `Unavailable`.

        `shown` is what a trace sees instead of a value.
        """
        value: V | Unavailable | None = None
        try:
            self._risk(path)
            value = function(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            reason = "refused" if error.errno in REFUSED else "unreadable"
            value = Unavailable(reason, describe(error), path, errno=error.errno)
        except Unavailable as error:
            value = error
        if self._note is not None:
            self._note(name, path, value if shown is None or isinstance(value, Unavailable | None) else shown)
        if isinstance(value, Unavailable):
            raise value
        return value
