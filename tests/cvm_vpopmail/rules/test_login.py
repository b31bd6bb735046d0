"""Who logs in, and which services are open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logins import system

from cvm_qmail.answer import Recipient
from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.rules import login
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.settings import SERVICES

ALL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("given", "user", "domain"),
    [
        (b"bob", b"bob", b""),
        (b"Bob@Example.COM", b"bob", b"example.com"),
        (b"bob%example.com", b"bob", b"example.com"),
        (b"bob/example.com", b"bob", b"example.com"),
        (b"bob@", b"bob", b""),
        (b"bob%", b"bob", b""),
        (b"@example.com", b"", b"example.com"),
        (b"", b"", b""),
        (b"a@b@c", b"a", b"b@c"),
        (b"a%b%c", b"a", b"b%c"),
        (b"a/b/c", b"a", b"b/c"),
        (b"a%b@c", b"a%b", b"c"),
        (b"a/b@c", b"a/b", b"c"),
        (b"a/b%c", b"a/b", b"c"),
        (b"bob:example.com", b"bob:example.com", b""),
        (b"\xc4b@x", b"\xc4b", b"x"),
    ],
)
def test_a_login_is_split_at_the_first_at_else_percent_else_slash(given: bytes, user: bytes, domain: bytes) -> None:
    assert login.split(given) == (user, domain)


def test_without_a_domain_credential_the_account_is_the_whole_login() -> None:
    for domain in (None, b""):
        assert login.address(Recipient(b"Bob@Example.com", domain)) == (b"bob", b"example.com")
        assert login.address(Recipient(b"Bob", domain)) == (b"bob", b"")


def test_with_one_the_account_is_the_user_as_it_is() -> None:
    assert login.address(Recipient(b"Bob", b"Example.com")) == (b"bob", b"example.com")
    assert login.address(Recipient(b"bob@a.example", b"b.example")) == (b"bob@a.example", b"b.example")
    assert not login.valid(b"bob@a.example", b"b.example")


def test_both_parts_must_be_names() -> None:
    assert login.valid(b"o'brien", b"a-b.example")
    assert login.valid(b"", b"")
    assert not login.valid(b"bob", b"a_b.example")
    assert not login.valid(b"b ob", b"a.example")
    assert not login.valid(b"bob\0", b"a.example")
    assert not login.valid(b"bob", b"a.example\0")


@given(st.binary(max_size=60))
def test_any_login_is_two_parts_in_lower_case(text: bytes) -> None:
    user, domain = login.split(text)
    assert (user, domain) == (user.lower(), domain.lower())
    assert len(user) + len(domain) in {len(text), len(text) - 1}
    assert b"@" not in user
    if b"@" not in text:
        assert b"%" not in user
    assert login.address(Recipient(text, None)) == login.address(Recipient(text, b"")) == (user, domain)


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=30))
def test_with_a_domain_nothing_is_moved_from_one_part_to_the_other(user: bytes, domain: bytes) -> None:
    assert login.address(Recipient(user, domain)) == (user.lower(), domain.lower())


# -- services -----------------------------------------------------------------------------------------

CLOSES = {
    Flag.NO_SMTP: {"smtp", "submission"},
    Flag.NO_POP: {"pop3"},
    Flag.NO_IMAP: {"imap"},
    Flag.NO_WEBMAIL: {"webmail"},
}


@pytest.mark.parametrize("bit", range(32))
def test_each_flag_closes_its_own_service(bit: int) -> None:
    closed = {service for service in SERVICES if login.forbidden(service, 1 << bit)}
    assert closed == CLOSES.get(Flag(1 << bit), set())


def test_the_limits_of_the_domain_close_services_but_not_for_an_account_that_overrides_them() -> None:
    limits = Limits(flags=int(Flag.NO_POP | Flag.NO_IMAP))
    assert login.limit_flags(0, limits) == limits.flags
    assert login.limit_flags(ALL ^ Flag.V_OVERRIDE, limits) == limits.flags
    assert login.limit_flags(int(Flag.V_OVERRIDE), limits) == 0
    assert login.limit_flags(0, None) == 0


def test_an_account_may_forbid_itself_what_it_overrides_of_the_domain() -> None:
    flags = int(Flag.V_OVERRIDE | Flag.NO_POP)
    assert login.forbidden("pop3", flags | login.limit_flags(flags, Limits(flags=int(Flag.NO_IMAP))))
    assert not login.forbidden("imap", flags | login.limit_flags(flags, Limits(flags=int(Flag.NO_IMAP))))


@pytest.mark.parametrize(("name", "count"), [("flags", 96), ("limits", 40), ("limits-default", 12)])
def test_the_corpus_agrees_on_services(name: str, count: int) -> None:
    host = system(name)
    assert len(host.cases) == count
    assert {"ok", "forbidden"} <= {case.said for case in host.cases}
    assert [case for case in host.cases if host.says(case) != case.said] == []


def test_the_corpus_agrees_on_logins_but_for_the_one_that_vchkpw_cuts_off() -> None:
    host = system("logins")
    assert len(host.cases) == 75
    differ = [case for case in host.cases if host.says(case) != case.said]
    assert [case.about for case in differ] == ["name and password together exceed the 155 byte buffer of vchkpw"]
    assert host.says(differ[0]) == "ok"
