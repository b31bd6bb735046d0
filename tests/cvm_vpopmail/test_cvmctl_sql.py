"""cvmctl on hosts whose vpopmail accounts are in a database: real servers of both kinds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from calling import called
from databases import NAME, SqlHost
from hosts import load, systems, temporary_directory
from serving import environment
from vcorpus import made
from vhosts import AS_THE_ORIGINALS
from vlisting import unlisted

from cvm_qmail.settings import Settings
from cvm_vpopmail.tables.connection import PAGE

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

CVMCTL = Path(sys.executable).with_name("cvmctl")
HASHES = ("$1$", "testdbpass")
"""What hashes of the corpus begin with, and the database's password."""

SYSTEMS = {
    "mysql-many": "mariadb",
    "mysql-per-domain": "mariadb",
    "mysql-ext": "mariadb",
    "pgsql-many": "postgresql",
    "pgsql-per-domain": "postgresql",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_trace_and_list_say_what_the_server_says(name: str, request: pytest.FixtureRequest) -> None:
    path = next(path for path in systems("vpopmail") if path.stem == name)
    system = load(path)
    with temporary_directory() as root:
        host = made(path, system, root, request.getfixturevalue(SYSTEMS[name]))
        settings = Settings.from_environment({**host.environment, **AS_THE_ORIGINALS})
        missed = unlisted(system, settings, HASHES, traced=20)
    assert missed == (None if name in INCOMPLETE else [])


INCOMPLETE = {"mysql-per-domain"}
"""Of which no list is written: there a domain has no table."""


def listing(host: SqlHost, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return called("list", *arguments, env={**environment(None, {}), **host.environment, **more})


def test_accounts_and_aliases_are_listed(host: SqlHost) -> None:
    host.database.sql("INSERT INTO valias VALUES ('team-default', 'example.com', '&bob@example.com');", NAME)
    host.database.sql("INSERT INTO valias VALUES ('team-default', 'example.com', '&ann@far.example');", NAME)
    done = listing(host, "example.com")
    assert (done.stdout.splitlines(), done.stderr) == (
        ["bob@example.com", "sales@example.com", "team-default@example.com"],
        "",
    )


def test_those_of_another_domain_are_not(host: SqlHost) -> None:
    host.database.sql("INSERT INTO valias VALUES ('other', 'example.net', '&bob@example.com');", NAME)
    assert "other@" not in listing(host).stdout


def test_more_than_a_page_is_listed_whole(host: SqlHost) -> None:
    count = PAGE * 2 + 1
    values = ", ".join(f"('a{number}', 'example.com', '&bob@example.com')" for number in range(count))
    host.database.sql(f"INSERT INTO valias VALUES {values};", NAME)
    assert len(listing(host, "example.com").stdout.splitlines()) == count + 2


def test_exactly_a_page_and_none_are_listed(host: SqlHost) -> None:
    host.database.sql("DELETE FROM valias;", NAME)
    assert listing(host, "example.com").stdout.splitlines() == ["bob@example.com"]
    values = ", ".join(f"('a{number}', 'example.com', '&bob@example.com')" for number in range(PAGE))
    host.database.sql(f"INSERT INTO valias VALUES {values};", NAME)
    assert len(listing(host, "example.com").stdout.splitlines()) == PAGE + 1


def test_a_table_of_aliases_that_is_not_there_has_none(host: SqlHost) -> None:
    """In a process of its own: one that has seen the table takes its absence for an error."""
    host.database.sql("DROP TABLE valias;", NAME)
    done = subprocess.run(
        [CVMCTL, "list", "example.com"],
        env=environment(None, host.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["bob@example.com"]


def test_without_its_accounts_no_list_is_written_or_all_is_taken(host: SqlHost) -> None:
    host.database.sql("DROP TABLE vpopmail;", NAME)
    done = listing(host, "example.com")
    assert (done.returncode, done.stdout) == (111, "")
    assert "temporary failure: database-tables" in done.stderr
    assert "@example.com" in listing(host, "example.com", "--unknown", "include").stdout.splitlines()


def test_a_database_that_cannot_be_asked_gives_no_list(host: SqlHost) -> None:
    host.use(password="wrong")
    done = listing(host, "example.com")
    assert (done.returncode, done.stdout) == (111, "")
    assert "temporary failure: database-refused" in done.stderr
    assert "wrong" not in done.stderr


def test_a_database_that_hangs_is_reported_and_the_command_ends(host: SqlHost) -> None:
    with host.database.stopped():
        done = listing(host, "example.com", CVM_LOOKUP_TIMEOUT="400")
    assert (done.returncode, done.stdout) == (111, "")
    assert "temporary failure: " in done.stderr
