"""vpopmail: what its tables say of a delivery and of a login, and the module `cvm-vpopmail`.

Law: one implementation.  The module is cvm-qmail's own look-up with the plug-in, for controlling users
that are vpopmail domains; all else is out of scope.  A login is what vchkpw says.

Source: vdelivermail.c, vchkpw.c.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cvm_qmail.answer import Answer, Facts, Recipient, Table, Unavailable, Verdict
from cvm_qmail.lookups import Authenticate, Delivery, Module, Plugin, Proof, qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Looks, Rights, Tables
from cvm_qmail.tables.errors import REFUSED
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.passwords import Wasted
from cvm_vpopmail.rules import delivery as rules
from cvm_vpopmail.rules import login
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.records import is_domain_record
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables import DefaultDomain, Domains, Guess, LimitFiles, Seen
from cvm_vpopmail.tables.cdb import CdbAccounts

PATIENCE = 0.8
"""Of the time for a look-up, the part in which the disk is looked at."""


class Backend(NamedTuple):
    """Where accounts are."""

    accounts: Callable[[Looks, bool], Table[tuple[Domain, bytes], Account]]
    """The accounts, for somebody who looks at the disk as a domain's owner; and whether for a login."""
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    limits: Table[Domain, Limits]
    logins: Table[tuple[Domain, bytes, bytes], Account] | None = None
    """The accounts for logins, by domain, its name as it was given, and user; None: as for mail."""


class Host(NamedTuple):
    """One vpopmail, as its tables tell of it."""

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
        domains = tables.watched("domain", Domains(tables))
        default = DefaultDomain(tables, policy.directory)
        return cls(tables, settings, policy, domains, _backend(tables, settings, policy), default)

    def judge(self, delivery: Delivery) -> rules.Outcome | None:
        """What becomes of a message; None if that is qmail's business alone.  Raises `Unavailable`."""
        content = delivery.file.file.content
        if not is_domain_record(delivery.user, delivery.local) and b"vdelivermail" not in (content or b""):
            return None
        rights = Rights(delivery.user.uid, delivery.user.gid)
        host = delivery.host.lower()[: rules.NAME_LIMIT]
        domain = self.domains.get(host)

        def look(looks: Looks) -> rules.Outcome | None:
            places = rules.Places(
                {} if domain is None else {host: domain},
                self.backend.accounts(looks, False),
                self.backend.aliases,
                self.backend.limits,
                self.seen(looks),
                rights.uid,
                self.settings.qmail_root,
                self._now,
            )
            return rules.judge(delivery, places, self.policy)

        return self.tables.looking(rights, delivery.user.home, look)

    def assumed(self) -> tuple[str, ...]:
        """What to say at start of what is taken for granted; nothing where nobody speaks of a vpopmail."""
        there = os.path.isdir(self.policy.directory) or "CVM_VPOPMAIL_DIR" in self.settings.environment
        return tuple(assumptions(self.policy)) if there else ()

    def seen(self, looks: Looks) -> Seen:
        """What somebody sees of the disk, as long as there is time in this request."""
        return Seen(looks, self.tables.began + self.settings.lookup_timeout * PATIENCE)

    def _now(self) -> float:
        """The time, on which no answer can rest that is given again later."""
        self.tables.doubt()
        return time.time()


def _backend(tables: Tables, settings: Settings, policy: Vpopmail) -> Backend:
    if policy.backend == "cdb":
        return _files(tables, policy)
    from cvm_vpopmail.tables import databases

    sql = databases.sql(tables, settings, policy)
    return Backend(lambda *_: sql.accounts, sql.aliases, sql.limits, sql.logins)


def _files(tables: Tables, policy: Vpopmail) -> Backend:
    """The cdb back end."""
    guess = Guess(tables, policy.directory) if policy.guessed else None

    def accounts(looks: Looks, login: bool) -> Table[tuple[Domain, bytes], Account]:
        read = CdbAccounts(looks, clear=policy.clear_passwords, login=login, guess=guess)
        return tables.watched("account", read)

    return Backend(
        accounts,
        None,
        tables.watched("limits", LimitFiles(tables, policy.directory)),
    )


def module(tables: Tables, settings: Settings) -> Module:
    """The module `cvm-vpopmail`: vpopmail domains, their accounts and passwords.  Raises `BadSetting`."""
    host = Host.of(tables, settings)

    def program(delivery: Delivery) -> Answer | None:
        outcome = host.judge(delivery)
        if outcome is None or outcome.account is None or outcome.domain is None:
            return None if outcome is None else outcome.answer
        facts = _facts(outcome.account, outcome.domain, delivery.recipient.domain)
        return outcome.answer._replace(facts=facts)

    own = settings._replace(lookaside=frozenset())  # it is this module that others look aside to
    lookup = qmail(tables, own, [Plugin(program, repeatable=True)], ours=is_domain_record).lookup
    return Module(lookup, _authenticate(host), repeatable=True, assumptions=tuple(assumptions(host.policy)))


def _facts(account: Account, domain: Domain, asked: bytes | None) -> Facts:
    return Facts(
        username=account.name,
        userid=domain.uid,
        groupid=domain.gid,
        realname=account.gecos,
        directory=account.directory,
        shell=account.quota,
        domain=asked,
        mailbox=account.directory + b"/Maildir/",
    )


def _authenticate(host: Host) -> Authenticate:
    policy = host.policy
    service = policy.service
    wasted = Wasted(service)

    def authenticate(recipient: Recipient, proof: Proof) -> Answer:
        """Whether `proof` lets the account in on this service.  Raises `Unavailable`."""
        host.tables.begin()
        user, name = login.address(recipient)
        if not name:
            name = host.default_domain() if policy.default_domain is None else policy.default_domain
        host.tables.enter(b"login %s@%s" % (user, name))  # a costly hash may outlast the deadline
        valid = bool(user) and login.valid(user, name)
        domain = host.domains.get(name) if valid else None
        if domain is None:
            wasted.on(name, proof)
            return Answer(Verdict.PASS, "not-ours", user) if valid else Answer(Verdict.REJECT, "invalid-username", user)
        rights = Rights(domain.uid, domain.gid)
        account = _account(domain, name, user, rights)
        host.tables.enter(b"login %s@%s" % (user, name))
        if account is None:
            wasted.on(domain.name, proof)
            return Answer(Verdict.REJECT, "no-account", user)
        if not wasted.proves(domain.name, account.secret, proof):
            return Answer(Verdict.REJECT, "wrong-password", user)
        flags = account.flags | login.limit_flags(account.flags, host.backend.limits.get(domain))
        if login.forbidden(service, flags):
            return Answer(Verdict.REJECT, "service-forbidden", user)
        if service in login.NEEDS_HOME and not host.tables.looking(
            rights, domain.directory, lambda looks: _has_home(account, domain, host.seen(looks))
        ):
            return Answer(Verdict.REJECT, "home-not-made", user, account.directory)
        facts = _facts(account, domain, recipient.domain or name)
        return Answer(Verdict.ACCEPT, "login", user, account.directory, facts)

    def _account(domain: Domain, given: bytes, user: bytes, rights: Rights) -> Account | None:
        """As the domain's owner finds it, else as this process does: vchkpw looks as root."""
        if host.backend.logins is not None:
            return host.backend.logins.get((domain, given, user))

        def look(looks: Looks) -> Account | None:
            return host.backend.accounts(looks, True).get((domain, user))

        try:
            return host.tables.looking(rights, domain.directory, look)
        except Unavailable as trouble:
            if trouble.errno not in REFUSED:
                raise
            return host.tables.looking(host.tables.own, domain.directory, look)

    def _has_home(account: Account, domain: Domain, sight: Seen) -> bool:
        home = account.directory
        if not home:
            return policy.backend != "cdb"
        return sight.status(home) is not None or rules.can_make(home, domain, sight)

    return authenticate


def assumptions(policy: Vpopmail) -> Iterator[str]:
    """What is taken for granted of this host's vpopmail, in words."""
    built = [
        name
        for name, given in (
            ("qmail-ext", policy.qmail_ext),
            ("clear passwords", policy.clear_passwords),
            ("default delivery", policy.default_delivery),
            ("domain quotas", policy.domain_quotas),
            ("SQL aliases", policy.sql_aliases and policy.backend != "cdb"),
            ("SQL limits", policy.sql_limits and policy.backend != "cdb"),
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
