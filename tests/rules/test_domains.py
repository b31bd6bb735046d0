"""Local, virtual or remote: qmail-send's rewriting, on control files in dicts."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.rules.domains import Controls, Local, Remote, complete, rewrite


def controls(
    *locals_: bytes, percenthack: tuple[bytes, ...] = (), virtual: dict[bytes, bytes] | None = None
) -> Controls:
    return Controls(b"env.example", dict.fromkeys(locals_, True), dict.fromkeys(percenthack, True), virtual or {})


def local_part(address: bytes, world: Controls) -> bytes | None:
    """What qmail-lspawn would be asked for; None: remote."""
    route = rewrite(address, world)
    return route.local if isinstance(route, Local) else None


# -- the whole address --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "domain", "address"),
    [
        (b"joe", b"example.org", b"joe@example.org"),
        (b"joe", None, b"joe@env.example"),
        (b"joe", b"", b"joe@"),
        (b"joe@example.org", None, b"joe@example.org"),
        (b"joe@", None, b"joe@"),
        (b"joe@a", b"b", b"joe@a@b"),
        (b"", None, b"@env.example"),
        (b"", b"", b"@"),
    ],
)
def test_only_an_address_without_an_at_sign_gets_envnoathost(
    account: bytes, domain: bytes | None, address: bytes
) -> None:
    assert complete(Recipient(account, domain), b"env.example") == address


def test_an_empty_envnoathost_makes_the_empty_domain() -> None:
    assert complete(Recipient(b"joe", None), b"") == b"joe@"


# -- locals -------------------------------------------------------------------------------------------


def test_a_domain_in_locals_keeps_the_address() -> None:
    assert rewrite(b"Joe@example.org", controls(b"example.org")) == Local(b"Joe", b"example.org", "locals")


def test_a_domain_is_looked_up_in_lower_case_and_handed_on_as_it_came() -> None:
    assert rewrite(b"joe@EXAMPLE.org", controls(b"example.org")) == Local(b"joe", b"EXAMPLE.org", "locals")


@pytest.mark.parametrize("domain", [b"", b"x.example.org", b"example.org.", b"org", b".example.org", b" example.org"])
def test_locals_knows_no_wildcard_and_no_other_spelling(domain: bytes) -> None:
    assert rewrite(b"joe@" + domain, controls(b"example.org")) == Remote(b"joe", domain, exception=False)


def test_only_the_26_letters_have_a_lower_case() -> None:
    assert local_part(b"joe@\xc4.example", controls(b"\xe4.example")) is None


def test_an_empty_domain_can_be_local() -> None:
    assert local_part(b"joe@", controls(b"")) == b"joe"


def test_the_last_at_sign_splits() -> None:
    assert rewrite(b"joe@other@example.org", controls(b"example.org")) == Local(b"joe@other", b"example.org", "locals")


@pytest.mark.parametrize("entry", [b"example.org", b"joe@example.org", b".org", b""])
@pytest.mark.parametrize("prepend", [b"ann", b""])
def test_locals_win_over_every_entry_of_virtualdomains(entry: bytes, prepend: bytes) -> None:
    assert local_part(b"joe@example.org", controls(b"example.org", virtual={entry: prepend})) == b"joe"


# -- percenthack --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (b"joe%here@hack", b"joe"),
        (b"joe%here%hack@hack", b"joe"),  # what it becomes is looked at again
        (b"joe%here%away@hack", None),  # only the last % is turned, and away is not listed
        (b"joe%here@HACK", b"joe"),
        (b"joe%HERE@hack", b"joe"),
        (b"joe@hack", b"joe"),  # no %: as it stands, and hack is local
        (b"a@b%here@hack", b"a@b"),
        (b"a%b@c%here@hack", b"a%b@c"),
        (b"%here@hack", b""),
        (b"joe%@hack", None),  # the empty domain
        (b"joe%here@there", None),
    ],
)
def test_percenthack_turns_the_last_percent_sign_into_an_at_sign(address: bytes, local: bytes | None) -> None:
    assert local_part(address, controls(b"here", b"hack", percenthack=(b"hack",))) == local


def test_percenthack_comes_before_locals() -> None:
    assert local_part(b"joe%away@hack", controls(b"hack", percenthack=(b"hack",))) is None


def test_percenthack_comes_before_virtualdomains() -> None:
    world = controls(percenthack=(b"hack",), virtual={b"hack": b"ann", b"v.example": b"bob"})
    assert local_part(b"joe%v.example@hack", world) == b"bob-joe"


def test_percenthack_goes_on_as_long_as_the_domain_is_listed() -> None:
    world = controls(b"d", percenthack=(b"a", b"b", b"c"))
    assert local_part(b"joe%d%c%b@a", world) == b"joe"


def test_the_empty_domain_can_be_in_percenthack() -> None:
    assert local_part(b"joe%here@", controls(b"here", percenthack=(b"",))) == b"joe"


# -- virtualdomains -----------------------------------------------------------------------------------

VIRTUAL = {
    b"v.example": b"joe",
    b"Ann@v.example".lower(): b"ann-mail",
    b"a@b@v.example": b"both",
    b".w.example": b"wild",
    b".deep.w.example": b"deeper",
    b"bare.w.example": b"bare",
    b"not.w.example": b"",
    b".not2.w.example": b"",
    b"boss@not.w.example": b"boss",
    b"gone@v.example": b"",
    b"at.example": b"x@y",
    b"case.example": b"Joe-Mail",
    b"dash.example": b"-",
}


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (b"bob@v.example", b"joe-bob"),
        (b"bob@V.Example", b"joe-bob"),
        (b"BoB@v.example", b"joe-BoB"),
        (b"@v.example", b"joe-"),
        (b"bob@x.v.example", None),  # not a wildcard
        (b"bob@v.example.", None),
        # whole addresses
        (b"ann@v.example", b"ann-mail-ann"),
        (b"ANN@v.example", b"ann-mail-ANN"),
        (b"a@b@v.example", b"both-a@b"),
        (b"b@v.example", b"joe-b"),
        (b"x@ann@v.example", b"joe-x@ann"),  # the entry has to spell the whole address
        (b"ann@x.v.example", None),
        # wildcards
        (b"bob@x.w.example", b"wild-bob"),
        (b"bob@y.x.w.example", b"wild-bob"),
        (b"bob@x.deep.w.example", b"deeper-bob"),
        (b"bob@deep.w.example", b"wild-bob"),
        (b"bob@bare.w.example", b"bare-bob"),
        (b"bob@x.bare.w.example", b"wild-bob"),
        (b"bob@w.example", None),
        (b"bob@.w.example", b"wild-bob"),
        (b"bob@xw.example", None),
        (b"bob.x@w.example", None),  # dots before the @ are none of the domain's
        # exceptions
        (b"bob@not.w.example", None),
        (b"boss@not.w.example", b"boss-boss"),
        (b"bob@x.not2.w.example", None),
        (b"gone@v.example", None),
        # values
        (b"bob@at.example", b"x@y-bob"),
        (b"bob@case.example", b"Joe-Mail-bob"),
        (b"bob@dash.example", b"--bob"),
        (b"bob@elsewhere.example", None),
    ],
)
def test_virtualdomains_has_whole_addresses_domains_and_wildcards(address: bytes, local: bytes | None) -> None:
    assert local_part(address, controls(b"example.org", virtual=VIRTUAL)) == local


@pytest.mark.parametrize(
    ("entries", "prepend"),
    [
        ({b"joe@a.b.example": b"1", b"a.b.example": b"2", b".b.example": b"3", b".example": b"4", b"": b"5"}, b"1"),
        ({b"a.b.example": b"2", b".b.example": b"3", b".example": b"4", b"": b"5"}, b"2"),
        ({b".b.example": b"3", b".example": b"4", b"": b"5"}, b"3"),
        ({b".example": b"4", b"": b"5"}, b"4"),
        ({b"": b"5"}, b"5"),
    ],
)
def test_the_longest_entry_comes_first(entries: dict[bytes, bytes], prepend: bytes) -> None:
    assert local_part(b"joe@a.b.example", controls(virtual=entries)) == prepend + b"-joe"


@pytest.mark.parametrize("domain", [b"any.example", b"", b"no-dot", b"."])
def test_the_empty_name_catches_all_that_is_left(domain: bytes) -> None:
    assert local_part(b"bob@" + domain, controls(virtual={b"": b"all"})) == b"all-bob"


def test_an_empty_catch_all_is_an_exception() -> None:
    assert rewrite(b"bob@x", controls(virtual={b"": b""})) == Remote(b"bob", b"x", exception=True)


def test_an_exception_hides_the_shorter_entries() -> None:
    world = controls(virtual={b"a.example": b"", b".example": b"joe", b"": b"all"})
    assert rewrite(b"bob@a.example", world) == Remote(b"bob", b"a.example", exception=True)


def test_a_domain_that_nobody_knows_is_remote_and_no_exception() -> None:
    assert rewrite(b"bob@a.example", controls()) == Remote(b"bob", b"a.example", exception=False)


def test_what_a_virtual_domain_becomes_is_not_looked_up_again() -> None:
    world = controls(b"b", virtual={b"a": b"x%y@b"}, percenthack=(b"b",))
    assert rewrite(b"joe@a", world) == Local(b"x%y@b-joe", b"a", "virtualdomains")


def test_a_table_that_fails_is_not_taken_for_one_that_does_not_have_it() -> None:
    class Broken:
        def get(self, _key: bytes, /) -> bytes | None:
            raise Unavailable("broken")

    with pytest.raises(Unavailable):
        rewrite(b"joe@example.org", Controls(b"", Broken(), {}, {b"": b"all"}))
