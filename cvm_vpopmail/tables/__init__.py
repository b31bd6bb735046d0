"""Where vpopmail's facts come from: users/cdb, the files of a domain, and what one user sees of the disk.

Law: nothing is ever written.  What a user may not see is missing to that user; what this process
cannot tell for that user is `Unavailable`.
"""

from __future__ import annotations

import math
import os
import time
from stat import S_ISCHR, S_ISDIR, S_ISREG, S_ISSOCK

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables import Looks, Rights, Tables
from cvm_qmail.tables.errors import REFUSED, TEMPORARY
from cvm_qmail.tables.files import Status
from cvm_vpopmail.accounts import Domain
from cvm_vpopmail.rules.limits import Limits, parse
from cvm_vpopmail.settings import BadSetting, seen_backend


class Domains:
    """users/cdb as vpopmail reads it: a Table of domains by name in lower case."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, name: bytes, /) -> Domain | None:
        """The domain; None if vpopmail does not know it.  Raises `Unavailable`."""
        cdb = self._tables.users_cdb() if name else None
        data = None if cdb is None else cdb.get(b"!%s-" % name)
        if data is None:
            if cdb is not None and cdb.get(b"") is None:  # no qmail-newu made it: zeros, say, after a crash
                raise Unavailable("cdb-no-break-list", "users/cdb has no record with an empty key", b"users/cdb")
            return None
        fields = data.split(b"\0")
        if len(fields) < 4 or not fields[1].isdigit() or not fields[2].isdigit() or not fields[3].startswith(b"/"):
            raise Unavailable("domain-record", f"users/cdb: the record of {name!r} is no domain's", b"users/cdb")
        return Domain(fields[0], int(fields[1][:10]), int(fields[2][:10]), fields[3])


class Seen:
    """An `accounts.Sight`: what a user sees, who takes what it may not look at for missing.

    How much there is to look at for one address is for others to say, who own the files.  So it ends by
    the clock, and before the supervisor kills the worker: somewhere else each time, where shunning that
    place would not help.
    """

    def __init__(self, looks: Looks, until: float = math.inf) -> None:
        """`until`: by time.monotonic, when no more is looked at."""
        self._looks = looks
        self._until = until

    def _in_time(self, path: bytes) -> None:
        if time.monotonic() >= self._until:
            raise Unavailable("too-much", "there is more to look at than there is time", path)

    def _if_told(self, trouble: Unavailable) -> None:
        """Raises a trouble that tells nothing; one that the user would meet just so is an answer."""
        if trouble.errno is None or trouble.errno in TEMPORARY:
            raise trouble
        if trouble.errno in REFUSED and not self._looks.exact:
            raise trouble

    def file(self, path: bytes, /) -> bytes | None:
        """Content of a plain file that can be opened, or of /dev/null; None for anything else."""
        status = self.status(path)
        if status is None or S_ISDIR(status.mode) or S_ISSOCK(status.mode):
            return None
        if S_ISCHR(status.mode) and os.path.realpath(path) == b"/dev/null":
            return b""
        if not S_ISREG(status.mode):
            raise Unavailable("not-a-file", "is not a plain file: who reads it may wait for ever", path)
        try:
            return self._looks.file(path)
        except Unavailable as trouble:
            self._if_told(trouble)
            return None

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says; None if it cannot be looked at."""
        self._in_time(path)
        try:
            return self._looks.status(path)
        except Unavailable as trouble:
            self._if_told(trouble)
            return None

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a folder; None if it cannot be listed."""
        self._in_time(path)
        try:
            return self._looks.listing(path)
        except Unavailable as trouble:
            self._if_told(trouble)
            return None

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) succeeds."""
        self._in_time(path)
        try:
            return self._looks.enters(path)
        except Unavailable as trouble:
            self._if_told(trouble)
            return False

    def writable(self, path: bytes, /) -> bool:
        """Whether files can be made in the folder."""
        self._in_time(path)
        try:
            return bool(self._looks.writable(path))
        except Unavailable as trouble:
            self._if_told(trouble)
            return False


class Guess:
    """That accounts are in cdb files, where nobody has said so.

    It is looked at again before an account is said to be missing: vpopmail's directory may have been mounted,
    or moved to a database, since the server was started, or be another one than the settings name.
    """

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._directory = directory

    def confirm(self, *, files: bool) -> None:
        """Raises `Unavailable` where it may be wrong.  `files`: whether the domain has a vpasswd of any kind."""

        def holds() -> bool:
            try:
                return seen_backend(self._directory) == "cdb" and (files or os.path.isdir(self._directory))
            except BadSetting:
                return False

        if not self._tables.as_self(holds):
            raise Unavailable(
                "backend-unknown",
                "no vpopmail is there, or one with a database: name it with CVM_VPOPMAIL_DIR and"
                " CVM_VPOPMAIL_BACKEND, or start the server again",
                self._directory,
            )
        self._tables.rests_on(holds)


class LimitFiles:
    """Limits of domains from their files: ``.qmailadmin-limits``, else the host's ``etc/vlimits.default``."""

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._default = directory + b"/etc/vlimits.default"

    def get(self, domain: Domain, /) -> Limits:
        """The limits; none at all if there is no file."""
        path = domain.directory + b"/.qmailadmin-limits"
        try:
            text = self._tables.file(path, Rights(domain.uid, domain.gid))
        except Unavailable as trouble:
            if trouble.errno not in REFUSED:
                raise
            text = self._tables.as_self(lambda: self._tables.file(path))
        return parse(self.default() if text is None else text)

    def default(self) -> bytes:
        """The host's own, as text."""
        return self._tables.as_self(lambda: self._tables.file(self._default)) or b""


class DefaultDomain:
    """The first line of ``etc/defaultdomain``."""

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._path = directory + b"/etc/defaultdomain"

    def __call__(self) -> bytes:
        """The domain in lower case; empty if there is none."""
        text = self._tables.file(self._path) or b""
        return text.partition(b"\n")[0].strip(b" \t\r").lower()
