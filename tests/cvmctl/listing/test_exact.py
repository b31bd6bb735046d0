"""An exact survey: what a list holds, and what no list can express."""

from __future__ import annotations

import sqlite3
import tempfile

import pytest
from hosts import Host

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.listing.exact import judged, survey
from cvm_qmail.cvmctl.listing.store import ACCEPTED, OUT_OF_SCOPE, REJECTED, UNKNOWN
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

Rows = dict[tuple[bytes, bytes, bool], int]


def surveyed(host: Host, *only: bytes, **more: str) -> tuple[Rows, dict[bytes, str]]:
    """What is said of each local part or pattern of a domain, and the scope of each domain."""
    with tempfile.TemporaryDirectory() as directory:
        found = survey(Settings.from_environment({**host.environment, **more}), directory, only)
        database = sqlite3.connect(found.path)
        entries = database.execute("SELECT domain, local, pattern, kind FROM entry").fetchall()
        places = database.execute("SELECT domain, scope FROM place").fetchall()
        database.close()
    return {(domain, local, bool(pattern)): kind for domain, local, pattern, kind in entries}, dict(places)


def test_what_is_accepted_and_the_domains(host: Host) -> None:
    rows, scopes = surveyed(host)
    assert set(rows.values()) == {ACCEPTED}
    assert rows[b"v.example", b"list-", True] == ACCEPTED
    assert (b"v.example", b"nobody", False) not in rows
    assert scopes == {b"example.org": "all", b"v.example": "all", b".w.example": "all", b"not.w.example": "none"}


def test_only_some_domains(host: Host) -> None:
    rows, scopes = surveyed(host, b"v.example", b".w.example")
    assert {domain for domain, _, _ in rows} == set(scopes) == {b"v.example", b".w.example"}


def test_what_differs_from_the_pattern_that_covers_it(host: Host) -> None:
    host.file("alias/.qmail-default", uid=5090, gid=5099)
    host.file("alias/.qmail-closed", "|exit 100\n", uid=5090, gid=5099)
    rows, _ = surveyed(host)
    assert rows[b"example.org", b"", True] == ACCEPTED
    assert rows[b"example.org", b"closed", False] == REJECTED
    assert rows[b"example.org", b"joe-", True] == REJECTED
    assert rows[b"example.org", b"joe-foo", False] == ACCEPTED
    assert (b"example.org", b"joe-nothing", False) not in rows


def test_what_no_pattern_covers_is_not_kept_as_rejected(host: Host) -> None:
    host.file("home/joe/.qmail-closed", "|exit 100\n", uid=5001, gid=5001)
    rows, _ = surveyed(host)
    assert (b"example.org", b"joe-closed", False) not in rows
    assert (b"example.org", b"joe-", True) not in rows


def test_whole_addresses_and_exceptions(host: Host) -> None:
    host.control("virtualdomains", "v.example:joe\nfar@v.example:\nfoo@x.example:joe\nann@example.org:joe\n")
    rows, scopes = surveyed(host)
    assert rows[b"v.example", b"far", False] == OUT_OF_SCOPE
    assert rows[b"x.example", b"foo", False] == ACCEPTED, "joe-foo"
    assert rows[b"example.org", b"ann", False] == ACCEPTED, "locals come first"
    assert scopes[b"x.example"] == "listed"


def test_what_is_a_temporary_failure(host: Host) -> None:
    host.file("home/joe/.qmail-foo", mode=0o666, uid=5001, gid=5001)
    rows, _ = surveyed(host)
    assert {key for key, kind in rows.items() if kind == UNKNOWN} == {
        (b"example.org", b"joe-foo", False),
        (b"v.example", b"foo", False),
    }


def test_where_candidates_cannot_be_looked_for_all_that_begins_so_is_unknown(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvm_qmail.cvmctl.host.files.NAMES_LIMIT", 1)
    rows, _ = surveyed(host)
    assert rows[b"example.org", b"joe-", True] == UNKNOWN
    assert rows[b"v.example", b"", True] == UNKNOWN
    assert rows[b".w.example", b"", True] == ACCEPTED


def test_a_default_that_cannot_be_determined_is_no_rejection(host: Host) -> None:
    (host.root / "alias/.qmail-postmaster").unlink()
    (host.root / "alias").rmdir()
    rows, _ = surveyed(host)
    assert rows[b"example.org", b"", True] == UNKNOWN
    assert rows[b"example.org", b"joe", False] == ACCEPTED


def test_a_dot_is_a_colon_too_where_a_file_says_so(host: Host) -> None:
    host.file("home/joe/.qmail-a:b", uid=5001, gid=5001)
    host.user("dot.ted", 5003, ".qmail-c:d-default")
    host.passwd("joe:x:5001:5001::{root}/home/joe:/bin/sh", "dot.ted:x:5003:5003::{root}/home/dot.ted:/bin/sh")
    rows, _ = surveyed(host, b"example.org")
    for local, pattern in ((b"joe-a.b", False), (b"joe-a:b", False), (b"dot.ted-c.d-", True), (b"dot.ted-c:d-", True)):
        assert rows[b"example.org", local, pattern] == ACCEPTED
    assert (b"example.org", b"dot:ted", False) not in rows


def test_domains_that_percenthack_rewrites(host: Host) -> None:
    host.control("percenthack", "hack.example\n")
    assert surveyed(host)[1][b"hack.example"] == "listed"


def test_a_host_that_cannot_be_read_has_no_survey(host: Host) -> None:
    host.file("users/cdb", b"x" * 100)
    with pytest.raises(Unavailable):
        surveyed(host)


def test_one_address(host: Host) -> None:
    settings = Settings.from_environment(host.environment)
    assert judged(settings, b"joe", b"example.org") == ACCEPTED
    assert judged(settings, b"nobody", b"example.org") == REJECTED
    assert judged(settings, b"joe", b"far.example") == OUT_OF_SCOPE
