"""Packets: the codec, its declaration, and the responder, on any bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import strategies
from hypothesis import given
from hypothesis import strategies as st
from memory import module, responding, small

from cvm_qmail.answer import Answer, Facts, Unavailable, Verdict
from cvm_qmail.observe.log import mark_of
from cvm_qmail.plugin import Module
from cvm_qmail.protocols.cvm import dissect, packets
from cvm_qmail.protocols.cvm.responder import code_of
from cvm_qmail.service.events import Event

T = TypeVar("T")

lone = st.sampled_from([packets.Credential.PASSWORD, packets.Credential.SECRET])
versions = st.sampled_from([1, 2])


def value_or_malformed(call: Callable[[], T]) -> T | None:
    """What it says; None: it refuses.  Anything else is a bug."""
    try:
        return call()
    except packets.Malformed:
        return None


# -- the codec against its declaration ----------------------------------------------------------------


@given(strategies.packets, lone)
def test_codec_and_declaration_say_the_same_of_a_request_or_both_refuse(packet: bytes, lone: int) -> None:
    said = value_or_malformed(lambda: packets.parse_request(packet, lone))
    declared = value_or_malformed(lambda: dissect.dissect_request(packet, lone))
    if declared is None or said is None:
        assert said == declared
    else:
        credentials = {value.type: value.data for value in declared.credentials}
        assert said == packets.Request(declared.version, declared.nonce, credentials)


@given(strategies.responses, versions)
def test_codec_and_declaration_say_the_same_of_a_response_or_both_refuse(packet: bytes, version: int) -> None:
    said = value_or_malformed(lambda: packets.parse_response(packet, version))
    declared = value_or_malformed(lambda: dissect.dissect_response(packet, version))
    if declared is None or said is None:
        assert said == declared
    else:
        facts = tuple((value.type, value.data) for value in declared.facts)
        assert said == packets.Response(declared.code, declared.nonce, facts)


@given(strategies.packets)
def test_a_walk_along_a_request_finds_what_the_declaration_finds_and_fails_where_it_fails(packet: bytes) -> None:
    declared = value_or_malformed(lambda: dissect.dissect_request(packet))
    walk = dissect.walk_request(packet)
    judge_walk(packet, walk, sound=declared is not None)
    if declared is not None:
        there = [part for part in walk.parts if part.type is not None or part.name == "credential"]
        absent = [part for part in there if declared.version == 1 and part.name == "DOMAIN" and not part.data]
        values = [part.data for part in there if part not in absent]
        assert values == [value.data for value in declared.credentials]


@given(strategies.responses, versions)
def test_a_walk_along_a_response_finds_what_the_declaration_finds_and_fails_where_it_fails(
    packet: bytes, version: int
) -> None:
    declared = value_or_malformed(lambda: dissect.dissect_response(packet, version))
    walk = dissect.walk_response(packet, version)
    judge_walk(packet, walk, sound=declared is not None)
    if declared is not None:
        values = [(part.type, part.data) for part in walk.parts if part.type is not None]
        assert values == [(value.type, value.data) for value in declared.facts]


def judge_walk(packet: bytes, walk: dissect.Walk, *, sound: bool) -> None:
    """The parts follow one another without a gap, up to the end or the damage."""
    at = 0
    for part in walk.parts:
        assert part.offset == at
        at += part.size
    assert (walk.damage is None) is sound
    if walk.damage is None:
        assert at == len(packet)
    else:
        assert walk.damage.offset == at or walk.damage.offset == packets.LIMIT < at


@given(versions, st.binary(max_size=300), st.dictionaries(st.integers(0, 256), strategies.values, max_size=4))
def test_codec_and_declaration_make_the_same_request_or_both_refuse(
    version: int, nonce: bytes, credentials: dict[int, bytes]
) -> None:
    nonce = nonce if version == 2 else b""
    made = value_or_malformed(lambda: packets.pack_request(packets.Request(version, nonce, credentials)))
    assert made == value_or_malformed(lambda: dissect.build_request(version, nonce, credentials.items()))


@given(versions, st.binary(max_size=255), strategies.codes, st.lists(st.tuples(strategies.types, strategies.values)))
def test_codec_and_declaration_make_the_same_response_or_both_refuse(
    version: int, nonce: bytes, code: int, facts: list[tuple[int, bytes]]
) -> None:
    nonce = nonce if version == 2 else b""
    made = value_or_malformed(lambda: packets.pack_response(version, nonce, code, facts))
    assert made == value_or_malformed(lambda: dissect.build_response(version, nonce, code, facts))


# -- there and back -----------------------------------------------------------------------------------


@given(strategies.requests.filter(strategies.fitting))
def test_a_request_comes_back_as_it_was_packed(request: packets.Request) -> None:
    assert packets.parse_request(packets.pack_request(request)) == request


@given(strategies.packets)
def test_a_parsed_request_packs_to_what_says_the_same(packet: bytes) -> None:
    request = value_or_malformed(lambda: packets.parse_request(packet))
    if request is not None:
        again = packets.pack_request(request)
        assert packets.parse_request(again) == request
        assert len(again) <= len(packet)


@given(versions, st.binary(max_size=255), strategies.codes, strategies.facts)
def test_a_response_comes_back_as_it_was_packed(
    version: int, nonce: bytes, code: int, facts: list[tuple[int, bytes]]
) -> None:
    response = packets.Response(code, nonce if version == 2 else b"", tuple(facts))
    packet = value_or_malformed(lambda: packets.pack_response(version, response.nonce, code, facts))
    if packet is not None:
        assert len(packet) <= packets.LIMIT
        assert packets.parse_response(packet, version) == response


@given(strategies.responses)
def test_a_parsed_response_packs_to_the_same_bytes(packet: bytes) -> None:
    response = value_or_malformed(lambda: packets.parse_response(packet))
    if response is not None and packet != b"\2\0":
        assert packets.pack_response(2, response.nonce, response.code, response.facts) == packet


# -- the responder ------------------------------------------------------------------------------------


def nonce_of(packet: bytes) -> bytes | None:
    """The nonce of a request that need not be sound, if it is all there."""
    whole = packet[:1] == b"\2" and 2 <= len(packet) <= packets.LIMIT and len(packet) >= 2 + packet[1]
    return packet[2 : 2 + packet[1]] if whole else None


def judge(packet: bytes, response: bytes) -> None:
    """What holds of every response."""
    if not packet:
        assert response == b""
        return
    assert len(response) <= packets.LIMIT
    nonce = nonce_of(packet)
    if nonce is not None:
        assert response[1 : 2 + len(nonce)] == bytes([len(nonce)]) + nonce
    parsed = packets.parse_response(response, 2 if packet[0] == 2 or len(packet) > packets.LIMIT else 1)
    if parsed.code == 0:
        assert {1, 2, 3, 5} <= {kind for kind, _ in parsed.facts}
    elif parsed.code == 100:
        scope = [(kind, value) for kind, value in parsed.facts if kind != 240]
        assert scope in ([(16, b"0")], [(16, b"1")])
    else:
        assert [kind for kind, _ in parsed.facts] in ([], [240])  # the reason, for who asks for it


QMAIL = module(small())


@given(strategies.packets, st.sampled_from([None, b"", b"word"]))
def test_any_bytes_get_a_sound_response_and_one_line(packet: bytes, secret: bytes | None) -> None:
    events: list[Event] = []
    response = responding(QMAIL, events, secret)(packet)
    judge(packet, response)
    assert len(events) == bool(packet)
    for event in events:
        assert code_of(event.outcome) == response[0]
        assert mark_of(event.outcome) == {0: "+", 100: "-"}.get(response[0], "?")


@given(strategies.names, st.none() | strategies.names, st.binary(max_size=8))
def test_any_address_gets_a_sound_response(account: bytes, domain: bytes | None, nonce: bytes) -> None:
    given = {1: account[:255]} if domain is None else {1: account[:255], 2: domain[:200]}
    packet = value_or_malformed(lambda: packets.pack_request(packets.Request(2, nonce, given)))
    if packet is not None:
        judge(packet, responding(QMAIL, [])(packet))


@given(strategies.requests.filter(strategies.fitting), strategies.accepted)
def test_any_facts_fit_or_are_left_out_and_those_left_are_in_order(request: packets.Request, facts: Facts) -> None:
    packet = packets.pack_request(request)
    answer = Answer(Verdict.ACCEPTED, "why", facts=facts)
    response = responding(Module(lambda _: answer), [])(packet)
    judge(packet, response)
    kinds = [kind for kind, _ in packets.parse_response(response, request.version).facts]
    order = [1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 15]
    assert kinds == [kind for kind in order if kind in kinds]


@given(
    strategies.packets,
    st.sampled_from([ValueError("word"), Unavailable("why", "in words"), OSError(5, "x"), KeyError(), MemoryError()]),
)
def test_whatever_a_lookup_raises_is_a_sound_response(packet: bytes, error: Exception) -> None:
    def broken(*_: object) -> Answer:
        raise error

    judge(packet, responding(broken, [])(packet))
