"""qmail's control files, to the byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.domains import Controls
from cvm_qmail.settings import Settings
from cvm_qmail.tables.control import NAMES, entries, one_line, parse
from cvm_qmail.tables.door import Tables

if TYPE_CHECKING:
    from hosts import Host

# -- one line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"a.example\n", b"a.example"),
        (b"a.example", b"a.example"),
        (b"a.example \t\n", b"a.example"),
        (b"  a.example\n", b"  a.example"),
        (b"a.example\r\n", b"a.example\r"),
        (b"a.example\nb.example\n", b"a.example"),
        (b"#a\n", b"#a"),
        (b"", b""),
        (b"\na.example\n", b""),
        (b" \t\na.example\n", b""),
        (b"a b\n", b"a b"),
        (b"a\0b\n", b"a\0b"),
        (b"A.Example\n", b"A.Example"),
        (b"a\v\f\n", b"a\v\f"),
    ],
)
def test_a_one_line_file_is_its_first_line_without_trailing_blanks(text: bytes, value: bytes) -> None:
    assert one_line(text) == value


# -- many lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"", []),
        (b"\n\n \t\n", []),
        (b"a \t\n", [b"a"]),
        (b" a\n", [b" a"]),
        (b"a\r\n", [b"a\r"]),
        (b"\r\n", [b"\r"]),
        (b"#a\nb\n", [b"b"]),
        (b" #a\n", [b" #a"]),
        (b"a #b\n", [b"a #b"]),
        (b"a\0b\n", [b"a", b"b"]),
        (b"a\0 b \0#c \n", [b"a", b" b ", b"#c"]),
        (b"a\0\n", [b"a", b""]),
        (b"a\0\0b\n", [b"a", b"", b"b"]),
        (b"\0a\nb\n", [b"b"]),
        (b"a\v\n", [b"a\v"]),
    ],
)
def test_a_many_line_file_has_an_entry_a_line(text: bytes, found: list[bytes]) -> None:
    assert entries(text) == found


# -- what they mean together --------------------------------------------------------------------------


def controls(me: bytes | None = b"me.example\n", **files: bytes) -> Controls:
    given = {"locals": None, "envnoathost": None, "percenthack": None, "virtualdomains": None, **files}
    return parse(me, given["envnoathost"], given["locals"], given["percenthack"], given["virtualdomains"])


@pytest.mark.parametrize(
    ("me", "file", "value"),
    [
        (b"me.example\n", b"env.example\n", b"env.example"),
        (b"me.example\n", None, b"me.example"),
        (b"Me.Example \nx\n", None, b"Me.Example"),
        (None, None, b"envnoathost"),
        (b"me.example\n", b"", b""),
        (b"me.example\n", b" \nx\n", b""),
        (b"", None, b""),
    ],
)
def test_envnoathost_is_its_file_then_me_then_its_own_name(me: bytes | None, file: bytes | None, value: bytes) -> None:
    assert parse(me, file, b"", None, None).envnoathost == value


@pytest.mark.parametrize(
    ("me", "names"),
    [
        (b"me.example\n", {b"me.example"}),
        (b"ME.example\nother\n", {b"me.example"}),
        (b"", {b""}),
        (b"#me\n", {b"#me"}),
        (b"a\0B\n", {b"a", b"b"}),
    ],
)
def test_without_locals_me_is_local(me: bytes, names: set[bytes]) -> None:
    assert controls(me).locals == dict.fromkeys(names, True)


def test_an_empty_locals_means_no_local_domain_at_all() -> None:
    assert controls(locals=b"").locals == {}


def test_without_me_and_locals_qmail_does_not_run() -> None:
    with pytest.raises(Unavailable) as error:
        parse(None, b"env\n", None, b"", b"v:joe\n")
    assert error.value.reason == "control"


def test_locals_without_me_will_do() -> None:
    assert controls(None, locals=b"a\n").locals.get(b"a") is not None


@pytest.mark.parametrize("file", ["locals", "percenthack"])
def test_names_are_kept_in_lower_case_of_the_26_letters(file: str) -> None:
    table = getattr(controls(**{file: b"A.Example\n\xc4\n"}), file)
    assert [table.get(name) is not None for name in (b"a.example", b"A.Example", b"\xc4", b"\xe4")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_missing_tables_are_empty() -> None:
    assert (controls().percenthack, controls().virtualdomains) == ({}, {})


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (b"v.example:joe\n", {b"v.example": b"joe"}),
        (b"V.Example:Joe\n", {b"v.example": b"Joe"}),
        (b"v.example:joe:x: y\n", {b"v.example": b"joe:x: y"}),
        (b"v.example:joe \t\n", {b"v.example": b"joe"}),
        (b"v.example:\n", {b"v.example": b""}),
        (b"v.example: \n", {b"v.example": b""}),
        (b"v.example : joe\n", {b"v.example ": b" joe"}),
        (b":joe\n", {b"": b"joe"}),
        (b":\n", {b"": b""}),
        (b"v.example\n", {}),
        (b"#v:joe\n", {}),
        (b"a:1\nA:2\n", {b"a": b"2"}),
        (b"a:1\na:\n", {b"a": b""}),
        (b"a:\na:1\n", {b"a": b"1"}),
        (b"a:1\0b:2\0c\n", {b"a": b"1", b"b": b"2"}),
        (b"a:1\0\n", {b"a": b"1"}),
        (b"joe@a:x\n", {b"joe@a": b"x"}),
        (b"a:joe\r\n", {b"a": b"joe\r"}),
    ],
)
def test_virtualdomains_is_names_and_values(text: bytes, table: dict[bytes, bytes]) -> None:
    assert controls(virtualdomains=text).virtualdomains == table


# -- on a real host -----------------------------------------------------------------------------------


def now(tables: Tables) -> Controls:
    """The controls for the next request."""
    tables.request()
    return tables.controls()


def tables_of(host: Host) -> Tables:
    return Tables(Settings.from_environment(host.environment))


def test_the_files_are_read_as_they_are_now(host: Host) -> None:
    tables = tables_of(host)
    assert now(tables).locals == {b"example.org": True}
    for name, text in zip(NAMES, ("me", "env", "loc", "perc", "virt:joe"), strict=True):
        host.control(name, text)
    assert now(tables) == Controls(b"env", {b"loc": True}, {b"perc": True}, {b"virt": b"joe"})


@pytest.mark.parametrize("name", NAMES)
def test_one_file_that_cannot_be_read_is_a_temporary_failure_for_all(host: Host, name: str) -> None:
    tables = tables_of(host)
    now(tables)
    path = host.root / "control" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(Unavailable) as error:
        now(tables)
    assert error.value.where == bytes(path)


def test_half_of_the_tables_is_never_used_after_an_error(host: Host) -> None:
    tables = tables_of(host)
    (host.root / "control/me").unlink()
    now(tables)
    (host.root / "control/locals").unlink()
    with pytest.raises(Unavailable):
        now(tables)
    host.control("me", "b\n")
    assert now(tables).locals == {b"b": True}
