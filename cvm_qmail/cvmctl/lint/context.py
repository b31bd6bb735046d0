"""What the rules of lint read.

Invariants: one `LintContext` is made for all rules.  Input that cannot be read is reported once, by the rule that is
responsible for it; other rules treat it as empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Answer, Recipient, Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.child import HUNG
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.qmail import qmail
from cvm_qmail.rules import dotqmail, users
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard, Tables
from cvm_qmail.tables.rights import Switch, drop_groups

T = TypeVar("T")

DENIALS = frozenset({"cannot-see", "refused", "home-denied", "dotqmail-denied"})
"""Reasons of failures that may be caused by missing rights of this process."""


class Visited(NamedTuple):
    """A home that qmail would deliver in."""

    user: users.User
    names: list[bytes]
    """Of its .qmail files."""
    files: dict[bytes, dotqmail.DotQmail]
    """Those that can be read and do not make qmail-local defer."""


class LintContext:
    """A host as the rules read it; each part is read once."""

    def __init__(self, settings: Settings, hang_guard: HangGuard | None = None) -> None:
        drop_groups()
        self.settings = settings
        self.tables = Tables(settings, hang_guard=hang_guard)
        self._module = qmail(self.tables, settings)
        self.lookup = make_lookup(self.tables, self._module)
        self.exact = Switch().may
        """Whether a denied access is the user's own lack of rights, and not this process's."""
        self.visited: dict[bytes, Visited] = {}
        self.failures: list[Unavailable] = []
        """What could not be determined, in rules that went on without it."""

    def path(self, name: str) -> bytes:
        """A file below the qmail home."""
        return b"%s/%s" % (self.settings.qmail_root, name.encode())

    def lines(self, name: str) -> list[Line]:
        """The entries of a control file; none if it cannot be read, which `unreadable_controls` reports."""
        try:
            return files.control_lines(self.tables, self.settings, name) or []
        except Unavailable:
            return []

    @cached_property
    def local_lines(self) -> list[Line]:
        """The entries of locals, or that of me."""
        try:
            return files.local_lines(self.tables, self.settings)
        except Unavailable:
            return []

    @cached_property
    def virtual(self) -> list[files.Virtual]:
        """The entries of virtualdomains that count; none if it cannot be read."""
        try:
            return files.virtual_entries(self.tables, self.settings)
        except Unavailable:
            return []

    @cached_property
    def records(self) -> list[tuple[bytes, bytes]]:
        """Those of users/cdb; none if it is damaged, which `assign.cdb` reports.  Raises `Unavailable`."""
        try:
            return files.users_cdb(self.tables, self.settings) or []
        except Unavailable as error:
            if self.blind(error) or not (self.exact or error.reason == "cdb-damaged"):
                raise
            return []

    def user_of(self, key: bytes, data: bytes) -> users.User | None:
        """The user to whom a record of users/cdb gives its addresses; None: the record is damaged."""
        name = key[1:].removesuffix(b"\0")
        try:
            return users.assigned(name, {b"": name[-1:], key: data})
        except Unavailable:
            return None

    def controller(self, local: bytes) -> users.User:
        """Who controls a local part, as the server finds it.  Raises `Unavailable`."""
        resolver = self._module.resolver
        assert resolver is not None  # qmail's own module has one
        return resolver.controller(local)

    def answer(self, recipient: Recipient) -> Answer | None:
        """The server's answer; None: it would be a temporary failure."""
        return self.or_none_reported(lambda: self.lookup(recipient))

    def or_none_reported(self, look: Callable[[], T]) -> T | None:
        """The result of `look`; None if it raises `Unavailable`, which is reported here if no rule will report it."""
        try:
            return look()
        except Unavailable as error:
            if self.blind(error):
                self.failures.append(error)
            return None

    def blind(self, error: Unavailable) -> bool:
        """Whether the error is this process's and not the host's: a lookup hung, or the process lacks rights."""
        return error.reason == HUNG or (not self.exact and error.reason in DENIALS)


Rule = Callable[[LintContext], Iterator[Finding]]
