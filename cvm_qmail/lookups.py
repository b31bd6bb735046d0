"""What a server serves, and what a .qmail file hands over to: the plug-in contract, and qmail itself.

A *module* (entry points ``cvm_qmail.modules``) is a factory that takes `Tables` and `Settings` and
returns a `Module`: a look-up, and perhaps a way to authenticate.  A *program* (entry points
``cvm_qmail.programs``) is a factory that takes the same and returns a function of a `Delivery`: it
answers for what its delivery program would do with the lines of the deciding .qmail file, or None if
they are not its own.  No base class, no life-cycle: ask `Tables` for what is needed, return functions.

A program's answer may leave `user` and `facts` out: they are then those of the controlling user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cvm_qmail.answer import Answer, Facts, Recipient, Unavailable, Verdict
from cvm_qmail.entry_points import installed
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables import Rights, Tables
from cvm_qmail.wire import Code, Credential, Request


class Password(NamedTuple):
    """A plain-text proof.  Its repr shows nothing."""

    password: bytes

    def __repr__(self) -> str:
        return "Password(...)"


class Challenge(NamedTuple):
    """A proof by challenge and response.  Its repr shows nothing."""

    challenge: bytes
    response: bytes
    type: bytes

    def __repr__(self) -> str:
        return "Challenge(...)"


Proof = Password | Challenge
Lookup = Callable[[Recipient], Answer]
Authenticate = Callable[[Recipient, Proof], Answer]


class Module(NamedTuple):
    """What a server serves.  Without a secret in the environment `authenticate` is asked, if there is one."""

    lookup: Lookup
    authenticate: Authenticate | None = None
    repeatable: bool = False
    """Whether all that `lookup` looks at is seen by `Tables`, so that an answer may be given again while
    `Tables.evidence` holds."""
    assumptions: tuple[str, ...] = ()
    """What it takes for granted: said at start, a line each."""


class Delivery(NamedTuple):
    """What qmail-local has in hand when it begins to carry out a .qmail file."""

    recipient: Recipient
    user: users.User
    dash: bytes
    ext: bytes
    host: bytes
    """What follows the last ``@`` of the address, as the sender wrote it."""
    file: dotqmail.Found
    local: bytes
    """The local part that qmail-local is run for (its LOCAL): after percenthack, with what virtualdomains
    prepended, in the sender's case."""


ModuleFactory = Callable[[Tables, Settings], Module]
Program = Callable[[Delivery], "Answer | None"]


class Plugin(NamedTuple):
    """A program, and what is to be known of it."""

    program: Program
    repeatable: bool = False
    """Whether all that it looks at is seen by `Tables`, so that an answer may be given again while
    `Tables.evidence` holds."""
    assumptions: tuple[str, ...] = ()
    """What it takes for granted: said at start, a line each."""


ProgramFactory = Callable[[Tables, Settings], "Program | Plugin"]
Ours = Callable[[users.User, bytes], bool]

_VIRTUALDOMAINS = b"control/virtualdomains"

_Route = domains.Local | domains.Remote  # remote: CVM_QMAIL_ASSUME_LOCAL

_PROOFS = frozenset({Credential.PASSWORD, Credential.RESPONSE})

_DENIED = frozenset({"home-denied", "dotqmail-denied"})


def qmail(
    tables: Tables, settings: Settings, programs: Sequence[Plugin] | None = None, ours: Ours | None = None
) -> Module:
    """The module `cvm-qmail`: whether qmail would deliver.

    `programs` None: those that the settings name.  `ours` says of a controlling user and the local
    part whether they are to be judged at all; else they are out of scope.
    """
    if programs is None:
        programs = load_programs(tables, settings)

    def lookup(recipient: Recipient) -> Answer:
        """Whether qmail would deliver to `recipient`.  Raises `Unavailable`."""
        tables.begin()
        account, domain = recipient
        if b"\0" in account or (domain and b"\0" in domain):
            return Answer(Verdict.REJECT, "nul")  # no qmail address can hold one
        controls = tables.controls()
        address = domains.complete(recipient, controls.envnoathost)
        asked = address[address.rindex(b"@") + 1 :].lower()
        route = domains.rewrite(address, controls)
        if isinstance(route, domains.Remote):
            if route.exception:
                return Answer(Verdict.PASS, "virtual-exception", where=_VIRTUALDOMAINS)
            if not settings.assume_local:
                if settings.missing_domain is None:
                    return Answer(Verdict.PASS, "remote", where=_VIRTUALDOMAINS)
                asked = settings.missing_domain
                route = domains.Local(settings.missing_user, asked, "missing domain")
        local = route.local
        if not local:
            return _discarded(asked) if ours is None else Answer(Verdict.PASS, "not-ours")
        user = _controlling_user(local)
        if ours is not None and not ours(user, local):
            return Answer(Verdict.PASS, "not-ours", user.name)
        try:
            answer = _judge(recipient, user, route, asked)
        except Unavailable as trouble:
            trouble.user = user.name
            if not (settings.denied_is_permanent and trouble.reason in _DENIED):
                raise
            answer = Answer(Verdict.REJECT, trouble.reason, user.name, trouble.where)
        if settings.dry_run and answer.verdict is Verdict.REJECT and answer.facts is None:
            return answer._replace(facts=_facts(user, asked))
        return answer

    def _controlling_user(local: bytes) -> users.User:
        cdb = tables.users_cdb()
        user = None if cdb is None else users.assigned(local, cdb)
        if user is None:
            user = users.getpw(local, tables.accounts(), tables.owners(), settings.breakchar, settings.alias)
        return user

    def _discarded(asked: bytes) -> Answer:
        """qmail-lspawn reports success for an empty local part; clients demand facts, so alias lends its own."""
        facts = alias_facts(tables, settings, asked)
        return Answer(Verdict.ACCEPT, "discarded", facts.username, b"control/locals", facts)

    def _judge(recipient: Recipient, user: users.User, route: _Route, asked: bytes) -> Answer:
        if not users.check(user):
            return Answer(Verdict.REJECT, "home-not-absolute", user.name, user.home)
        home = tables.home(user.home, Rights(user.uid, user.gid))
        where = user.home
        try:
            dotqmail.judge_home(home, settings.mask)
            found = dotqmail.search(user.dash, user.ext, home.files, settings.mask)
            if found is None:
                if user.dash:
                    return Answer(Verdict.REJECT, "no-mailbox", user.name, where)
                return Answer(Verdict.ACCEPT, "mailbox", user.name, where, _facts(user, asked))
            where = b"%s/%s" % (user.home, found.name)
            dotqmail.judge_content(found)
        except Unavailable as trouble:
            trouble.where = trouble.where or where
            raise
        answer = _hand_over(recipient, user, route, found)
        if answer is None:
            reason = "dotqmail-default" if found.default else "dotqmail"
            return Answer(Verdict.ACCEPT, reason, user.name, where, _facts(user, asked))
        facts = answer.facts
        if facts is None and answer.verdict is Verdict.ACCEPT:
            facts = _facts(user, asked)
        return answer._replace(user=answer.user or user.name, where=answer.where or where, facts=facts)

    def _hand_over(recipient: Recipient, user: users.User, route: _Route, found: dotqmail.Found) -> Answer | None:
        content = found.file.content
        if not settings.lookaside and not programs:
            return None
        if content is None:
            raise Unavailable("dotqmail-unread", "its lines decide, and cannot be read", found.name)
        if settings.lookaside:
            for line in dotqmail.programs(content):
                words = line.split(None, 1)
                if words and words[0] in settings.lookaside:
                    return Answer(Verdict.PASS, "lookaside")
        delivery = Delivery(recipient, user, user.dash, user.ext, route.host, found, route.local)
        for plugin in programs:
            if not plugin.repeatable:
                tables.doubt()  # it may rest on anything
            answer = plugin.program(delivery)
            if answer is not None:
                return answer
        return None

    return Module(
        lookup, repeatable=True, assumptions=tuple(line for plugin in programs for line in plugin.assumptions)
    )


def alias_facts(tables: Tables, settings: Settings, domain: bytes) -> Facts:
    """What an acceptance tells when it is nobody's own.  Raises `Unavailable`."""
    account = tables.accounts().get(settings.alias)
    if account is None:
        raise Unavailable("no-alias", f"no account {settings.alias.decode('latin-1')}", b"passwd")
    return _facts(users.User(settings.alias, *account, b"", b""), domain)


def _facts(user: users.User, domain: bytes) -> Facts:
    """The facts of an acceptance, as the C program gives them."""
    return Facts(
        username=user.name,
        userid=user.uid,
        groupid=user.gid,
        directory=user.home,
        sys_username=user.name,
        sys_directory=user.home,
        domain=domain,
        mailbox=user.home,
    )


def load_programs(tables: Tables, settings: Settings) -> list[Plugin]:
    """The plug-ins for delivery programs: all that are installed, or those that CVM_QMAIL_PROGRAMS names."""
    if settings.programs == ():
        return []
    factories = installed("cvm_qmail.programs")
    names = settings.programs
    if names is None:
        names = tuple(sorted(factories))
    unknown = [name for name in names if name not in factories]
    if unknown:
        known = ", ".join(sorted(factories)) or "(none)"
        raise BadSetting("CVM_QMAIL_PROGRAMS", " ".join(names), f"names of installed plug-ins: {known}")
    made = [factories[name]()(tables, settings) for name in names]
    return [plugin if isinstance(plugin, Plugin) else Plugin(plugin) for plugin in made]


def asking(module: Module, secret: bytes | None) -> Callable[[Recipient, Request], Answer]:
    """How a server asks `module`: with a secret in the environment (even empty) it looks up, without it authenticates.

    A module that cannot authenticate is misconfigured without a secret: what it would accept is answered 6.
    One that can never takes a look-up for a login: a request with a password or a response is answered 6 then.
    """
    authenticate = module.authenticate
    if secret is not None:
        if authenticate is None:
            return lambda recipient, _: module.lookup(recipient)

        def looked_up(recipient: Recipient, request: Request) -> Answer:
            if not _PROOFS.isdisjoint(request.credentials):  # else every password would log in
                detail = "a login came to a server that looks up: CVM_LOOKUP_SECRET is set"
                raise Unavailable("login-to-lookup", detail, code=Code.CONFIG)
            return module.lookup(recipient)

        return looked_up
    if authenticate is None:

        def look_up_only(recipient: Recipient, _: Request) -> Answer:
            answer = module.lookup(recipient)
            if answer.verdict is Verdict.ACCEPT:
                detail = "CVM_LOOKUP_SECRET is not set, and this module cannot check passwords"
                raise Unavailable("cannot-authenticate", detail, code=Code.CONFIG)
            return answer

        return look_up_only

    def authenticated(recipient: Recipient, request: Request) -> Answer:
        return authenticate(recipient, _proof(request))

    return authenticated


def _proof(request: Request) -> Proof:
    given = request.credentials
    if (password := given.get(Credential.PASSWORD)) is not None:
        return Password(password)
    response = given.get(Credential.RESPONSE)
    if response is None:
        raise Unavailable("no-password", code=Code.NOCRED)
    return Challenge(given.get(Credential.CHALLENGE, b""), response, given.get(Credential.RESPONSE_TYPE, b""))
