"""The module `cvm-directory`: whether an address is in the directory that mailbox hosts have published.

    domain not published            out of scope
    published too long ago          a temporary failure
    listed, or a pattern is         accepted
    in doubt                        accepted: its host judges each address when it comes
    listed as what it is            rejected, out of scope, or a temporary failure
    not listed                      rejected
    the database may be behind      what its primary says (CVM_DIRECTORY_PRIMARY), else a temporary failure
    the database gives no answer    a temporary failure

Invariants: what decides comes from one state of the directory, and so does every rejection.  No file of a mailbox
host is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cvm_directory import rules
from cvm_directory.settings import DirectorySettings
from cvm_directory.tables.directory import Directory
from cvm_qmail.plugin import Answer, Facts, Module, Network, Recipient, Settings, Tables, Unavailable, Verdict
from cvm_vpopmail.notices import Notices, to_standard_error
from cvm_vpopmail.tables import network
from cvm_vpopmail.tables.databases import driver
from cvm_vpopmail.tables.replicas import Replicas

NOBODY = 65534
"""Uid and gid in the facts of an acceptance: the account is on another host."""
NOWHERE = b"/nonexistent"

_WHERE = b"directory"

NOTICES = Notices(partial(to_standard_error, program="cvm-directory"))
"""Messages of this server's workers: made before they are forked, and so shared."""


class PublishedAddresses:
    """The lookup over a `Directory`."""

    def __init__(self, directory: Directory, max_age: int) -> None:
        """`max_age`: seconds; 0: any."""
        self._directory = directory
        self._max_age = max_age

    def lookup(self, recipient: Recipient) -> Answer:
        """What is published of an address.  Raises `Unavailable`."""
        account, domain = recipient
        if b"\0" in account or (domain and b"\0" in domain):
            return Answer(Verdict.REJECTED, "nul")
        address = account if domain is None else b"%s@%s" % (account, domain)
        while True:
            local, at, host = address.rpartition(b"@")
            if not at:
                return Answer(Verdict.OUT_OF_SCOPE, "unpublished-domain", where=_WHERE)
            found, hacked = self._find(local, host)
            rewritten, percent, target = local.rpartition(b"%")
            if not (hacked and percent):
                return self._answer(found, local, host)
            address = b"%s@%s" % (rewritten, target)

    def _find(self, local: bytes, host: bytes) -> tuple[rules.Found | None, bool]:
        """What decides, and whether percenthack has a say before that."""
        domains = rules.domain_names(host)
        endings = frozenset({rules.USUAL_ENDING})
        while True:
            names = rules.local_names(local, endings)
            rows = self._directory.rows(domains, names, partial(_settles, domains, names, endings))
            if (others := rules.endings_of(rows)) <= endings:
                return rules.find(rows, domains, names), rules.hacked(rows, domains[0])
            endings |= others  # the patterns of this domain end otherwise than usual

    def _answer(self, found: rules.Found | None, local: bytes, host: bytes) -> Answer:
        if found is None:
            return Answer(Verdict.OUT_OF_SCOPE, "unpublished-domain", where=_WHERE)
        row, verdict, pattern = found
        where = row.domain.encode()
        if self._max_age and row.age > self._max_age:
            detail = f"{row.domain} was published by {row.host} {row.age} seconds ago"
            raise Unavailable("directory-stale", detail, where)
        if verdict == rules.OUT_OF_SCOPE:
            return Answer(Verdict.OUT_OF_SCOPE, "published-remote", where=where)
        facts = Facts(local, NOBODY, NOBODY, directory=NOWHERE, domain=host.lower())
        if verdict == rules.REJECTED:  # the facts are for a dry run, which accepts
            return Answer(Verdict.REJECTED, "not-published", where=where, facts=facts)
        if verdict == rules.DOUBT:
            return Answer(Verdict.ACCEPTED, "published-doubt", where=where, facts=facts)
        if verdict == rules.ACCEPTED:
            return Answer(Verdict.ACCEPTED, "published-pattern" if pattern else "published", where=where, facts=facts)
        raise Unavailable("published-unknown", f"a temporary failure on {row.host}", where)


def _settles(domains: Sequence[str], names: Sequence[str], endings: frozenset[str], rows: Sequence[rules.Row]) -> bool:
    """Whether these rows need no second look: they accept, or others are asked for next."""
    found = rules.find(rows, domains, names)
    accepts = found is not None and found.verdict not in (rules.REJECTED, rules.OUT_OF_SCOPE)
    return accepts or not rules.endings_of(rows) <= endings


def published_addresses(
    tables: Tables, settings: Settings, own: DirectorySettings, allowed: Network
) -> tuple[PublishedAddresses, Replicas]:
    """The lookup, and the servers that it asks; nothing is connected yet.  Raises `BadSetting`.

    `allowed`: the sockets that this process may open.
    """
    options = own.options
    connect = driver(options.dialect, "CVM_DIRECTORY_DATABASE")
    database = Replicas.of(tables, options, connect, settings.lookup_timeout, NOTICES, allowed=allowed)
    return PublishedAddresses(Directory(database.rows, options.dialect.name), own.max_age), database


def module(tables: Tables, settings: Settings) -> Module:
    """The entry point.  Raises `BadSetting`."""
    own = DirectorySettings.from_settings(settings)
    declared = network.declared(tables, own.options)
    found, _ = published_addresses(tables, settings, own, declared)
    age = f"no older than {own.max_age} seconds" if own.max_age else "of any age"
    assumption = f"directory in {own.options.dialect.name}, publications {age}"
    return Module(found.lookup, assumptions=(assumption,), network=declared, reads_host=False)
