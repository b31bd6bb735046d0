"""Mistakes in program lines and in fastforward's tables, each planted where it is found."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hosts import Host
from phosts import table
from planting import TABLE, dotqmail, found, with_table

from cvm_qmail.cvmctl.lint import programs
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root


def in_branch(text: str) -> Callable[[Host], object]:
    return dotqmail(".qmail-q", text)


def stale(host: Host) -> None:
    with_table(host)
    host.file("home/joe/t", "x@y: z@w;\n")
    os.utime(host.root / "home/joe/t.cdb", (1_000_000_000, 1_000_000_000))


def closed(host: Host) -> None:
    with_table(host)
    os.chown(host.root / "home/joe/t.cdb", 0, 0)
    (host.root / "home/joe/t.cdb").chmod(0o600)


def without(path: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        with_table(host)
        (host.root / path).unlink()

    return plant


def to_nobody(host: Host) -> None:
    with_table(
        host,
        content=table(
            {
                b":bad@example.org": b"&nobody@example.org\0&ann-nobody@v.example\0",
                b":good@example.org": b"&nobody@example.org\0&ann@example.org\0",
                b":far@example.org": b"&nobody@far.example\0",
                b":again@example.org": b"&bad@example.org\0",
                b":void@example.org": b"",
            }
        ),
    )


MISTAKES = [
    ("table-missing", without("home/joe/t.cdb"), "home/joe/.qmail-default", 1),
    ("table-damaged", lambda host: with_table(host, content=TABLE[:-9]), "home/joe/t.cdb", None),
    ("table-damaged", lambda host: with_table(host, content=b""), "home/joe/t.cdb", None),
    ("table-unreadable", closed, "home/joe/.qmail-default", 1),
    ("table-stale", stale, "home/joe/t.cdb", None),
    ("program-missing", dotqmail(".qmail-m", "# x\n|/no/such/program x\n"), "home/joe/.qmail-m", 2),
    ("program-missing", dotqmail(".qmail-m", "|no-such-program\n"), "home/joe/.qmail-m", 1),
    ("program-missing", dotqmail(".qmail-m", "|bin/x\n"), "home/joe/.qmail-m", 1),
    ("target-to-nobody", to_nobody, "home/joe/t.cdb", None),
    ("branch-off", dotqmail(".qmail-q", "&ann\n?a true\n:a\n"), "home/joe/.qmail-q", 2),
]


@pytest.mark.parametrize(("kind", "plant", "file", "line"), MISTAKES)
def test_a_planted_mistake_is_found_where_it_is(
    sound: Host, kind: str, plant: Callable[[Host], object], file: str, line: int | None
) -> None:
    plant(sound)
    made = {(finding.kind, finding.file.decode(), finding.line) for finding in found(sound)}
    assert (kind, str(sound.root / file), line) in made
    assert {one[0] for one in made} - {"forward-to-nobody"} == {kind}


def test_only_targets_without_another_way_are_named(sound: Host) -> None:
    to_nobody(sound)
    (finding,) = found(sound)
    assert finding.what.startswith("target bad@example.org forwards to nobody@example.org, ann-nobody@v.example")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("?a true\n", 1),
        (":a\n?a true\n", 2),
        ("?a true\n:A\n", 1),
        ("?a true\n:a and more\n", None),
        ("?\n:\n", None),
    ],
)
def test_labels_that_lead_nowhere_are_found(sound: Host, text: str, line: int | None) -> None:
    in_branch(text)(sound)
    settings = Settings.from_environment(sound.environment | {"CVM_QMAIL_BRANCH": "1"})
    lines = [one.line for one in programs.labels(_visited(settings))]
    assert lines == ([] if line is None else [line])


def _visited(settings: Settings) -> LintContext:
    context = LintContext(settings)
    from cvm_qmail.cvmctl.lint.homes import homes

    assert not list(homes(context))
    return context


def test_a_program_in_a_directory_where_qmail_does_not_look_is_named(
    sound: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = sound.directory("sbin")
    sound.file("sbin/odd-program", mode=0o755)
    monkeypatch.setattr(programs, "ELSEWHERE", (bytes(place),))
    dotqmail(".qmail-m", "|odd-program\n")(sound)
    (finding,) = found(sound)
    assert finding.kind == "program-missing"
    assert finding.remedy == f"write {place}/odd-program"


def test_nothing_is_found_where_nothing_is_wrong(sound: Host) -> None:
    with_table(sound)
    assert found(sound) == []
