"""The module `cvm-qmail`: whether qmail would deliver to an address.

Invariants: `QmailLookup.resolve` is the only place that decides who controls an address, and `judge` the only place
that decides its outcome; the server, trace, lint and list all use them.

Source: qmail-send.c, qmail-lspawn.c, qmail-getpw.c, qmail-local.c, in `rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_

from cvm_qmail.answer import Answer, Facts, Recipient, Unavailable, Verdict, new
from cvm_qmail.entry_points import load_programs
from cvm_qmail.plugin import NOTHING, Delivery, Module, Plugin, Resolved, Route
from cvm_qmail.rules import domains, dotqmail, exit_status, users
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables

Ours = Callable[[users.User, bytes], bool]
"""Returns whether a controlling user and a local part belong to this module."""

ASSUMED = "CVM_QMAIL_ASSUME_LOCAL"
REPLACED = "CVM_QMAIL_MISSINGDOMAIN"
"""`Local.table` of an address that is local by a setting, not by a control file."""

_VIRTUALDOMAINS = b"control/virtualdomains"

_DENIED = frozenset({"home-denied", "dotqmail-denied"})
"""Reasons that CVM_QMAIL_CHECK_PERMS turns into rejections."""


class QmailLookup:
    """qmail's rules over one `Tables`.  Its methods raise `Unavailable` where qmail would defer."""

    def __init__(
        self, tables: Tables, settings: Settings, programs: Sequence[Plugin] = (), ours: Ours | None = None
    ) -> None:
        """`ours`: see `qmail`."""
        self._tables = tables
        self._settings = settings
        self._programs = programs
        self._ours = ours
        self._runs = tuple(plugin.run for plugin in programs if plugin.run is not None)

    def lookup(self, recipient: Recipient) -> Answer:
        """Whether qmail would deliver to `recipient`."""
        return self.judge(self.resolve(recipient))

    # -- who controls an address ------------------------------------------------------------------

    def route(self, recipient: Recipient) -> Route:
        """Where qmail-send routes the address, after the settings that make more addresses local."""
        controls = self._tables.controls()
        address = domains.complete(recipient, controls.envnoathost)
        domain = address[address.rindex(b"@") + 1 :].lower()
        target = domains.rewrite(address, controls)
        if isinstance(target, domains.Remote) and not target.exception:
            settings = self._settings
            if settings.assume_local:
                target = domains.Local(target.local, target.host, ASSUMED)
            elif settings.missing_domain is not None:
                domain = settings.missing_domain
                target = domains.Local(settings.missing_user, domain, REPLACED)
        return new(Route, (address, domain, target))

    def controller(self, local: bytes) -> users.User:
        """Who controls a local part: users/cdb, else the system's accounts."""
        tables, settings = self._tables, self._settings
        cdb = tables.users_cdb()
        user = None if cdb is None else users.assigned(local, cdb)
        if user is None:
            user = users.getpw(local, tables.accounts(), tables.owners(), settings.breakchar, settings.alias)
        return user

    def resolve(self, recipient: Recipient) -> Resolved:
        """The route of an address and its controlling user."""
        account, domain = recipient
        if b"\0" in account or (domain and b"\0" in domain):
            return Resolved(recipient, None, None, Answer(Verdict.REJECTED, "nul"))  # no qmail address has one
        route = self.route(recipient)
        target = route.target
        if isinstance(target, domains.Remote):
            reason = "virtual-exception" if target.exception else "remote"
            return Resolved(recipient, route, None, Answer(Verdict.OUT_OF_SCOPE, reason, where=_VIRTUALDOMAINS))
        if not target.local:
            return Resolved(recipient, route, None, self._nobody(route.domain))
        user = self.controller(target.local)
        if self._ours is not None and not self._ours(user, target.local):
            return Resolved(recipient, route, user, Answer(Verdict.OUT_OF_SCOPE, "not-ours", user.name))
        return new(Resolved, (recipient, route, user, None))

    def _nobody(self, domain: bytes) -> Answer:
        """The answer for an empty local part.

        qmail-lspawn reports success for it and throws the mail away.  Clients require facts of an acceptance,
        so those of the alias account are used.
        """
        if self._ours is not None:
            return Answer(Verdict.OUT_OF_SCOPE, "not-ours")
        facts = alias_facts(self._tables, self._settings, domain)
        return Answer(Verdict.ACCEPTED, "discarded", facts.username, b"control/locals", facts)

    # -- what becomes of mail to it ---------------------------------------------------------------

    def judge(self, resolved: Resolved) -> Answer:
        """The answer for an address whose controlling user is known."""
        recipient, route, user, answer = resolved
        if answer is not None:
            return answer
        assert route is not None
        assert user is not None
        assert isinstance(route.target, domains.Local)
        settings = self._settings
        try:
            answer = self._judge(recipient, user, route.target, route.domain)
            if answer.forwards and settings.follow and self._reaches_nobody(route.address, answer):
                answer = Answer(Verdict.REJECTED, "forwards-to-nobody", user.name, answer.where)
        except Unavailable as error:
            error.user = user.name
            if not (settings.denied_is_permanent and error.reason in _DENIED):
                raise
            answer = Answer(Verdict.REJECTED, error.reason, user.name, error.where)
        if settings.dry_run and answer.verdict is Verdict.REJECTED and answer.facts is None:
            return answer._replace(facts=_facts(user, route.domain))
        return answer

    def _reaches_nobody(self, address: bytes, answer: Answer) -> bool:
        """Whether mail to an address is only forwarded, to addresses that would all be rejected here."""
        from cvm_qmail.rules import forwards  # most hosts do not use it

        followed = self._tables.traced("follow", _Followed(self._judge_forward))
        self._tables.traced("forwards", {address: answer.forwards}).get(address)  # marks for a trace where it begins
        return forwards.reach_nobody(address, answer.forwards, followed.get)

    def _judge_forward(self, address: bytes) -> Answer | None:
        """The answer for an address that mail is forwarded to; None if it is not certain."""
        local, at, domain = address.rpartition(b"@")
        try:
            recipient, route, user, answer = self.resolve(Recipient(local, domain) if at else Recipient(address, None))
            if answer is not None or route is None or user is None:
                return answer
            target = route.target
            if isinstance(target, domains.Remote) or target.table in (ASSUMED, REPLACED):
                return None
            return self._judge(recipient, user, target, route.domain)
        except Unavailable:
            return None

    def _judge(self, recipient: Recipient, user: users.User, target: domains.Local, domain: bytes) -> Answer:
        if not users.check(user):
            return Answer(Verdict.REJECTED, "home-not-absolute", user.name, user.home)
        home = self._tables.home(user.home, Rights(user.uid, user.gid))
        mask = self._settings.mask
        where = user.home
        try:
            dotqmail.judge_home(home, mask)
            found = dotqmail.search(user.dash, user.ext, home.files, mask)
            if found is None:
                if user.dash:
                    return Answer(Verdict.REJECTED, "no-mailbox", user.name, where)
                return Answer(Verdict.ACCEPTED, "mailbox", user.name, where, _facts(user, domain))
            where = b"%s/%s" % (user.home, found.name)
            dotqmail.judge_start(found, branch=self._settings.branch)
            answer = self._hand_over(recipient, user, target, found)
            if answer is None and not self._settings.branch:
                dotqmail.judge_list(found)
        except Unavailable as error:
            error.where = error.where or where
            raise
        own = "dotqmail-default" if found.default else "dotqmail"
        if answer is None:
            forwards = dotqmail.forwards(found.file.content or b"") if self._settings.follow else ()
            return Answer(Verdict.ACCEPTED, own, user.name, where, _facts(user, domain), forwards=forwards)
        facts = answer.facts
        if facts is None and answer.verdict is Verdict.ACCEPTED:
            facts = _facts(user, domain)
        if self._settings.follow and answer.reason == own:  # a plug-in that judges whole files
            answer = answer._replace(forwards=dotqmail.forwards(found.file.content or b""))
        return answer._replace(
            reason=answer.reason or own, user=answer.user or user.name, where=answer.where or where, facts=facts
        )

    def _hand_over(
        self, recipient: Recipient, user: users.User, target: domains.Local, found: dotqmail.Found
    ) -> Answer | None:
        """The plug-ins' answer for the lines of a .qmail file; None: none of them knows a program in it."""
        content = found.file.content
        lookaside = self._settings.lookaside
        if not lookaside and not self._programs:
            return None
        if content is None:
            raise Unavailable("dotqmail-unread", "its lines decide, but cannot be read")
        if lookaside:
            for line in dotqmail.programs(content):
                words = line.split(None, 1)
                if words and words[0] in lookaside:
                    return Answer(Verdict.OUT_OF_SCOPE, "lookaside")
        delivery = Delivery(recipient, user, user.dash, user.ext, target.host, found, target.local, self._runs)
        for plugin in self._programs:
            if not plugin.repeatable:
                self._tables.current.not_cacheable()  # it may depend on anything
            answer = None if plugin.program is None else plugin.program(delivery)
            if answer is not None:
                return answer
        if not self._runs or not dotqmail.has_instructions(content):
            return None
        from cvm_qmail.rules import instructions  # imported only for addresses that need it

        return exit_status.answer(instructions.follow(content, delivery.shell, branch=self._settings.branch))


class _Followed:
    """The addresses that mail is forwarded to, as a Table, so that a trace records each."""

    def __init__(self, get: Callable[[bytes], Answer | None]) -> None:
        self.get = get


def qmail(
    tables: Tables, settings: Settings, programs: Sequence[Plugin] | None = None, ours: Ours | None = None
) -> Module:
    """The module `cvm-qmail`.  Raises `BadSetting` if CVM_QMAIL_PROGRAMS names a plug-in that is not installed.

    `programs`: plug-ins for delivery programs; None: those that the settings name.  `ours`: addresses
    for whose controlling user it is false are out of scope; None: every address is this module's.
    """
    if programs is None:
        programs = load_programs(tables, settings)
    lookup = QmailLookup(tables, settings, programs, ours)
    assumptions = tuple(line for plugin in programs for line in plugin.assumptions)
    network = reduce(or_, (plugin.network for plugin in programs), NOTHING)
    return Module(lookup.lookup, repeatable=True, assumptions=assumptions, resolver=lookup, network=network)


def alias_facts(tables: Tables, settings: Settings, domain: bytes) -> Facts:
    """The facts of the alias account, for an acceptance that belongs to no user.  Raises `Unavailable`."""
    account = tables.accounts().get(settings.alias)
    if account is None:
        raise Unavailable("no-alias", f"no account {settings.alias.decode('latin-1')}", b"passwd")
    return _facts(users.User(settings.alias, *account, b"", b""), domain)


def _facts(user: users.User, domain: bytes) -> Facts:
    """The facts of an acceptance, as the C program gives them."""
    name, uid, gid, home = user[:4]
    return new(Facts, (name, uid, gid, None, home, None, None, name, home, domain, home))
