"""Domains of users/cdb, and the default domain."""

from __future__ import annotations

import os

import pytest
from hosts import cdb_bytes
from vdomains import UID, VpopmailHost, begun, example

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Domain
from cvm_vpopmail.tables.domains import DefaultDomain, Domains

pytestmark = pytest.mark.root


def test_a_domain_is_what_its_record_says(vhost: VpopmailHost, tables: Tables) -> None:
    assert Domains(tables).get(b"example.com") == example(vhost)


def test_an_alias_domain_is_the_real_one(vhost: VpopmailHost, tables: Tables) -> None:
    assert Domains(tables).get(b"alias.example") == example(vhost)


def test_the_record_of_an_alias_stays_in_force_with_its_own_directory_and_owner(vhost: VpopmailHost) -> None:
    vhost.users(
        f"+example.com-:example.com:{UID}:{UID}:/one:-::", f"+alias.example-:example.com:{UID + 1}:{UID + 2}:/two:-::"
    )
    assert Domains(begun(vhost)).get(b"alias.example") == Domain(b"example.com", UID + 1, UID + 2, b"/two")


@pytest.mark.parametrize("name", [b"", b"example", b"xample.com", b"example.com.", b"example.com-", b"EXAMPLE.COM"])
def test_a_name_without_a_record_of_its_own_is_no_domain(tables: Tables, name: bytes) -> None:
    assert Domains(tables).get(name) is None


def test_a_user_of_qmail_s_is_no_domain(vhost: VpopmailHost) -> None:
    vhost.users(f"=example.com:joe:{UID}:{UID}:/home/joe:::", f"+:joe:{UID}:{UID}:/home/joe:-::")
    assert Domains(begun(vhost)).get(b"example.com") is None


def test_without_a_users_cdb_there_is_no_domain(vhost: VpopmailHost) -> None:
    vhost.users()
    assert Domains(begun(vhost)).get(b"example.com") is None


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"example.com",
        b"example.com\0089",
        b"example.com\00089\00089",
        b"example.com\0x\00089\0/v\0-\0\0",
        b"example.com\00089\0\0/v\0-\0\0",
        b"example.com\0-1\00089\0/v\0-\0\0",
        b"example.com\x0089\x0089\0v/domains\0-\0\0",
        b"example.com\x0089\x0089\0\0-\0\0",
    ],
)
def test_a_record_that_is_damaged_is_temporary(vhost: VpopmailHost, record: bytes) -> None:
    vhost.file("users/cdb", cdb_bytes([(b"!example.com-", record), (b"", b"-")]))
    with pytest.raises(Unavailable) as error:
        Domains(begun(vhost)).get(b"example.com")
    assert error.value.reason == "domain-record"


@pytest.mark.parametrize("data", [b"", b"x", bytes(2047), bytes(4096), b"\xff" * 4096])
def test_a_users_cdb_that_is_damaged_is_temporary(vhost: VpopmailHost, data: bytes) -> None:
    vhost.file("users/cdb", data)
    with pytest.raises(Unavailable):
        Domains(begun(vhost)).get(b"example.com")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("example.com\n", b"example.com"),
        ("Example.COM", b"example.com"),
        ("example.com \t\r\nother\n", b"example.com"),
        ("\nexample.com\n", b""),
        ("", b""),
        (None, b""),
    ],
)
def test_the_default_domain_is_the_first_line(
    vhost: VpopmailHost, tables: Tables, text: str | None, domain: bytes
) -> None:
    if text is not None:
        (vhost.root / "v/etc").mkdir()
        vhost.file("v/etc/defaultdomain", text)
    assert DefaultDomain(tables, os.fsencode(vhost.root / "v"))() == domain


def test_a_default_domain_that_cannot_be_read_is_temporary(vhost: VpopmailHost, tables: Tables) -> None:
    (vhost.root / "v/etc/defaultdomain").mkdir(parents=True)
    with pytest.raises(Unavailable):
        DefaultDomain(tables, os.fsencode(vhost.root / "v"))()
