"""What real mail servers were seen to send, sent to a gateway; the answer is one that made that client do right.

The judge is the corpus: a client's table from what it was answered to what its SMTP client got is made from the
recorded exchanges, and the gateway's answers are looked up in it.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import gateways
import pytest
from gateways import OUTCOMES, Pair, exchanges, out_of_scope, rejected
from hosts import Host
from serving import serving

from cvm_qmail.protocols.address import recipient

SOCKETMAP = [
    "postmap.socketmap",
    "postfix.relay_recipient_maps.socketmap",
    "postfix.other_maps.socketmap",
    "postfix.access.socketmap",
    "exim.readsocket.socketmap",
]
HTTP = ["haraka", "qpsmtpd"]
VERIFY = ["qmail-verify-client.devane", "qmail-verify-client.agerstla"]
PROTOCOL_OF = {
    **dict.fromkeys(SOCKETMAP, "socketmap"),
    **dict.fromkeys(HTTP, "deliverable"),
    **dict.fromkeys(VERIFY, "qmail-verify"),
    "postfix.policy": "policy",
}

CODES = {"accepted": "2", "rejected": "5", "temporary_failure": "4"}
"""The first digit of what the SMTP client has to get."""

UNTELLABLE = {
    ("qpsmtpd", "temporary_failure"),  # its client knows no "later", and accepts
    ("haraka", "out_of_scope"),  # it rejects what is not local, unless another plug-in takes it
    ("postfix.access.socketmap", "rejected"),  # an access map has no opinion of what it does not find
}


ANOTHER_MEANING = {"virtual_alias_maps as well", "reject_unlisted_recipient named"}
"""Cases in which the same answer means something else to Postfix: other kinds of maps."""


def usual(name: str) -> Iterator[dict[str, Any]]:
    """The exchanges of a file by this protocol, for a domain of the server's own."""
    for exchange in exchanges(name):
        ours = name != "qpsmtpd" or str(exchange.get("rcpt", "")).lower().endswith("@ours.test")
        case = exchange.get("case", "")
        if ours and "tcp" not in case and not (name != "exim.readsocket.socketmap" and case in ANOTHER_MEANING):
            yield exchange


def requests(name: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every request of a file, with its exchange."""
    for exchange in usual(name):
        for request in exchange.get("request") or ():
            yield exchange, request.encode("latin-1")


def form(name: str, answer: bytes) -> bytes:
    """An answer as far as the client looks: texts, lengths and headers differ, and were seen not to matter."""
    protocol = PROTOCOL_OF[name]
    if protocol == "socketmap":
        return re.sub(rb"^(\d+):(TEMP) .*,$", rb"\2", answer, flags=re.DOTALL)
    if protocol == "policy":
        return re.sub(rb"^(action=\S+) .*$", rb"\1", answer.partition(b"\n")[0])
    if protocol == "qmail-verify":
        return bytes([answer[0] & 15]) if answer else b""
    head, blank, body = answer.partition(b"\r\n\r\n")
    status = head.split()[1]
    if not blank or b"Content-Length: %d\r\n" % len(body) not in head + b"\r\n":
        raise ValueError("without its length, or not ended by CR LF")
    return status if status != b"200" else b"200 " + body


def replies(name: str) -> dict[bytes, set[str]]:
    """By form of an answer: what the SMTP client got, first digits."""
    table: dict[bytes, set[str]] = {}
    for exchange in usual(name):
        answers = exchange.get("answer")
        smtp = exchange.get("smtp", "" if exchange.get("exit") is None else _of_postmap(exchange))
        if isinstance(answers, list) and len(answers) == 1 and isinstance(answers[0], str) and isinstance(smtp, str):
            try:
                key = form(name, answers[0].encode("latin-1"))
            except (IndexError, ValueError):
                continue  # an answer that is none
            table.setdefault(key, set()).add(smtp[:1])
    return table


def _of_postmap(exchange: dict[str, Any]) -> str:
    """postmap's exit status as an SMTP server would take it."""
    if exchange["exit"] == 0:
        return "250"
    return "451" if "fatal" in exchange["stderr"] else "550"


@pytest.mark.parametrize("name", PROTOCOL_OF)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_answer_made_that_client_do_right(pair: Pair, name: str, outcome: str) -> None:
    table = replies(name)
    assert len(table) >= 2, name
    pair.module.say(OUTCOMES[outcome])
    judged = 0
    for exchange, request in requests(name):
        answer = pair.gateway.ask(PROTOCOL_OF[name], request)
        asked = pair.module.asked[-1] if pair.module.asked else None
        too_long = asked is None or len(pair.module.asked) == judged
        if too_long:  # cannot be asked: a temporary failure
            assert len(exchange.get("rcpt") or exchange.get("key") or request) > 255
            pair.module.asked.append(recipient(b""))
        judged += 1
        want = "temporary_failure" if too_long else outcome
        if (name, want) in UNTELLABLE:
            continue
        digits = {CODES[want]} if want != "out_of_scope" else _out_of_scope_digits(name)
        assert table[form(name, answer)] == digits, (exchange.get("case"), request, answer)
    assert judged >= 4


def _out_of_scope_digits(name: str) -> set[str]:
    """A map answers "not found", which Postfix takes for a rejection where it believes that the domain is ours."""
    if PROTOCOL_OF[name] != "socketmap":
        return {"2"}
    return {"2"} if "access" in name else {"5"}


BARE = {
    "quoted blank": b"a b@ours.test",
    "quoted at": b"a@b@ours.test",
    "two ats": b"a@b@ours.test",
    "backslash": b'a"b@ours.test',
    "quoted quote": b'a"b@ours.test',
    "quoted plain": b"joe@ours.test",
    "source route": b"joe@ours.test",
    "tab": b"a\tb@ours.test",
}
"""The mailbox that the SMTP client wrote, where it is not what stands between the angle brackets."""


def meant(name: str, exchange: dict[str, Any]) -> list[bytes]:
    """The addresses that the module may be asked for: that of the SMTP client, in the case that the server chose."""
    case, rcpt = exchange["case"], exchange["rcpt"].encode("latin-1")
    if PROTOCOL_OF[name] == "qmail-verify" and case in ("empty local", "null"):
        return [b""]  # qmail-smtpd takes <@domain> for a source route
    if case == "tab" and PROTOCOL_OF[name] in ("socketmap", "policy") and "postfix" in name:
        return [b"a b@ours.test"]
    if case == "8bit" and name == "haraka":
        return ["jos\N{REPLACEMENT CHARACTER}@ours.test".encode()]
    if case == "trailing dot" and PROTOCOL_OF[name] == "socketmap":
        return [b"joe@ours.test"]
    return [BARE.get(case, rcpt.replace(b'"no one"', b"no one"))]


@pytest.mark.parametrize("name", PROTOCOL_OF)
def test_the_module_is_asked_for_the_mailbox_that_was_meant(pair: Pair, name: str) -> None:
    pair.module.say(OUTCOMES["accepted"])
    protocol, compared = PROTOCOL_OF[name], 0
    for exchange, request in requests(name):
        address = exchange.get("rcpt")
        if address is None or len(address) > 255 or (protocol == "socketmap" and "@" not in address):
            continue
        pair.module.asked.clear()
        pair.gateway.ask(protocol, request)
        (asked,) = pair.module.asked
        assert asked.address.lower() in [bare.lower() for bare in meant(name, exchange)], (exchange["case"], request)
        compared += 1
    assert compared >= 6 or name == "postmap.socketmap", name


# -- the real qmail-verify ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qmail-verify-server.devane", "qmail-verify-server.agerstla"])
def test_qmail_verify_itself_gives_the_same_results(host: Host, name: str) -> None:
    host.control("locals", "ours.test\n")
    host.control("envnoathost", "elsewhere.test\n")
    host.control("virtualdomains", "w2.test:\nv.test:joe-v\n")
    with serving(host) as server, gateways.gateway(server.module) as running:
        for exchange in exchanges(name):
            request, answer = exchange["request"].encode("latin-1"), exchange["answer"]
            if answer is None or len(request) > 255 or request == b"@ours.test\0":  # qmail discards that mail
                continue
            got = running.ask("qmail-verify", request)
            assert got[0] & 15 == ord(answer[0]) & 15, (request, got, answer)
            if answer[0] in "\x10 \x90\xa0":
                assert got[0] == ord(answer[0]), request


def test_a_datagram_without_bytes_gets_no_answer(pair: Pair) -> None:
    pair.module.say(OUTCOMES["accepted"])
    with pair.gateway.connect("qmail-verify") as client:
        client.send(b"")
        client.send(b"joe@ours.test\0")
        assert client.recv(100) == b"\x90joe"
        assert [asked.address for asked in pair.module.asked] == [b"joe@ours.test"]


# -- traps that are recorded --------------------------------------------------------------------------


def test_a_connection_is_closed_after_its_half_close(pair: Pair) -> None:
    for protocol in ("socketmap", "policy", "http", "deliverable"):
        pair.module.say(rejected())
        with pair.gateway.connect(protocol) as client:
            client.sendall(gateways.REQUESTS[protocol](b"joe@ours.test"))
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert gateways.read_outcome(protocol, answer) == gateways.expected(protocol, "rejected")


def test_many_requests_on_one_connection_are_answered_in_order(pair: Pair) -> None:
    def says(asked: Any) -> Any:
        return OUTCOMES["accepted"] if asked.account.startswith(b"yes") else OUTCOMES["rejected"]

    pair.module.says = says
    want = [b"yes" if n % 3 else b"no" for n in range(200)]
    with pair.gateway.connect("socketmap") as client:
        client.sendall(b"".join(gateways.netstring(b"rcpt %s%d@ours.test" % (word, n)) for n, word in enumerate(want)))
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer == b"".join(b"4:OK 1," if word == b"yes" else b"9:NOTFOUND ," for word in want)


@pytest.mark.parametrize(("setting", "answer"), [("ok", b"4:OK 1,"), ("temporary", b"TEMP"), ("notfound", b"9:NOTF")])
def test_a_map_answers_out_of_scope_as_it_is_configured(pair: Pair, setting: str, answer: bytes) -> None:
    pair.module.say(out_of_scope())
    with gateways.gateway(pair.module.address, CVM_GATEWAY_OUT_OF_SCOPE=setting) as running:
        assert answer in running.ask("socketmap", gateways.netstring(b"rcpt joe@ours.test"))


def test_haraka_asks_for_the_empty_address_without_a_query(pair: Pair) -> None:
    pair.module.say(OUTCOMES["accepted"])
    assert pair.gateway.get("/qd1/deliverable", "deliverable") == (200, b"241")
    assert pair.module.asked[-1] == recipient(b"")


def test_other_paths_of_qmail_deliverable_are_forbidden(pair: Pair) -> None:
    assert pair.gateway.get("/qd1/qmail_local?joe%40ours.test", "deliverable")[0] == 403
    assert pair.gateway.get("/", "deliverable")[0] == 403


def test_the_numbers_of_qmail_deliverable_say_what_kind_of_account(pair: Pair) -> None:
    for reason, number in ((b"account", 0xF5), (b"sql-alias", 0xF3), (b"catch-all", 0xF4), (b"dotqmail", 0xF1)):
        pair.module.say(gateways.accepted(reason))
        assert pair.gateway.get("/qd1/deliverable?joe%40ours.test", "deliverable") == (200, str(number).encode())


def test_an_answer_in_json_has_what_the_page_shows(pair: Pair) -> None:
    pair.module.say(rejected(b"over-quota"))
    status, body = pair.gateway.get("/v1/recipients/jos%E9%40ours.test")
    assert status == 200
    assert json.loads(body) == {
        "address": "jos\\xe9@ours.test",
        "outcome": "rejected",
        "class": "full",
        "reason": "over-quota",
        "meaning": "the mailbox, or its domain, is full, and CVM_VPOPMAIL_OVERQUOTA=reject",
        "advice": "its owner has to delete mail, or needs a larger quota",
        "reply": "552 5.2.2 mailbox full",
    }
