"""One table of addresses and the four outcomes through every listener, whatever becomes of the module."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateways import (
    OUTCOMES,
    REQUESTS,
    Gateway,
    Pair,
    accepted,
    expected,
    free_port,
    gateway,
    module,
    read_outcome,
    rejected,
    temporary,
)
from hosts import Host, temporary_directory
from serving import PATIENCE, serving

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import packets

ADDRESSES = {
    b"joe@ours.test": Recipient(b"joe", b"ours.test"),
    b"jos\xe9@ours.test": Recipient(b"jos\xe9", b"ours.test"),
    b"a@b@ours.test": Recipient(b"a@b", b"ours.test"),
    b"joe": Recipient(b"joe", None),
    b"joe@": Recipient(b"joe", b""),
    b"@ours.test": Recipient(b"", b"ours.test"),
    b"": Recipient(b"", None),
    b"a b\t@ours.test": Recipient(b"a b\t", b"ours.test"),
    b"%s@ours.test" % (b"x" * 200): Recipient(b"x" * 200, b"ours.test"),
    b"a/../b@ours.test": Recipient(b"a/../b", b"ours.test"),
    b"joe@[127.0.0.1]": Recipient(b"joe", b"[127.0.0.1]"),
    b"<script>&amp;@ours.test": Recipient(b"<script>&amp;", b"ours.test"),
    b"\x01\x7f\x1b[2j@ours.test": Recipient(b"\x01\x7f\x1b[2j", b"ours.test"),
}


def outcome(running: Gateway, protocol: str, address: bytes) -> str:
    return read_outcome(protocol, running.ask(protocol, REQUESTS[protocol](address)))


@pytest.mark.parametrize("reply", OUTCOMES)
@pytest.mark.parametrize("protocol", REQUESTS)
def test_every_listener_says_every_outcome(pair: Pair, protocol: str, reply: str) -> None:
    for address, recipient in ADDRESSES.items():
        pair.module.say(OUTCOMES[reply])
        assert outcome(pair.gateway, protocol, address) == expected(protocol, reply), address
        assert pair.module.asked == [recipient]


@pytest.mark.parametrize("protocol", REQUESTS)
def test_an_address_too_long_to_ask_is_temporary(pair: Pair, protocol: str) -> None:
    pair.module.say(OUTCOMES["accepted"])
    for local in (256, 600, 889):
        assert outcome(pair.gateway, protocol, b"x" * local + b"@ours.test") == "temporary_failure"
    assert pair.module.asked == []


NONSENSE = {
    "nothing": b"",
    "text": b"hello\n",
    "cut short": b"\x00\x00\x01\x03jo",
    "more behind the end": b"\x64\x00\x10\x010\x00more",
    "without facts": b"\x00\x00\x00",
    "without a home": b"\x00\x00\x01\x03joe\x02\x011\x03\x011\x00",
    "another nonce": b"\x64\x04salt\x10\x010\x00",
    "a strange scope": b"\x64\x00\x10\x01x\x00",
    "too much": b"\x00\x00" + b"\x01\xff" + b"x" * 255 + b"\x01\xff" + b"x" * 400,
    "malformed, it says": b"\x02\x00\x00",
    "wrong secret": b"\x07\x00\x00",
}


@pytest.mark.parametrize("rubbish", NONSENSE)
@pytest.mark.parametrize("protocol", REQUESTS)
def test_a_module_that_says_nonsense_is_temporary(pair: Pair, protocol: str, rubbish: str) -> None:
    pair.module.say(NONSENSE[rubbish])
    assert outcome(pair.gateway, protocol, b"joe@ours.test") == "temporary_failure"


NOBODY_KNOWS = dict.fromkeys(REQUESTS, "temporary_failure")


def outcomes(running: Gateway) -> dict[str, str]:
    """What each protocol says at the same time, each of an address of its own."""
    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        said = pool.map(lambda protocol: outcome(running, protocol, f"joe-{protocol}@ours.test".encode()), REQUESTS)
        return dict(zip(REQUESTS, said, strict=True))


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_a_module_that_is_stopped_or_hangs_is_temporary_and_asked_again(scheme: str) -> None:
    with temporary_directory() as directory:
        address = f"cvm-local:{directory}/module" if scheme == "cvm-local" else f"cvm-udp:127.0.0.1:{free_port()}"
        with gateway(address, CVM_GATEWAY_TIMEOUT="1000") as running:
            assert outcomes(running) == NOBODY_KNOWS, "nobody has ever listened there"
            for reply in OUTCOMES.values():
                with module(address) as asked:
                    asked.say(reply)
                    word = next(name for name, value in OUTCOMES.items() if value is reply)
                    assert outcomes(running) == {protocol: expected(protocol, word) for protocol in REQUESTS}
                    asked.say(None)
                    assert outcomes(running) == NOBODY_KNOWS
                assert outcomes(running) == NOBODY_KNOWS, "it has ended"
            snapshot = running.get("/metrics")[1].decode()
            assert f'cvm_gateway_backend_up{{module="{address}"}} 0' in snapshot
            assert 'reason="backend-slow"' in snapshot
            assert 'reason="backend-down"' in snapshot


def test_a_datagram_that_gets_lost_is_sent_again() -> None:
    address = f"cvm-udp:127.0.0.1:{free_port()}"
    with module(address) as asked, gateway(address, CVM_GATEWAY_TIMEOUT="10000") as running:
        asked.says = lambda _: accepted() if len(asked.asked) > 2 else None
        assert running.outcome()["outcome"] == "accepted"
        assert len(asked.asked) == 3
        assert len({request.nonce for request in asked.requests}) == 1


def test_the_secret_goes_with_every_question_and_into_no_log(pair: Pair) -> None:
    pair.module.say(b"\x07\x00\x00")
    assert pair.gateway.outcome()["reason"] == "backend-secret"
    assert pair.module.requests[-1].credentials[packets.Credential.SECRET] == b"word"
    assert pair.module.requests[-1].credentials[packets.Credential.REASON] == b""
    assert "word" not in pair.gateway.log.read_text() + pair.gateway.errors.read_text()
    assert b"word" not in pair.gateway.get("/v1/statistics")[1]
    assert b"word" not in Path(f"/proc/{pair.gateway.process.pid}/cmdline").read_bytes()


CLASSES = [
    (rejected(b"no-mailbox"), "550 5.1.1 no such mailbox"),
    (rejected(b"over-quota"), "552 5.2.2 mailbox full"),
    (rejected(b"locked"), "550 5.2.1 mailbox disabled"),
    (rejected(b"program-bounces"), "550 5.7.1 mailbox does not take this mail"),
    (rejected(b"a-word-of-a-plug-in"), "550 5.1.1 no such mailbox"),
    ((100, ((16, b"0"),)), "550 5.1.1 no such mailbox"),
    (temporary(), "451 4.3.0 cannot tell now"),
    (temporary(b"over-quota"), "452 4.2.2 mailbox full"),
    ((4, ()), "451 4.3.0 cannot tell now"),
]


@pytest.mark.parametrize(("reply", "text"), CLASSES)
def test_the_reply_says_why(pair: Pair, reply: tuple[int, tuple[tuple[int, bytes], ...]], text: str) -> None:
    pair.module.say(reply)
    assert pair.gateway.outcome()["reply"] == text
    action = pair.gateway.ask("policy", REQUESTS["policy"](b"joe@ours.test")).partition(b"\n")[0].decode()
    assert action == f"action={text}" if text.startswith("5") else action == f"action=defer_if_permit {text[4:]}"


def test_a_word_that_is_none_is_not_repeated(pair: Pair) -> None:
    for reason in (b"", b"x" * 100, b"a b", b"a\nb", b"\xff", b'"><script>'):
        pair.module.say(rejected(reason))
        assert pair.gateway.outcome()["reason"] is None
        answer = pair.gateway.ask("policy", REQUESTS["policy"](b"joe@ours.test"))
        assert answer == b"action=550 5.1.1 no such mailbox\noutcome=rejected\nreason=\n\n"


def test_what_strangers_send_is_logged_escaped(pair: Pair) -> None:
    pair.module.say(OUTCOMES["accepted"])
    outcome(pair.gateway, "socketmap", b"x\n+ forged@ours.test\x1b[2J")
    line = pair.gateway.logged("forged")
    assert line.startswith("+ x\\x0a+\\x20forged@ours.test\\x1b[2j socketmap mailbox - ")


def real_outcomes(running: Gateway) -> dict[str, list[str]]:
    return {
        address: [outcome(running, protocol, address.encode()) for protocol in REQUESTS]
        for address in ("joe@example.org", "joe-foo@example.org", "nobody@example.org", "x@elsewhere.example")
    }


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_the_daemon_is_asked_and_restarted_behind_the_gateway(host: Host, scheme: str) -> None:
    words = ("accepted", "accepted", "rejected", "out_of_scope")
    with (
        serving(host, scheme=scheme, CVM_LOOKUP_SECRET="word") as server,
        gateway(server.module, CVM_LOOKUP_SECRET="word") as running,
    ):
        found = real_outcomes(running)
        assert list(found.values()) == [[expected(protocol, word) for protocol in REQUESTS] for word in words]
        assert running.outcome("joe-foo@example.org")["reason"] == "dotqmail"
        assert running.outcome("nobody@example.org")["reason"] == "no-mailbox"
        assert server.stop() == 0
        assert {word for row in real_outcomes(running).values() for word in row} == {"temporary_failure"}
        if scheme == "cvm-local":
            with serving(host, path=server.path, CVM_LOOKUP_SECRET="word"):
                assert real_outcomes(running) == found


def test_a_takeover_of_the_daemon_under_load_costs_no_answer(host: Host) -> None:
    wrong: list[str] = []
    ended = threading.Event()
    wanted = {b"joe@example.org": "accepted", b"nobody@example.org": "rejected", b"x@elsewhere.example": "out_of_scope"}
    with serving(host) as old, gateway(old.module) as running:

        def load(protocol: str) -> None:
            while not ended.is_set():
                for address, word in wanted.items():
                    if (found := outcome(running, protocol, address)) != expected(protocol, word):
                        wrong.append(f"{protocol}: {address!r}: {found}")

        threads = [threading.Thread(target=load, args=(protocol,)) for protocol in REQUESTS]
        for thread in threads:
            thread.start()
        try:
            with serving(host, "--takeover", path=old.path) as new:
                old.logged("Another server has taken over.")
                assert old.process.wait(PATIENCE) == 0
                new.logged("+ joe@example.org ")
                ended.set()
                for thread in threads:
                    thread.join()
                assert wrong == []
        finally:
            ended.set()
