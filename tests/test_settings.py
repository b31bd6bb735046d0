"""Environment to settings: each variable with its default, its meaning, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cvm_qmail.settings import SETTINGS, BadSetting, Setting, Settings, number, path, read


def of(**variables: str) -> Settings:
    return Settings.from_environment(variables)


def test_the_defaults_are_qmails_and_the_c_programs() -> None:
    plain = of()
    assert (plain.qmail_root, plain.lookup_secret, plain.socket_mode) == (b"/var/qmail", None, 0o777)
    assert (plain.local_timeout, plain.lookup_timeout, plain.log) == (1.0, 5.0, "text")
    assert (plain.breakchar, plain.alias, plain.mask) == (b"-", b"alias", 0o002)
    assert (plain.assume_local, plain.missing_domain, plain.missing_user) == (False, None, b"alias")
    assert (plain.lookaside, plain.denied_is_permanent, plain.programs, plain.passwd) == (
        frozenset(),
        False,
        None,
        None,
    )
    assert (plain.socket_owner, plain.socket_group) == (None, None)
    assert plain.workers == max(2, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("QMAIL_ROOT", "/srv/qmail/", "qmail_root", b"/srv/qmail"),
        ("QMAIL_ROOT", "/", "qmail_root", b"/"),
        ("QMAIL_ROOT", "", "qmail_root", b"/var/qmail"),
        ("QMAIL_ROOT", "/\udcff", "qmail_root", b"/\xff"),
        ("CVM_LOOKUP_SECRET", "", "lookup_secret", b""),
        ("CVM_LOOKUP_SECRET", "word", "lookup_secret", b"word"),
        ("CVM_SOCKET_MODE", "0700", "socket_mode", 0o700),
        ("CVM_SOCKET_MODE", "0", "socket_mode", 0),
        ("CVM_SOCKET_OWNER", "joe", "socket_owner", "joe"),
        ("CVM_SOCKET_OWNER", "", "socket_owner", None),
        ("CVM_SOCKET_GROUP", "mail", "socket_group", "mail"),
        ("CVM_LOCAL_TIMEOUT", "250", "local_timeout", 0.25),
        ("CVM_LOCAL_TIMEOUT", "0", "local_timeout", 1.0),
        ("CVM_LOCAL_TIMEOUT", "", "local_timeout", 1.0),
        ("CVM_LOCAL_TIMEOUT", "000000000000250", "local_timeout", 0.25),
        ("CVM_LOOKUP_TIMEOUT", "1", "lookup_timeout", 0.001),
        ("CVM_WORKERS", "1", "workers", 1),
        ("CVM_LOG", "json", "log", "json"),
        ("CVM_QMAIL_ASSUME_LOCAL", "", "assume_local", True),
        ("CVM_QMAIL_ASSUME_LOCAL", "0", "assume_local", True),
        ("CVM_QMAIL_MISSINGDOMAIN", "", "missing_domain", b"localhost"),
        ("CVM_QMAIL_MISSINGDOMAIN", "lost.example", "missing_domain", b"lost.example"),
        ("CVM_QMAIL_MISSINGUSER", "joe", "missing_user", b"joe"),
        ("CVM_QMAIL_LOOKASIDE", "a  b ", "lookaside", frozenset({b"a", b"b"})),
        ("CVM_QMAIL_LOOKASIDE", "a\tb", "lookaside", frozenset({b"a\tb"})),
        ("CVM_QMAIL_LOOKASIDE", "", "lookaside", frozenset()),
        ("CVM_QMAIL_CHECK_PERMS", "-", "denied_is_permanent", True),
        ("CVM_QMAIL_CHECK_PERMS", "-x", "denied_is_permanent", True),
        ("CVM_QMAIL_CHECK_PERMS", "x", "denied_is_permanent", False),
        ("CVM_QMAIL_BREAK", "+", "breakchar", b"+"),
        ("CVM_QMAIL_BREAK", "", "breakchar", b"-"),
        ("CVM_QMAIL_BREAK", "\n", "breakchar", b"\n"),
        ("CVM_QMAIL_ALIAS", "lost", "alias", b"lost"),
        ("CVM_QMAIL_MASK", "022", "mask", 0o022),
        ("CVM_QMAIL_MASK", "0", "mask", 0),
        ("CVM_QMAIL_PROGRAMS", "", "programs", ()),
        ("CVM_QMAIL_PROGRAMS", "a b", "programs", ("a", "b")),
        ("CVM_QMAIL_PROGRAMS", "all", "programs", None),
        ("CVM_SHADOW", "cvm-local:/x", "shadow", "cvm-local:/x"),
        ("CVM_SHADOW", "", "shadow", None),
        ("CVM_DRY_RUN", "0", "dry_run", False),
        ("CVM_DRY_RUN", "", "dry_run", False),
        ("NSS_WRAPPER_PASSWD", "/x", "passwd", "/x"),
        ("NSS_WRAPPER_PASSWD", "", "passwd", None),
    ],
)
def test_a_variable_means_this(name: str, value: str, field: str, expected: Any) -> None:
    assert getattr(of(**{name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QMAIL_ROOT", "var/qmail"),
        ("CVM_SOCKET_MODE", "0778"),
        ("CVM_SOCKET_MODE", "rwx"),
        ("CVM_SOCKET_MODE", "-1"),
        ("CVM_SOCKET_MODE", "10000"),
        ("CVM_SOCKET_MODE", "0777\n"),
        ("CVM_LOCAL_TIMEOUT", "1s"),
        ("CVM_LOCAL_TIMEOUT", "-1"),
        ("CVM_LOCAL_TIMEOUT", " 1"),
        ("CVM_LOCAL_TIMEOUT", "1.5"),
        ("CVM_LOCAL_TIMEOUT", "\u0661"),
        ("CVM_LOCAL_TIMEOUT", "3600001"),
        ("CVM_LOCAL_TIMEOUT", "9" * 5000),
        ("CVM_LOOKUP_TIMEOUT", "0"),
        ("CVM_WORKERS", "0"),
        ("CVM_WORKERS", "1025"),
        ("CVM_LOG", "xml"),
        ("CVM_LOG", "JSON"),
        ("CVM_QMAIL_BREAK", "-+"),
        ("CVM_QMAIL_BREAK", "\u00e4"),
        ("CVM_QMAIL_ALIAS", "a:b"),
        ("CVM_QMAIL_ALIAS", "a/b"),
        ("CVM_QMAIL_MASK", "8"),
        ("CVM_DRY_RUN", "yes"),
    ],
)
def test_a_malformed_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: found "):
        of(**{name: value})


def test_a_dry_run_is_for_lookups_only() -> None:
    assert of(CVM_DRY_RUN="1", CVM_LOOKUP_SECRET="").dry_run
    with pytest.raises(BadSetting, match="CVM_DRY_RUN: found '1', expected CVM_LOOKUP_SECRET as well"):
        of(CVM_DRY_RUN="1")


def test_a_plug_in_finds_its_own_variables() -> None:
    assert of(VPOPMAIL_HOME="/x").environment["VPOPMAIL_HOME"] == "/x"


def test_a_plug_in_declares_its_own_settings() -> None:
    declared = {
        "home": Setting("X_HOME", "/x", path(b"/x"), "a home"),
        "size": Setting("X_SIZE", "1", number(1, 1, 9), ""),
    }
    assert read(declared, {"X_HOME": "/y/"}) == {"home": b"/y", "size": 1}
    with pytest.raises(BadSetting, match="X_SIZE: found '10', expected a whole number from 1 to 9"):
        read(declared, {"X_SIZE": "10"})


def test_every_declaration_belongs_to_a_field() -> None:
    assert {*SETTINGS} == {*Settings._fields} - {"environment"}


def test_without_an_environment_the_processs_own_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMAIL_ROOT", "/srv/q")
    assert Settings.from_environment().qmail_root == b"/srv/q"
