"""From what is to be published to what is there: only what has changed, a domain in one transaction.

    the same            its time is renewed, with that of others
    changed             rows are compared in the order of their names; what differs is written
    a temporary failure the domain stays as it is, and its time too: it becomes stale when nothing better comes
    half is gone        likewise, unless the administrator says that this is right; no address at all counts so, too
    another host's      likewise
    no domain of ours   what this host published before, and does not know any more: half is gone

Invariants: memory does not grow with the number of addresses, nor of domains.  A domain that is refused does not keep
others from being published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from cvm_directory import rules
from cvm_directory.publishing.database import BATCH, BULK, DirectoryDatabase, Published
from cvm_directory.publishing.publication import Address, Domain, Publication
from cvm_directory.publishing.schema import LONGEST_DOMAIN, LONGEST_LOCAL


class Refusal(Enum):
    """Why a domain is not published."""

    UNKNOWN = "{unknown} of its addresses are temporary failures"
    SHRUNK = "it had {before} addresses, and has {after} now (--force, if that is right)"
    GONE = "this host does not have it any more; {before} addresses are published (--force removes them)"
    OTHER_HOST = "{host} has published it (--force takes it over)"
    NOWHERE = "this host does not have it, and has not published it"
    NOT_PUBLISHED = "{host} has not published the domain: publish it first"
    TOO_LONG = "the directory cannot hold a name as long as {name}"

    @property
    def temporary(self) -> bool:
        """Whether another try may find otherwise."""
        return self is Refusal.UNKNOWN


class Refused(NamedTuple):
    """A domain that stays as it is."""

    domain: str
    why: Refusal
    text: str


class Policy(NamedTuple):
    """What the administrator has asked for."""

    host: str
    force: bool
    include_unknown: bool
    """Whether temporary failures are published as what they are."""
    dry_run: bool


class Counts:
    """What was done."""

    def __init__(self) -> None:
        self.domains = 0
        self.same = 0
        self.added = 0
        self.removed = 0
        self.gone = 0
        """Domains."""


MANY = 10_000
"""Changed addresses from which on the database's statistics are renewed at once."""

Say = Callable[[Refused], None]


class Publisher:
    """Publishes into one database.  Each method raises `Unavailable`."""

    def __init__(self, database: DirectoryDatabase, policy: Policy, say: Say) -> None:
        self._database = database
        self._policy = policy
        self._say = say
        self.counts = Counts()

    def publish(self, publication: Publication) -> None:
        """Publishes the domains that have changed, and renews the time of the others."""
        for some in _batches(publication.domains()):
            with self._database.transaction():
                there = self._database.published([domain.name for domain in some])
            same: list[str] = []
            for domain in some:
                if self._is_same(domain, there.get(domain.name)):
                    same.append(domain.name)
                elif domain.unknown and not self._policy.include_unknown:
                    self._say(refused(domain.name, Refusal.UNKNOWN, unknown=domain.unknown))
                else:
                    self._publish(domain, publication)
            self._confirm(same)

    def remove_others(self, known: Callable[[str], bool], only: Collection[str] = ()) -> None:
        """Removes what this host has published and does not have any more.

        `known`: whether it has a domain.  `only`: these domains; empty: all.
        """
        missing = {name for name in only if not known(name)}
        for some in self._database.of_host(self._policy.host):
            for there in some:
                if there.name in missing or not (only or known(there.name)):
                    self._remove(there)
                    missing.discard(there.name)
        for name in sorted(missing):
            self._say(refused(name, Refusal.NOWHERE))

    def end(self) -> None:
        """Ends a publication."""
        if self.counts.added + self.counts.removed >= MANY and not self._policy.dry_run:
            self._database.note_sizes()

    # -- one domain -------------------------------------------------------------------------------

    def _is_same(self, domain: Domain, there: Published | None) -> bool:
        if there is None or there.digest != domain.digest or there.host != self._policy.host:
            return False
        return self._policy.include_unknown or not domain.unknown

    def _confirm(self, names: list[str]) -> None:
        self.counts.same += len(names)
        if names and not self._policy.dry_run:
            self._database.confirm(names)

    def _publish(self, domain: Domain, publication: Publication) -> None:
        publication.take(domain.name)
        too_long = _too_long(domain.name, publication.longest())
        with self._database.transaction():
            there = self._there(domain.name)
            refusal = too_long or self._refusal(domain, there)
            if refusal is not None:
                self._take_back(refusal)
                return
            if there.addresses:
                self._write_changes(domain.name, publication.addresses())
            elif self._policy.dry_run:
                self.counts.added += domain.addresses
            else:
                self._database.remove_all(domain.name)
                self._database.add(domain.name, publication.addresses())
                self.counts.added += domain.addresses
            if not self._policy.dry_run:
                self._database.write_domain(domain, publication.endings(), self._policy.host)
            self.counts.domains += 1

    def _there(self, name: str) -> Published:
        """What is published of a domain; locked, unless this is a dry run."""
        nothing = Published(name, 0, "", "")
        if self._policy.dry_run:
            return self._database.published([name]).get(name, nothing)
        return self._database.lock(name)

    def _take_back(self, refusal: Refused) -> None:
        self._say(refusal)
        self._database.take_back()

    def _refusal(self, domain: Domain, there: Published) -> Refused | None:
        if self._policy.force:
            return None
        if there.host not in ("", self._policy.host):
            return refused(domain.name, Refusal.OTHER_HOST, host=there.host)
        if _shrinks(there.addresses, domain.addresses, domain.scope):
            return refused(domain.name, Refusal.SHRUNK, before=there.addresses, after=domain.addresses)
        return None

    def _remove(self, there: Published) -> None:
        with self._database.transaction():
            if there.addresses and not self._policy.force:
                self._say(refused(there.name, Refusal.GONE, before=there.addresses))
                return
            if not self._policy.dry_run:
                self._database.remove_domain(there.name)
            self.counts.gone += 1
            self.counts.removed += there.addresses

    def _write_changes(self, domain: str, addresses: Iterator[Address]) -> None:
        """Writes what differs between what is there and `addresses`."""
        gone: list[str] = []
        new: list[Address] = []
        for old, now in changes(self._database.addresses(domain), addresses):
            if old is not None:
                gone.append(old.local)
            if now is not None:
                new.append(now)
            if len(gone) + len(new) >= BULK:
                self._write(domain, gone, new)
                gone, new = [], []
        self._write(domain, gone, new)

    def _write(self, domain: str, gone: list[str], new: list[Address]) -> None:
        self.counts.added += len(new)
        self.counts.removed += len(gone)
        if not self._policy.dry_run:
            self._database.remove(domain, gone)
            self._database.add(domain, new)


def changes(there: Iterable[Address], now: Iterable[Address]) -> Iterator[tuple[Address | None, Address | None]]:
    """Where the two differ: what is published, and what is to be; None: nothing.

    Both arguments are in the order of their names.
    """
    olds, news = iter(there), iter(now)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if old == new:
            old, new = next(olds, None), next(news, None)
        elif new is None or (old is not None and old.local < new.local):
            yield old, None
            old = next(olds, None)
        elif old is None or new.local < old.local:
            yield None, new
            new = next(news, None)
        else:
            yield old, new
            old, new = next(olds, None), next(news, None)


def _too_long(domain: str, local: str) -> Refused | None:
    """A refusal of a name that the tables cannot hold."""
    if len(domain) <= LONGEST_DOMAIN and len(local) <= LONGEST_LOCAL:
        return None
    return refused(domain, Refusal.TOO_LONG, name=(local if len(local) > LONGEST_LOCAL else domain)[:40] + "...")


def _shrinks(before: int, after: int, scope: str) -> bool:
    """Whether more than half is gone, or a whole domain (scope `ALL`) has no address at all."""
    if not after and scope == rules.ALL:
        return True
    return (before - after) * 2 > before


def refused(domain: str, why: Refusal, **values: object) -> Refused:
    """A refusal in words."""
    return Refused(domain, why, why.value.format(**values))


def _batches(domains: Iterator[Domain]) -> Iterator[list[Domain]]:
    """The domains in parts, of which each is looked up with one statement."""
    some: list[Domain] = []
    for domain in domains:
        some.append(domain)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some
