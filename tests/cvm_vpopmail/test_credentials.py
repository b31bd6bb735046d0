"""vpopmail's own files with credentials: etc/vpopmail.mysql and etc/vpopmail.pgsql."""

from __future__ import annotations

import pytest

from cvm_vpopmail.credentials import BadFile, Password, Server, parse_mysql, parse_pgsql

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
def test_an_error_names_the_line_and_what_was_expected_and_no_password(text: bytes, found: str) -> None:
    with pytest.raises(BadFile) as raised:
        parse_mysql(text, replica=False)
    assert found in str(raised.value)
    assert "expected" in str(raised.value)
    assert "s3cret" not in str(raised.value)


# -- PostgreSQL -------------------------------------------------------------------------------------


def test_a_host_with_a_slash_is_the_directory_of_the_socket() -> None:
    (server,) = parse_pgsql(b"# accounts\n/run/postgresql|5433|vpop|s3cret|mail\nanother|line\n", replica=False)
    assert server == Server("/run/postgresql", 5433, "", "vpop", Password(b"s3cret"), "mail")


@pytest.mark.parametrize("text", [b"||||\n", b"|\n"])
def test_empty_fields_take_vpopmail_s_own_values(text: bytes) -> None:
    assert parse_pgsql(text, replica=False) == [Server("", 0, "", "postgres", Password(b""), "vpopmail")]


@pytest.mark.parametrize(
    ("text", "found"),
    [(b"#\n", "no line"), (b"h|five|u|s3cret|d", "line 1: found a port"), (b"h|65536|u|p|d", "65536")],
)
def test_an_error_of_the_other_file_does_so_too(text: bytes, found: str) -> None:
    with pytest.raises(BadFile, match=found) as raised:
        parse_pgsql(text, replica=False)
    assert "s3cret" not in str(raised.value)


# -- passwords --------------------------------------------------------------------------------------


def test_a_password_never_shows() -> None:
    assert "s3cret" not in repr(REPLICA)
    assert "s3cret" not in f"{REPLICA} {REPLICA.password!s} {REPLICA._asdict()}"
