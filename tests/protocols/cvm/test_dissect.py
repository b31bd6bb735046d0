"""Packets taken apart for people."""

from __future__ import annotations

import pytest

from cvm_qmail.protocols.cvm.dissect import (
    Damage,
    DissectedRequest,
    DissectedResponse,
    Part,
    Value,
    build_request,
    build_response,
    dissect_request,
    dissect_response,
    walk_request,
    walk_response,
)
from cvm_qmail.protocols.cvm.packets import Credential, Malformed


def test_a_request_of_version_2_field_by_field() -> None:
    packet = b"\2\4salt\1\3joe\2\1x\4\4word\xc8\1?\1\3ann\0"
    parts = DissectedRequest(
        2,
        b"salt",
        (
            Value(1, "ACCOUNT", b"joe"),
            Value(2, "DOMAIN", b"x"),
            Value(4, "SECRET", b"word"),
            Value(200, "", b"?"),
            Value(1, "ACCOUNT", b"ann"),  # a repeated one stays in its place
        ),
    )
    assert dissect_request(packet) == parts
    assert build_request(2, b"salt", [(value.type, value.data) for value in parts.credentials]) == packet


def test_a_request_of_version_1_field_by_field() -> None:
    packet = b"\1joe\0x\0word\0\0"
    assert dissect_request(packet, Credential.SECRET) == DissectedRequest(
        1, b"", (Value(1, "ACCOUNT", b"joe"), Value(2, "DOMAIN", b"x"), Value(4, "SECRET", b"word"))
    )
    assert build_request(1, b"", [(1, b"joe"), (2, b"x"), (4, b"word")]) == packet


@pytest.mark.parametrize(("version", "packet"), [(2, b"d\4salt\x10\x011\xc8\0\0"), (1, b"d\x101\0\xc8\0\0")])
def test_a_response_field_by_field(version: int, packet: bytes) -> None:
    nonce = b"salt" if version == 2 else b""
    assert dissect_response(packet, version) == DissectedResponse(
        100, "PERMFAIL", nonce, (Value(16, "OUTOFSCOPE", b"1"), Value(200, "", b""))
    )
    assert build_response(version, nonce, 100, [(16, b"1"), (200, b"")]) == packet


def test_a_code_without_a_name_is_a_code() -> None:
    assert dissect_response(b"\x63\0\0") == DissectedResponse(99, "", b"", ())


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"", "version: missing"),
        (b"\7", "version: 7, expected 1 or 2"),
        (b"\2\4sal", "nonce: .* expected 4, found 3"),
        (b"\2\0\1\3jo", "credentials -> data: .* expected 3, found 2"),
        (b"\2\0\1\3joe", "credentials -> type: "),
        (b"\2\0\0\0", "packet: expected end of stream"),
        (b"\1joe", "account: "),
        (b"\1joe\0x", "domain: "),
        (b"\1joe\0x\0a\0b", "end: "),
        (b"\2" * 513, "packet: 513 bytes, expected at most 512"),
    ],
)
def test_a_malformed_packet_is_refused_with_the_place(packet: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        dissect_request(packet)


def test_a_damaged_packet_is_taken_apart_up_to_the_damage() -> None:
    walk = walk_request(b"\2\1n\1\3joe\2\x05x")
    assert walk.parts == (
        Part(0, 1, "version", None, b"\2"),
        Part(1, 2, "nonce", None, b"n"),
        Part(3, 5, "ACCOUNT", 1, b"joe"),
    )
    assert walk.damage == Damage(8, "DOMAIN: cut short, expected 5, found 1")


def test_every_part_of_a_sound_packet_has_its_place() -> None:
    walk = walk_response(b"\0\x01joe\0\xc8?\0\0", 1)
    assert walk.damage is None
    assert walk.parts == (
        Part(0, 1, "code", None, b"\0"),
        Part(1, 5, "USERNAME", 1, b"joe"),
        Part(6, 3, "", 200, b"?"),
        Part(9, 1, "end", None, b"\0"),
    )


@pytest.mark.parametrize(
    "given",
    [
        (2, b"", [(0, b"s-e-c")]),
        (2, b"", [(256, b"s-e-c")]),
        (2, b"", [(4, b"s-e-c" * 60)]),
        (2, b"", [(4, b"s-e-c" * 51)] * 3),
        (2, b"n" * 256, []),
        (1, b"n", []),
        (1, b"", [(1, b"s-e-c\0")]),
        (1, b"", [(3, b"s-e-c"), (4, b"s-e-c")]),
        (1, b"", [(3, b"")]),
        (3, b"", []),
    ],
)
def test_what_a_version_cannot_express_is_refused_without_quoting_it(
    given: tuple[int, bytes, list[tuple[int, bytes]]],
) -> None:
    with pytest.raises(Malformed) as bad:
        build_request(*given)
    assert "s-e-c" not in str(bad.value)


@pytest.mark.parametrize(
    "given",
    [
        (2, b"", 0, [(0, b"x")]),
        (2, b"", 256, []),
        (2, b"", -1, []),
        (1, b"n", 0, []),
        (1, b"", 0, [(1, b"\0")]),
        (1, b"", 0, [(0, b"")]),
        (1, b"", 0, [(1, b"x" * 510)]),
    ],
)
def test_a_response_that_cannot_be_is_not_built(given: tuple[int, bytes, int, list[tuple[int, bytes]]]) -> None:
    with pytest.raises(Malformed):
        build_response(*given)


def test_the_server_does_without_this_module() -> None:
    import subprocess
    import sys

    script = (
        "import sys, cvm_qmail.cli, cvm_qmail.server.supervisor, cvm_qmail.qmail; print('construct' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert said.stdout == "False\n"
