"""What cvmctl says of the programs in .qmail files: traces, lists, mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hosts import ALIAS_UID, NOFILES, Host
from phosts import table
from planting import dotqmail, found
from surveying import surveyed

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl import programs
from cvm_qmail.cvmctl.programs import instruction, words
from cvm_qmail.cvmctl.trace.capture import look_up
from cvm_qmail.cvmctl.trace.narrate import stages
from cvm_qmail.cvmctl.trace.remedies import remedies
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

A = b"&b@far.example\0"
TABLE = table({b":a@example.org": A + b"|secret word\0./l\0", b":joe-x@example.org": A, b":every@": A, b":void@": b""})


def with_table(host: Host, line: str = "|fastforward -d t.cdb\n", content: bytes = TABLE) -> Host:
    (host.root / "bin").mkdir(exist_ok=True)
    host.file("bin/fastforward", mode=0o755)
    host.file("home/joe/t.cdb", content, uid=5001, gid=5001)
    host.file("home/joe/.qmail-default", line, uid=5001, gid=5001)
    return host


def settings_of(host: Host, **variables: str) -> Settings:
    return Settings.from_environment(host.environment | variables)


# -- traces -------------------------------------------------------------------------------------------


def steps(host: Host, account: bytes) -> list[str]:
    case = look_up(Recipient(account, b"example.org"), settings_of(host), qmail)
    return [step.text for stage in stages(case) for step in stage.steps]


def test_a_trace_says_what_the_table_was_asked_and_no_command(sound: Host) -> None:
    said = steps(with_table(sound), b"joe-a")
    path = f"{sound.root}/home/joe/t.cdb"
    assert f"fastforward: target a@example.org: forwards to b@far.example, runs secret, list ./l ({path})" in said
    assert "line 1: fastforward: forwards by t.cdb; bounces without a target" in said
    assert not [text for text in said if "word" in text]


def test_a_trace_says_which_keys_the_table_lacks(sound: Host) -> None:
    said = steps(with_table(sound), b"joe-b")
    missing = [text for text in said if text.startswith("fastforward: target") and ": not in " in text]
    assert [text.split(":")[1].strip() for text in missing] == [
        "target b@example.org",
        "target @example.org",
        "target b@",
    ]


def test_a_trace_advises_what_to_do_for_a_missing_target(sound: Host) -> None:
    host = with_table(sound)
    host.file("home/joe/t", "b@example.org: b@x;\n")
    os.utime(host.root / "home/joe/t.cdb", (1_000_000_000, 1_000_000_000))
    case = look_up(Recipient(b"joe-b", b"example.org"), settings_of(host), qmail)
    advice = "\n".join(remedies(case))
    assert "home/joe/t is newer than" in advice
    assert "run setforward" in advice


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"fastforward -p /etc/aliases.cdb", "fastforward: forwards by /etc/aliases.cdb; goes on without a target"),
        (b'fastforward -d "$HOME/t.cdb"', "fastforward: forwards by $HOME/t.cdb; bounces without a target"),
        (b"fastforward -x", "fastforward, with wrong options: bounces"),
        (b"bouncesaying 'a secret'", "bouncesaying: bounces"),
        (b"dot-forward .forward", "dot-forward: forwards by a .forward file"),
        (b"/opt/x secret", None),
        (b"fastforward t.cdb | cat", None),
    ],
)
def test_a_program_line_in_words(command: bytes, expected: str | None) -> None:
    assert instruction(command) == expected


def test_other_tables_are_others_business() -> None:
    assert words("/etc/x.cdb", b"joe", b"secret") is None
    assert words("users/cdb", b":joe", b"x") is None


# -- lists --------------------------------------------------------------------------------------------


def listed(host: Host, **variables: str) -> set[str]:
    found = surveyed(settings_of(host, **variables))
    assert not found.unlisted.count
    assert not found.failures.count
    return {f"{entry.local.decode()}{'*' * entry.pattern}@{entry.domain.decode()}" for entry in found.entries}


def test_the_targets_of_a_table_are_listed(sound: Host) -> None:
    host = with_table(sound)
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    entries = listed(host)
    assert {"joe-a@example.org", "joe-every@example.org", "joe-void@example.org"} <= entries
    assert not {"joe-joe-x@v.example", "joe-*@example.org", "joe-b@example.org"} & entries


def test_the_targets_of_the_alias_account_are_listed(sound: Host) -> None:
    sound.directory("bin")
    sound.file("alias/.qmail-default", "|fastforward aliases.cdb\n", uid=ALIAS_UID, gid=NOFILES)
    sound.file("alias/aliases.cdb", table({b":Help.Desk@example.org".lower(): A, b":sales@": A, b":no@elsewhere": A}))
    entries = listed(sound)
    assert {"help.desk@example.org", "sales@example.org", "postmaster@example.org"} <= entries
    assert not {"no@example.org", "*@example.org"} & entries


def test_a_table_that_takes_a_whole_domain_is_a_pattern(sound: Host) -> None:
    host = with_table(sound, content=table({b":@example.org": A}))
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    assert "joe-*@example.org" in listed(host)


# -- mistakes -----------------------------------------------------------------------------------------


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
    settings = settings_of(sound, CVM_QMAIL_BRANCH="1")
    lines = [one.line for one in programs.labels(_visited(settings))]
    assert lines == ([] if line is None else [line])


def _visited(settings: Settings) -> programs.LintContext:
    context = programs.LintContext(settings)
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
