"""What databases do to servers: they die, hang, are full, locked, changed.

Every answer meanwhile is right or temporary.
"""

from __future__ import annotations

import os
import time

import pytest
from databases import NAME, SqlHost, full_port, network
from serving import serving, until
from sql_load import RIGHT, SETTINGS, SOON, ask, load, serving_sql

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]


# -- it dies, it hangs ------------------------------------------------------------------------------


def test_a_database_that_is_killed_and_started_again(host: SqlHost) -> None:
    with serving_sql(host) as server, load(server) as clients:
        host.database.kill()
        until(lambda: clients.temporary > 20, "temporary answers")
        host.database.start()
        assert clients.well_again(time.monotonic()) < SOON


def test_a_database_that_hangs(host: SqlHost) -> None:
    with serving_sql(host) as server, load(server) as clients:
        with host.database.stopped():
            until(lambda: clients.temporary > 20, "temporary answers")
            back = time.monotonic()
        assert clients.well_again(back) < SOON


def test_a_network_that_swallows_everything(host: SqlHost) -> None:
    with network(host.database.socket) as way:
        host.use(port=way.port)
        with serving_sql(host) as server, load(server) as clients:
            with way.swallowing():
                until(lambda: clients.temporary > 20, "temporary answers")
                back = time.monotonic()
            assert clients.well_again(back) < SOON


def test_a_port_that_swallows_whoever_knocks(host: SqlHost) -> None:
    with full_port() as port:
        host.use(port=port)
        with serving_sql(host) as server, load(server) as clients:
            until(lambda: clients.temporary > 60, "temporary answers")
            assert "database-slow" in server.logged("database-slow")


def test_a_table_that_is_locked(host: SqlHost) -> None:
    with serving_sql(host) as server, load(server) as clients:
        with host.database.locked():
            until(lambda: clients.temporary > 20, "temporary answers")
            until(
                lambda: ask(server, "sales").right, "that table is not locked"
            )  # a worker may not have connected again
            back = time.monotonic()
        assert clients.well_again(back) < SOON


# -- it refuses -------------------------------------------------------------------------------------


def test_a_database_that_takes_no_more_connections(host: SqlHost) -> None:
    full = {
        "mysql": "ALTER USER vpopmail@'%' WITH MAX_USER_CONNECTIONS {};",
        "pgsql": "ALTER ROLE postgres CONNECTION LIMIT {};",
    }[host.database.kind]
    host.database.sql(full.format(1))
    with serving_sql(host, CVM_WORKERS="1") as first:
        until(lambda: ask(first, "bob").right, "it has a connection")  # those of earlier servers may still be ending
        try:
            with serving_sql(host, CVM_WORKERS="1") as second:
                assert ask(second, "bob").code == 4
                assert "database-full" in second.logged("database-full")
                until(lambda: ask(first, "bob").right, "who has one keeps it")  # a spare worker may answer, without one
                first.stop()
                until(lambda: ask(second, "bob").right, "a connection is free")
        finally:
            host.database.sql(full.format({"mysql": 0, "pgsql": -1}[host.database.kind]))


def test_a_wrong_password_is_said_once_never_shown_and_fixed_without_a_restart(host: SqlHost) -> None:
    host.use(password="n0t-the-0ne")
    with serving_sql(host) as server:
        with load(server) as clients:
            until(lambda: clients.temporary > 60, "temporary answers")
            assert "database-refused" in server.logged("database-refused")
            said = server.errors.read_text()
            # One for all workers; workers that meet it in the same moment may each say it (notices.py).
            assert 1 <= said.count(f"{host.database.kind}:") <= (os.cpu_count() or 1), "not one for each request"
            host.use()
            assert clients.well_again(time.monotonic()) < SOON
        assert "works again" in server.warned("works again")
        assert "n0t-the-0ne" not in server.log.read_text() + server.errors.read_text()


def test_a_file_that_is_no_more_what_it_was_is_found_when_it_is_needed(host: SqlHost) -> None:
    host.credentials.write_text("localhost|port\n")
    with serving_sql(host) as server:
        assert ask(server, "bob").code == 6
        assert "line 1: found " in server.warned(str(host.credentials))
        host.use()
        assert ask(server, "bob").right


def test_a_table_that_is_dropped_and_comes_back(host: SqlHost) -> None:
    with serving_sql(host) as server, load(server) as clients:
        host.database.sql("ALTER TABLE vpopmail RENAME TO gone;", NAME)
        until(lambda: clients.temporary > 20, "temporary answers")
        assert "database-tables" in server.logged("database-tables")
        assert ask(server, "sales").right
        host.database.sql("ALTER TABLE gone RENAME TO vpopmail;", NAME)
        assert clients.well_again(time.monotonic()) < SOON
        assert server.errors.read_text().count("database-tables") <= 1


def test_aliases_that_were_there_and_are_gone_are_temporary(host: SqlHost) -> None:
    with serving_sql(host) as server:
        assert ask(server, "sales").right
        host.database.sql("DROP TABLE valias;", NAME)
        assert ask(server, "sales").code == 4
        assert ask(server, "bob").code == 4


def test_a_column_that_is_missing(host: SqlHost) -> None:
    with serving_sql(host) as server:
        assert ask(server, "bob").right
        host.database.sql("ALTER TABLE vpopmail DROP COLUMN pw_shell;", NAME)
        assert ask(server, "bob").code == 4
        assert "database-columns" in server.logged("database-columns")


def test_a_right_to_read_that_was_taken_away(host: SqlHost) -> None:
    user = {"mysql": f"SELECT ON {NAME}.* FROM vpopmail@'%'", "pgsql": "SELECT ON vpopmail FROM postgres"}
    with serving_sql(host, CVM_VPOPMAIL_VALIAS="files") as server:
        assert ask(server, "bob").right
        host.database.sql(f"REVOKE {user[host.database.kind]};", NAME)
        until(lambda: ask(server, "bob").code == 4, "the right is gone")  # MariaDB: for new connections
        assert "database-refused" in server.logged("database-refused")


# -- several ----------------------------------------------------------------------------------------


def test_servers_are_tried_in_the_order_configured(host: SqlHost) -> None:
    with network(host.database.socket) as first, network(host.database.socket) as second:
        servers = f"127.0.0.1:{first.port} 127.0.0.1:{second.port}"
        # A quarter of the time for one server: enough for the next to be asked on a machine with other work to do.
        with serving_sql(host, CVM_VPOPMAIL_SQL_SERVERS=servers, CVM_LOOKUP_TIMEOUT="6000") as server:
            with first.swallowing():
                assert ask(server, "bob").right, "in the same request"
                with load(server) as clients:
                    until(lambda: len(clients.asked) > 200, "answers")
                    assert clients.temporary == 0
            assert "gave no answer in time" in server.warned(f"127.0.0.1:{first.port}")
            with second.swallowing():
                until(lambda: ask(server, "bob").right, "the first one again")


def test_two_servers_and_one_database_give_the_same_answers(host: SqlHost) -> None:
    with serving_sql(host) as here, serving_sql(host) as there:
        for name in RIGHT:
            assert here.ask(name, "example.com") == there.ask(name, "example.com")
        host.database.sql("DELETE FROM vpopmail;", NAME)
        assert [here.ask("bob", "example.com").code, there.ask("bob", "example.com").code] == [100, 100]


def test_a_cached_answer_is_the_one_of_this_moment(host: SqlHost) -> None:
    away = "UPDATE vpopmail SET pw_gid = {} WHERE pw_name = 'bob';"
    with serving(host, **{**SETTINGS, "CVM_WORKERS": "1"}) as server:  # the plug-in remembers
        for _ in range(3):
            for _ in range(5):
                assert ask(server, "bob").code == 0
                assert ask(server, "sales").code == 0
            host.database.sql(away.format(16), NAME)
            assert ask(server, "bob").code == 100, "locked"
            host.database.sql(away.format(0), NAME)
        host.database.sql("INSERT INTO valias VALUES ('nobody', 'example.com', '&bob@example.com');", NAME)
        assert ask(server, "nobody").code == 0
        with host.database.stopped():
            assert ask(server, "bob").code == 4
        until(lambda: ask(server, "bob").right, "it is back")
