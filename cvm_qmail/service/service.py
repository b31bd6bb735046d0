"""From a query to its outcome: which function of the module answers, dry run, and unexpected exceptions.

Invariants: never raises.  With CVM_LOOKUP_SECRET in the environment (even empty) the module looks up,
without it the module authenticates.  An unexpected exception is a temporary failure with the reason
``internal-error``: never a guess, never a dead server.
"""

from __future__ import annotations

from collections.abc import Callable

from cvm_qmail.answer import DRY_RUN, Answer, Facts, Kind, Outcome, Recipient, Unavailable, Verdict
from cvm_qmail.exits import describe_exception
from cvm_qmail.plugin import Authenticate, Lookup, Module
from cvm_qmail.service.events import Query

Service = Callable[[Query], Outcome]
"""Answers a query; never raises."""

Ask = Callable[[Query], Answer]
"""Answers a query, or raises `Unavailable`."""

DryRun = Callable[[Recipient, "Facts | None"], "Facts | None"]
"""The facts to accept a rejected recipient with, given those of its rejection; None: it stays rejected."""


def service(module: Module, *, looks_up: bool, dry_run: DryRun | None = None) -> Service:
    """Makes the function with which a server answers.

    `looks_up`: whether CVM_LOOKUP_SECRET is set.  `dry_run`: with CVM_DRY_RUN only.
    """
    ask = _looking_up(module) if looks_up else _authenticating(module)

    def answer(query: Query) -> Outcome:
        try:
            answer = ask(query)
            if dry_run is not None and answer.verdict is Verdict.REJECTED:
                facts = dry_run(query.recipient, answer.facts)
                if facts is not None:
                    return answer._replace(verdict=Verdict.ACCEPTED, facts=facts, detail=DRY_RUN)
            return answer
        except Unavailable as error:
            return error
        except Exception:  # noqa: BLE001 the one place for unexpected exceptions
            return Unavailable("internal-error", describe_exception())

    return answer


def _looking_up(module: Module) -> Ask:
    lookup = module.lookup
    if module.authenticate is None:
        return lambda query: lookup(query.recipient)

    def look_up(query: Query) -> Answer:
        if query.proof is not None:  # an acceptance would let every password log in
            raise Unavailable(
                "login-to-lookup",
                "a login at a server for lookups: CVM_LOOKUP_SECRET is set",
                kind=Kind.MISCONFIGURED,
            )
        return lookup(query.recipient)

    return look_up


def _authenticating(module: Module) -> Ask:
    if module.authenticate is None:
        return _without_secret(module.lookup)
    return _with_proof(module.authenticate)


def _without_secret(lookup: Lookup) -> Ask:
    """For a module that cannot check passwords: every acceptance becomes a temporary failure (misconfigured)."""

    def look_up(query: Query) -> Answer:
        answer = lookup(query.recipient)
        if answer.verdict is Verdict.ACCEPTED:
            raise Unavailable(
                "cannot-authenticate",
                "CVM_LOOKUP_SECRET is not set, and this module cannot check passwords",
                kind=Kind.MISCONFIGURED,
            )
        return answer

    return look_up


def _with_proof(authenticate: Authenticate) -> Ask:
    def log_in(query: Query) -> Answer:
        if query.proof is None:
            raise Unavailable("no-password", kind=Kind.NO_CREDENTIAL)
        return authenticate(query.recipient, query.proof)

    return log_in
