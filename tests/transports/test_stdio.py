"""A request on standard input, its response on standard output, the code as exit status."""

from __future__ import annotations

import os
import subprocess

import pytest
from hosts import Host
from serving import CVM_QMAIL, PATIENCE, PLUGINS, alive, environment, request, run, until

from cvm_qmail.protocols.cvm import packets

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("account", "domain", "code"),
    [
        ("joe", "example.org", 0),
        ("nobody", "example.org", 100),
        ("joe", "elsewhere.example", 100),
        ("ann-x", None, 100),
    ],
)
def test_the_exit_status_is_the_code(host: Host, account: str, domain: str | None, code: int) -> None:
    done = run(host=host, data=request(account, domain, b"nonce"))
    assert done.returncode == code
    assert packets.parse_response(done.stdout)[:2] == (code, b"nonce")
    assert done.stderr == b""


def test_an_error_is_temporary_and_said_on_standard_error(host: Host) -> None:
    (host.root / "home/joe").chmod(0o1755)
    done = run(host=host, data=request("joe"))
    assert (done.returncode, done.stdout) == (4, b"\4\0\0")
    assert b"? joe@example.org joe home-sticky" in done.stderr


@pytest.mark.parametrize(
    ("packet", "answer"), [(b"\2", b"\2\0\0"), (b"\2\3abcx", b"\2\3abc\0"), (b"\x07", b"\2\0"), (bytes(513), b"\2\0\0")]
)
def test_malformed_requests_are_refused(host: Host, packet: bytes, answer: bytes) -> None:
    done = run(host=host, data=packet)
    assert (done.returncode, done.stdout) == (2, answer)


@pytest.mark.parametrize("size", [600, 100_000, 3_000_000])
def test_an_over_long_request_is_answered(host: Host, size: int) -> None:
    process = subprocess.Popen(
        [CVM_QMAIL], env=environment(host, {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out, _ = process.communicate(bytes(size), PATIENCE)  # which passes over a broken pipe
    assert (process.returncode, out) == (2, b"\2\0\0")


def test_no_request_gets_no_answer(host: Host) -> None:
    done = run(host=host)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_request_in_pieces_is_answered(host: Host) -> None:
    with subprocess.Popen(
        [CVM_QMAIL], env=environment(host, {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for byte in request("joe"):
            process.stdin.write(bytes([byte]))
        process.stdin.close()
        assert process.stdout.read(1) == b"\0"
        process.stdout.read()
    assert process.returncode == 0


def test_standard_input_that_is_a_file_is_read(host: Host) -> None:
    packet = host.file("request", request("joe"))
    with packet.open("rb") as source:
        done = subprocess.run(
            [CVM_QMAIL], env=environment(host, {}), stdin=source, capture_output=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == 0


def test_a_lookup_that_dies_is_temporary(host: Host) -> None:
    host.file("home/joe/.qmail-die", "|die\n", uid=5001, gid=5001)
    done = run(host=host, data=request("joe-die", nonce=b"n"), PYTHONPATH=PLUGINS)
    assert (done.returncode, done.stdout) == (4, b"\4\1n\0")
    assert b"took longer" not in done.stderr


def test_a_caller_that_does_not_read_its_answer_gets_a_failure(host: Host) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    process = subprocess.Popen(
        [CVM_QMAIL], env=environment(host, {}), stdin=subprocess.PIPE, stdout=writable, stderr=subprocess.PIPE
    )
    os.close(writable)
    _, errors = process.communicate(request("joe"), PATIENCE)
    assert process.returncode == 111
    assert b"Broken pipe" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "a pipe that nobody reads"])
def test_without_standard_error_the_answer_is_the_same(host: Host, closed: bool) -> None:
    (host.root / "home/joe").chmod(0o1755)
    host.file("home/ann/.qmail-die", "|die\n", uid=5002, gid=5002)
    command = ["sh", "-c", 'exec "$0" 2>&-', CVM_QMAIL] if closed else [CVM_QMAIL]
    readable, writable = os.pipe()
    os.close(readable)
    for account, status in (("joe", 4), ("nobody", 0), ("ann-die", 4)):
        done = subprocess.run(
            command,
            env=environment(host, {"CVM_DRY_RUN": "1", "PYTHONPATH": PLUGINS}),
            input=request(account),
            stdout=subprocess.PIPE,
            stderr=writable,
            timeout=PATIENCE,
            check=False,
        )
        assert (account, done.returncode, packets.parse_response(done.stdout).code) == (account, status, status)
    os.close(writable)


def test_a_hanging_lookup_leaves_no_process_behind(host: Host) -> None:
    host.file("home/joe/.qmail-hang", "|hang\n", uid=5001, gid=5001)
    done = run(host=host, data=request("joe-hang"), PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="200")
    assert done.returncode == 4
    [pid] = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith(b"stuck ")]
    until(lambda: not alive(pid), "the child is gone")
