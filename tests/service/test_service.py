"""Query to outcome: looking up, logging in, and what a module must not do."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Answer, Kind, Outcome, Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Authenticate, Challenge, Module, Password, Proof
from cvm_qmail.service.events import Query
from cvm_qmail.service.service import service

YES = Answer(Verdict.ACCEPTED, "yes")
JOE = Recipient(b"joe", None)
PASSWORD = Password(b"word")


def outcome(proof: Proof | None, *, looks_up: bool, authenticate: Authenticate | None = None) -> Outcome:
    """What a service over a module that accepts everything says."""
    return service(Module(lambda _: YES, authenticate), looks_up=looks_up)(Query(JOE, proof))


def never(_recipient: Recipient, _proof: Proof) -> Answer:
    raise AssertionError


def failure(said: Outcome) -> tuple[str, Kind]:
    assert isinstance(said, Unavailable)
    return said.reason, said.kind


def test_with_a_secret_a_module_looks_up() -> None:
    assert outcome(None, looks_up=True, authenticate=never) == YES


def test_a_lookup_needs_no_proof_and_ignores_one_that_cannot_be_checked() -> None:
    assert outcome(PASSWORD, looks_up=True) == YES


@pytest.mark.parametrize("proof", [PASSWORD, Challenge(b"c", b"r", b"t")])
def test_a_module_that_can_authenticate_takes_no_login_for_a_lookup(proof: Proof) -> None:
    said = outcome(proof, looks_up=True, authenticate=never)
    assert failure(said) == ("login-to-lookup", Kind.MISCONFIGURED)


def test_without_a_secret_a_module_without_passwords_is_misconfigured() -> None:
    assert failure(outcome(PASSWORD, looks_up=False)) == ("cannot-authenticate", Kind.MISCONFIGURED)


def test_without_a_secret_a_rejection_of_such_a_module_is_a_rejection() -> None:
    no = Answer(Verdict.REJECTED, "no")
    assert service(Module(lambda _: no), looks_up=False)(Query(JOE)) == no


@pytest.mark.parametrize("proof", [PASSWORD, Password(b""), Challenge(b"c", b"r", b"cram-md5")])
def test_without_a_secret_a_module_with_passwords_gets_the_proof(proof: Proof) -> None:
    seen: list[object] = []

    def authenticate(recipient: Recipient, shown: Proof) -> Answer:
        seen.append((recipient, shown))
        return YES

    assert outcome(proof, looks_up=False, authenticate=authenticate) == YES
    assert seen == [(JOE, proof)]


def test_without_a_proof_nobody_logs_in() -> None:
    assert failure(outcome(None, looks_up=False, authenticate=never)) == ("no-password", Kind.NO_CREDENTIAL)


def test_something_unexpected_is_a_temporary_failure_with_its_place() -> None:
    def broken(_: Recipient) -> Answer:
        raise RuntimeError("a secret")

    said = service(Module(broken), looks_up=True)(Query(JOE))
    assert failure(said) == ("internal-error", Kind.TEMPORARY)
    assert "RuntimeError at " in said.detail
    assert "a secret" not in said.detail
