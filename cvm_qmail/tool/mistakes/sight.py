"""What a rule of lint finds, and what it looks at.

Law: a `Sight` is made once for all rules; what it cannot read is nothing to the rules that only use it,
and told by the one rule whose business it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Answer, Recipient, Unavailable
from cvm_qmail.lookups import qmail
from cvm_qmail.rules import dotqmail, users
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Hazards, Tables
from cvm_qmail.tables.rights import Switch, drop_groups
from cvm_qmail.tool import host
from cvm_qmail.tool.apart import HUNG
from cvm_qmail.tool.host import Line

T = TypeVar("T")

DENIALS = frozenset({"cannot-see", "refused", "home-denied", "dotqmail-denied"})
"""Reasons of troubles that may be for want of rights."""


class Finding(NamedTuple):
    """A mistake."""

    kind: str
    """A constant word."""
    file: bytes
    line: int | None
    what: str
    consequence: str
    remedy: str


class Visited(NamedTuple):
    """A home that qmail would deliver in."""

    user: users.User
    names: list[bytes]
    """Of its .qmail files."""
    files: dict[bytes, dotqmail.DotQmail]
    """Those that can be read and do not make qmail-local defer."""


class Sight:
    """What there is to see of a host, looked at once."""

    def __init__(self, settings: Settings, hazards: Hazards | None = None) -> None:
        drop_groups()
        self.settings = settings
        self.tables = Tables(settings, hazards=hazards)
        self.lookup = qmail(self.tables, settings).lookup
        self.exact = Switch().may
        """Whether a refusal is the host's doing, and not for want of rights here."""
        self.visited: dict[bytes, Visited] = {}
        self.troubles: list[Unavailable] = []
        """What a rule could not tell, and went on without."""

    def path(self, name: str) -> bytes:
        """A file below the qmail home."""
        return b"%s/%s" % (self.settings.qmail_root, name.encode())

    def lines(self, name: str) -> list[Line]:
        """The entries of a control file; none if it cannot be read, which `unreadable_controls` says."""
        try:
            return host.control_lines(self.tables, self.settings, name) or []
        except Unavailable:
            return []

    @cached_property
    def local_lines(self) -> list[Line]:
        """The entries of locals, or that of me."""
        try:
            return host.local_lines(self.tables, self.settings)
        except Unavailable:
            return []

    @cached_property
    def virtual(self) -> list[tuple[Line, bytes, bytes]]:
        """The entries of virtualdomains that count: line, name in lower case, what is prepended."""
        by_name = {}
        for line in self.lines("virtualdomains"):
            name, colon, prepend = line.value.partition(b":")
            if colon:
                by_name[name.lower()] = (line, name.lower(), prepend)
        return list(by_name.values())

    @cached_property
    def records(self) -> list[tuple[bytes, bytes]]:
        """Those of users/cdb; none if it is damaged, which `cdb` says.  Raises `Unavailable`."""
        try:
            return host.users_cdb(self.tables, self.settings) or []
        except Unavailable as trouble:
            if self.blind(trouble) or not (self.exact or trouble.reason == "cdb-damaged"):
                raise
            return []

    def user_of(self, key: bytes, data: bytes) -> users.User | None:
        """Who a record of users/cdb gives its addresses to."""
        name = key[1:].removesuffix(b"\0")
        try:
            return users.assigned(name, {b"": name[-1:], key: data})
        except Unavailable:
            return None

    def controller(self, local: bytes) -> users.User:
        """Who controls a local part.  Raises `Unavailable`."""
        cdb = self.tables.users_cdb()
        user = None if cdb is None else users.assigned(local, cdb)
        settings, tables = self.settings, self.tables
        if user is None:
            user = users.getpw(local, tables.accounts(), tables.owners(), settings.breakchar, settings.alias)
        return user

    def answer(self, recipient: Recipient) -> Answer | None:
        """What the server says; None: it cannot tell."""
        return self.told(lambda: self.lookup(recipient))

    def told(self, look: Callable[[], T]) -> T | None:
        """What can be found out; None if it cannot, which is told of where no rule will."""
        try:
            return look()
        except Unavailable as trouble:
            if self.blind(trouble):
                self.troubles.append(trouble)
            return None

    def blind(self, trouble: Unavailable) -> bool:
        """Whether it tells of this process, not of the host: a look hung, or for want of rights."""
        return trouble.reason == HUNG or (not self.exact and trouble.reason in DENIALS)


Rule = Callable[[Sight], Iterator[Finding]]
