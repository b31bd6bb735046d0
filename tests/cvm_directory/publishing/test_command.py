"""cvmctl publish: only what has changed, a domain at once, and never an empty one by mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import PASSWORD, Database, network
from directories import NAME, Directory, made
from hosts import Host
from serving import PATIENCE

from cvm_directory.publishing import clients, database, publisher
from cvm_directory.publishing.database import DirectoryDatabase
from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Lookup

CVMCTL = Path(sys.executable).with_name("cvmctl")

EACH = pytest.mark.parametrize("directory", ["mariadb", "postgresql"], indirect=True)

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]


def done(said: subprocess.CompletedProcess[str]) -> str:
    """What was done, where all went well."""
    assert (said.returncode, said.stderr) == (0, "")
    return said.stdout.splitlines()[0]


def verdict(lookup: Lookup, address: str) -> str:
    local, _, domain = address.encode().rpartition(b"@")
    try:
        return lookup(Recipient(local, domain)).verdict.word
    except Unavailable as error:
        return error.reason


def times(directory: Directory) -> dict[str, tuple[str, str]]:
    """When each domain was published, and changed."""
    rows = [row.split("|") for row in directory.rows("domain, published, changed", "cvm_domain")]
    return {domain: (published, changed) for domain, published, changed in rows}


def older(directory: Directory, seconds: int = 100) -> None:
    """All that is published was published so long before."""
    span = f"INTERVAL {seconds} SECOND" if directory.database.kind == "mysql" else f"INTERVAL '{seconds} seconds'"
    directory.database.sql(f"UPDATE cvm_domain SET published = published - {span}, changed = changed - {span};", NAME)


@EACH
def test_a_host_is_published(directory: Directory, host: Host) -> None:
    assert done(directory.publish(host.environment)) == (
        "4 domains published, 0 unchanged, 0 removed; 17 addresses added, 0 removed"
    )
    assert [row for row in directory.rows() if row.startswith("v.example")] == [
        "v.example|foo|+",
        "v.example|list-*|+",
        "v.example|list-default|+",
    ]
    assert directory.rows("domain, scope, percenthack, endings, addresses, host", "cvm_domain") == [
        "*.w.example|all|0||3|mail.example.org",
        "example.org|all|0|-|11|mail.example.org",
        "not.w.example|none|0||0|mail.example.org",
        "v.example|all|0|-|3|mail.example.org",
    ]


def test_a_domain_that_nobody_has_is_named(directory: Directory, host: Host) -> None:
    said = directory.publish(host.environment, "mistyped.example", "v.example")
    assert said.returncode == 100
    assert "mistyped.example: not published, and stays as it is: this host does not have it" in said.stderr
    assert [*times(directory)] == ["v.example"]


@EACH
def test_only_what_has_changed_is_written(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    older(directory)
    before = times(directory)
    host.file("home/joe/.qmail-new", uid=5001, gid=5001)
    host.file("home/joe/.qmail-foo").unlink()
    assert done(directory.publish(host.environment)) == (
        "2 domains published, 2 unchanged, 0 removed; 2 addresses added, 2 removed"
    )
    after = times(directory)
    assert {name for name in after if after[name][1] != before[name][1]} == {"example.org", "v.example"}
    assert {name for name in after if after[name][0] > before[name][0]} == {*before}, "all are fresh"
    lookup = directory.lookup()
    assert [verdict(lookup, f"{name}@v.example") for name in ("new", "foo")] == ["accepted", "rejected"]
    assert done(directory.publish(host.environment)).startswith("0 domains published, 4 unchanged")


@EACH
def test_a_large_domain_is_read_and_written_in_parts(
    directory: Directory, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here of two rows each; wherever the changes are, the directory is then what a new one would be."""
    for module, name in (
        (clients, "PAGE"),
        (database, "BATCH"),
        (database, "BULK"),
        (publisher, "BATCH"),
        (publisher, "BULK"),
    ):
        monkeypatch.setattr(module, name, 2)
    homes = [host.root / f"home/joe/.qmail-{name}" for name in "abcdefghij"]
    for some in (homes[:7], homes[3:], homes[::2], homes):
        for file in homes:
            file.unlink(missing_ok=True)
        for file in some:
            host.file(str(file.relative_to(host.root)), uid=5001, gid=5001)
        assert directory.publish(host.environment, "--force").returncode == 0
        listed = {row.split("|")[1] for row in directory.rows() if row.startswith("v.example|")}
        assert listed == {"foo", "list-*", "list-default", *(file.name.removeprefix(".qmail-") for file in some)}
    assert done(directory.publish(host.environment)).startswith("0 domains published, 4 unchanged")


def test_postgresql_learns_at_once_that_much_has_changed(
    postgresql: Database, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it reads whole parts of an index for an answer until its own maintenance comes round."""
    known = "SELECT reltuples FROM pg_class WHERE relname = 'cvm_address';"
    with made(postgresql) as directory:
        directory.publish(host.environment)
        assert int(directory.database.sql(known, NAME)) != 18
        monkeypatch.setattr(publisher, "MANY", 1)
        host.file("home/joe/.qmail-new", uid=5001, gid=5001)
        assert done(directory.publish(host.environment, "v.example")).endswith("1 addresses added, 0 removed")
        assert int(directory.database.sql(known, NAME)) == 18


@EACH
def test_a_dry_run_says_what_it_would_do(directory: Directory, host: Host) -> None:
    assert done(directory.publish(host.environment, "--dry-run")).startswith("4 domains would be published")
    assert directory.rows("domain, host", "cvm_domain") == []
    directory.publish(host.environment)
    older(directory)
    before = directory.rows("*", "cvm_domain"), directory.rows()
    host.file("home/joe/.qmail-new", uid=5001, gid=5001)
    assert done(directory.publish(host.environment, "--dry-run")) == (
        "2 domains would be published, 2 unchanged, 0 would be removed; 2 addresses would be added, 0 would be removed"
    )
    assert (directory.rows("*", "cvm_domain"), directory.rows()) == before


def test_a_domain_that_loses_more_than_half_is_refused(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    before = directory.rows()
    host.control("virtualdomains", "v.example:ann-nothing\n.w.example:ann\nnot.w.example:\n")
    host.file("home/ann/.qmail-default").unlink()
    said = directory.publish(host.environment)
    assert said.returncode == 100
    assert "v.example: not published, and stays as it is: it had 3 addresses, and has 0 now (--force" in said.stderr
    assert [row for row in directory.rows() if row.startswith("v.example")] == [
        row for row in before if row.startswith("v.example")
    ]
    said = directory.publish(host.environment, "--force", "v.example")
    assert said.returncode == 0
    assert not [row for row in directory.rows() if row.startswith("v.example")]
    assert [row for row in directory.rows() if row.startswith("*.w.example")], "not asked for, so not forced"


def test_half_is_not_more_than_half(directory: Directory, host: Host) -> None:
    for name in ("a", "b", "c"):
        host.file(f"home/joe/.qmail-{name}", uid=5001, gid=5001)
    directory.publish(host.environment)
    for name in ("a", "b", "c"):
        (host.root / f"home/joe/.qmail-{name}").unlink()
    assert "3 removed" in done(directory.publish(host.environment, "v.example"))


def test_a_domain_that_the_host_does_not_know_any_more_is_refused(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    host.control("virtualdomains", ".w.example:ann\nnot.w.example:\n")
    said = directory.publish(host.environment)
    assert said.returncode == 100
    assert "v.example: not published, and stays as it is: this host does not have it any more; 3 " in said.stderr
    assert "1 removed" in done(directory.publish(host.environment, "--force"))
    assert verdict(directory.lookup(), "foo@v.example") == "out of scope"


def test_a_temporary_failure_keeps_its_domain_from_being_published(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    older(directory)
    before = times(directory)
    host.file("home/joe/.qmail-foo", mode=0o666, uid=5001, gid=5001)  # everybody may write it: qmail-local defers
    host.file("home/ann/.qmail-new", uid=5002, gid=5002)
    said = directory.publish(host.environment)
    assert said.returncode == 111
    assert "v.example: not published, and stays as it is: 1 of its addresses are temporary failures" in said.stderr
    assert "joe-foo@example.org: temporary failure: " in said.stderr
    after = times(directory)
    assert {name for name in after if after[name] != before[name]} == {"*.w.example", "not.w.example"}
    lookup = directory.lookup(CVM_DIRECTORY_MAX_AGE="50")
    assert verdict(lookup, "foo@v.example") == "directory-stale"
    assert verdict(lookup, "new@some.w.example") == "accepted"


def test_a_home_that_cannot_be_listed_keeps_its_domains_from_being_published(
    directory: Directory, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.publish(host.environment)
    monkeypatch.setattr("cvm_qmail.cvmctl.host.files.NAMES_LIMIT", 1)
    said = directory.publish(host.environment)
    assert said.returncode == 111
    refused = re.findall(r"^cvmctl: (\S+): not published", said.stderr, re.MULTILINE)
    assert refused == ["example.org", "v.example"], "joe has more names than can be listed, ann has not"


def test_temporary_failures_are_published_where_the_administrator_says_so(directory: Directory, host: Host) -> None:
    host.file("home/joe/.qmail-foo", mode=0o666, uid=5001, gid=5001)
    done_ = directory.publish(host.environment, "--unknown", "include")
    assert done_.returncode == 0
    lookup = directory.lookup()
    assert verdict(lookup, "foo@v.example") == "published-unknown"
    assert verdict(lookup, "list-x@v.example") == "accepted"


def test_what_a_catch_all_does_not_take_is_published_too(directory: Directory, host: Host) -> None:
    host.file("alias/.qmail-default", uid=5090, gid=5099)
    host.file("alias/.qmail-closed", "|exit 100\n", uid=5090, gid=5099)
    directory.publish(host.environment)
    lookup = directory.lookup()
    asked = ["anybody", "closed", "joe-nothing", "joe-list-x"]
    assert [verdict(lookup, f"{name}@example.org") for name in asked] == [
        "accepted",
        "rejected",
        "rejected",
        "accepted",
    ]


# -- several publishers -------------------------------------------------------------------------------


@EACH
def test_two_hosts_publish_different_domains(directory: Directory, host: Host) -> None:
    directory.publish(host.environment, "v.example", name="one")
    directory.publish(host.environment, "example.org", name="two")
    rows = directory.rows("domain, host, addresses", "cvm_domain")
    assert rows == ["example.org|two|11", "v.example|one|3"]
    host.control("virtualdomains", "v.example:joe\n")
    host.control("locals", "")
    assert "1 unchanged, 0 removed" in done(directory.publish(host.environment, name="one"))
    assert directory.rows("domain, host, addresses", "cvm_domain") == rows, "what another host has published stays"


def test_a_domain_of_another_host_is_refused(directory: Directory, host: Host) -> None:
    directory.publish(host.environment, name="one")
    said = directory.publish(host.environment, "v.example", name="two")
    assert said.returncode == 100
    assert "v.example: not published, and stays as it is: one has published it (--force takes it over)" in said.stderr
    assert directory.publish(host.environment, "--force", "v.example", name="two").returncode == 0
    assert "v.example|two" in directory.rows("domain, host", "cvm_domain")


@EACH
def test_two_publishers_at_the_same_time_take_turns(directory: Directory, host: Host) -> None:
    for name in "abcdefgh":
        host.file(f"home/joe/.qmail-{name}", uid=5001, gid=5001)
        env = {**directory.environment("publisher"), **host.environment}
        both = [subprocess.Popen([CVMCTL, "publish"], env=env, stderr=subprocess.PIPE) for _ in range(2)]
        said = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in both]
        assert said == [(b"", 0)] * 2
        assert f"v.example|{name}|+" in directory.rows()


# -- transactions -------------------------------------------------------------------------------------


@EACH
def test_a_reader_never_sees_half_a_domain(directory: Directory, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a publication that replaces all addresses by a catch-all, and of one that does the reverse."""
    directory.publish(host.environment)
    seen: list[str] = []
    lookup = directory.lookup()

    def watched(method: Callable[..., None]) -> Callable[..., None]:
        def watching(*given: object) -> None:
            method(*given)
            seen.extend(verdict(lookup, address) for address in ("foo@v.example", "list-x@v.example"))

        return watching

    for name in ("remove", "add", "write_domain"):
        monkeypatch.setattr(DirectoryDatabase, name, watched(getattr(DirectoryDatabase, name)))
    for change in ("ann", "joe"):
        host.control("virtualdomains", f"v.example:{change}\n.w.example:ann\nnot.w.example:\n")
        directory.publish(host.environment, "--force", "v.example")
    assert len(seen) >= 12
    assert set(seen) == {"accepted"}


@EACH
def test_a_publication_that_fails_in_the_middle_leaves_the_domain_as_it_was(
    directory: Directory, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.publish(host.environment)
    before = directory.rows(), directory.rows("*", "cvm_domain")
    host.control("virtualdomains", "v.example:ann\n.w.example:ann\nnot.w.example:\n")
    kill = {
        "mysql": "SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE user = 'publisher';",
        "pgsql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'publisher';",
    }[directory.database.kind]
    remove = DirectoryDatabase.remove

    def cut(database: DirectoryDatabase, domain: str, names: list[str]) -> None:
        remove(database, domain, names)
        said = directory.database.sql(kill)
        if directory.database.kind == "mysql":
            directory.database.sql(said)

    monkeypatch.setattr(DirectoryDatabase, "remove", cut)
    said = directory.publish(host.environment, "--force", "v.example")
    assert said.returncode == 111
    assert "database-error" in said.stderr
    assert (directory.rows(), directory.rows("*", "cvm_domain")) == before


# -- one address --------------------------------------------------------------------------------------


@EACH
def test_one_address_is_published_alone(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    older(directory)
    before = times(directory)
    new = host.file("home/joe/.qmail-new", uid=5001, gid=5001)
    assert done(directory.publish(host.environment, "new@V.example")) == "new@V.example: added"
    assert done(directory.publish(host.environment, "new@v.example")) == "new@v.example: nothing has changed"
    assert verdict(directory.lookup(), "new@v.example") == "accepted"
    assert verdict(directory.lookup(), "joe-new@example.org") == "rejected", "that is another address"
    assert {name: published for name, (published, _) in times(directory).items()} == {
        name: published for name, (published, _) in before.items()
    }
    new.unlink()
    assert done(directory.publish(host.environment, "new@v.example")) == "new@v.example: removed"
    assert verdict(directory.lookup(), "new@v.example") == "rejected"
    assert done(directory.publish(host.environment)).startswith("1 domains published, 3 unchanged, 0 removed; 0 addr")
    assert "v.example|3" in directory.rows("domain, addresses", "cvm_domain")


def test_one_address_that_a_catch_all_does_not_take(directory: Directory, host: Host) -> None:
    host.file("home/joe/.qmail-default", uid=5001, gid=5001)
    directory.publish(host.environment)
    closed = host.file("home/joe/.qmail-closed", "|exit 100\n", uid=5001, gid=5001)
    assert done(directory.publish(host.environment, "closed@v.example")) == "closed@v.example: added"
    assert verdict(directory.lookup(), "closed@v.example") == "rejected"
    closed.unlink()
    directory.publish(host.environment, "closed@v.example")
    assert verdict(directory.lookup(), "closed@v.example") == "accepted"


def test_one_address_of_a_domain_that_is_not_published_is_refused(directory: Directory, host: Host) -> None:
    said = directory.publish(host.environment, "foo@v.example")
    assert said.returncode == 100
    assert "has not published the domain" in said.stderr


# -- what ends it -------------------------------------------------------------------------------------


@EACH
def test_a_database_that_does_not_answer_is_a_temporary_failure(directory: Directory, host: Host) -> None:
    directory.database.kill()
    env = {**directory.environment("publisher"), **host.environment}
    said = subprocess.run([CVMCTL, "publish"], env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert said.returncode == 111
    assert "database-down" in said.stderr
    assert said.stderr.count("\n") == 1


@EACH
def test_a_server_that_offers_no_tls_is_not_used_where_it_is_demanded(directory: Directory, host: Host) -> None:
    with network(directory.database.socket) as way:
        file = directory.files / "tcp"
        file.write_text(f"127.0.0.1|{way.port}|publisher|{PASSWORD}|{NAME}\n")
        env = {"CVM_DIRECTORY_FILE": str(file), "CVM_DIRECTORY_TLS": "on"}
        said = directory.publish(host.environment, **env)
        assert said.returncode == 111
        assert re.search("TLS|SSL", said.stderr)
    assert directory.rows("domain, host", "cvm_domain") == []


@EACH
def test_an_account_that_may_not_write_is_an_error_that_says_so(directory: Directory, host: Host) -> None:
    said = directory.publish(host.environment, CVM_DIRECTORY_FILE=str(directory.files / "reader"))
    assert said.returncode == 111
    assert re.search("denied", said.stderr)


@EACH
def test_the_tables_are_made_where_that_is_asked_for(directory: Directory, host: Host) -> None:
    directory.database.sql("DROP TABLE cvm_address; DROP TABLE cvm_domain;", NAME)
    assert directory.publish(host.environment).returncode == 111
    assert done(directory.publish(host.environment, "--create")).startswith("4 domains published")
    assert done(directory.publish(host.environment, "--create")).startswith("0 domains published, 4 unchanged")


def test_a_host_that_answers_for_every_domain_has_nothing_to_publish(directory: Directory, host: Host) -> None:
    assert directory.publish(host.environment, CVM_QMAIL_ASSUME_LOCAL="").returncode == 111


def test_its_name_is_that_of_control_me(directory: Directory, host: Host) -> None:
    directory.publish(host.environment, name="")
    assert "v.example|mx.example.org" in directory.rows("domain, host", "cvm_domain")


def test_a_host_without_a_name_is_an_error_that_says_so(directory: Directory, host: Host) -> None:
    Path(host.root / "control/me").unlink()
    said = directory.publish(host.environment, name="")
    assert (said.returncode, "CVM_DIRECTORY_HOST" in said.stderr) == (100, True)


@EACH
def test_names_that_no_table_could_hold_as_they_are(directory: Directory, host: Host) -> None:
    odd = b"joe-\xe9\\x*y"
    (host.root / "home/joe" / b"-".join([b".qmail", odd[4:]]).decode("utf-8", "surrogateescape")).touch()
    directory.publish(host.environment)
    assert directory.lookup()(Recipient(odd, b"example.org")).verdict is Verdict.ACCEPTED
    assert directory.lookup()(Recipient(odd.replace(b"*", b"z"), b"example.org")).verdict is Verdict.REJECTED
