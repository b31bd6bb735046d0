"""Where the database is: etc/vpopmail.mysql, etc/vpopmail.pgsql and the settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import a_folder

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables import Tables
from cvm_qmail.wire import Code
from cvm_vpopmail.sqlconfig import BadFile, Options, Password, Server, parse_mysql, parse_pgsql, servers

READ = b"replica|3307|reader|s3cret|mail\n"
UPDATE = b"primary|0|writer|0ther|mail\n"

REPLICA = Server("replica", 3307, "", "reader", Password(b"s3cret"), "mail")
PRIMARY = Server("primary", 0, "", "writer", Password(b"0ther"), "mail")


# -- MySQL ------------------------------------------------------------------------------------------


def test_without_replication_the_line_for_updating_is_the_one_that_is_asked() -> None:
    assert parse_mysql(b"# accounts\n\n" + READ + b"# updates\n" + UPDATE, replica=False) == [PRIMARY]


def test_with_replication_the_line_for_reading_is_asked_first() -> None:
    assert parse_mysql(READ + UPDATE + b"a third line\n", replica=True) == [REPLICA, PRIMARY]


@pytest.mark.parametrize("replica", [False, True])
def test_one_line_is_for_both(replica: bool) -> None:
    assert parse_mysql(READ, replica=replica) == [REPLICA]


def test_a_port_that_starts_with_a_slash_is_a_socket() -> None:
    (server,) = parse_mysql(b"localhost|/run/mysqld/mysqld.sock|u|p|d", replica=False)
    assert (server.socket, server.port, server.name) == ("/run/mysqld/mysqld.sock", 0, "/run/mysqld/mysqld.sock")


def test_empty_fields_are_skipped_so_that_a_later_one_takes_their_place() -> None:
    (server,) = parse_mysql(b"|host||0|user|pass||database|more\n", replica=False)
    assert server == Server("host", 0, "", "user", Password(b"pass"), "database")


def test_a_password_may_be_any_bytes() -> None:
    (server,) = parse_mysql(b"h|0|u|p\xe4 \\'\"|d\n", replica=False)
    assert server.password.value == b"p\xe4 \\'\""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "no line that is not a comment"),
        (b"# nothing\n\n", "no line that is not a comment"),
        (b"#\n\nhost|0|user||database\n", "line 3: found 4 fields that are not empty"),
        (READ + b"primary\n", "line 2: found 1 field that"),
        (b"h|99999|u|s3cret|d", "line 1: found port 99999"),
        (b"h\xff|0|u|s3cret|d", "line 1: found a host that is not UTF-8"),
        (b"h|0|u|s3cret" + b"x" * 2000 + b"|d", "line 1: found a NUL or more than 1024 bytes"),
        (b"h|0|u|s3cret\0|d", "line 1: found a NUL"),
    ],
)
def test_an_error_tells_the_line_and_what_was_expected_and_no_password(text: bytes, found: str) -> None:
    with pytest.raises(BadFile) as raised:
        parse_mysql(text, replica=False)
    assert found in str(raised.value)
    assert "expected" in str(raised.value)
    assert "s3cret" not in str(raised.value)


# -- PostgreSQL -------------------------------------------------------------------------------------


def test_a_host_with_a_slash_is_the_folder_of_the_socket() -> None:
    (server,) = parse_pgsql(b"# accounts\n/run/postgresql|5433|vpop|s3cret|mail\nanother|line\n", replica=False)
    assert server == Server("/run/postgresql", 5433, "", "vpop", Password(b"s3cret"), "mail")


@pytest.mark.parametrize("text", [b"||||\n", b"|\n"])
def test_empty_fields_take_vpopmail_s_own_values(text: bytes) -> None:
    assert parse_pgsql(text, replica=False) == [Server("", 0, "", "postgres", Password(b""), "vpopmail")]


@pytest.mark.parametrize(
    ("text", "found"),
    [(b"#\n", "no line"), (b"h|five|u|s3cret|d", "line 1: found a port"), (b"h|65536|u|p|d", "65536")],
)
def test_an_error_of_the_other_file_tells_as_much(text: bytes, found: str) -> None:
    with pytest.raises(BadFile, match=found) as raised:
        parse_pgsql(text, replica=False)
    assert "s3cret" not in str(raised.value)


# -- passwords --------------------------------------------------------------------------------------


def test_a_password_never_shows() -> None:
    assert "s3cret" not in repr(REPLICA)
    assert "s3cret" not in f"{REPLICA} {REPLICA.password!s} {REPLICA._asdict()}"


# -- settings ---------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Iterator[Path]:
    with a_folder() as folder:
        (folder / "etc").mkdir()
        yield folder


def asked(directory: Path, backend: str = "mysql", **variables: str) -> list[Server]:
    settings = Settings.from_environment({"QMAIL_ROOT": str(directory), **variables})
    return servers(Tables(settings), Options.from_settings(settings, backend, os.fsencode(directory)))


def test_the_file_is_vpopmail_s_own(directory: Path) -> None:
    (directory / "etc/vpopmail.mysql").write_bytes(READ + UPDATE)
    assert asked(directory) == [PRIMARY]
    assert asked(directory, CVM_VPOPMAIL_SQL_REPLICA="1") == [REPLICA, PRIMARY]


def test_the_credentials_may_have_a_file_of_their_own(directory: Path) -> None:
    (directory / "etc/vpopmail.mysql").write_bytes(UPDATE)
    (directory / "reader").write_bytes(READ)
    assert asked(directory, CVM_VPOPMAIL_SQL_FILE=str(directory / "reader")) == [REPLICA]


def test_several_servers_are_tried_in_the_order_of_the_setting_with_the_file_s_credentials(directory: Path) -> None:
    (directory / "etc/vpopmail.mysql").write_bytes(READ)
    found = asked(directory, CVM_VPOPMAIL_SQL_SERVERS="/run/a.sock db2 [2001:db8::1]:3310")
    assert [server.name for server in found] == ["/run/a.sock", "db2:3307", "[2001:db8::1]:3310"]
    assert {(server.user, server.password.value, server.database) for server in found} == {
        ("reader", b"s3cret", "mail")
    }


def test_a_socket_of_postgresql_is_named_by_its_folder(directory: Path) -> None:
    (directory / "etc/vpopmail.pgsql").write_bytes(b"db1|5433|u|p|d\n")
    found = asked(directory, "pgsql", CVM_VPOPMAIL_SQL_SERVERS="/run/postgresql db2:5432")
    assert [(server.host, server.port) for server in found] == [("/run/postgresql", 5433), ("db2", 5432)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1:port"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1:99999"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1|0|u|p|d"),
        ("CVM_VPOPMAIL_SQL_FILE", "vpopmail.mysql"),
        ("CVM_VPOPMAIL_SQL_CA", "ca.pem"),
        ("CVM_VPOPMAIL_SQL_TLS", "maybe"),
        ("CVM_VPOPMAIL_SQL_CHARSET", "utf8'; --"),
        ("CVM_VPOPMAIL_CACHE", "-1"),
        ("CVM_VPOPMAIL_CACHE_SIZE", "0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(directory: Path, name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"{name}: found "):
        asked(directory, **{name: value})


@pytest.mark.parametrize("text", [None, b"host|0|user\n"])
def test_a_file_that_is_missing_or_wrong_is_a_trouble_of_the_configuration(directory: Path, text: bytes | None) -> None:
    if text is not None:
        (directory / "etc/vpopmail.mysql").write_bytes(text)
    with pytest.raises(Unavailable) as raised:
        asked(directory)
    assert (raised.value.reason, raised.value.code) == ("database-settings", Code.CONFIG)
    assert "expected" in raised.value.detail
    assert raised.value.where == os.fsencode(directory / "etc/vpopmail.mysql")


def test_a_trace_does_not_show_the_file(directory: Path) -> None:
    (directory / "etc/vpopmail.mysql").write_bytes(READ)
    settings = Settings.from_environment({"QMAIL_ROOT": str(directory)})
    noted: list[object] = []
    tables = Tables(settings, note=lambda *all_of_it: noted.append(all_of_it))
    servers(tables, Options.from_settings(settings, "mysql", os.fsencode(directory)))
    assert noted
    assert "s3cret" not in repr(noted)
