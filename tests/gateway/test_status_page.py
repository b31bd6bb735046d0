"""The status page: what it shows, that nothing in it runs, and who gets it."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from gateways import Gateway, Pair, accepted, free_port, gateway, module, policy, rejected
from hosts import temporary_directory
from pages import Seen
from serving import PATIENCE

from cvm_qmail.gateway import status_page, status_tables
from cvm_qmail.gateway.statistics import Backend, Statistics
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

HOSTILE = b'<script>document.title="owned"</script><img src=x onerror="document.title=1">"\'</style></title>'

TAGS = set(
    Seen("<html><head><meta><title></title><style></style><body><header><h1><h2><main><p><a><section><div><b>").tags
)
TAGS |= set(
    Seen("<small><form><label><input><button><dl><dt><dd><code><span><table><tr><th><td><svg><path><rect>").tags
)
TAGS.add("tbody")  # a browser puts it around rows
"""All that a page is made of."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/module") as asked,
        gateway(asked.address, CVM_GATEWAY_PROBE_LIMIT="2/3600") as running,
    ):
        asked.says = lambda recipient: accepted() if recipient.account == b"joe" else rejected()
        for number in range(4):
            asking = policy(b"%d@" % number + HOSTILE, client_address=HOSTILE.decode())
            running.ask("policy", asking)
        yield Pair(asked, running)


def page(running: Gateway, query: str = "", *headers: str) -> str:
    return running.response(f"/{query}", "http", *headers)[1].decode()


def answer(text: str) -> str:
    """What a reader finds about the address that was asked for."""
    found = re.search(r"<dl>.*</dl>", text)
    return Seen(found[0]).text if found else ""


# -- what it shows ------------------------------------------------------------------------------------


def test_it_shows_what_was_asked_and_how_the_module_is(pair: Pair) -> None:
    text = Seen(page(pair.gateway)).text
    for title in (
        "The last minute",
        "Requests a second",
        "Time to an answer",
        "Backends",
        "Outcomes since the start",
        "Most frequent reasons",
        "Domains with most rejections",
        "Throttled clients",
    ):
        assert title in text
    assert "no-mailbox" in text
    assert pair.module.address in text
    assert re.search(r"up for \d+ s", text)
    process = f"process {pair.gateway.process.pid}, sandbox: "
    assert re.search(process + r"(Landlock \d+|no Landlock), (a|no) filter for system calls", text)
    assert re.search(r"onerror=.*59 min more", text)


def test_it_answers_about_an_address_with_reason_and_remedy(pair: Pair) -> None:
    text = answer(page(pair.gateway, "?address=nobody%40ours.test"))
    assert "nobody@ours.test" in text
    assert "rejected" in text
    assert "no-mailbox: the controlling user has no .qmail file for the address" in text
    assert "create the file in the user's home" in text
    assert "550 5.1.1 no such mailbox" in text
    assert "accepted" in answer(page(pair.gateway, "?address=joe%40ours.test"))


def test_an_address_is_bytes_and_a_plus_is_a_blank(pair: Pair) -> None:
    pair.module.asked.clear()
    text = page(pair.gateway, "?other=1&address=+a+b%2Bc%00%FF%40ours.test")
    assert pair.module.asked[-1].address == b"a b+c\0\xff@ours.test"
    assert r"a b+c\x00\xff@ours.test" in answer(text)
    assert 'value=""' in text  # as text it would be another address


def test_without_an_address_nobody_is_asked(pair: Pair) -> None:
    pair.module.asked.clear()
    for query in ("", "?", "?address=", "?address", "?address=+", "?again=1"):
        assert not answer(page(pair.gateway, query))
    assert not pair.module.asked


def test_it_is_loaded_again_only_where_that_is_wanted(pair: Pair) -> None:
    refresh = f"\r\nRefresh: {status_page.EVERY}\r\n"
    assert refresh in pair.gateway.response("/?again=1")[0]
    assert refresh not in pair.gateway.response("/")[0]
    assert refresh not in pair.gateway.response("/?again=1&address=joe%40ours.test")[0]


def test_a_module_that_is_down_is_shown_as_such() -> None:
    with temporary_directory() as directory, gateway(f"cvm-local:{directory}/nobody") as running:
        assert "not asked yet" in page(running)
        assert "temporary failure" in answer(page(running, "?address=joe%40ours.test"))
        text = Seen(page(running)).text
        assert re.search(r"down for \d+ s.*No such file or directory.*backend-down 1", text)


def test_lists_have_an_end() -> None:
    statistics = Statistics()
    for number in range(3000):
        statistics.answered("http", Result(Outcome.REJECTED, f"reason-{number}"), b"%d.test" % number, 0.001)
    throttled = [(b"192.0.2.%d" % number, float(number)) for number in range(100)]
    backends = [Backend("cvm-local:/x", False, 1.0, "gone", 3, {"backend-down": 7})]
    made = status_page.page(statistics.snapshot(backends, throttled, 5), None, again=False)
    assert len(made.body) < 20_000
    text = made.body.decode()
    assert f"and {100 - status_tables.THROTTLED} more" in text
    assert "192.0.2.99" in text


# -- nothing in it runs -------------------------------------------------------------------------------


def test_nothing_runs_and_nothing_comes_from_elsewhere(pair: Pair) -> None:
    head, body = pair.gateway.response("/?address=" + "".join(f"%{byte:02x}" for byte in HOSTILE))
    policy = re.search(r"Content-Security-Policy: (.*)\r\n", head)
    assert policy is not None
    sheet = re.search(rb"<style>(.*?)</style>", body, re.DOTALL)
    assert sheet is not None
    digest = base64.b64encode(hashlib.sha256(sheet[1]).digest()).decode()
    assert policy[1].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    assert "Set-Cookie" not in head
    assert b"url(" not in sheet[1]
    assert b"@import" not in sheet[1]
    seen = Seen(body.decode())
    assert set(seen.tags) <= TAGS
    assert HOSTILE.decode() in seen.text
    for name, value in seen.attributes:
        assert not name.startswith("on")
        assert name not in ("style", "src", "srcdoc", "action") or value == "/"
        assert name != "href" or value in ("/", "/?again=1")


@pytest.mark.peer("chromium")
def test_hostile_names_do_nothing_in_a_browser(pair: Pair) -> None:
    with temporary_directory() as directory:
        query = "".join(f"%{byte:02x}" for byte in HOSTILE)
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={directory}", "--enable-logging=stderr", "--dump-dom"]
        command += [f"http://127.0.0.1:{pair.gateway.ports['http']}/?address={query}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 3, check=False)
    seen = Seen(done.stdout)
    assert set(seen.tags) <= TAGS, done.stderr
    assert "<title>cvm-gateway</title>" in done.stdout
    assert HOSTILE.decode() in seen.text
    assert "Content Security Policy" not in done.stderr  # it refuses nothing of ours


# -- who gets it --------------------------------------------------------------------------------------


def basic(password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_beyond_this_host_it_wants_the_token_as_bearer_or_password() -> None:
    port = free_port()
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/module") as asked,
        gateway(asked.address, listeners=[f"http:0.0.0.0:{port}"], CVM_GATEWAY_TOKEN="t0ken") as running,
    ):
        running.ports["http"] = port
        head, body = running.response("/?address=joe%40ours.test")
        assert head.startswith("HTTP/1.1 401 ")
        assert 'WWW-Authenticate: Basic realm="cvm-gateway"\r\n' in head
        assert b"joe" not in body
        assert not asked.asked
        for wrong in (
            basic("t0ke"),
            basic(""),
            "Authorization: Basic t0ken",
            "Authorization: Bearer t0ken2",
            "Authorization: Basic !",
            "Authorization: t0ken",
            "Authorization: Other t0ken",
        ):
            assert running.response("/", "http", wrong)[0].startswith("HTTP/1.1 401 "), wrong
        for right in (basic("t0ken"), "Authorization: Bearer t0ken", "Authorization: bearer t0ken"):
            assert running.response("/", "http", right, "Host: mail.example.org")[0].startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "[::1]:80", "[::1]", "mx1", ""])
def test_a_host_without_domain_is_this_one(pair: Pair, host: str) -> None:
    assert pair.gateway.response("/", "http", f"Host: {host}")[0].startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8080", "127.0.0.1.evil.test", "a.1"])
def test_a_page_elsewhere_cannot_read_it_by_another_name(pair: Pair, host: str) -> None:
    for path in ("/", "/v1/recipients/joe%40ours.test", "/v1/statistics", "/metrics"):
        assert pair.gateway.response(path, "http", f"Host: {host}")[0].startswith("HTTP/1.1 421 ")
    assert pair.gateway.response("/healthz", "http", f"Host: {host}")[0].startswith("HTTP/1.1 200 ")


def test_it_is_read_only(pair: Pair) -> None:
    for method in ("POST", "PUT", "DELETE"):
        request = f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        assert pair.gateway.ask("http", request.encode()).startswith(b"HTTP/1.1 405 ")
