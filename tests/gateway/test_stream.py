"""Stream clients: order, bounds, and what becomes of a client that leaves."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from gateways import Gateway, Pair, accepted, netstring, policy, rejected
from serving import PATIENCE, until

YES, NO = b"4:OK 1,", b"9:NOTFOUND ,"


@pytest.fixture(autouse=True)
def _module_says(pair: Pair) -> None:
    pair.module.says = lambda recipient: rejected() if recipient.account.startswith(b"no") else accepted()


def received(client: socket.socket, size: int) -> bytes:
    """So many bytes, or all until end of file."""
    data = b""
    while len(data) < size and (more := client.recv(65536)):
        data += more
    return data


def cpu_of(running: Gateway) -> float:
    """Seconds that the gateway has computed."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_idle(running: Gateway) -> bool:
    """Whether it computes next to nothing."""
    before = cpu_of(running)
    time.sleep(0.3)
    return cpu_of(running) - before < 0.1


def test_requests_sent_ahead_are_answered_in_their_order(pair: Pair) -> None:
    with pair.gateway.connect("socketmap") as client:
        names = [b"no" if number % 3 else b"joe" for number in range(500)]
        client.sendall(b"".join(netstring(b"rcpt %s%d@ours.test" % (name, at)) for at, name in enumerate(names)))
        expected = b"".join(NO if name == b"no" else YES for name in names)
        assert received(client, len(expected)) == expected


def test_requests_come_byte_by_byte(pair: Pair) -> None:
    with pair.gateway.connect("socketmap") as client:
        for byte in netstring(b"rcpt joe@ours.test"):
            client.sendall(bytes([byte]))
        assert received(client, len(YES)) == YES


def test_a_client_that_does_not_read_is_not_read(pair: Pair) -> None:
    """Its answers fill its socket's buffer; then its requests wait in the kernel."""
    request = policy(b"no@ours.test")
    answer = pair.gateway.ask("policy", request)
    count = 6_000
    with pair.gateway.connect("policy") as client:
        sending = threading.Thread(target=client.sendall, args=(request * count,))
        sending.start()
        until(lambda: is_idle(pair.gateway), "it waits for the client")
        assert sending.is_alive()
        assert pair.gateway.ask("policy", request) == answer  # others do not wait
        assert received(client, len(answer) * count) == answer * count
        sending.join(PATIENCE)


@pytest.mark.parametrize("ways", [socket.SHUT_WR, None], ids=["half", "whole"])
def test_a_client_that_leaves_while_it_is_answered_costs_nothing(pair: Pair, ways: int | None) -> None:
    pair.module.say(None)
    client = pair.gateway.connect("socketmap")
    client.sendall(netstring(b"rcpt joe@ours.test"))
    until(lambda: pair.module.asked, "the module is asked")
    if ways is None:
        client.close()
    else:
        client.shutdown(ways)
    until(lambda: is_idle(pair.gateway), "it waits")
    client.close()


def test_after_a_half_close_what_is_complete_is_answered(pair: Pair) -> None:
    with pair.gateway.connect("socketmap") as client:
        client.sendall(netstring(b"rcpt joe@ours.test") * 3 + b"20:rcpt")
        client.shutdown(socket.SHUT_WR)
        assert received(client, 1000) == YES * 3
