"""The file of routes: as qmail reads smtproutes, and what is a mistake."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.protocols.routes import MODULES_LIMIT, Mistakes, parse
from cvm_qmail.transports.unix_socket import PATH_LIMIT

FILE = b"""\
# who holds which mailboxes
example.org:cvm-udp:192.0.2.7:7890,cvm-udp:[2001:db8::7]:7890
.example.org:cvm-local:/run/a b:c/socket \t

b.Example.ORG:https://mail1.example.net/, https://mail2.example.net:8443
:cvm-local:/run/default
"""

A_B = ("cvm-udp:192.0.2.7:7890", "cvm-udp:[2001:db8::7]:7890")
SUB = ("cvm-local:/run/a b:c/socket",)
DEFAULT = ("cvm-local:/run/default",)


@pytest.mark.parametrize(
    ("domain", "modules"),
    [
        (b"example.org", A_B),
        (b"EXAMPLE.org", A_B),
        (b"a.example.org", SUB),
        (b"a.a.example.org", SUB),
        (b"b.example.org", ("https://mail1.example.net/", "https://mail2.example.net:8443/")),
        (b"a.b.example.org", SUB),
        (b".example.org", SUB),
        (b"aexample.org", DEFAULT),
        (b"org", DEFAULT),
        (b"", DEFAULT),
        (None, DEFAULT),
    ],
)
def test_the_longest_name_counts_as_in_smtproutes(domain: bytes | None, modules: tuple[str, ...]) -> None:
    assert parse(FILE).of(domain) == modules


def test_without_a_default_other_domains_have_no_route() -> None:
    routes = parse(b"a.test:cvm-local:/x")
    assert routes.of(b"b.test") == ()
    assert routes.of(None) == ()
    assert routes.names == ["cvm-local:/x"]
    assert parse(b"").names == []


def test_each_module_is_named_once() -> None:
    assert parse(FILE).names[:3] == [*A_B, *SUB]
    assert len(parse(FILE + b"more.test:cvm-local:/run/default").names) == 6


def test_as_many_modules_and_as_long_a_path_as_there_may_be() -> None:
    modules = tuple(f"cvm-local:/{n}" for n in range(MODULES_LIMIT))
    assert parse(b"a.test:" + ",".join(modules).encode()).of(b"a.test") == modules
    longest = "cvm-local:/" + "x" * (PATH_LIMIT - 1)
    assert parse(f":{longest}".encode()).of(None) == (longest,)
    with pytest.raises(Mistakes):
        parse(f":{longest}x".encode())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"example.org", "expected DOMAIN:MODULE"),
        (b"example.org:", "expected cvm-local:PATH"),
        (b"example.org:cvm-local:relative", "expected cvm-local:PATH"),
        (b"example.org:cvm-udp:192.0.2.7", "expected cvm-udp:HOST:PORT"),
        (b"example.org:cvm-udp:::1:78", "an IPv6 address belongs in brackets"),
        (b"example.org:[192.0.2.7]", "or https://HOST/"),
        (b"example.org:http://host/", "or https://HOST/"),
        (b"example.org:https://host/v1", "without a path"),
        (b"example.org:https://user@host/", "without a path"),
        (b"example.org:https://host:port/", "without a path"),
        (b"example.org:https:///", "without a path"),
        (b"joe@example.org:cvm-local:/x", "not a domain"),
        (b"exam ple.org:cvm-local:/x", "not a domain"),
        (b"a.test:cvm-local:/x,", "expected cvm-local:PATH"),
        (b"a.test:cvm-local:/x,cvm-local:/x", "the same module twice"),
        (b"a.test:cvm-local:/x\0", "a control character"),
        (b"a.test:" + b",".join(b"cvm-local:/%d" % n for n in range(9)), "9 modules"),
    ],
)
def test_a_mistake_is_named_with_its_line(line: bytes, said: str) -> None:
    with pytest.raises(Mistakes) as caught:
        parse(b"# one\n\n" + line + b"\ngood.test:cvm-local:/x\n")
    assert [mistake.line for mistake in caught.value.found] == [3]
    assert said in str(caught.value)


def test_a_domain_has_one_route() -> None:
    with pytest.raises(Mistakes, match=r"line 2: a.test has a route already; line 4: the default has a route already"):
        parse(b"a.test:cvm-local:/x\nA.test:cvm-local:/y\n:cvm-local:/x\n:cvm-local:/y\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_routes_or_mistakes(text: bytes) -> None:
    with suppress(Mistakes):
        assert all(parse(text).modules.values())
