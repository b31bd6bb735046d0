"""The module `cvm-vmailmgr`: whether a virtual user exists, and whether a password is right.

    with CVM_LOOKUP_SECRET       lookups; the default user is used for names that are not in the table
    without                      logins

Invariants: qmail's rules determine who controls an address.  An address without a virtual part, or whose owner has
no table, is out of scope.  As in the C program a user who has expired exists, and may log in; whether mail to that
user is delivered is decided by cvm-qmail, which follows vdeliver.

Source: cvm 0.97, cvm-vmailmgr.c, vmlookup.c; bglibs, path_merge.c.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from cvm_qmail.answer import Kind
from cvm_qmail.passwords import StoredPassword, TimingEqualizer
from cvm_qmail.plugin import (
    Answer,
    Facts,
    FileAccess,
    Module,
    Password,
    Proof,
    Recipient,
    Resolver,
    Rights,
    Settings,
    Table,
    Tables,
    Unavailable,
    Verdict,
    users,
)
from cvm_qmail.programs.vmailmgr_record import Entry, parse
from cvm_qmail.qmail import qmail
from cvm_qmail.tables.file_access import as_user_or_self
from cvm_vmailmgr.settings import Vmailmgr

_SERVICE = "smtp"
"""One password is for all services."""

_CLEAR = b"$0$"
_SHORTEST = 3


class _Owned(NamedTuple):
    """A virtual part below its owner."""

    owner: users.User
    name: bytes
    domain: bytes
    path: bytes
    """The owner's table."""


class VirtualUsers:
    """The virtual users of all owners on this host.  Its methods raise `Unavailable`."""

    def __init__(self, tables: Tables, policy: Vmailmgr, resolver: Resolver) -> None:
        self._tables = tables
        self._policy = policy
        self._resolver = resolver
        self._equalizer = TimingEqualizer(_SERVICE)

    # -- lookups ----------------------------------------------------------------------------------

    def lookup(self, recipient: Recipient) -> Answer:
        """Whether the virtual user exists."""
        found = self._owned(recipient)
        if isinstance(found, Answer):
            return found
        table = self._table(found)
        if table is None:
            return _out_of_scope(found.owner)
        for name in (found.name, self._policy.default):
            record = table.get(name)
            if record is not None:
                return self._accepted(found, _entry(record, found), "virtual-user")
        return Answer(Verdict.REJECTED, "no-virtual-user", found.owner.name, found.path)

    def _owned(self, recipient: Recipient) -> _Owned | Answer:
        """The owner of the virtual user, by qmail's rules; an answer if the address is not a virtual user's."""
        _, route, user, answer = self._resolver.resolve(recipient)
        if answer is not None and answer.verdict is Verdict.REJECTED:
            return answer
        if route is None or user is None or not user.dash or not user.ext:
            return _out_of_scope(user)
        path = self._policy.table
        path = path if path.startswith(b"/") else b"%s/%s" % (user.home, path)
        return _Owned(user, user.ext.lower(), route.domain, path)

    def _table(self, found: _Owned) -> Table[bytes, bytes] | None:
        """The owner's table, read with the owner's rights, else with this process's; None if there is none."""
        rights = Rights(found.owner.uid, found.owner.gid)
        return as_user_or_self(self._tables, rights, found.owner.home, lambda files: _opened(found, files))

    def _accepted(self, found: _Owned, entry: Entry, reason: str) -> Answer:
        owner = found.owner
        directory = merged(owner.home, entry.directory)
        facts = Facts(
            username=found.name,
            userid=owner.uid,
            groupid=owner.gid,
            directory=directory,
            sys_username=owner.name,
            sys_directory=owner.home,
            domain=found.domain,
            mailbox=directory,
        )
        return Answer(Verdict.ACCEPTED, reason, owner.name, found.path, facts)

    # -- logins -----------------------------------------------------------------------------------

    def authenticate(self, recipient: Recipient, proof: Proof) -> Answer:
        """Whether a password is the virtual user's."""
        found = self._owned(recipient)
        if isinstance(found, Answer):
            self._equalizer.spend(recipient.domain or b"", proof)
            return found
        table = self._table(found)
        record = None if table is None else table.get(found.name)
        self._tables.mark(b"login %s@%s" % (found.name, found.domain))  # a costly hash may exceed the deadline
        if record is None:
            self._equalizer.spend(found.domain, proof)
            if table is None:
                return _out_of_scope(found.owner)
            return Answer(Verdict.REJECTED, "no-virtual-user", found.owner.name, found.path)
        entry = _entry(record, found)
        if not isinstance(proof, Password) or not proof.password:
            raise Unavailable("no-password", "a virtual user can log in only with a password", kind=Kind.NO_CREDENTIAL)
        right = self._is_right(entry.password, proof, found.domain)
        if self._policy.lock_disabled and not entry.enabled:
            return Answer(Verdict.REJECTED, "virtual-user-locked", found.owner.name, found.path)
        if not right:
            return Answer(Verdict.REJECTED, "wrong-password", found.owner.name, found.path)
        return self._accepted(found, entry, "login")

    def _is_right(self, stored: bytes, proof: Password, domain: bytes) -> bool:
        if len(stored) < _SHORTEST or stored.startswith(_CLEAR):
            self._equalizer.spend(domain, proof)
            return len(stored) > len(_CLEAR) and compare_digest(stored, _CLEAR + proof.password)
        return self._equalizer.verify(domain, StoredPassword(stored, b""), proof)


def merged(home: bytes, directory: bytes) -> bytes:
    """A path below the home, without detours (path_merge.c: of several slashes at the end one stays)."""
    parts = [] if directory.startswith(b"/") else home.split(b"/")
    for part in directory.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    path = b"/" + b"/".join(parts).lstrip(b"/")
    return path + b"/" if directory.endswith(b"//") and path != b"/" else path


def _opened(found: _Owned, files: FileAccess) -> Table[bytes, bytes] | None:
    table = files.cdb(found.path, secret=True)
    if table is None and files.status(found.owner.home) is None:
        raise Unavailable("home", "No such file or directory", found.owner.home)
    return table


def _entry(record: bytes, found: _Owned) -> Entry:
    entry = parse(record)
    if entry is None:
        raise Unavailable("virtual-user-damaged", f"the record of {found.name!r} is not one of vmailmgr's", found.path)
    return entry


def _out_of_scope(owner: users.User | None) -> Answer:
    return Answer(Verdict.OUT_OF_SCOPE, "not-ours", b"" if owner is None else owner.name)


def module(tables: Tables, settings: Settings) -> Module:
    """The entry point: makes the module `cvm-vmailmgr`.  Raises `BadSetting`."""
    resolver = qmail(tables, settings, []).resolver
    assert resolver is not None
    found = VirtualUsers(tables, Vmailmgr.from_settings(settings), resolver)
    return Module(found.lookup, found.authenticate, repeatable=True, resolver=resolver)
