"""CVM packets: what is one, what is none, and what is answered to the latter."""

from __future__ import annotations

import pytest

from cvm_qmail.protocols.cvm.packets import (
    LIMIT,
    Code,
    Credential,
    Fact,
    Malformed,
    Request,
    Response,
    pack_request,
    pack_response,
    parse_request,
    parse_response,
    refusal,
)

# -- requests -----------------------------------------------------------------------------------------

REQUESTS = [
    (b"\2\0\0", Request(2, b"", {})),
    (b"\2\0\1\3joe\0", Request(2, b"", {1: b"joe"})),
    (b"\2\0\1\3joe\2\1x\0", Request(2, b"", {1: b"joe", 2: b"x"})),
    (b"\2\x08saltsalt\1\3joe\4\3abc\0", Request(2, b"saltsalt", {1: b"joe", 4: b"abc"})),
    (b"\2\0\1\0\2\0\0", Request(2, b"", {1: b"", 2: b""})),
    (b"\2\0\1\3j\0e\0", Request(2, b"", {1: b"j\0e"})),
    (b"\2\0\xff\1x\0", Request(2, b"", {255: b"x"})),
    (b"\2\xff" + b"n" * 255 + b"\0", Request(2, b"n" * 255, {})),
    (b"\2\0\1\xff" + b"a" * 255 + b"\2\xfa" + b"b" * 250 + b"\0", Request(2, b"", {1: b"a" * 255, 2: b"b" * 250})),
    (b"\1joe\0x\0\0", Request(1, b"", {1: b"joe", 2: b"x"})),
    (b"\1joe\0x\0pass\0\0", Request(1, b"", {1: b"joe", 2: b"x", 3: b"pass"})),
    (b"\1joe\0\0\0", Request(1, b"", {1: b"joe"})),
    (b"\1\0\0\0", Request(1, b"", {1: b""})),
    (b"\1\0x\0\0", Request(1, b"", {1: b"", 2: b"x"})),
]


@pytest.mark.parametrize(("packet", "request_"), REQUESTS)
def test_a_packet_says_this_and_this_makes_the_packet(packet: bytes, request_: Request) -> None:
    assert parse_request(packet) == request_
    assert pack_request(request_) == packet


def test_of_a_repeated_credential_the_last_one_counts() -> None:
    assert parse_request(b"\2\0\1\1a\2\1x\1\1b\0").credentials == {1: b"b", 2: b"x"}


def test_the_order_of_credentials_carries_no_meaning() -> None:
    assert parse_request(b"\2\0\2\1x\1\1a\0").credentials == parse_request(b"\2\0\1\1a\2\1x\0").credentials


def test_the_lone_credential_of_version_1_is_what_the_module_takes_it_for() -> None:
    packet = b"\1joe\0x\0word\0\0"
    assert parse_request(packet, Credential.SECRET).credentials[Credential.SECRET] == b"word"
    assert parse_request(packet).credentials[Credential.PASSWORD] == b"word"


def test_an_absent_domain_and_an_empty_one_are_two_things() -> None:
    assert parse_request(b"\2\0\1\1a\0").credentials.get(2) is None
    assert parse_request(b"\2\0\1\1a\2\0\0").credentials.get(2) == b""


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"", b""),
        # the nonce is not all there
        (b"\2", b"\2\0\0"),
        (b"\2\1", b"\2\0\0"),
        (b"\2\5abcd", b"\2\0\0"),
        # the nonce is, and comes back
        (b"\2\0", b"\2\0\0"),
        (b"\2\4abcd", b"\2\4abcd\0"),
        (b"\2\4abcd\1", b"\2\4abcd\0"),
        (b"\2\4abcd\1\3jo", b"\2\4abcd\0"),
        (b"\2\4abcd\1\3joe", b"\2\4abcd\0"),
        (b"\2\4abcd\0\0", b"\2\4abcd\0"),
        (b"\2\4abcd\1\3joe\0\1\3joe\0", b"\2\4abcd\0"),
        (b"\2\4abcd\0\3joe\0", b"\2\4abcd\0"),  # a credential of type 0 ends the packet
        # version 1
        (b"\1", b"\2\0"),
        (b"\1\0", b"\2\0"),
        (b"\1\0\0", b"\2\0"),
        (b"\1joe", b"\2\0"),
        (b"\1joe\0x", b"\2\0"),
        (b"\1joe\0x\0", b"\2\0"),
        (b"\1joe\0x\0p", b"\2\0"),
        (b"\1joe\0x\0p\0", b"\2\0"),
        (b"\1joe\0x\0p\0q\0\0", b"\2\0"),
        (b"\1joe\0x\0\0\0", b"\2\0"),
        (b"\1joe\0x\0p\0\0\0", b"\2\0"),
        (b"\1joe\0x\0p\0\0p", b"\2\0"),
        # another version
        (b"\0", b"\2\0"),
        (b"\3\0\0", b"\2\0"),
        (b"\xff" * 512, b"\2\0"),
        (b"GET / HTTP/1.0\r\n\r\n", b"\2\0"),
        # too long
        (b"\2" + b"\0" * 512, b"\2\0\0"),
        (b"\1" + b"a" * 512, b"\2\0\0"),
    ],
)
def test_what_is_no_request_is_answered_so(packet: bytes, reply: bytes) -> None:
    with pytest.raises(Malformed) as bad:
        parse_request(packet)
    assert bad.value.reply == reply


def test_a_request_of_512_bytes_is_a_request() -> None:
    packet = b"\1" + b"a" * (LIMIT - 4) + b"\0\0\0"
    assert len(packet) == LIMIT
    assert parse_request(packet).credentials == {1: b"a" * (LIMIT - 4)}


@pytest.mark.parametrize(
    "request_",
    [
        Request(2, b"", {1: b"a" * 256}),
        Request(2, b"n" * 256, {}),
        Request(2, b"", {1: b"a" * 255, 2: b"b" * 251}),
        Request(2, b"", {0: b"a"}),
        Request(2, b"", {256: b"a"}),
        Request(1, b"", {1: b"a\0"}),
        Request(1, b"", {1: b"a", 2: b"\0"}),
        Request(1, b"", {1: b"a", 3: b"\0"}),
        Request(1, b"", {1: b"a", 3: b""}),
        Request(1, b"", {1: b"a", 3: b"b", 4: b"c"}),
        Request(1, b"", {1: b"a" * 509}),
        Request(0, b"", {}),
        Request(3, b"", {}),
    ],
)
def test_what_no_packet_can_hold_is_refused(request_: Request) -> None:
    with pytest.raises(Malformed):
        pack_request(request_)


# -- responses ----------------------------------------------------------------------------------------

RESPONSES = [
    (2, b"\0\0\1\3joe\0", Response(0, b"", ((1, b"joe"),))),
    (2, b"d\4salt\x10\x011\0", Response(100, b"salt", ((16, b"1"),))),
    (2, b"\4\4salt\0", Response(4, b"salt", ())),
    (2, b"\0\0\x08\x011\x08\x012\0", Response(0, b"", ((8, b"1"), (8, b"2")))),
    (2, b"\0\0\1\0\0", Response(0, b"", ((1, b""),))),
    (1, b"\0\1joe\0\x02500\0\0", Response(0, b"", ((1, b"joe"), (2, b"500")))),
    (1, b"d\x101\0\0", Response(100, b"", ((16, b"1"),))),
    (1, b"\4\0", Response(4, b"", ())),
    (1, b"\0\1\0\0", Response(0, b"", ((1, b""),))),
]


@pytest.mark.parametrize(("version", "packet", "response"), RESPONSES)
def test_a_response_says_this_and_this_makes_the_response(version: int, packet: bytes, response: Response) -> None:
    assert parse_response(packet, version) == response
    assert pack_response(version, response.nonce, response.code, response.facts) == packet


def test_a_server_that_does_not_know_version_2_can_say_so() -> None:
    assert parse_response(b"\2\0", 2) == Response(2, b"", ())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"\0\5abc",
        b"\0\1\1x",
        b"\0\0\1\3jo",
        b"\0\1joe\0",
        b"\0\0\0\0",
        b"\4\1\0\0\0",
        b"\0\0" + b"\1\xff" + b"a" * 255 + b"\2\xff" + b"b" * 255 + b"\0",
    ],
)
def test_what_is_no_response_is_refused(version: int, packet: bytes) -> None:
    with pytest.raises(Malformed):
        parse_response(packet, version)


@pytest.mark.parametrize(
    ("version", "nonce", "facts"),
    [
        (2, b"", [(1, b"a" * 256)]),
        (2, b"n" * 256, []),
        (2, b"", [(1, b"a" * 255), (2, b"b" * 251)]),
        (1, b"", [(1, b"a\0b")]),
        (1, b"", [(1, b"a" * 509)]),
    ],
)
def test_facts_that_do_not_fit_are_refused(version: int, nonce: bytes, facts: list[tuple[int, bytes]]) -> None:
    with pytest.raises(Malformed):
        pack_response(version, nonce, 0, facts)


@pytest.mark.parametrize("version", [1, 2])
def test_facts_may_come_one_by_one(version: int) -> None:
    one_by_one = (fact for fact in [(1, b"joe"), (2, b"500")])
    packet = pack_response(version, b"", 0, one_by_one)
    assert parse_response(packet, version).facts == ((1, b"joe"), (2, b"500"))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", [0, 256, -1])
def test_a_fact_of_a_type_that_is_none_is_refused(version: int, kind: int) -> None:
    with pytest.raises(Malformed):
        pack_response(version, b"", 0, [(kind, b"x")])


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"", b"\4\0"),
        (b"\1joe\0x\0\0", b"\4\0"),
        (b"\2\4salt\1\3joe\0", b"\4\4salt\0"),
        (b"\2\4salt", b"\4\4salt\0"),
        (b"\2\4sal", b"\4\0\0"),
        (b"\2", b"\4\0\0"),
        (b"\x09\4salt", b"\4\0"),
        (b"\2\4salt" + b"x" * 512, b"\4\0\0"),
        (b"\1" * 513, b"\4\0\0"),
    ],
)
def test_any_bytes_can_be_refused_with_a_code(packet: bytes, reply: bytes) -> None:
    assert refusal(packet, Code.IO) == reply


# -- numbers ------------------------------------------------------------------------------------------


def test_the_numbers_are_the_protocols() -> None:
    assert [int(code) for code in Code] == [0, 1, 2, 3, 4, 5, 6, 7, 100]
    assert [int(credential) for credential in Credential] == [*range(1, 8), 240, 241]
    assert [fact.name for fact in sorted(Fact)] == [
        "USERNAME", "USERID", "GROUPID", "REALNAME", "DIRECTORY", "SHELL", "GROUPNAME", "SUPP_GROUPID", "SYS_USERNAME",
        "SYS_DIRECTORY", "OFFICE_LOCATION", "WORK_PHONE", "HOME_PHONE", "DOMAIN", "MAILBOX", "OUTOFSCOPE",
        "REASON",
    ]  # fmt: skip
