"""The protocol from the other end, above all against servers that misbehave."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from serving import CVM_QMAIL, PATIENCE, PLUGINS, free_port, serving, until

from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.client import Module, NoAnswer

pytestmark = pytest.mark.root

SHORT = 0.2


@contextmanager
def stream(answers: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of one connection over a Unix socket that does what it wants."""
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        listener.settimeout(PATIENCE)

        def serve() -> None:
            with listener.accept()[0] as connection:
                answers(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"cvm-local:{directory}/s"
        thread.join(PATIENCE)


@contextmanager
def queue_full() -> Iterator[tuple[str, socket.socket]]:
    """A Unix socket on whose queue is no more room."""
    with (
        temporary_directory() as directory,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as waiting,
    ):
        listener.bind(str(directory / "s"))
        listener.listen(0)
        listener.settimeout(PATIENCE)
        waiting.connect(str(directory / "s"))
        waiting.sendall(b"\2\0\0")
        waiting.shutdown(socket.SHUT_WR)
        yield f"cvm-local:{directory}/s", listener


@contextmanager
def datagrams(answers: Callable[[bytes], list[bytes]]) -> Iterator[str]:
    """A server over UDP that answers each datagram with these."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(PATIENCE)

        def serve() -> None:
            while True:
                packet, sender = bound.recvfrom(1024)
                if packet == b"stop":
                    return
                for answer in answers(packet):
                    bound.sendto(answer, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"cvm-udp:127.0.0.1:{bound.getsockname()[1]}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopping:
                stopping.sendto(b"stop", bound.getsockname())
            thread.join(PATIENCE)


def to_the_end(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(4096):
        data += more
    return data


# -- names of modules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scheme", "address"),
    [
        ("cvm-local:/run/s", "cvm-local", "/run/s"),
        ("cvm-udp:[::1]:53", "cvm-udp", "[::1]:53"),
        ("cvm-command:/bin/x", "cvm-command", "/bin/x"),
        ("/bin/x", "cvm-command", "/bin/x"),
        ("odd:name", "cvm-command", "odd:name"),
    ],
)
def test_a_module_is_a_scheme_and_an_address(text: str, scheme: str, address: str) -> None:
    assert Module.parse(text) == (scheme, address)


@pytest.mark.parametrize("text", ["", "cvm-local:", "cvm-udp:", "cvm-command:"])
def test_a_module_without_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected cvm-local:PATH"):
        Module.parse(text)


# -- the three ways -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_servers_are_asked(host: Host, scheme: str, version: int) -> None:
    with serving(host, scheme=scheme, CVM_LOOKUP_SECRET="s3cret") as server:
        yes = client.ask(server.module, b"joe", b"example.org", version=version, secret=b"s3cret")
        assert (yes.code, dict(yes.facts)[packets.Fact.USERNAME]) == (0, b"joe")
        assert client.ask(server.module, b"nobody", b"example.org", version=version, secret=b"s3cret").code == 100
        assert client.ask(server.module, b"joe", b"example.org", version=version, secret=b"wrong").code == 7
        assert client.ask(server.module, b"joe", b"example.org", version=version).code == 7


@pytest.mark.parametrize("version", [1, 2])
def test_programs_are_asked(host: Host, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    assert client.ask(str(CVM_QMAIL), b"joe", b"example.org", version=version).code == 0
    assert client.ask(f"cvm-command:{CVM_QMAIL}", b"nobody", b"example.org", version=version).code == 100


def test_over_udp_a_request_carries_random_bytes() -> None:
    seen: list[bytes] = []

    def echo(packet: bytes) -> list[bytes]:
        seen.append(packet)
        return [packets.refusal(packet, 4)]

    with datagrams(echo) as module:
        nonces = {client.ask(module, b"joe").nonce for _ in range(5)}
    assert len(nonces) == 5
    assert {len(nonce) for nonce in nonces} == {client.NONCE}


def test_a_request_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(packets.Malformed):
        client.ask("cvm-local:/nowhere", b"x" * 256, b"example.org")
    with pytest.raises(packets.Malformed):
        client.ask("cvm-local:/nowhere", b"x" * 510, b"example.org", version=1)


# -- servers that misbehave ---------------------------------------------------------------------------


def test_a_stream_server_that_never_answers() -> None:
    done = threading.Event()

    def silent(connection: socket.socket) -> None:
        done.wait(PATIENCE)

    with stream(silent) as module:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.2 seconds"):
            client.ask(module, b"joe", timeout=SHORT)
        done.set()


def test_a_stream_server_that_answers_for_ever() -> None:
    def trickle(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(b"\0")
        except OSError:
            pass

    with stream(trickle) as module, pytest.raises(NoAnswer, match="bytes, expected 1 to 512"):
        client.ask(module, b"joe")


def test_a_stream_server_that_dribbles_is_cut_off_at_the_time_out() -> None:
    done = threading.Event()

    def dribble(connection: socket.socket) -> None:
        try:
            while not done.wait(0.01):
                connection.sendall(b"\0")
        except OSError:
            pass

    with stream(dribble) as module:
        with pytest.raises(NoAnswer, match="no answer within"):
            client.ask(module, b"joe", timeout=SHORT)
        done.set()


def test_a_stream_server_that_closes_without_a_word() -> None:
    def silent(connection: socket.socket) -> None:
        to_the_end(connection)

    with stream(silent) as module, pytest.raises(NoAnswer, match="closed without an answer"):
        client.ask(module, b"joe")


@pytest.mark.parametrize("answer", [b"\0", b"\0\5abc", b"\0\0\1\xffx\0", b"\0\0\0more", bytes(600)])
def test_a_stream_server_that_answers_nonsense(answer: bytes) -> None:
    def nonsense(connection: socket.socket) -> None:
        to_the_end(connection)
        connection.sendall(answer)

    with stream(nonsense) as module, pytest.raises(NoAnswer, match="response"):
        client.ask(module, b"joe")


def test_nobody_there() -> None:
    with pytest.raises(NoAnswer, match="cvm-local:/tmp/not/there: No such file or directory"):
        client.ask("cvm-local:/tmp/not/there", b"joe")
    with pytest.raises(NoAnswer, match="Connection refused"):
        client.ask(f"cvm-udp:127.0.0.1:{free_port()}", b"joe", timeout=2)
    with pytest.raises(NoAnswer, match="No such file or directory"):
        client.ask("/tmp/not/there", b"joe")
    with pytest.raises(NoAnswer):
        client.ask("cvm-udp:does-not-exist.invalid:53", b"joe")


def test_a_path_that_is_too_long() -> None:
    with pytest.raises(NoAnswer, match="too long"):
        client.ask("cvm-local:/" + "x" * 200, b"joe")


def test_a_udp_server_that_never_answers() -> None:
    with datagrams(lambda _: []) as module, pytest.raises(NoAnswer, match=r"no answer within 0\.2 seconds"):
        client.ask(module, b"joe", timeout=SHORT)


def test_datagrams_with_another_nonce_are_skipped() -> None:
    def noisy(packet: bytes) -> list[bytes]:
        forged = b"\0\x08forgedxx\1\3bad\0"
        return [b"", b"\0", b"\0\0\0", forged, packet[:1] + packet[1:9], packets.refusal(packet, 100), forged]

    with datagrams(noisy) as module:
        assert client.ask(module, b"joe").code == 100


def test_a_lost_datagram_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "UDP_TRIES", (0.05, PATIENCE))
    seen: list[bytes] = []

    def loses_the_first(packet: bytes) -> list[bytes]:
        seen.append(packet)
        return [] if len(seen) == 1 else [packets.refusal(packet, 4)]

    with datagrams(loses_the_first) as module:
        assert client.ask(module, b"joe", timeout=PATIENCE).code == 4
    assert len(seen) == 2
    assert seen[0] == seen[1]


def program(directory: Path, text: str) -> str:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_programs_that_misbehave() -> None:
    with temporary_directory() as directory:
        with pytest.raises(NoAnswer, match="closed without an answer"):
            client.ask(program(directory, "cat >/dev/null"), b"joe")
        with pytest.raises(NoAnswer, match="ended by signal 9"):
            client.ask(program(directory, "kill -9 $$"), b"joe")
        with pytest.raises(NoAnswer, match="response"):
            client.ask(program(directory, "cat >/dev/null; echo nonsense"), b"joe")
        with pytest.raises(NoAnswer, match="no answer within"):
            client.ask(program(directory, "exec tail -f /dev/null"), b"joe", timeout=SHORT)
        with pytest.raises(NoAnswer, match="Permission denied"):
            client.ask(str(directory), b"joe")


def test_of_a_program_that_writes_without_end_no_more_is_read_than_an_answer_may_have() -> None:
    with temporary_directory() as directory:
        endless = program(directory, "exec yes")
        assert packets.LIMIT < len(client.transfer(endless, b"\2\0\0", PATIENCE)) <= 2 * packets.LIMIT
        with pytest.raises(NoAnswer, match="response of"):
            client.exchange(endless, b"\2\0\0", PATIENCE)


@pytest.mark.parametrize("size", [0, 3, 1 << 20])
def test_a_program_gets_all_of_a_packet_and_need_not_read_it(size: int) -> None:
    with temporary_directory() as directory:
        counted = client.transfer(program(directory, "wc -c"), bytes(size), PATIENCE)
        assert int(counted) == size
        assert client.transfer(program(directory, "echo x"), bytes(size), PATIENCE) == b"x\n"


def test_a_lookup_that_hangs_is_closed_without_an_answer(host: Host) -> None:
    host.file("home/joe/.qmail-hang", "|hang\n", uid=5001, gid=5001)
    with (
        serving(host, PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="200") as server,
        pytest.raises(NoAnswer, match="closed without an answer"),
    ):
        server.ask("joe-hang")


def test_the_environment_reaches_the_program() -> None:
    with temporary_directory() as directory:
        os.environ["CVM_TEST"] = "\\2\\0\\0"
        try:
            assert client.transfer(program(directory, 'cat >/dev/null; printf "$CVM_TEST"'), b"\2\0\0") == b"\2\0\0"
        finally:
            del os.environ["CVM_TEST"]


def test_where_the_queue_is_full_it_waits_for_its_turn() -> None:
    answers = []
    with queue_full() as (module, listener):
        asking = threading.Thread(target=lambda: answers.append(client.transfer(module, b"\2\0\0")))
        asking.start()
        until(lambda: ") S " in Path(f"/proc/self/task/{asking.native_id}/stat").read_text(), "it waits")
        for _ in range(2):
            with listener.accept()[0] as connection:
                while connection.recv(512):
                    pass
                connection.sendall(b"\4\0\0")
        asking.join(PATIENCE)
    assert answers == [b"\4\0\0"]


def test_where_the_queue_stays_full_it_gives_up_in_time() -> None:
    with queue_full() as (module, _), pytest.raises(NoAnswer, match=r"no answer within 0\.2 seconds"):
        client.transfer(module, b"\2\0\0", SHORT)
