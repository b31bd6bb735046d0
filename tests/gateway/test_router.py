"""Routes at work: the next module, the circuit breaker, hedging, a file that changes."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from gateways import (
    CVM_GATEWAY,
    Gateway,
    Module,
    accepted,
    free_port,
    gateway,
    module,
    out_of_scope,
    rejected,
    temporary,
)
from hosts import temporary_directory
from serving import PATIENCE, until
from tls import Authority, Distant, answer, distant

pytestmark = pytest.mark.peer("openssl")

HEDGE = 0.3
"""Seconds."""


class Net(NamedTuple):
    """Modules, and a gateway that routes to them."""

    directory: Path
    alive: Module
    hanging: Module
    far: Distant
    gateway: Gateway

    def outcome(self, domain: str, account: str = "joe") -> tuple[str, str]:
        """Outcome and reason of an address, or the class of its rejection."""
        said = self.gateway.outcome(f"{account}@{domain}")
        return said["outcome"], said["reason"]


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        authority = Authority(directory)
        far = stack.enter_context(distant(authority.issue("far", "IP:127.0.0.1")))
        alive = stack.enter_context(module(f"cvm-local:{directory}/alive"))
        hanging = stack.enter_context(module(f"cvm-local:{directory}/hanging"))
        hanging.say(None)
        routes = directory / "routes"
        a, b, dead = alive.address, hanging.address, f"cvm-local:{directory}/dead"
        routes.write_text(
            f"alive.test:{a}\ndead.test:{dead}\nhanging.test:{b}\nfar.test:{far.url}\n"
            f"second.test:{dead},{a}\nslow-second.test:{b},{a}\nfar-second.test:{b},{dead},{far.url}\n"
            f"none.test:{dead},{b}\n.alive.test:{a}\nrefused.test:https://127.0.0.1:1/\n"
        )
        settings = {
            "CVM_GATEWAY_HEDGE": str(int(HEDGE * 1000)),
            "CVM_GATEWAY_TIMEOUT": "2000",
            "CVM_GATEWAY_HTTPS_CA": str(authority.certificate),
            "CVM_GATEWAY_HTTPS_TOKEN": "open sesame",
        }
        running = stack.enter_context(gateway("", "--routes", str(routes), **settings))
        yield Net(directory, alive, hanging, far, running)


@pytest.fixture(autouse=True)
def _all_say_yes(net: Net) -> None:
    net.alive.say(accepted())
    net.far.says = lambda address: answer(address, "accepted", "mailbox")


def test_each_domain_has_its_module(net: Net) -> None:
    assert net.outcome("alive.test") == ("accepted", "mailbox")
    assert net.outcome("sub.alive.test") == ("accepted", "mailbox")
    assert net.outcome("far.test") == ("accepted", "mailbox")
    assert net.outcome("dead.test") == ("temporary_failure", "backend-down")
    assert net.outcome("refused.test") == ("temporary_failure", "backend-down")
    assert net.outcome("elsewhere.test") == ("out_of_scope", "no-route")


def test_the_next_module_is_asked_after_a_failure_or_a_while(net: Net) -> None:
    for domain in ("second.test", "slow-second.test", "far-second.test"):
        assert net.outcome(domain) == ("accepted", "mailbox"), domain


def test_a_domain_whose_modules_all_fail_is_temporary(net: Net) -> None:
    assert net.outcome("none.test")[0] == "temporary_failure"
    net.alive.say(temporary(b"home-sticky"))
    assert net.outcome("second.test") == ("temporary_failure", "backend-down")


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (rejected(b"no-mailbox"), ("rejected", "no-mailbox")),
        (temporary(b"over-quota"), None),
        (out_of_scope(), None),
        (temporary(b"home-sticky"), ("accepted", "mailbox")),
    ],
)
def test_what_a_module_does_not_know_the_next_may(net: Net, first: object, outcome: tuple[str, str] | None) -> None:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/one") as one:
        routes = directory / "routes"
        routes.write_text(f":{one.address},{net.alive.address}")
        one.says = lambda _: first
        with gateway("", "--routes", str(routes)) as running:
            said = running.outcome("joe@any.test")
            if outcome is not None:
                assert (said["outcome"], said["reason"]) == outcome
            elif first == out_of_scope():
                assert said["outcome"] == "accepted"
                net.alive.say(out_of_scope())
                assert running.outcome("joe@any.test")["outcome"] == "out_of_scope"
                net.alive.say(temporary())  # it might know it
                assert running.outcome("joe@any.test")["outcome"] == "temporary_failure"
            else:
                assert said["outcome"] == "temporary_failure"
                assert said["reply"].startswith("452 4.2.2")


def test_one_that_hangs_costs_other_domains_nothing(net: Net) -> None:
    """When its circuit is open, its own domains get their failure at once, too."""
    with temporary_directory() as directory, ExitStack() as stack:
        routes = directory / "routes"
        routes.write_text(f"alive.test:{net.alive.address}\nhanging.test:{net.hanging.address}\n")
        running = stack.enter_context(gateway("", "--routes", str(routes), CVM_GATEWAY_TIMEOUT="3000"))
        clients = [stack.enter_context(running.connect("policy")) for _ in range(50)]
        for client in clients:
            client.sendall(b"request=smtpd_access_policy\nrecipient=joe@hanging.test\n\n")
        assert running.outcome("joe@alive.test")["outcome"] == "accepted"
        assert select.select(clients, [], [], 0)[0] == []  # while all of them still wait
        for client in clients:
            assert client.recv(4096).startswith(b"action=defer_if_permit 4.3.0 ")
        assert "dot down" in running.get("/")[1].decode()
        asked = len(net.hanging.asked)
        for _ in range(20):
            assert running.outcome("joe@hanging.test")["reason"] == "backend-slow"
        assert len(net.hanging.asked) - asked < 20  # probes only


def test_a_module_that_comes_back_is_asked_again(net: Net) -> None:
    with temporary_directory() as directory:
        routes = directory / "routes"
        routes.write_text(f":cvm-local:{directory}/one")
        with gateway("", "--routes", str(routes)) as running:
            for _ in range(5):
                assert running.outcome("joe@any.test")["reason"] == "backend-down"
            with module(f"cvm-local:{directory}/one"):
                until(lambda: running.outcome("joe@any.test")["outcome"] == "accepted", "a probe finds it")


# -- https --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (("accepted", "mailbox", None), ("accepted", None, "250 2.1.5 recipient ok")),
        (("rejected", "no-mailbox", "missing"), ("rejected", "missing", "550 5.1.1 no such mailbox")),
        (("rejected", "over-quota", "full"), ("rejected", "full", "552 5.2.2 mailbox full")),
        (("rejected", None, None), ("rejected", "missing", "550 5.1.1 no such mailbox")),
        (("out_of_scope", "remote", None), ("out_of_scope", None, "250 2.0.0 not a domain of this host")),
        (("temporary_failure", "home-sticky", None), ("temporary_failure", None, "451 4.3.0 cannot tell now")),
        (("temporary_failure", "over-quota", "full"), ("temporary_failure", "full", "452 4.2.2 mailbox full")),
    ],
)
def test_another_gateway_says_all_that_it_knows(
    net: Net, said: tuple[str, str | None, str | None], outcome: tuple[str, str | None, str]
) -> None:
    net.far.says = lambda address: answer(address, *said)
    found = net.gateway.outcome("joe@far.test")
    assert (found["outcome"], found["class"], found["reply"]) == outcome
    assert found["reason"] == said[1]


def test_it_is_asked_with_the_token_on_connections_that_are_kept(net: Net) -> None:
    net.outcome("far.test")
    before = net.far.connections
    for number in range(10):
        assert net.outcome("far.test", f"joe{number}")[0] == "accepted"
    assert net.far.connections == before
    assert net.far.headers["Authorization"] == "Bearer open sesame"
    assert "sesame" not in net.gateway.log.read_text() + net.gateway.errors.read_text()


def test_any_bytes_reach_the_other_gateway(net: Net) -> None:
    address = "".join(f"%{byte:02x}" for byte in b' /?#"\xff\xc3\xa4@@far.test')
    found = net.gateway.outcome(address)
    assert found["outcome"] == "accepted"
    assert net.far.asked[-1] == b' /?#"\xff\xc3\xa4@@far.test'


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>", "backend-nonsense"),
        (200, b"[]", "backend-nonsense"),
        (200, b'{"outcome": "accepted", "address": "other@far.test"}', "backend-nonsense"),
        (200, b'{"outcome": "perhaps", "address": "joe@far.test"}', "backend-nonsense"),
        (200, b'{"outcome": "rejected", "class": "odd", "address": "joe@far.test"}', "backend-nonsense"),
        (200, b"x" * 100_000, "backend-nonsense"),
        (200, b"[" * 10_000, "backend-nonsense"),
        (200, b"\xff\xfe", "backend-nonsense"),
        (404, b"nothing is here", "backend-nonsense"),
        (401, b"a token is wanted", "backend-secret"),
        (503, b"<html>no server is available</html>", "backend-down"),
    ],
)
def test_what_is_no_answer_is_temporary(net: Net, status: int, body: bytes, reason: str) -> None:
    net.far.says = lambda _: (status, body)
    try:
        assert net.outcome("far.test") == ("temporary_failure", reason)
    finally:
        net.far.says = lambda address: answer(address, "accepted", "mailbox")
        assert net.outcome("far.test")[0] == "accepted"  # else the next test would find its circuit open


def test_certificates_are_checked_on_both_sides() -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        ours, theirs = Authority(directory), Authority(directory, "others")
        wrong_name = stack.enter_context(distant(ours.issue("wrong-name", "IP:127.0.0.9")))
        unknown = stack.enter_context(distant(theirs.issue("unknown", "IP:127.0.0.1")))
        strict = stack.enter_context(distant(ours.issue("strict", "IP:127.0.0.1"), clients=ours.certificate))
        routes = directory / "routes"
        routes.write_text(f"name.test:{wrong_name.url}\nunknown.test:{unknown.url}\nstrict.test:{strict.url}\n")
        arguments = ("--routes", str(routes))
        trusted = {"CVM_GATEWAY_HTTPS_CA": str(ours.certificate)}
        with gateway("", *arguments, **trusted) as running:
            for domain in ("name", "unknown", "strict"):
                assert running.outcome(f"joe@{domain}.test")["outcome"] == "temporary_failure"
        assert not wrong_name.asked
        assert not unknown.asked
        assert not strict.asked
        with gateway("", *arguments, CVM_GATEWAY_HTTPS_CERTIFICATE=str(ours.issue("mx")), **trusted) as running:
            assert running.outcome("joe@strict.test")["outcome"] == "accepted"


# -- the file -----------------------------------------------------------------------------------------


def test_a_changed_file_counts_and_a_mistake_in_it_does_not(net: Net) -> None:
    with temporary_directory() as directory:
        routes = directory / "routes"
        routes.write_text(f"one.test:{net.alive.address}\n")

        def write(text: str) -> None:
            (directory / "new").write_text(text)
            os.replace(directory / "new", routes)

        with gateway("", "--routes", str(routes)) as running:
            assert running.outcome("joe@two.test")["outcome"] == "out_of_scope"
            write(f"two.test:{net.alive.address}\n")
            running.logged("The routes are new: 1 domains, 1 modules.")
            assert running.outcome("joe@two.test")["outcome"] == "accepted"
            assert running.outcome("joe@one.test")["outcome"] == "out_of_scope"
            write("two.test:cvm-local:relative\n")
            line = running.logged("The routes stay as they were: ")
            assert f"{routes}: line 1: expected cvm-local:PATH" in line
            assert running.outcome("joe@two.test")["outcome"] == "accepted"
            routes.unlink()
            running.logged("No such file or directory")
            assert running.outcome("joe@two.test")["outcome"] == "accepted"
            assert running.log.read_text().count("The routes stay") == 2
            write(f":{net.alive.address}\n")
            running.logged("1 domains, 1 modules.")
            until(lambda: running.outcome("joe@one.test")["outcome"] == "accepted", "the new routes count")


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_a_question_ends_in_its_time_although_its_module_is_in_the_routes_no_more(scheme: str) -> None:
    with temporary_directory() as directory:
        place = str(directory / "m") if scheme == "cvm-local" else f"127.0.0.1:{free_port()}"
        routes = directory / "routes"
        with module(f"{scheme}:{place}") as hanging:
            hanging.say(None)
            routes.write_text(f"a.test:{hanging.address}\n")
            with (
                gateway("", "--routes", str(routes), CVM_GATEWAY_TIMEOUT="4000") as running,
                ThreadPoolExecutor() as pool,
            ):
                asked = pool.submit(running.outcome, "joe@a.test")
                until(lambda: hanging.asked, "it is asked")
                (directory / "new").write_text("b.test:cvm-local:/nowhere\n")
                os.replace(directory / "new", routes)
                running.logged("The routes are new: ")
                assert not asked.done()
                assert asked.result(PATIENCE)["reason"] == "backend-slow"


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CVM_GATEWAY_MODULE"} | variables
    command = [CVM_GATEWAY, *arguments, "policy:unix:/nowhere/socket"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_file_with_a_mistake_is_said_at_the_start() -> None:
    with temporary_directory() as directory:
        routes = directory / "routes"
        routes.write_text("a.test:nonsense\n")
        done = start("--routes", str(routes))
        assert done.returncode == 100
        assert f"cvm-gateway: {routes}: line 1: " in done.stderr
        for path in (directory / "missing", directory):
            assert start("--routes", str(path)).returncode == 100
        os.mkfifo(directory / "fifo")
        assert "not a regular file" in start("--routes", str(directory / "fifo")).stderr


def test_routes_and_a_module_exclude_each_other() -> None:
    with temporary_directory() as directory:
        routes = directory / "routes"
        routes.write_text("")
        assert start("--routes", str(routes), CVM_GATEWAY_MODULE="cvm-local:/x").returncode == 1


def test_certificates_that_cannot_be_read_are_said_at_the_start() -> None:
    with temporary_directory() as directory:
        routes, listener = directory / "routes", directory / "socket"
        routes.write_text(":https://127.0.0.1/")
        for name in ("CVM_GATEWAY_HTTPS_CA", "CVM_GATEWAY_HTTPS_CERTIFICATE"):
            for file, said in (
                (directory / "missing", "No such file or directory\n"),
                (routes, "expected a PEM file with "),
            ):
                environment = {**os.environ, name: str(file)}
                command = [CVM_GATEWAY, "--routes", routes, f"policy:unix:{listener}"]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
                assert done.returncode == 100
                assert done.stderr.startswith(f"cvm-gateway: {name}: {file}: {said}")
                assert not listener.exists()
