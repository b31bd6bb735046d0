"""Accounts in databases on several servers: whichever dies, hangs or is behind, no good address is rejected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from clusters import GALERA, Primary, Replica, galera, mariadb_pair, replicated
from databases import ACCOUNT, HASH, NAME, Database, SqlHost, sql_host
from hosts import temporary_directory
from serving import Server, run, until
from sql_load import SOON, ask, load, serving_sql
from vcorpus import CVM_VPOPMAIL

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "rsync", "pg_ctlcluster", "setpriv")]


@contextmanager
def serving_from(host: SqlHost, *servers: Database, **more: Any) -> Iterator[Server]:
    """The module, which asks these servers in this order."""
    places = {"mysql": lambda server: server.socket, "pgsql": lambda server: str(server.directory)}
    words = " ".join(places[server.kind](server) for server in servers)
    with serving_sql(host, CVM_VPOPMAIL_SQL_SERVERS=words, **more) as server:
        yield server


def code(server: Server, name: str) -> int:
    return server.ask(name, "example.com").code


def add(host: SqlHost, name: str) -> None:
    """An account, made at the server that takes changes."""
    home = host.vhost.domains / "example.com/bob"
    host.database.sql(ACCOUNT.format(name=name, home=home, hash=HASH), NAME)


# -- Galera -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not GALERA.exists(), reason="PEER MISSING: galera-4")
def test_a_cluster_that_loses_one_node_after_the_other() -> None:
    with galera() as (first, second, third), temporary_directory() as root:
        host = sql_host(root, first)
        with serving_from(host, third, first) as server, serving_from(host, third) as alone:
            assert [code(server, name) for name in ("bob", "sales", "nobody")] == [0, 0, 100]
            with third.behind():
                add(host, "late")
                assert code(alone, "late") == 4, "not yet there, and not rejected"
                assert " database-lag " in alone.logged("? late@")
                assert (code(alone, "bob"), code(alone, "nobody")) == (0, 4)
                assert (code(server, "late"), code(server, "nobody")) == (0, 100), "the next node knows"
            until(lambda: code(alone, "late") == 0, "it has caught up")
            assert code(alone, "nobody") == 100

        with serving_from(host, second, first) as server, load(server) as clients:
            second.kill()
            killed = time.monotonic()
            clients.well_again(killed)  # rejections, too: when the nodes that are left have found out
            late = [asked for asked in clients.asked if not asked.right and asked.at > killed + SOON]
            assert {asked.name for asked in late} <= {"nobody"}
        add(host, "newcomer")  # which the node that was killed has never heard of
        with serving_from(host, second) as server, ThreadPoolExecutor() as pool:
            joined = pool.submit(second.start)
            said = set()
            while not joined.done():
                said |= {(name, code(server, name)) for name in ("bob", "newcomer", "nobody")}
            joined.result()
            assert not said & {("bob", 100), ("newcomer", 100)}, "while it joins it may not know, but does not reject"
            until(lambda: code(server, "nobody") == 100, "it is in step")
            assert code(server, "newcomer") == 0
        second.kill()
        until(lambda: first.state == "4", "two are left")

        with serving_from(host, third, first) as server:
            assert code(server, "bob") == 0
            first.kill()  # suddenly: the last one has no quorum
            until(lambda: third.state == "0", "the quorum is lost")
            assert [code(server, name) for name in ("bob", "late", "nobody")] == [4, 4, 4]
            with third.stopped():
                assert {ask(server, name).code for name in ("bob", "nobody")} == {4}


# -- a replica of MariaDB ---------------------------------------------------------------------------


def test_a_replica_that_cannot_say_how_far_it_is_behind_needs_the_primary() -> None:
    with mariadb_pair() as (primary, replica), temporary_directory() as root:
        host = sql_host(root, primary)
        until(replica.in_step, "the replica is in step")
        with (
            serving_from(host, replica, CVM_VPOPMAIL_SQL_PRIMARY=primary.socket) as careful,
            serving_from(host, replica) as careless,
        ):
            assert [code(careful, name) for name in ("bob", "sales", "nobody")] == [0, 0, 100]
            with replica.behind():
                add(host, "late")
                assert code(careful, "late") == 0, "the primary knows"
                assert code(careful, "nobody") == 100
                assert code(careless, "late") == 100, "as the documents warn"
                primary.kill()
                assert (code(careful, "bob"), code(careful, "nobody")) == (0, 4), "not confirmed, not rejected"
            primary.start()
            until(lambda: code(careful, "nobody") == 100, "the primary is asked again")
            assert code(careful, "late") == 0
            until(lambda: code(careless, "late") == 0, "it has caught up")


# -- PostgreSQL -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Primary, Replica]]:
    with replicated() as pair:
        yield pair


@pytest.fixture
def host(pair: tuple[Primary, Replica]) -> Iterator[SqlHost]:
    primary, replica = pair
    with temporary_directory() as root:
        host = sql_host(root, primary)
        until(replica.in_step, "the replica is in step")
        yield host


LAG = {"CVM_VPOPMAIL_SQL_MAX_LAG": "4"}


def test_a_replica_that_is_behind_rejects_nobody(host: SqlHost, pair: tuple[Primary, Replica]) -> None:
    primary, replica = pair
    host.database.sql("GRANT pg_read_all_stats TO postgres;", NAME)
    second_look = {"CVM_VPOPMAIL_SQL_PRIMARY": str(primary.directory)}
    with (
        serving_from(host, replica, **LAG) as alone,
        serving_from(host, replica, **second_look) as careful,
        serving_from(host, replica, primary, **LAG) as both,
    ):
        until(lambda: code(alone, "nobody") == 100, "a replica that is in step rejects")
        with replica.behind():
            add(host, "late")
            assert code(careful, "late") == 0, "the primary knows"
            assert code(careful, "nobody") == 100
            until(lambda: code(alone, "late") == 4, "too far behind to reject")
            assert " database-lag " in alone.logged("? late@")
            assert code(alone, "bob") == 0
            assert (code(both, "late"), code(both, "nobody")) == (0, 100), "the next server knows"
        until(lambda: code(alone, "late") == 0, "it has caught up")


def test_the_check_says_that_a_replica_rejects_what_it_has_not_heard_of(
    host: SqlHost, pair: tuple[Primary, Replica]
) -> None:
    def said(**more: str) -> str:
        done = run(CVM_VPOPMAIL, "--check", host=host, CVM_VPOPMAIL_SQL_SERVERS=str(pair[1].directory), **more)
        return done.stdout.decode()

    assert "follows another server" in said()
    assert "set CVM_VPOPMAIL_SQL_PRIMARY" in said()
    assert "set CVM_VPOPMAIL_SQL_PRIMARY" not in said(CVM_VPOPMAIL_SQL_MAX_LAG="60")


def test_how_far_a_replica_is_behind_may_be_unknown(host: SqlHost, pair: tuple[Primary, Replica]) -> None:
    """To a role that may not see when the primary was heard last: an idle primary looks like one that is gone."""
    host.database.sql("REVOKE pg_read_all_stats FROM postgres;", NAME)
    with serving_from(host, pair[1], CVM_VPOPMAIL_SQL_MAX_LAG="1") as server:
        until(lambda: code(server, "nobody") == 4, "nothing has been applied for a second")
        assert code(server, "bob") == 0


def test_a_primary_that_is_killed_and_a_replica_that_is_promoted() -> None:
    with replicated() as (primary, replica), temporary_directory() as root:
        host = sql_host(root, primary)
        host.database.sql("GRANT pg_read_all_stats TO postgres;", NAME)
        until(replica.in_step, "the replica is in step")
        patient = {"CVM_VPOPMAIL_SQL_MAX_LAG": "60"}
        with serving_from(host, primary, replica, **LAG) as server:
            with serving_from(host, primary, replica, **patient) as other, load(other) as clients:
                primary.kill()
                assert clients.well_again(time.monotonic()) < SOON
            until(lambda: code(server, "nobody") == 4, "it may be behind by now")
            assert code(server, "bob") == 0
            replica.sql("SELECT pg_promote();")
            until(lambda: code(server, "nobody") == 100, "it leads")
