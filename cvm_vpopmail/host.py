"""One vpopmail with all its tables: the outcome of a delivery.

Invariants: one implementation, used by the plug-in, by the module `cvm-vpopmail` and by its logins.

Source: vdelivermail.c.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cvm_qmail.answer import Table
from cvm_qmail.plugin import NOTHING, Delivery, Network
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import FileAccess, Rights, Tables
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.rules import delivery as rules
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.outcome import Outcome
from cvm_vpopmail.rules.records import concerns
from cvm_vpopmail.rules.vdelivermail import NAME_LIMIT, Places
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables.backend_guess import BackendGuess
from cvm_vpopmail.tables.cdb import CdbAccounts, Watched
from cvm_vpopmail.tables.domains import DefaultDomain, Domains
from cvm_vpopmail.tables.limit_files import LimitFiles
from cvm_vpopmail.tables.user_view import UserView

LOOKING = 0.8
"""Share of the time for a lookup in which the disk may be read."""


class Backend(NamedTuple):
    """The back end: where the accounts are."""

    accounts: Callable[[FileAccess, bool], Table[tuple[Domain, bytes], Account]]
    """The accounts, read through this access (as a domain's owner); the second argument: whether for a login."""
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    limits: Table[Domain, Limits]
    logins: Table[tuple[Domain, bytes, bytes], Account] | None = None
    """The accounts for logins, by domain, its name as it was given, and user; None: as for mail."""
    network: Network = NOTHING
    """The sockets that its questions need."""


class Host(NamedTuple):
    """One vpopmail: its settings and its tables."""

    tables: Tables
    settings: Settings
    policy: Vpopmail
    domains: Table[bytes, Domain]
    backend: Backend
    default_domain: DefaultDomain

    @classmethod
    def of(cls, tables: Tables, settings: Settings) -> Host:
        """The tables that the settings name.  Raises `BadSetting`."""
        policy = Vpopmail.from_settings(settings)
        domains = tables.traced("domain", Domains(tables))
        default = DefaultDomain(tables, policy.directory)
        return cls(tables, settings, policy, domains, _backend(tables, settings, policy), default)

    def judge(self, delivery: Delivery) -> Outcome | None:
        """The outcome of a delivery; None if vpopmail does not decide it.  Raises `Unavailable`."""
        if not concerns(delivery):
            return None
        rights = Rights(delivery.user.uid, delivery.user.gid)
        host = delivery.host.lower()[:NAME_LIMIT]
        domain = self.domains.get(host)

        def look(access: FileAccess) -> Outcome | None:
            places = Places(
                {} if domain is None else {host: domain},
                self.backend.accounts(access, False),
                self.backend.aliases,
                self.backend.limits,
                self.view(access),
                rights.uid,
                self.settings.qmail_root,
                self._now,
                self.settings.branch,
            )
            return rules.judge(delivery, places, self.policy)

        return self.tables.as_user(rights, delivery.user.home, look)

    def assumed(self) -> tuple[str, ...]:
        """The lines of `assumptions`; none if there is no vpopmail and no setting names one."""
        there = os.path.isdir(self.policy.directory) or "CVM_VPOPMAIL_DIR" in self.settings.environment
        return tuple(assumptions(self.policy)) if there else ()

    def view(self, access: FileAccess) -> UserView:
        """The disk with a user's rights, for as long as there is time in this request."""
        return UserView(access, self.tables.current.began + self.settings.lookup_timeout * LOOKING)

    def _now(self) -> float:
        """The time; an answer that depends on it is not cached."""
        self.tables.current.not_cacheable()
        return time.time()


def _backend(tables: Tables, settings: Settings, policy: Vpopmail) -> Backend:
    if policy.dialect is None:
        return _files(tables, policy)
    from cvm_vpopmail.tables import databases

    sql = databases.sql(tables, settings, policy, policy.dialect)
    return Backend(lambda *_: sql.accounts, sql.aliases, sql.limits, sql.logins, sql.network)


def _files(tables: Tables, policy: Vpopmail) -> Backend:
    """The back end of cdb files."""
    guess = BackendGuess(tables, policy.directory) if policy.guessed else None

    watched = Watched(tables.backends, policy.directory)

    def accounts(access: FileAccess, login: bool) -> Table[tuple[Domain, bytes], Account]:
        read = CdbAccounts(access, clear=policy.clear_passwords, login=login, guess=guess, watched=watched)
        return tables.traced("account", read)

    return Backend(
        accounts,
        None,
        tables.traced("limits", LimitFiles(tables, policy.directory)),
    )


def assumptions(policy: Vpopmail) -> Iterator[str]:
    """What is assumed about this host's vpopmail, as lines for standard error at start."""
    built = [
        name
        for name, given in (
            ("qmail-ext", policy.qmail_ext),
            ("clear passwords", policy.clear_passwords),
            ("default delivery", policy.default_delivery),
            ("domain quotas", policy.domain_quotas),
            ("SQL aliases", policy.sql_aliases),
            ("SQL limits", policy.sql_limits),
        )
        if given
    ]
    directory = os.fsdecode(policy.directory)
    if not os.path.isdir(policy.directory):
        yield f"{directory} is not there: mount it, or correct CVM_VPOPMAIL_DIR"
    yield f"vpopmail in {directory}, back end {policy.backend}, built with {', '.join(built) or 'no options'}"
    yield (
        f"catch-all delete: {policy.delete}; over quota: {policy.overquota}; locked accounts: {policy.locked};"
        f" logins are for {policy.service}"
    )
