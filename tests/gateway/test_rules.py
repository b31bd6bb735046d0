"""The gateway's own rules: probing, messages refused at DATA, senders, characters; its http listener; its command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gateways import CVM_GATEWAY, OUTCOMES, REQUESTS, Gateway, Pair, free_port, gateway, policy, temporary
from hosts import temporary_directory
from serving import PATIENCE

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm.packets import Code


def by_local_part(recipient: Recipient) -> Any:
    """The first word of a local part is the outcome."""
    word = recipient.account.partition(b"-")[0].decode("latin-1")
    return OUTCOMES.get({"yes": "accepted", "no": "rejected", "out": "out_of_scope"}.get(word, "temporary_failure"))


@pytest.fixture(autouse=True)
def by_name(pair: Pair) -> None:
    pair.module.say(None)
    pair.module.says = by_local_part


def action(running: Gateway, address: str, **attributes: str) -> str:
    answer = running.ask("policy", policy(address.encode("latin-1"), **attributes))
    return answer.partition(b"\n")[0].decode().removeprefix("action=")


# -- probing ------------------------------------------------------------------------------------------

LATER = "defer_if_permit 4.3.0 cannot tell now"
NO = "550 5.1.1 no such mailbox"


def test_who_asks_for_too_many_missing_addresses_is_throttled(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_PROBE_LIMIT="3/3600") as running:
        for n in range(4):
            assert action(running, f"no-{n}@ours.test", client_address="192.0.2.1") == NO
        for address in ("no-1@ours.test", "yes@ours.test", "out@elsewhere.test"):
            assert action(running, address, client_address="192.0.2.1") == LATER
        assert action(running, "yes@ours.test", client_address="192.0.2.2") == "dunno"
        assert running.outcome("no-9@ours.test")["outcome"] == "rejected"  # nobody is known there
        throttled = json.loads(running.get("/v1/statistics")[1])["throttled"]
        assert [entry["client"] for entry in throttled] == ["192.0.2.1"]
        assert b"cvm_gateway_throttled 1\n" in running.get("/metrics")[1]


def test_the_same_address_counts_once_and_others_not_at_all(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_PROBE_LIMIT="1/3600") as running:
        for address in ("no@ours.test", "NO@ours.test", "yes@ours.test", "out@else.test", "later@ours.test") * 3:
            action(running, address, client_address="192.0.2.1")
        assert action(running, "yes@ours.test", client_address="192.0.2.1") == "dunno"


def test_without_a_client_the_sender_is_throttled_but_not_the_null_sender(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_PROBE_LIMIT="1/3600") as running:
        for n in range(3):
            action(running, f"no-{n}@ours.test", sender="Ann@Client.Test")
            action(running, f"no-{n}@ours.test", sender="")
        assert action(running, "yes@ours.test", sender="ann@client.test") == LATER
        assert action(running, "yes@ours.test", sender="bob@client.test") == "dunno"
        assert action(running, "yes@ours.test", sender="") == "dunno"


def test_a_throttled_client_is_forgotten_in_time(pair: Pair) -> None:
    from serving import until

    with gateway(pair.module.address, CVM_GATEWAY_PROBE_LIMIT="1/1") as running:
        for n in range(3):
            action(running, f"no-{n}@ours.test", client_address="192.0.2.1")
        assert action(running, "yes@ours.test", client_address="192.0.2.1") == LATER
        until(lambda: action(running, "yes@ours.test", client_address="192.0.2.1") == "dunno")


# -- the other rules ----------------------------------------------------------------------------------


def test_a_message_is_refused_at_data_instead_of_its_recipients(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_DENY_ALL="1") as running:
        assert action(running, "yes@ours.test", instance="1.1") == "dunno"
        assert action(running, "no@ours.test", instance="1.1") == "dunno"
        assert action(running, "later@ours.test", instance="1.2") == LATER
        for state in ("DATA", "END-OF-MESSAGE"):
            refused = action(running, "", instance="1.1", protocol_state=state)
            assert refused == "554 5.1.1 message refused: a recipient has no mailbox here"
            assert action(running, "", instance="1.2", protocol_state=state) == "dunno"
        assert action(running, "no@ours.test") == NO  # nothing says which message it is for
        assert running.logged("- - policy denied-at-data")
    assert action(pair.gateway, "no@ours.test", instance="1.1") == NO


def test_senders_are_not_checked_where_that_is_configured(pair: Pair) -> None:
    senders = "ann@client.test @trusted.test <>"
    with gateway(pair.module.address, CVM_GATEWAY_SENDERS=senders) as running:
        for sender in ("ann@client.test", "ANN@client.TEST", "bob@trusted.test", ""):
            assert action(running, "no@ours.test", sender=sender) == "dunno"
        for sender in ("bob@client.test", "ann@sub.trusted.test", "trusted.test"):
            assert action(running, "no@ours.test", sender=sender) == NO
        assert action(running, "no@ours.test") == NO


def test_characters_are_rejected_only_in_addresses_of_ours(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_REJECT_CHARS="!%@") as running:
        for address in ("yes-%x@ours.test", "yes-!@ours.test", "yes-@b@ours.test"):
            assert action(running, address) == "550 5.7.1 mailbox does not take this mail"
        assert action(running, "yes-x@ours.test") == "dunno"
        assert action(running, "out-%x@elsewhere.test") == "dunno"
        assert action(running, "later-%x@ours.test") == LATER
        assert action(running, "no-%x@ours.test") == NO
    assert action(pair.gateway, "yes-%x@ours.test") == "dunno"


# -- http ---------------------------------------------------------------------------------------------


def test_health_follows_the_module(pair: Pair) -> None:
    assert pair.gateway.get("/healthz") == (200, b"ok\n")
    pair.module.say((Code.NOCRED, ()))
    pair.gateway.outcome()
    assert pair.gateway.get("/healthz") == (503, b"backend-secret\n")
    pair.module.say(OUTCOMES["rejected"])
    assert pair.gateway.get("/healthz") == (200, b"ok\n")
    pair.module.say(temporary())  # it is well enough to say so
    assert pair.gateway.get("/healthz") == (200, b"ok\n")


def test_metrics_and_statistics_count_the_same(pair: Pair) -> None:
    with gateway(pair.module.address) as running:
        for address in ("yes@ours.test", "no@Ours.Test", "no@<b>\x01.test", "out@elsewhere.test", "later@ours.test"):
            action(running, address)
        text = running.get("/metrics", "http", "Accept: application/openmetrics-text")[1].decode()
        assert text.endswith("\n# EOF\n")
        assert 'cvm_gateway_requests_total{listener="policy",outcome="rejected",reason="no-mailbox"} 2\n' in text
        assert 'cvm_gateway_request_seconds_bucket{listener="policy",le="+Inf"} 5\n' in text
        found = json.loads(running.get("/v1/statistics")[1])
        assert found["outcomes"] == {"accepted": 1, "rejected": 2, "out_of_scope": 1, "temporary_failure": 1}
        assert {entry["domain"]: entry["count"] for entry in found["rejected_domains"]} == {
            "ours.test": 1,
            "<b>\\x01.test": 1,
        }
        assert sum(second["outcomes"]["rejected"] for second in found["seconds"]) == 2
        assert found["backends"][0]["up"] is True


def test_what_is_no_request_is_counted_and_what_asks_nothing_is_not(pair: Pair) -> None:
    with gateway(pair.module.address) as running:
        assert action(running, "yes@ours.test", protocol_state="MAIL") == "dunno"
        assert json.loads(running.get("/v1/statistics")[1])["events"] == {}
        assert action(running, "yes@ours.test", request="junk").startswith("defer_if_permit ")
        assert running.ask("socketmap", b"4:rcpt,").startswith(b"55:PERM ")
        with running.connect("socketmap") as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b""
        events = json.loads(running.get("/v1/statistics")[1])["events"]
        assert events == {"malformed-policy": 1, "malformed-socketmap": 2}


def test_other_paths_and_methods_are_refused(pair: Pair) -> None:
    assert pair.gateway.get("/nothing")[0] == 404
    assert pair.gateway.ask("http", b"POST /v1/recipients/x HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert pair.gateway.ask("http", b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert pair.gateway.ask("http", b"HEAD /healthz HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_connection_is_kept_for_the_next_request(pair: Pair) -> None:
    with pair.gateway.connect("http") as client:
        for _ in range(3):
            client.sendall(b"GET /v1/recipients/yes%40ours.test HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Connection: close" not in answer


def outside() -> str | None:
    """An address of this host that is no loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


def wanting(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.0", *headers, "", ""]).encode()


OUTSIDE = pytest.mark.skipif(outside() is None, reason="PEER MISSING: an address beside loopback")


@OUTSIDE
def test_beyond_this_host_a_token_is_demanded(pair: Pair) -> None:
    host, port = outside(), free_port()
    with gateway(pair.module.address, listeners=[f"http:{host}:{port}"], CVM_GATEWAY_TOKEN="open sesame") as running:

        def status(path: str, *headers: str) -> int:
            with socket.create_connection((host, port), PATIENCE) as client:
                client.sendall(wanting(path, *headers))
                return int(client.recv(65536).split()[1])

        assert status("/healthz") == 200
        for path in ("/v1/recipients/yes%40ours.test", "/metrics", "/v1/statistics", "/", "/nothing"):
            for wrong in ((), ("Authorization: Bearer sesame",), ("Authorization: open sesame",)):
                assert status(path, *wrong) == 401
        assert status("/v1/recipients/yes%40ours.test", "Authorization: Bearer open sesame") == 200
        assert "sesame" not in running.log.read_text() + running.errors.read_text()


@OUTSIDE
def test_beyond_this_host_http_does_not_start_without_a_token(pair: Pair) -> None:
    done = run(f"http:{outside()}:18080", CVM_GATEWAY_MODULE=pair.module.address)
    assert done.returncode == 100
    assert "CVM_GATEWAY_TOKEN is required" in done.stderr


# -- the command --------------------------------------------------------------------------------------


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CVM_GATEWAY, *arguments],
        env={**os.environ, "CVM_GATEWAY_MODULE": "cvm-local:/nowhere", **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["socketmap"],
        ["socketmap:127.0.0.1:1"],
        ["socketmap:unix:relative"],
        ["socketmap:unix:/" + "x" * 107],
        ["qmail-verify:unix:/x"],
        ["deliverable:127.0.0.1"],
        ["http:127.0.0.1:99999"],
        ["http:::1:80"],
        ["nothing:127.0.0.1:80"],
        ["policy:unix:/x", "policy:unix:/x"],
        ["--routes"],
        ["--routes", "/x"],
        ["--routes", "/x", "--nothing", "policy:unix:/x"],
        ["\x1b[2J"],
    ],
)
def test_wrong_usage_is_said_and_ends_with_1(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert "usage: cvm-gateway" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVM_GATEWAY_MODULE", ""),
        ("CVM_GATEWAY_MODULE", "cvm-command:/bin/true"),
        ("CVM_GATEWAY_MODULE", "cvm-local:relative"),
        ("CVM_GATEWAY_MODULE", "cvm-udp:localhost"),
        ("CVM_GATEWAY_TIMEOUT", "x"),
        ("CVM_GATEWAY_CONNECTIONS", "0"),
        ("CVM_GATEWAY_PROBE_LIMIT", "20"),
        ("CVM_GATEWAY_PROBE_LIMIT", "0/5"),
        ("CVM_GATEWAY_DENY_ALL", "yes"),
        ("CVM_GATEWAY_OUT_OF_SCOPE", "maybe"),
        ("CVM_GATEWAY_LOG", "x"),
        ("CVM_SOCKET_OWNER", "no such user"),
        ("CVM_LOOKUP_SECRET", "secret" * 50),
    ],
)
def test_a_wrong_setting_is_named_and_ends_with_100(name: str, value: str) -> None:
    done = run("policy:unix:/nowhere/socket", **{name: value})
    assert done.returncode == 100
    assert done.stderr.startswith(f"cvm-gateway: {name}: found ")
    assert "secretsecret" not in done.stderr


def test_what_cannot_be_bound_ends_with_111(pair: Pair) -> None:
    port = pair.gateway.ports["http"]
    for listener in ("policy:unix:/nowhere/socket", f"http:127.0.0.1:{port}", "http:host.invalid:80"):
        done = run(listener)
        assert done.returncode == 111
        assert done.stderr.startswith(f"cvm-gateway: {listener}: ")


def test_help_names_every_listener_and_setting() -> None:
    assert "qmail-verify:HOST:PORT" in run("--help").stdout
    assert "CVM_GATEWAY_MODULE" in run("--help-settings").stdout
    assert run("--version").stdout.startswith("cvm-gateway ")


def test_lines_in_json_are_objects(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_LOG="json") as running:
        address = "no\x01" + "\\" * 200 + "@ours.test"
        action(running, address, client_address="192.0.2.7", sender="")
        line = json.loads(running.logged("192.0.2.7"))
        assert (line["outcome"], line["class"], line["client"], line["sender"]) == (
            "temporary_failure",
            None,
            "192.0.2.7",
            "",
        )


def test_only_what_is_wanted_is_logged(pair: Pair) -> None:
    with gateway(pair.module.address, CVM_GATEWAY_LOG="rejected") as running:
        for address in ("yes@ours.test", "out@elsewhere.test", "no@ours.test", "later@ours.test"):
            action(running, address)
        running.logged("? later@ours.test")
        assert [line[0] for line in running.log.read_text().splitlines()] == ["S", "-", "?"]
    assert Path(running.directory).exists() is False


def test_every_kind_of_address_is_listened_on(pair: Pair) -> None:
    with temporary_directory() as directory:
        directory.chmod(0o755)
        ports = [free_port() for _ in range(4)]
        listeners = [
            f"socketmap:inet:127.0.0.1:{ports[0]}",
            f"policy:inet:[::1]:{ports[1]}",
            f"http:[::1]:{ports[2]}",
            f"deliverable:localhost:{ports[3]}",
            f"http:unix:{directory}/h",
        ]
        with gateway(pair.module.address, listeners=listeners, CVM_SOCKET_MODE="0660"):

            def asked(address: Any, request: bytes) -> bytes:
                with (
                    socket.socket(socket.AF_UNIX)
                    if isinstance(address, str)
                    else socket.create_connection(address, PATIENCE) as client
                ):
                    if isinstance(address, str):
                        client.connect(address)
                    client.sendall(request)
                    client.shutdown(socket.SHUT_WR)
                    answer = b""
                    while data := client.recv(65536):
                        answer += data
                    return answer

            assert asked(("127.0.0.1", ports[0]), REQUESTS["socketmap"](b"yes@ours.test")) == b"4:OK 1,"
            assert asked(("::1", ports[1]), REQUESTS["policy"](b"no@ours.test")).startswith(b"action=550 ")
            assert b'"accepted"' in asked(("::1", ports[2]), REQUESTS["http"](b"yes@ours.test"))
            assert asked(("localhost", ports[3]), REQUESTS["deliverable"](b"yes@ours.test")).endswith(b"241")
            assert b'"rejected"' in asked(f"{directory}/h", REQUESTS["http"](b"no@ours.test"))
            assert (directory / "h").stat().st_mode & 0o777 == 0o660
