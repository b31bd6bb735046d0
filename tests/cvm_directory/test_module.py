"""cvm-directory: a real server over a real database, without any file of the mailbox host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from directories import CVM_DIRECTORY, NAME, Directory, Nowhere, mx
from hosts import Host
from serving import AS_SERVICE, SERVICE, Server, run, serving, until
from test_corpus import verdict

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential, Fact

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

EACH = pytest.mark.parametrize("directory", ["mariadb", "postgresql"], indirect=True)


@pytest.fixture
def server(directory: Directory, host: Host) -> Iterator[Server]:
    """cvm-directory; `host` is published."""
    directory.publish(host.environment)
    with serving(mx(directory), program=CVM_DIRECTORY) as running:
        yield running


def said(server: Server, address: str) -> tuple[str, str]:
    """Verdict and reason word."""
    local, _, domain = address.rpartition("@")
    response = server.ask(local, domain, more={Credential.REASON: b""})
    return verdict(response._replace(facts=[f for f in response.facts if f[0] != Fact.REASON])), dict(response.facts)[
        Fact.REASON
    ].decode()


ANSWERS = [
    ("joe@example.org", ("deliver", "published")),
    ("JOE-Foo@EXAMPLE.org", ("deliver", "published")),
    ("joe-list-x-y@example.org", ("deliver", "published-pattern")),
    ("joe-x@example.org", ("no-mailbox", "not-published")),
    ("anybody@some.w.example", ("deliver", "published-pattern")),
    ("anybody@not.w.example", ("remote", "published-remote")),
    ("joe@elsewhere.example", ("remote", "unpublished-domain")),
    ("joe@", ("remote", "unpublished-domain")),
]


@EACH
def test_what_it_says(server: Server) -> None:
    assert [(address, said(server, address)) for address, _ in ANSWERS] == ANSWERS


def test_facts_of_an_acceptance(server: Server) -> None:
    facts = dict(server.ask("Joe", "Example.org").facts)
    assert facts[Fact.USERNAME] == b"Joe"
    assert facts[Fact.DOMAIN] == b"example.org"
    assert (facts[Fact.USERID], facts[Fact.GROUPID], facts[Fact.DIRECTORY]) == (b"65534", b"65534", b"/nonexistent")


def test_an_address_without_a_domain_and_one_with_a_nul(server: Server) -> None:
    assert verdict(server.ask("joe", None)) == "remote"
    assert verdict(server.ask("joe@example.org", None)) == "deliver"
    nul = packets.pack_request(packets.Request(2, b"", {Credential.ACCOUNT: b"jo", Credential.DOMAIN: b"example.org"}))
    assert packets.parse_response(server.send(nul)).code == 100


@EACH
def test_what_is_published_counts_at_the_next_request(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    with serving(mx(directory), program=CVM_DIRECTORY, CVM_WORKERS="1") as server:
        for _ in range(3):  # an answer that could be cached would be, when it is asked for again
            assert verdict(server.ask("new", "v.example")) == "no-mailbox"
        host.file("home/joe/.qmail-new", uid=5001, gid=5001)
        directory.publish(host.environment)
        for _ in range(3):
            assert verdict(server.ask("new", "v.example")) == "deliver"
        (host.root / "home/joe/.qmail-new").unlink()
        directory.publish(host.environment)
        assert verdict(server.ask("new", "v.example")) == "no-mailbox"


def test_addresses_that_percenthack_rewrites(directory: Directory, host: Host) -> None:
    host.control("percenthack", "hack.example\nexample.org\n")
    host.control("locals", "example.org\nhack.example\n")
    directory.publish(host.environment)
    with serving(host) as own, serving(mx(directory), program=CVM_DIRECTORY) as server:
        for local in (
            "joe%example.org",
            "x%example.org",
            "joe%v.example%hack.example",
            "foo%v.example",
            "a%far.example",
            "joe%",
        ):
            for domain in ("example.org", "hack.example", "v.example"):
                assert verdict(server.ask(local, domain)) == verdict(own.ask(local, domain)), (local, domain)


def test_patterns_may_end_with_any_byte(directory: Directory, host: Host) -> None:
    host.users(
        "+joe+:joe:5001:5001:{root}/home/joe:-:ext-:",
        "+an:ann:5002:5002:{root}/home/ann:-::",
        "=alias:alias:5090:5099:{root}/alias:::",
    )
    host.file("home/joe/.qmail-ext-default", uid=5001, gid=5001)
    directory.publish(host.environment)
    with serving(host) as own, serving(mx(directory), program=CVM_DIRECTORY) as server:
        for local in ("joe+x", "joe+", "joe-x", "joe", "an", "anything", "a"):
            assert verdict(server.ask(local)) == verdict(own.ask(local)), local
        assert verdict(server.ask("joe+x")) == verdict(server.ask("anything")) == "deliver"


# -- failures ------------------------------------------------------------------------------------------


def older(directory: Directory, domain: str, seconds: int) -> None:
    span = f"INTERVAL {seconds} SECOND" if directory.database.kind == "mysql" else f"INTERVAL '{seconds} seconds'"
    directory.database.sql(f"UPDATE cvm_domain SET published = published - {span} WHERE domain = '{domain}';", NAME)


@EACH
def test_a_domain_that_is_stale_is_a_temporary_failure(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    older(directory, "v.example", 3600)
    with serving(mx(directory, CVM_DIRECTORY_MAX_AGE="3000"), program=CVM_DIRECTORY) as server:
        for local in ("foo", "nobody"):
            assert verdict(server.ask(local, "v.example")) == "defer"
        assert "v.example was published by mail.example.org 36" in server.logged("directory-stale")
        assert verdict(server.ask("joe", "example.org")) == "deliver", "that is fresh"
        directory.publish(host.environment)
        assert verdict(server.ask("foo", "v.example")) == "deliver"
    older(directory, "v.example", 10**7)
    with serving(mx(directory, CVM_DIRECTORY_MAX_AGE="0"), program=CVM_DIRECTORY) as server:
        assert verdict(server.ask("foo", "v.example")) == "deliver"


@EACH
def test_a_dead_database_is_a_temporary_failure_and_so_is_one_that_hangs(server: Server, directory: Directory) -> None:
    assert verdict(server.ask("joe")) == "deliver"
    with directory.database.stopped():
        assert verdict(server.ask("joe")) == "defer"
    until(lambda: verdict(server.ask("joe")) == "deliver", "it answers again")
    directory.database.kill()
    for address in ("joe@example.org", "nobody@example.org", "joe@elsewhere.example"):
        local, _, domain = address.partition("@")
        assert verdict(server.ask(local, domain)) == "defer"
    assert server.warned(f"cvm-directory: {directory.database.kind}:")
    directory.database.start()
    until(lambda: verdict(server.ask("joe")) == "deliver", "it works again")


@EACH
def test_without_tables_nothing_is_rejected(directory: Directory) -> None:
    directory.database.sql("DROP TABLE cvm_address; DROP TABLE cvm_domain;", NAME)
    with serving(mx(directory), program=CVM_DIRECTORY) as server:
        assert verdict(server.ask("joe")) == "defer"
        assert "database-tables" in server.logged("joe@example.org")


def test_rows_that_nobody_published(server: Server, directory: Directory) -> None:
    directory.database.sql("UPDATE cvm_domain SET scope = '' WHERE domain = 'v.example';", NAME)
    assert verdict(server.ask("foo", "v.example")) == "defer"
    assert "directory-damaged" in server.logged("foo@v.example")


# -- as a service -------------------------------------------------------------------------------------


@EACH
def test_as_the_services_own_user_in_its_sandbox(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    for file in (directory.files, directory.files / "reader"):
        os.chown(file, *SERVICE)
    with serving(mx(directory), program=CVM_DIRECTORY, as_service=True) as server:
        assert verdict(server.ask("joe")) == "deliver"
        assert verdict(server.ask("nobody")) == "no-mailbox"
        directory.database.kill()
        assert verdict(server.ask("joe")) == "defer"
        directory.database.start()
        until(lambda: verdict(server.ask("joe")) == "deliver", "it works again")
        assert "the sandbox refused" not in server.log.read_text() + server.errors.read_text()


def test_it_needs_no_capability(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    for file in (directory.files, directory.files / "reader"):
        os.chown(file, *SERVICE)
    plain = (*AS_SERVICE[:5], "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    socket = directory.files / "socket"
    with serving(mx(directory), program=CVM_DIRECTORY, wrapper=plain, path=socket) as server:
        assert verdict(server.ask("joe")) == "deliver"
        assert server.warned("directory in mysql")
        server.stop()
        assert "warning" not in server.errors.read_text()


def test_command_mode(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    given = {Credential.ACCOUNT: b"joe", Credential.DOMAIN: b"example.org"}
    done = run(CVM_DIRECTORY, host=mx(directory), data=packets.pack_request(packets.Request(2, b"n", given)))
    assert packets.parse_response(done.stdout).code == done.returncode == 0


def test_as_root_it_says_that_it_need_not_be(server: Server) -> None:
    assert server.warned("warning: running as root: a user of its own without any capability is enough")
    assert server.errors.read_text().count("warning") == 1, "it misses nothing of qmail"


def test_a_dry_run_accepts_what_would_be_rejected(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    with serving(mx(directory, CVM_DRY_RUN="1"), program=CVM_DIRECTORY) as server:
        assert verdict(server.ask("nobody")) == "deliver"
        assert "not-published" in server.logged("nobody@example.org")


def test_wrong_settings_are_named(directory: Directory) -> None:
    for name, value in (
        ("CVM_DIRECTORY_DATABASE", "oracle"),
        ("CVM_DIRECTORY_MAX_AGE", "x"),
        ("CVM_DIRECTORY_SERVERS", ":"),
    ):
        done = run(CVM_DIRECTORY, "cvm-local:" + str(directory.files / "s"), host=mx(directory, **{name: value}))
        assert (done.returncode, name in done.stderr.decode()) == (100, True)


def test_no_password_is_ever_checked(directory: Directory) -> None:
    with serving(Nowhere({**mx(directory).environment}), program=CVM_DIRECTORY, CVM_LOOKUP_SECRET=None) as server:
        assert server.ask("joe", more={Credential.PASSWORD: b"x"}).code != 0
    assert Path(CVM_DIRECTORY).exists()
