"""The only code that opens files or databases: `Tables`, the one door to the facts.

Law: a rule never opens a file; a table never knows why it is asked.  One `Tables` belongs to one
worker.  Per request each file is checked for freshness once (`begin` says that a request begins).
`note`, if given, hears of every question that a rule asks and of its answer: `cvmctl trace` runs the
server's own look-ups with it, and the server runs them without.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from cvm_qmail.answer import Table, Unavailable
from cvm_qmail.rules.domains import Controls
from cvm_qmail.rules.dotqmail import Home
from cvm_qmail.rules.users import Account
from cvm_qmail.settings import Settings
from cvm_qmail.tables.cdb import Database, open_database
from cvm_qmail.tables.changes import TRUST, Changes
from cvm_qmail.tables.control import ControlFiles
from cvm_qmail.tables.errors import REFUSED, describe
from cvm_qmail.tables.files import Status, View, asks_access, open_file, open_plain
from cvm_qmail.tables.folders import Folders
from cvm_qmail.tables.identity import Identity, same
from cvm_qmail.tables.kept import Kept, Open
from cvm_qmail.tables.looking import ByBits, Looks, Switched
from cvm_qmail.tables.passwd import Accounts
from cvm_qmail.tables.rights import Rights, Switch

__all__ = ["Evidence", "Hazards", "Looks", "Note", "Rights", "Tables", "Watched"]

K = TypeVar("K")
V = TypeVar("V")

Note = Callable[[str, object, object], None]
"""``note(table, key, value)``: a question was asked; `value` is the answer, None, or the `Unavailable` raised."""

HIDDEN = "(not shown)"
"""What a trace sees of a secret file."""

CDB_LIMIT = 256
"""Databases of plug-ins that are kept open at a time."""

CDB_WHOLE = 1 << 16
"""Bytes up to which one of these is kept in memory: 16 MB all together."""


class Watched(Generic[K, V]):
    """A Table that tells `note` what it was asked and what it said."""

    def __init__(self, name: str, table: Table[K, V], note: Note) -> None:
        self._name = name
        self._table = table
        self._note = note

    def get(self, key: K, /) -> V | None:
        """What the table says."""
        try:
            value = self._table.get(key)
        except Unavailable as trouble:
            self._note(self._name, key, trouble)
            raise
        self._note(self._name, key, value)
        return value


class Hazards(Protocol):
    """Places where a look-up may hang: a home on a dead server, a database."""

    def enter(self, place: bytes) -> None:
        """From now on this is what is being looked at.  Raises `Unavailable` while it is shunned."""
        ...


class Evidence(NamedTuple):
    """What an answer rests on: the stamp of `Changes`, files and folders with their identity, and until when."""

    stamp: int
    files: tuple[tuple[bytes, Identity], ...]
    until: float = math.inf
    checks: tuple[Callable[[], bool], ...] = ()
    """What else has to be so."""


class _NoHazards:
    def enter(self, place: bytes) -> None:
        pass


class Tables:
    """Where rules and plug-ins get their facts."""

    def __init__(
        self,
        settings: Settings,
        *,
        note: Note | None = None,
        hazards: Hazards | None = None,
        lasting: bool = True,
    ) -> None:
        """`lasting`: whether more than one request is to come, so that watching for changes pays."""
        self.lasting = lasting
        """Whether more than one request is to come."""
        self._root = settings.qmail_root
        self._note = note
        self._hazards = hazards or _NoHazards()
        self._switch = Switch()
        self._changes = Changes() if lasting else Changes(folders=0)
        self._folders = Folders(self._changes)
        self._accounts = Accounts(settings.passwd, self._changes)
        self._controls = ControlFiles(
            self._root + b"/control", self._open_as_qmails if self._switch.may else None, self._changes
        )
        self._users_cdb = Kept(self._root + b"/users/cdb", "cdb-unreadable", open_database, changes=self._changes)
        self._check_at = 0.0
        self.collecting = True
        """Whether `evidence` will be asked for, so that it has to be collected."""
        self.began = time.monotonic()
        """When the request in hand began: who waits beside files bounds the waiting by it."""
        self._until = math.inf
        self._checks: list[Callable[[], bool]] = []
        self._databases: dict[tuple[bytes, Rights | None, bool], Kept[Database]] = {}

    def begin(self) -> None:
        """A request begins: what was seen of folders for the last one is forgotten."""
        self.began = time.monotonic()
        self._until = math.inf
        self._checks = []
        self._changes.look()
        self._folders.begin(collecting=self.collecting)
        if self.began >= self._check_at:
            self._check()

    def _check(self) -> None:
        """Looks whether the files are still what `Changes` vouches for."""
        self._check_at = time.monotonic() + TRUST
        files = (*self._controls.files, *self._accounts.files, self._users_cdb)
        if not all(file.check() for file in files) or not self._folders.check():
            self._changes.doubt()

    def doubt(self) -> None:
        """The answer to the request in hand rests on something that cannot be vouched for later."""
        self._folders.doubt()

    def lasts(self, until: float) -> None:
        """The answer to the request in hand rests on something that holds until then, by time.monotonic."""
        self._until = min(self._until, until)

    def rests_on(self, check: Callable[[], bool]) -> None:
        """The answer to the request in hand rests on something that can be asked again: it holds while `check` does.

        `check` may raise `Unavailable`.
        """
        self._checks.append(check)

    def evidence(self) -> Evidence | None:
        """What the answer to the request in hand rests on; None if that cannot be vouched for later."""
        files = self._folders.relied_on
        if files is None or self._note is not None:
            return None
        return Evidence(self._changes.stamp, files, self._until, tuple(self._checks))

    def holds(self, evidence: Evidence) -> bool:
        """Whether what an answer rested on is still the same."""
        if evidence.stamp != self._changes.stamp or self.began >= evidence.until:
            return False
        for path, identity in evidence.files:
            self._hazards.enter(path)
            if not same(path, identity):
                return False
        return all(check() for check in evidence.checks)

    def watched(self, name: str, table: Table[K, V]) -> Table[K, V]:
        """`table`, telling `note` under this name what it is asked, if anybody wants to hear."""
        return table if self._note is None else Watched(name, table, self._note)

    # -- qmail's own ------------------------------------------------------------------------------

    def controls(self) -> Controls:
        """The control files as they are now.  Raises `Unavailable` if qmail-send could not start with them."""
        controls = self._controls.now()
        if not self._controls.vouched:
            self._folders.doubt()
        if self._note is None:
            return controls
        self._note("envnoathost", b"", controls.envnoathost)
        return Controls(
            controls.envnoathost,
            self.watched("locals", controls.locals),
            self.watched("percenthack", controls.percenthack),
            self.watched("virtualdomains", controls.virtualdomains),
        )

    def _open_as_qmails(self, path: bytes) -> int:
        rights = self.rights_of(b"qmails")
        if rights is None:
            return open_file(path)
        return self._switch.run(rights, open_file, path)

    def rights_of(self, name: bytes) -> Rights | None:
        """The rights of one of qmail's own accounts; None if there is none."""
        account = self._accounts.now().get(name)
        if not self._accounts.vouched:
            self._folders.doubt()
        return Rights(account.uid, account.gid) if account is not None and account.uid else None

    def users_cdb(self) -> Table[bytes, bytes] | None:
        """users/cdb as it is now; None if there is none."""
        database = self._users_cdb.now()
        if not self._users_cdb.vouched:
            self._folders.doubt()
        return None if database is None else self.watched("users/cdb", database)

    def accounts(self) -> Table[bytes, Account]:
        """The system's users as they are now."""
        self._hazards.enter(b"passwd")
        accounts = self._accounts.now()
        if not self._accounts.vouched:
            self._folders.doubt()
        return self.watched("passwd", accounts)

    def owners(self) -> Table[bytes, int]:
        """Which uid owns a home (a path; a relative one is below the qmail home), as qmailp sees it."""
        return self.watched("owner", _Owners(self._root, self._hazards, self._view(self.rights_of(b"qmailp"))))

    def home(self, path: bytes, rights: Rights) -> Home:
        """The home at the absolute `path` as its user finds it.  Raises `Unavailable` where qmail defers."""
        self._hazards.enter(path)
        try:
            home = self._view(rights).home(path)
        except Unavailable as trouble:
            if self._note is not None:
                self._note("home", path, trouble)
            raise
        if self._note is None:
            return home
        self._note("home", path, home.mode)
        return Home(home.mode, self.watched("dotqmail", home.files))

    # -- for plug-ins -----------------------------------------------------------------------------

    # What a plug-in's answer rests on is not known here: it is not kept.

    def file(self, path: bytes, rights: Rights | None = None, *, secret: bool = False) -> bytes | None:
        """Content of a plain file, as `rights` (default: this process) may read it; None if there is none.

        What is `secret` no trace shows.  Raises `Unavailable` for anything else: refused, not a plain
        file, too long.
        """
        return self._ask("file", self._view(rights).content, path, HIDDEN if secret else None)

    def status(self, path: bytes, rights: Rights | None = None) -> Status | None:
        """What stat(2) says of `path`; None if it is not there."""
        return self._ask("status", self._view(rights).status, path)

    def listing(self, path: bytes, rights: Rights | None = None) -> list[bytes] | None:
        """The names in a folder; None if it is not there."""
        return self._ask("listing", self._view(rights).listing, path)

    def enters(self, path: bytes, rights: Rights | None = None) -> bool:
        """Whether chdir(2) to `path` succeeds.  Raises `Unavailable` where it is refused, too."""
        return self._ask("enters", self._view(rights).enters, path) or False

    def writable(self, path: bytes, rights: Rights | None = None) -> bool | None:
        """Whether files may be made in the folder `path`: False for what is no folder, None if nothing is there."""
        return self._ask("writable", self._view(rights).writable, path)

    def looking(self, rights: Rights, home: bytes, function: Callable[[Looks], V]) -> V:
        """``function(looks)``: much to look at with `rights`, most of it below `home`, which `home()` has entered.

        What is looked at otherwise meanwhile, has to be looked at by `as_self`.
        """
        if not (self._switch.may or rights == self._switch.own) or not asks_access():
            return function(ByBits(self, rights))
        opener = open_plain if self._switch.may and rights == self._switch.own else None
        cdb = partial(self._cdb, rights, opener)
        looks = Switched(home, self._folders, HIDDEN, self._asked, cdb, opened=opener or open_file)
        if not self._switch.may:
            return function(looks)
        return self._switch.run(rights, function, looks)

    @property
    def own(self) -> Rights:
        """The rights of this process."""
        return self._switch.own

    def as_self(self, function: Callable[[], V]) -> V:
        """``function()`` with this process's own rights, from within `looking`."""
        return self._switch.run(self._switch.own, function) if self._switch.may else function()

    def exact(self, rights: Rights | None) -> bool:
        """Whether this process looks with exactly these rights: then what it is refused, that user is refused."""
        self._folders.doubt()
        return self._view(rights).exact

    def enter(self, place: bytes, *, vouched: bool = False) -> None:
        """From now on `place` is what is being looked at, for what may hang beside files: a database, a costly hash.

        `vouched`: what is found there is told by `lasts` or `rests_on`, so that the answer can be given
        again.  Raises `Unavailable` while it is shunned because it hung.
        """
        self._hazards.enter(place)
        if not vouched:
            self._folders.doubt()

    def cdb(
        self, path: bytes, rights: Rights | None = None, *, secret: bool = False, sound: bool = False
    ) -> Table[bytes, bytes] | None:
        """A constant database as it is now, kept while it stays the same; None if it is not there.

        What is in a `secret` one no trace shows.  `sound`: it is a trouble if the file as a whole does
        not look like a constant database, not only where a search comes to the damage.
        """
        self._folders.doubt()
        opener = None if rights is None else self._view(rights).open
        return self._cdb(rights, opener, path, secret, sound)

    def _cdb(
        self, rights: Rights | None, opener: Open | None, path: bytes, secret: bool, sound: bool
    ) -> Table[bytes, bytes] | None:
        self._hazards.enter(path)
        key = path, rights, opener is None
        kept = self._databases.pop(key, None)
        if kept is None:
            if len(self._databases) >= CDB_LIMIT:
                del self._databases[next(iter(self._databases))]
            kept = Kept(path, "cdb-unreadable", partial(open_database, whole=CDB_WHOLE, sound=sound), opener)
        self._databases[key] = kept  # the one used last stands last
        database = kept.now()
        if database is None or secret:
            return database
        return self.watched(os.fsdecode(path), database)

    def _door(self, path: bytes) -> None:
        """A plug-in asks for something: it is noted where, and that its answer cannot be vouched for later."""
        self._hazards.enter(path)
        self._folders.doubt()

    def _view(self, rights: Rights | None) -> View:
        return View(rights, self._switch, self._folders)

    def _ask(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object = None) -> V | None:
        """``function(path)``; None if there is no such thing.  Raises `Unavailable`.

        `shown` is what a trace sees in the place of a value.
        """
        self._folders.doubt()
        return self._asked(name, function, path, shown)

    def _asked(self, name: str, function: Callable[[bytes], V], path: bytes, shown: object) -> V | None:
        value: V | Unavailable | None = None
        try:
            self._hazards.enter(path)
            value = function(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            reason = "refused" if error.errno in REFUSED else "unreadable"
            value = Unavailable(reason, describe(error), path, errno=error.errno)
        except Unavailable as trouble:
            value = trouble
        if self._note is not None:
            self._note(name, path, value if shown is None or isinstance(value, Unavailable | None) else shown)
        if isinstance(value, Unavailable):
            raise value
        return value


class _Owners:
    """Who owns a home, as qmail-getpw finds it."""

    def __init__(self, root: bytes, hazards: Hazards, view: View) -> None:
        self._root = root
        self._hazards = hazards
        self._view = view

    def get(self, home: bytes, /) -> int | None:
        if not home:
            return None
        path = home if home.startswith(b"/") else b"%s/%s" % (self._root, home)
        self._hazards.enter(path)
        return self._view.owner(path)
