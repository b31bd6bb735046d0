"""One datagram in, one out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hosts import Host, plain_host, temporary_directory
from serving import PATIENCE, Server, free_port, request, run, serving

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.transports import datagram

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with temporary_directory() as directory, serving(plain_host(directory), scheme="cvm-udp") as running:
        yield running


@contextmanager
def asking(server: Server) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.settimeout(PATIENCE)
        bound.connect(("127.0.0.1", int(server.module.rpartition(":")[2])))
        yield bound


def test_an_answer_goes_to_the_address_it_came_from(server: Server) -> None:
    with asking(server) as one, asking(server) as other:
        one.send(request("joe", nonce=b"one"))
        other.send(request("nobody", nonce=b"other"))
        assert packets.parse_response(one.recv(1024))[:2] == (0, b"one")
        assert packets.parse_response(other.recv(1024))[:2] == (100, b"other")


def test_an_empty_datagram_gets_no_answer_and_does_no_harm(server: Server) -> None:
    with asking(server) as bound:
        for _ in range(20):
            bound.send(b"")
        bound.send(request("joe", nonce=b"after"))
        assert packets.parse_response(bound.recv(1024))[:2] == (0, b"after")


@pytest.mark.parametrize("size", [513, 514, 4096, 60_000])
def test_an_over_long_datagram_is_refused(server: Server, size: int) -> None:
    with asking(server) as bound:
        bound.send(b"\2" + bytes(size - 1))
        assert bound.recv(1024) == b"\2\0\0"


@pytest.mark.parametrize("packet", [b"\2", b"\2\x08abc", b"\3", b"\1", b"\xff" * 40])
def test_a_malformed_datagram_is_refused(server: Server, packet: bytes) -> None:
    with asking(server) as bound:
        bound.send(packet)
        assert bound.recv(1024)[:2] == b"\2\0"


def test_many_datagrams_at_once_are_all_answered(server: Server) -> None:
    with asking(server) as bound:
        for start in range(0, 400, 50):
            wanted = {b"%d" % number for number in range(start, start + 50)}
            for nonce in wanted:
                bound.send(request("ann-x", nonce=nonce))
            assert {packets.parse_response(bound.recv(1024)).nonce for _ in wanted} == wanted


def test_a_client_that_is_gone_does_no_harm(server: Server) -> None:
    for _ in range(20):
        with asking(server) as bound:
            bound.send(request("joe"))
    assert {server.ask("joe").code for _ in range(10)} == {0}


def test_version_1_is_spoken(server: Server) -> None:
    assert server.ask("joe", version=1).code == 0
    assert server.ask("nobody", version=1).code == 100


def test_a_port_that_is_taken_is_named(server: Server, host: Host) -> None:
    done = run(server.module, host=host)
    assert done.returncode == 111
    assert server.module.removeprefix("cvm-udp:").encode() + b": Address already in use" in done.stderr


def test_a_host_that_does_not_exist_is_named(host: Host) -> None:
    done = run(f"cvm-udp:does-not-exist.invalid:{free_port()}", host=host)
    assert done.returncode == 111
    assert b"does-not-exist.invalid" in done.stderr


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:", ":53", "h:0", "h:65536", "h:999999999999", "h:5x", "h:-1"])
def test_an_address_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        datagram.split(text)


def test_an_ipv6_address_needs_brackets() -> None:
    assert datagram.split("[::1]:53") == ("::1", "53")
    with pytest.raises(ValueError, match="brackets"):
        datagram.split("::1:53")
