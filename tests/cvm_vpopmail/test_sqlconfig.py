"""Which databases are asked: the settings, and the file with the credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory

from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.credentials import Password, Server
from cvm_vpopmail.dialects import MYSQL, PGSQL, Dialect
from cvm_vpopmail.sqlconfig import Lifetimes, Options, servers

READ = b"replica|3307|reader|s3cret|mail\n"
UPDATE = b"primary|0|writer|0ther|mail\n"

REPLICA = Server("replica", 3307, "", "reader", Password(b"s3cret"), "mail")
PRIMARY = Server("primary", 0, "", "writer", Password(b"0ther"), "mail")


# -- settings ---------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as directory:
        (directory / "etc").mkdir()
        yield directory


def asked(directory: Path, dialect: Dialect = MYSQL, **variables: str) -> list[Server]:
    settings = Settings.from_environment({"QMAIL_ROOT": str(directory), **variables})
    return servers(Tables(settings), Options.from_settings(settings, dialect, os.fsencode(directory)))


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


def test_a_socket_of_postgresql_is_named_by_its_directory(directory: Path) -> None:
    (directory / "etc/vpopmail.pgsql").write_bytes(b"db1|5433|u|p|d\n")
    found = asked(directory, PGSQL, CVM_VPOPMAIL_SQL_SERVERS="/run/postgresql db2:5432")
    assert [(server.host, server.port) for server in found] == [("/run/postgresql", 5433), ("db2", 5432)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1:port"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1:99999"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "db1|0|u|p|d"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "db\udcff"),
        ("CVM_VPOPMAIL_SQL_SERVERS", "/run/\udcff"),
        ("CVM_VPOPMAIL_SQL_FILE", "vpopmail.mysql"),
        ("CVM_VPOPMAIL_SQL_CA", "ca.pem"),
        ("CVM_VPOPMAIL_SQL_CA", "/etc/\udcff"),
        ("CVM_VPOPMAIL_SQL_TLS", "maybe"),
        ("CVM_VPOPMAIL_SQL_CHARSET", "utf8'; --"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(directory: Path, name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"{name}: found "):
        asked(directory, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("CVM_VPOPMAIL_CACHE", "-1"), ("CVM_VPOPMAIL_CACHE_SIZE", "0")])
def test_a_lifetime_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"{name}: found "):
        Lifetimes.from_settings(Settings.from_environment({name: value}))


@pytest.mark.parametrize("text", [None, b"host|0|user\n"])
def test_a_file_that_is_missing_or_wrong_is_temporary_of_the_configuration(directory: Path, text: bytes | None) -> None:
    if text is not None:
        (directory / "etc/vpopmail.mysql").write_bytes(text)
    with pytest.raises(Unavailable) as raised:
        asked(directory)
    assert (raised.value.reason, raised.value.kind) == ("database-settings", Kind.MISCONFIGURED)
    assert "expected" in raised.value.detail
    assert raised.value.where == os.fsencode(directory / "etc/vpopmail.mysql")


def test_a_trace_does_not_show_the_file(directory: Path) -> None:
    (directory / "etc/vpopmail.mysql").write_bytes(READ)
    settings = Settings.from_environment({"QMAIL_ROOT": str(directory)})
    noted: list[object] = []
    tables = Tables(settings, note=lambda *all_of_it: noted.append(all_of_it))
    servers(tables, Options.from_settings(settings, MYSQL, os.fsencode(directory)))
    assert noted
    assert "s3cret" not in repr(noted)
