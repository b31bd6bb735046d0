"""The way of a request as a whole: what is written before what, and how often each part is asked."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from hosts import Host, mounted, plain_host, temporary_directory
from serving import request, until

from cvm_qmail.answer import Answer, Recipient, Verdict
from cvm_qmail.pipeline import Respond, make_responder
from cvm_qmail.plugin import Module
from cvm_qmail.qmail import qmail
from cvm_qmail.service.events import Event
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = pytest.mark.root


class Recorder:
    """A sink that notes what it hears, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def request(self, event: Event) -> str:
        self.heard.append(f"request {event.outcome.reason}")
        return event.outcome.reason

    def repeat(self, token: object, began: float) -> None:
        assert began <= time.monotonic()
        self.heard.append(f"repeat {token}")

    def settle(self) -> None:
        self.heard.append("settle")

    def flush(self) -> None:
        self.heard.append("flush")

    def taken(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


class Way:
    """A host, its way of a request, and who watches."""

    def __init__(self, host: Host, sinks: int = 1) -> None:
        settings = Settings.from_environment(host.environment)._replace(lookup_secret=b"")
        self.tables = Tables(settings)
        self.sinks = [Recorder() for _ in range(sinks)]
        self.host = host
        served = qmail(self.tables, settings, [])

        def lookup(recipient: Recipient) -> Answer:
            self.sinks[0].heard.append("lookup")
            return served.lookup(recipient)

        module: Module = served._replace(lookup=lookup)
        self.respond: Respond = make_responder(self.tables, module, settings, self.sinks)

    def heard(self, packet: bytes) -> list[str]:
        """What the first sink hears of one request, and when the lookup is."""
        self.sinks[0].taken()
        self.respond(packet)
        return self.sinks[0].taken()


@pytest.fixture(scope="module")
def way() -> Iterator[Way]:
    """A host that has not changed for long enough for responses to be cached."""
    gc.collect()  # the kernel grants a user a bounded number of inotify instances: those of earlier tests go
    with temporary_directory() as directory:
        made = Way(plain_host(directory), sinks=2)
        until(lambda: "lookup" not in made.heard(request("joe-list-x")), "everything is old")
        yield made


def test_what_sinks_have_to_write_can_wait_for_a_lookup_on_local_file_systems(way: Way) -> None:
    way.respond(request("joe"))
    assert way.heard(request("joe", nonce=b"another")) == ["lookup", "request mailbox"]
    assert way.heard(request("ann-x")) == ["lookup", "request dotqmail-default"]


def test_a_cached_response_is_reported_as_a_repetition(way: Way) -> None:
    for _ in range(2):
        way.respond(request("joe-foo"))
    assert way.heard(request("joe-foo")) == ["repeat dotqmail"]


def test_every_sink_hears_the_same(way: Way) -> None:
    way.sinks[1].taken()
    for _ in range(3):
        way.respond(request("nobody"))
    assert [heard for heard in way.sinks[1].taken() if heard != "flush"] == [
        *["request no-mailbox"] * 2,
        "repeat no-mailbox",
    ]


def test_a_malformed_request_is_reported_and_not_looked_up(way: Way) -> None:
    assert way.heard(b"\2\0\1") == ["request malformed"]


def test_no_request_is_not_reported(way: Way) -> None:
    assert way.heard(b"") == []


@pytest.mark.parametrize("account", ["joe", "joe-foo", "nobody", "postmaster", "ann-x"])
def test_a_request_begins_once(way: Way, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    way.respond(request(account, nonce=b"first"))
    watch = way.tables._watch
    look = watch.look

    def counted() -> None:
        begun.append(None)
        look()

    monkeypatch.setattr(watch, "look", counted)
    way.respond(request(account, nonce=b"another"))
    assert len(begun) == 1


# -- these change the host ----------------------------------------------------------------------------


def test_it_is_written_before_a_lookup_whose_way_is_not_known(way: Way) -> None:
    way.respond(request("joe"))
    (way.host.root / "control/virtualdomains").touch()  # all is learned again
    heard = way.heard(request("joe", nonce=b"another"))
    assert heard[0] == "lookup"
    assert "flush" in heard
    assert heard[-1] == "request mailbox"


def test_it_is_written_before_a_lookup_that_follows_a_link(way: Way) -> None:
    home = way.host.root / "home/joe"
    (home / ".qmail-linked").symlink_to("/dev/null")
    way.respond(request("joe"))
    heard = way.heard(request("joe-linked"))
    assert heard[:2] == ["lookup", "flush"]


def test_it_is_written_before_a_lookup_below_a_mount_point(way: Way) -> None:
    home = way.host.root / "home/ann"
    with mounted(home, home):
        way.respond(request("joe"))
        assert "flush" in way.heard(request("ann"))
        assert "flush" in way.heard(request("ann-x"))
        assert "flush" not in way.heard(request("joe", nonce=b"another"))


def test_it_is_written_before_anything_that_cannot_be_repeated() -> None:
    settings = Settings.from_environment({})._replace(lookup_secret=b"")
    tables, sink = Tables(settings), Recorder()

    def lookup(_: Recipient) -> Answer:
        sink.heard.append("lookup")
        return Answer(Verdict.REJECTED, "no-mailbox")

    make_responder(tables, Module(lookup), settings, [sink])(request("joe"))
    assert sink.taken() == ["flush", "lookup", "request no-mailbox"]
